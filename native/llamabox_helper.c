#ifndef _GNU_SOURCE
#define _GNU_SOURCE // dladdr
#endif

#include "llamabox_helper.h"

#include <dlfcn.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mtmd.h"

const char * lb_library_path(void) {
    Dl_info info;
    return dladdr((void *) llama_version, &info) ? info.dli_fname : NULL;
}

// ---- log -------------------------------------------------------------------------------------------------------

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
    // A line comes in pieces: the first with its level, the rest as GGML_LOG_LEVEL_CONT.
    char            line[LINE_SIZE];
    int32_t         line_length;
    int32_t         line_level;
    char            error[1024];
    int32_t         error_length;
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
    g_log.line_length = 0;
    if (record.length == 0) {
        return;
    }
    if (record.level == GGML_LOG_LEVEL_ERROR && g_log.error_length == 0) {
        const int32_t room = (int32_t) sizeof(g_log.error);
        g_log.error_length = record.length < room ? record.length : room;
        memcpy(g_log.error, g_log.line, (size_t) g_log.error_length);
    }
    // Level NONE is for lines that are meant to be printed as they are.
    const int32_t level = record.level == GGML_LOG_LEVEL_NONE ? GGML_LOG_LEVEL_INFO : record.level;
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

void lb_log_callback(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    pthread_mutex_lock(&g_log.mutex); // held for a copy by either side, never across a wait
    if (level != GGML_LOG_LEVEL_CONT) {
        flush_line();
        g_log.line_level = (int32_t) level;
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

void lb_log_install(void) {
    ggml_log_set(lb_log_callback, NULL);
    llama_log_set(lb_log_callback, NULL);
    mtmd_log_set(lb_log_callback, NULL);
}

void lb_log_start(int32_t lowest) {
    pthread_mutex_lock(&g_log.mutex);
    g_log.lowest  = lowest;
    g_log.started = true;
    pthread_mutex_unlock(&g_log.mutex);
}

static void deadline_after(struct timespec * deadline, int32_t timeout_ms) {
    clock_gettime(CLOCK_REALTIME, deadline);
    deadline->tv_sec  += timeout_ms / 1000;
    deadline->tv_nsec += (long) (timeout_ms % 1000) * 1000000L;
    if (deadline->tv_nsec >= 1000000000L) {
        deadline->tv_sec  += 1;
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

// ---- abort and load progress -----------------------------------------------------------------------------------

bool lb_abort_callback(void * data) {
    return __atomic_load_n((const int32_t *) data, __ATOMIC_RELAXED) != 0;
}

void lb_abort_set(int32_t * flag, int32_t value) {
    __atomic_store_n(flag, value, __ATOMIC_RELAXED);
}

bool lb_load_progress(float progress, void * user_data) {
    struct lb_load_state * state = user_data;
    __atomic_store_n(&state->progress_ppm, (int32_t) (progress * 1e6f), __ATOMIC_RELAXED);
    return __atomic_load_n(&state->cancel, __ATOMIC_RELAXED) == 0;
}

// ---- sampling --------------------------------------------------------------------------------------------------

static int32_t vocabulary_size(struct llama_context * ctx) {
    return llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
}

// Whether a mask lets a token come. Without a mask all do.
static inline bool is_allowed(const uint32_t * mask, int32_t token) {
    return mask == NULL || (mask[token >> 5] >> (token & 31) & 1) != 0;
}

enum { BLOCK = 64 };

// How many of a block's logits are above the floor; INT32_MAX where one is NaN or +inf. Integers only are summed up, so
// that the compiler may do it in vectors without being allowed to reorder floating-point arithmetic.
static int32_t n_above(const float * logits, float floor) {
    int32_t n_bad = 0, n_found = 0;
    for (int32_t i = 0; i < BLOCK; i++) {
        n_bad   += !(logits[i] <= FLT_MAX);
        n_found += logits[i] > floor;
    }
    return n_bad ? INT32_MAX : n_found;
}

// The same for the rest of a row, shorter than a block.
static int32_t n_above_in_rest(const float * logits, int32_t n, float floor) {
    float block[BLOCK];
    for (int32_t i = 0; i < BLOCK; i++) {
        block[i] = i < n ? logits[i] : -INFINITY;
    }
    return n_above(block, floor);
}

// The highest logit, the lowest id among equals, as llama_sampler_init_greedy() has it; -1 for a row with NaN or +inf.
static llama_token highest(const float * logits, int32_t n_vocab) {
    int32_t best = 0;
    for (int32_t start = 0; start < n_vocab; start += BLOCK) {
        const int32_t n = n_vocab - start < BLOCK ? n_vocab - start : BLOCK;
        const int32_t n_higher = n == BLOCK ? n_above(logits + start, logits[best])
                                            : n_above_in_rest(logits + start, n, logits[best]);
        if (n_higher == INT32_MAX) {
            return -1;
        }
        for (int32_t i = start; n_higher > 0 && i < start + n; i++) {
            if (logits[i] > logits[best]) {
                best = i;
            }
        }
    }
    return best;
}

// Put a candidate in the place of the lowest one, which stands first in the heap.
static void replace_lowest(llama_token_data * heap, int32_t size, llama_token_data candidate) {
    int32_t hole = 0;
    for (;;) {
        int32_t child = 2 * hole + 1;
        if (child >= size) {
            break;
        }
        if (child + 1 < size && heap[child + 1].logit < heap[child].logit) {
            child++;
        }
        if (candidate.logit <= heap[child].logit) {
            break;
        }
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = candidate;
}

static int higher_first(const void * a, const void * b) {
    const llama_token_data * x = a, * y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : (x->id > y->id) - (x->id < y->id);
}

// The n highest logits of a row, the highest first, the lowest id first among equals as far as they are in. Returns how
// many there are, 0 for a row with NaN or +inf. A heap of the highest so far: few of a block get past its lowest.
static size_t highest_few(const float * logits, int32_t n_vocab, int32_t n, llama_token_data * heap) {
    n = n < n_vocab ? n : n_vocab;
    for (int32_t i = 0; i < n; i++) {
        heap[i] = (llama_token_data) { 0, -INFINITY, 0.0f };
    }
    int32_t n_in = 0;  // the first so many are taken as they come, so that -inf among them is a candidate too
    for (int32_t start = 0; start < n_vocab; start += BLOCK) {
        const int32_t size = n_vocab - start < BLOCK ? n_vocab - start : BLOCK;
        const float   floor = heap[0].logit;
        const int32_t n_higher = size == BLOCK ? n_above(logits + start, floor)
                                               : n_above_in_rest(logits + start, size, floor);
        if (n_higher == INT32_MAX) {
            return 0;
        }
        for (int32_t i = start; n_higher > 0 && i < start + size; i++) {
            if (logits[i] > heap[0].logit) {
                replace_lowest(heap, n, (llama_token_data) { i, logits[i], 0.0f });
                n_in += n_in < n;
            }
        }
    }
    qsort(heap, (size_t) n, sizeof(*heap), higher_first);
    return (size_t) n_in;
}

// The same among the tokens that the mask allows; -1 where it allows none.
static llama_token highest_allowed(const float * logits, int32_t n_vocab, const uint32_t * mask) {
    int32_t best = -1;
    for (int32_t i = 0; i < n_vocab; i++) {
        if ((i & 31) == 0 && mask[i >> 5] == 0) {
            i += 31;
        } else if (is_allowed(mask, i)) {
            if (!(logits[i] <= FLT_MAX)) {
                return -1;
            }
            if (best < 0 || logits[i] > logits[best]) {
                best = i;
            }
        }
    }
    return best;
}

// All tokens that may come. Returns how many there are, 0 where one of them is NaN or +inf.
static size_t allowed(const float * logits, int32_t n_vocab, const uint32_t * mask, llama_token_data * candidates) {
    bool   bad  = false;
    size_t size = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (is_allowed(mask, i)) {
            bad |= !(logits[i] <= FLT_MAX);
            candidates[size++] = (llama_token_data) { i, logits[i], 0.0f };
        }
    }
    return bad ? 0 : size;
}

// Apply the chain to a copy of the row: to its n_best highest logits, or to all that may come. libllama sorts with
// comparisons that NaN breaks and asserts on the outcome, so such a row never reaches it, nor does an empty one.
static llama_token apply_chain(struct llama_sampler * chain, const float * logits, int32_t n_vocab, int32_t n_best,
                               const uint32_t * mask, llama_token_data * candidates) {
    const size_t size = n_best > 0 && mask == NULL ? highest_few(logits, n_vocab, n_best, candidates)
                                                   : allowed(logits, n_vocab, mask, candidates);
    if (size == 0) {
        return -1;
    }
    llama_token_data_array array = { candidates, size, -1, false };
    llama_sampler_apply(chain, &array);
    if (array.selected < 0 || (size_t) array.selected >= array.size) {
        return -1;
    }
    return array.data[array.selected].id;
}

// Room for the candidates of one row, kept by the thread for its next call.
static llama_token_data * candidate_buffer(int32_t n_vocab) {
    static _Thread_local llama_token_data * buffer   = NULL;
    static _Thread_local int32_t            capacity = 0;
    if (capacity < n_vocab) {
        llama_token_data * grown = realloc(buffer, (size_t) n_vocab * sizeof(*buffer));
        if (grown == NULL) {
            return NULL;
        }
        buffer   = grown;
        capacity = n_vocab;
    }
    return buffer;
}

int32_t lb_sample_rows(struct llama_context * ctx, int32_t n_rows, const int32_t * batch_idx,
                       struct llama_sampler ** chains, const int32_t * n_best, const uint32_t ** masks,
                       llama_token * out) {
    const int32_t n_vocab = vocabulary_size(ctx);
    llama_token_data * candidates = candidate_buffer(n_vocab);
    int32_t n_failed = 0;
    for (int32_t i = 0; i < n_rows; i++) {
        const float * logits = llama_get_logits_ith(ctx, batch_idx[i]);
        if (logits == NULL) {
            out[i] = -2;
        } else if (n_best[i] == 1) {
            out[i] = masks[i] ? highest_allowed(logits, n_vocab, masks[i]) : highest(logits, n_vocab);
        } else {
            out[i] = candidates == NULL || chains[i] == NULL
                ? -1 : apply_chain(chains[i], logits, n_vocab, n_best[i], masks[i], candidates);
        }
        if (out[i] < 0) {
            n_failed++;
        } else if (chains[i]) {
            llama_sampler_accept(chains[i], out[i]);
        }
    }
    return n_failed;
}

struct spare {
    struct llama_sampler * inner;
    llama_token            token;
};

static const char * spare_name(const struct llama_sampler * sampler) {
    return llama_sampler_name(((const struct spare *) sampler->ctx)->inner);
}

static void spare_accept(struct llama_sampler * sampler, llama_token token) {
    llama_sampler_accept(((struct spare *) sampler->ctx)->inner, token);
}

// Where the token is among the candidates, or their number. A fresh row has every token at its own index.
static size_t index_of(const llama_token_data_array * candidates, llama_token token) {
    if ((size_t) token < candidates->size && candidates->data[token].id == token) {
        return (size_t) token;
    }
    size_t at = 0;
    while (at < candidates->size && candidates->data[at].id != token) {
        at++;
    }
    return at;
}

static void spare_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) {
    const struct spare * spare = sampler->ctx;
    size_t at = index_of(candidates, spare->token);
    if (at == candidates->size) { // an earlier sampler dropped it
        llama_sampler_apply(spare->inner, candidates);
        return;
    }
    const float logit = candidates->data[at].logit;
    llama_sampler_apply(spare->inner, candidates);
    at = index_of(candidates, spare->token);
    if (at < candidates->size) {
        candidates->data[at].logit = logit;
    }
}

static void spare_reset(struct llama_sampler * sampler) {
    llama_sampler_reset(((struct spare *) sampler->ctx)->inner);
}

static struct llama_sampler * spare_clone(const struct llama_sampler * sampler) {
    const struct spare * spare = sampler->ctx;
    return lb_sampler_init_spare(llama_sampler_clone(spare->inner), spare->token);
}

static void spare_free(struct llama_sampler * sampler) {
    struct spare * spare = sampler->ctx;
    llama_sampler_free(spare->inner);
    free(spare);
}

static void spare_copy_state(const struct llama_sampler * from, struct llama_sampler * to) {
    llama_sampler_copy(((const struct spare *) from->ctx)->inner, ((struct spare *) to->ctx)->inner);
}

static struct llama_sampler_i spare_interface = {
    .name       = spare_name,
    .accept     = spare_accept,
    .apply      = spare_apply,
    .reset      = spare_reset,
    .clone      = spare_clone,
    .free       = spare_free,
    .copy_state = spare_copy_state,
};

struct llama_sampler * lb_sampler_init_spare(struct llama_sampler * inner, llama_token token) {
    struct spare * spare = inner ? malloc(sizeof(*spare)) : NULL;
    if (spare == NULL) {
        llama_sampler_free(inner);
        return NULL;
    }
    *spare = (struct spare) { inner, token };
    return llama_sampler_init(&spare_interface, spare);
}

bool lb_top_two(struct llama_context * ctx, int32_t batch_idx, llama_token * ids, float * logits) {
    const int32_t n_vocab = vocabulary_size(ctx);
    const float * row     = llama_get_logits_ith(ctx, batch_idx);
    if (row == NULL || n_vocab < 2) {
        return false;
    }
    const llama_token first = highest(row, n_vocab);
    if (first < 0) {
        return false;
    }
    int32_t second = first == 0 ? 1 : 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (i != first && row[i] > row[second]) {
            second = i;
        }
    }
    ids[0]    = first;
    ids[1]    = second;
    logits[0] = row[first];
    logits[1] = row[second];
    return true;
}
