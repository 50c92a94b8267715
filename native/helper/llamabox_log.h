// Log lines on their way from the libraries' threads, which must not meet Python, to a thread of Python's.
// Compiled into every cffi module; its declarations are fed to cffi, without the preprocessor lines.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// One ring for the process, because the libraries keep one logger for the process. Writers never wait for a reader: a
// line that finds no room is dropped and counted.

// Keep lines of this level (LB_LOG_*) and above for a reader. Until then only the first error is kept.
void lb_log_start(int32_t lowest);

// Take the oldest line, without its newline, waiting up to timeout_ms for it.
// Returns its length in bytes (at most size), -1 when there was none, -2 after lb_log_stop() once the ring is empty.
int32_t lb_log_read(char * text, int32_t size, int32_t * level, int32_t timeout_ms);

// Keep no more lines, and wake the reader: it drains what there is and gets -2. lb_log_start() starts anew.
void lb_log_stop(void);

// Lines dropped since the process started.
uint64_t lb_log_n_dropped(void);

// The first line of level ERROR since lb_log_forget_error(): why a load failed. Returns its length, 0 for none.
int32_t lb_log_first_error(char * text, int32_t size);
void    lb_log_forget_error(void);

// ggml's numbers. A line comes in pieces: the first with its level, the rest with CONT.
enum { LB_LOG_NONE = 0, LB_LOG_DEBUG = 1, LB_LOG_INFO = 2, LB_LOG_WARN = 3, LB_LOG_ERROR = 4, LB_LOG_CONT = 5 };

// Put a piece in. Any thread.
void lb_log_write(int32_t level, const char * text);

// Wait up to timeout_ms until a reader has taken all lines. false: it has not, or there is none.
bool lb_log_drain(int32_t timeout_ms);
