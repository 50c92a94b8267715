#include "llamabox_log.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define RING_SIZE (1 << 18)
#define LINE_SIZE 8192

struct record {
    int32_t level;
    int32_t length;
};

// Bytes [tail, head) of the endless stream are in the ring, at their index modulo RING_SIZE.
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t  readable;
    char            ring[RING_SIZE];
    uint64_t        head;
    uint64_t        tail;
    uint64_t        n_dropped;
    bool            started;
    int32_t         lowest;
    // A line comes in pieces: the first with its level, the rest as LB_LOG_CONT.
    char    line[LINE_SIZE];
    int32_t line_length;
    int32_t line_level;
    char    error[1024];
    int32_t error_length;
} g_log = { .mutex = PTHREAD_MUTEX_INITIALIZER, .readable = PTHREAD_COND_INITIALIZER };

static void ring_put(const void * data, size_t size) {
    const size_t at    = g_log.head % RING_SIZE;
    const size_t first = size < RING_SIZE - at ? size : RING_SIZE - at;
    memcpy(g_log.ring + at, data, first);
    memcpy(g_log.ring, (const char *) data + first, size - first);
    g_log.head += size;
}

static void ring_get(void * data, size_t size) {
    const size_t at    = g_log.tail % RING_SIZE;
    const size_t first = size < RING_SIZE - at ? size : RING_SIZE - at;
    memcpy(data, g_log.ring + at, first);
    memcpy((char *) data + first, g_log.ring, size - first);
    g_log.tail += size;
}

static void flush_line(void) {
    const struct record record = { g_log.line_level, g_log.line_length };
    g_log.line_length          = 0;
    if (record.length == 0) {
        return;
    }
    if (record.level == LB_LOG_ERROR && g_log.error_length == 0) {
        const int32_t room = (int32_t) sizeof(g_log.error);
        g_log.error_length = record.length < room ? record.length : room;
        memcpy(g_log.error, g_log.line, (size_t) g_log.error_length);
    }
    // Level NONE is for lines that are meant to be printed as they are.
    const int32_t level = record.level == LB_LOG_NONE ? LB_LOG_INFO : record.level;
    if (!g_log.started || level < g_log.lowest) {
        return;
    }
    if (g_log.head - g_log.tail + sizeof(record) + (size_t) record.length > RING_SIZE) {
        g_log.n_dropped++;
        return;
    }
    ring_put(&record, sizeof(record));
    ring_put(g_log.line, (size_t) record.length);
    pthread_cond_signal(&g_log.readable);
}

void lb_log_write(int32_t level, const char * text) {
    pthread_mutex_lock(&g_log.mutex); // held for a copy by either side, never across a wait
    if (level != LB_LOG_CONT) {
        flush_line();
        g_log.line_level = level;
    }
    for (; *text; text++) {
        if (*text == '\n') {
            flush_line();
            continue;
        }
        if (g_log.line_length == LINE_SIZE) {
            flush_line();
        }
        g_log.line[g_log.line_length++] = *text;
    }
    pthread_mutex_unlock(&g_log.mutex);
}

void lb_log_start(int32_t lowest) {
    pthread_mutex_lock(&g_log.mutex);
    g_log.lowest  = lowest;
    g_log.started = true;
    pthread_mutex_unlock(&g_log.mutex);
}

static void deadline_after(struct timespec * deadline, int32_t timeout_ms) {
    clock_gettime(CLOCK_REALTIME, deadline);
    deadline->tv_sec += timeout_ms / 1000;
    deadline->tv_nsec += (long) (timeout_ms % 1000) * 1000000L;
    if (deadline->tv_nsec >= 1000000000L) {
        deadline->tv_sec += 1;
        deadline->tv_nsec -= 1000000000L;
    }
}

int32_t lb_log_read(char * text, int32_t size, int32_t * level, int32_t timeout_ms) {
    struct timespec deadline;
    deadline_after(&deadline, timeout_ms);
    pthread_mutex_lock(&g_log.mutex);
    while (g_log.head == g_log.tail && g_log.started) {
        if (pthread_cond_timedwait(&g_log.readable, &g_log.mutex, &deadline) == ETIMEDOUT) {
            break;
        }
    }
    int32_t result = g_log.started ? -1 : -2;
    if (g_log.head != g_log.tail) {
        struct record record;
        ring_get(&record, sizeof(record));
        result = record.length < size ? record.length : size;
        ring_get(text, (size_t) result);
        g_log.tail += (uint64_t) (record.length - result);
        *level = record.level;
    }
    pthread_mutex_unlock(&g_log.mutex);
    return result;
}

void lb_log_stop(void) {
    pthread_mutex_lock(&g_log.mutex);
    flush_line();
    g_log.started = false;
    pthread_cond_broadcast(&g_log.readable);
    pthread_mutex_unlock(&g_log.mutex);
}

uint64_t lb_log_n_dropped(void) {
    pthread_mutex_lock(&g_log.mutex);
    const uint64_t result = g_log.n_dropped;
    pthread_mutex_unlock(&g_log.mutex);
    return result;
}

int32_t lb_log_first_error(char * text, int32_t size) {
    pthread_mutex_lock(&g_log.mutex);
    const int32_t length = g_log.error_length < size ? g_log.error_length : size;
    memcpy(text, g_log.error, (size_t) length);
    pthread_mutex_unlock(&g_log.mutex);
    return length;
}

void lb_log_forget_error(void) {
    pthread_mutex_lock(&g_log.mutex);
    g_log.error_length = 0;
    pthread_mutex_unlock(&g_log.mutex);
}

bool lb_log_drain(int32_t timeout_ms) {
    const struct timespec pause   = { .tv_nsec = 5000000 };
    bool                  drained = false;
    for (int32_t waited_ms = 0; !drained && waited_ms < timeout_ms; waited_ms += 5) {
        nanosleep(&pause, NULL); // also after the last line was taken, which Python has yet to write
        pthread_mutex_lock(&g_log.mutex);
        const bool has_reader = g_log.started;
        drained               = has_reader && g_log.head == g_log.tail;
        pthread_mutex_unlock(&g_log.mutex);
        if (!has_reader) {
            return false;
        }
    }
    nanosleep(&pause, NULL);
    return drained;
}
