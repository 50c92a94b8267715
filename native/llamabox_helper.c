#ifndef _GNU_SOURCE
#define _GNU_SOURCE // dladdr, dl_iterate_phdr
#endif

#include "llamabox_helper.h"

#include <dlfcn.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#ifdef __linux__
#include <link.h>
#endif

#include "llamabox_scan.h"
#include "llamabox_wide.h"
#include "mtmd.h"

const char * lb_library_path(void) {
    Dl_info info;
    return dladdr((void *) llama_version, &info) ? info.dli_fname : NULL;
}

#ifdef __linux__

struct wanted {
    const char * name;
    void *       symbol;
};

// The kernels' names are not among ggml's functions, and a loadable CPU backend shows its names to nobody: ask each
// library.
static int look_up(struct dl_phdr_info * info, size_t size, void * data) {
    struct wanted * wanted = data;
    (void) size;
    const char * name = strrchr(info->dlpi_name, '/');
    if (name == NULL || strncmp(name, "/libggml-cpu", strlen("/libggml-cpu")) != 0) {
        return 0;
    }
    void * library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL) {
        wanted->symbol = dlsym(library, wanted->name);
        dlclose(library);
    }
    return 1;
}

static void * kernels_symbol(const char * name) {
    struct wanted wanted = {name, NULL};
    dl_iterate_phdr(look_up, &wanted);
    return wanted.symbol;
}

#else

static void * kernels_symbol(const char * name) {
    (void) name;
    return NULL; // there are none for an ARM processor yet
}

#endif

struct lb_kernels lb_use_kernels(void) {
    struct lb_kernels found = {NULL, false};
    const char * (*use)(bool *) = (const char * (*)(bool *)) kernels_symbol("llamabox_kernels");
    if (use != NULL) {
        found.vectors = use(&found.attend);
    }
    return found;
}

void lb_lock_packed(bool on) {
    void (*lock)(bool) = (void (*)(bool)) kernels_symbol("llamabox_kernels_lock");
    if (lock != NULL) {
        lock(on);
    }
}

void lb_forget_pages(void * address, size_t n_bytes) {
    madvise(address, n_bytes, MADV_DONTNEED); // what is locked in memory stays
}

// ---- log -------------------------------------------------------------------------------------------------------

void lb_log_callback(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    lb_log_write((int32_t) level, text);
}

void lb_log_install(void) {
    ggml_log_set(lb_log_callback, NULL);
    llama_log_set(lb_log_callback, NULL);
    mtmd_log_set(lb_log_callback, NULL);
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

static int higher_first(const void * a, const void * b) {
    const llama_token_data * x = a, * y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : (x->id > y->id) - (x->id < y->id);
}

// The n highest logits of a row, the highest first, the lowest id first among equals as far as they are in. Returns how
// many there are, 0 for a row with NaN or +inf.
static size_t highest_few(const float * logits, int32_t n_vocab, int32_t n, llama_token_data * few) {
    const size_t size = heap_of_highest(logits, n_vocab, n, few);
    qsort(few, (size_t) (n < n_vocab ? n : n_vocab), sizeof(*few), higher_first);
    return size;
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

static bool has_equals(const llama_token_data * few, size_t size) {
    for (size_t i = 1; i < size; i++) {
        if (few[i].logit == few[i - 1].logit) {
            return true;
        }
    }
    return false;
}

// Room for the candidates of one row, kept by the thread for its next call.
struct room {
    llama_token_data * candidates;
    struct wide_room   wide;
    int32_t            capacity;
};

static struct room * room_for(int32_t n_vocab) {
    static _Thread_local struct room room = { 0 };
    if (room.capacity < n_vocab) {
        free(room.candidates);
        free(room.wide.chosen);
        free(room.wide.logits);
        free(room.wide.sums);
        free(room.wide.order);
        room.candidates  = malloc((size_t) n_vocab * sizeof(*room.candidates));
        room.wide.chosen = malloc(((size_t) n_vocab + 1) * sizeof(*room.wide.chosen));
        room.wide.logits = malloc((size_t) n_vocab * sizeof(*room.wide.logits));
        room.wide.sums   = malloc(((size_t) n_vocab / BLOCK + 1) * sizeof(*room.wide.sums));
        room.wide.order  = malloc((size_t) n_vocab * sizeof(*room.wide.order));
        const bool is_ready = room.candidates && room.wide.chosen && room.wide.logits && room.wide.sums
            && room.wide.order;
        room.capacity = is_ready ? n_vocab : 0;
    }
    return room.capacity ? &room : NULL;
}

// A token among all that may come. libllama sorts with comparisons that NaN breaks and asserts on the outcome, so such
// a row never reaches it, nor does an empty one.
static llama_token chosen_of_all(struct llama_sampler * chain, const struct lb_wide * wide, const float * logits,
                                 int32_t n_vocab, const uint32_t * mask, struct room * room) {
    const int32_t n_head = wide ? wide->n_head : 0;
    if (wide && n_head == 0 && mask == NULL) {
        const llama_token token = wide_token(chain, wide, logits, NULL, n_vocab, &room->wide);
        if (token != -2) {
            return token;
        }
    }
    const size_t size = allowed(logits, n_vocab, mask, room->candidates);
    if (size == 0) {
        return -1;
    }
    llama_token_data_array array = { room->candidates, size, -1, false };
    for (int32_t i = 0; i < n_head; i++) {
        llama_sampler_apply(llama_sampler_chain_get(chain, i), &array);
    }
    if (wide && (n_head > 0 || mask)) {
        const llama_token token = wide_token(chain, wide, NULL, array.data, (int32_t) array.size, &room->wide);
        if (token != -2) {
            return token;
        }
    }
    return token_of_rest(chain, n_head, &array);
}

// A token by the chain: from the row's n_best highest logits, or from all that may come. Which of equal logits comes
// first when libllama sorts depends on all that it sorts.
static llama_token chosen(struct llama_sampler * chain, const float * logits, int32_t n_vocab, int32_t n_best,
                          const struct lb_wide * wide, const uint32_t * mask, struct room * room) {
    if (n_best > 0 && mask == NULL) {
        const size_t size = highest_few(logits, n_vocab, n_best + 1, room->candidates);
        if (size == 0) {
            return -1;
        }
        if (!has_equals(room->candidates, size)) {
            const size_t n_shown = size < (size_t) n_best ? size : (size_t) n_best;
            llama_token_data_array array = { room->candidates, n_shown, -1, false };
            return token_of_rest(chain, 0, &array);
        }
    }
    return chosen_of_all(chain, wide, logits, n_vocab, mask, room);
}

int32_t lb_sample_rows(struct llama_context * ctx, int32_t n_rows, const int32_t * batch_idx,
                       struct llama_sampler ** chains, const int32_t * n_best, const struct lb_wide ** wide,
                       const uint32_t ** masks, llama_token * out) {
    const int32_t n_vocab = vocabulary_size(ctx);
    struct room * room = room_for(n_vocab);
    int32_t n_failed = 0;
    for (int32_t i = 0; i < n_rows; i++) {
        const float * logits = llama_get_logits_ith(ctx, batch_idx[i]);
        if (logits == NULL) {
            out[i] = -2;
        } else if (n_best[i] == 1) {
            out[i] = masks[i] ? highest_allowed(logits, n_vocab, masks[i]) : highest(logits, n_vocab);
        } else {
            out[i] = room == NULL || chains[i] == NULL
                ? -1 : chosen(chains[i], logits, n_vocab, n_best[i], wide[i], masks[i], room);
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

// ---- rpc -------------------------------------------------------------------------------------------------------

uint64_t lb_fnv(const uint8_t * data, size_t size, uint64_t hash) {
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ data[i]) * 0x100000001b3u;
    }
    return hash;
}
