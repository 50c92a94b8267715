// The tokens of a step: for each row of logits one, by the row's chain or by what gives the same with less work.
#include <float.h>
#include <stdlib.h>

#include "llamabox_helper.h"
#include "llamabox_scan.h"
#include "llamabox_wide.h"

static int32_t vocabulary_size(struct llama_context * ctx) {
    return llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
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
        room.candidates     = malloc((size_t) n_vocab * sizeof(*room.candidates));
        const bool is_ready = wide_room_make(&room.wide, n_vocab) && room.candidates;
        room.capacity       = is_ready ? n_vocab : 0;
    }
    return room.capacity ? &room : NULL;
}

// Whether a mask lets a token come. Without a mask all do.
static inline bool is_allowed(const uint32_t * mask, int32_t token) {
    return mask == NULL || (mask[token >> 5] >> (token & 31) & 1) != 0;
}

static int higher_first(const void * a, const void * b) {
    const llama_token_data *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : (x->id > y->id) - (x->id < y->id);
}

// The n highest logits of a row, the highest first, the lowest id first among equals as far as they are in. Returns how
// many there are, 0 for a row with NaN or +inf.
static size_t highest_few(const float * logits, int32_t n_vocab, int32_t n, const struct room * room) {
    llama_token_data * few  = room->candidates;
    const size_t       size = heap_of_highest(logits, n_vocab, n, few, room->wide.maxima);
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
        const size_t size = highest_few(logits, n_vocab, n_best + 1, room);
        if (size == 0) {
            return -1;
        }
        if (!has_equals(room->candidates, size)) {
            const size_t           n_shown = size < (size_t) n_best ? size : (size_t) n_best;
            llama_token_data_array array   = { room->candidates, n_shown, -1, false };
            return token_of_rest(chain, 0, &array);
        }
    }
    return chosen_of_all(chain, wide, logits, n_vocab, mask, room);
}

// The token of one row; -1 and -2 as in lb_sample_rows.
static llama_token token_of_row(struct llama_context * ctx, int32_t index, struct llama_sampler * chain, int32_t n_best,
                                const struct lb_wide * wide, const uint32_t * mask, int32_t n_vocab,
                                struct room * room) {
    const float * logits = llama_get_logits_ith(ctx, index);
    if (logits == NULL) {
        return -2;
    }
    if (room == NULL || (n_best != 1 && chain == NULL)) {
        return -1;
    }
    if (n_best == 1) {
        return mask ? highest_allowed(logits, n_vocab, mask) : highest(logits, n_vocab, room->wide.maxima);
    }
    return chosen(chain, logits, n_vocab, n_best, wide, mask, room);
}

int32_t lb_sample_rows(struct llama_context * ctx, int32_t n_chains, const int32_t * first, const int32_t * n_rows,
                       struct llama_sampler ** chains, const int32_t * n_best, const struct lb_wide ** wide,
                       const uint32_t ** masks, const llama_token * expected, llama_token * out, int32_t * n_out) {
    const int32_t n_vocab  = vocabulary_size(ctx);
    struct room * room     = room_for(n_vocab);
    int32_t       n_failed = 0;
    int32_t       row      = 0; // of all chains
    for (int32_t i = 0; i < n_chains; i++) {
        n_out[i] = 0;
        for (int32_t k = 0; k < n_rows[i]; k++) {
            const uint32_t *  mask = masks ? masks[row + k] : NULL;
            const llama_token token =
                token_of_row(ctx, first[i] + k, chains[i], n_best[i], wide[i], mask, n_vocab, room);
            out[row + k] = token;
            n_out[i]     = k + 1;
            if (token < 0) {
                n_failed++;
                break;
            }
            if (chains[i]) {
                llama_sampler_accept(chains[i], token);
            }
            if (k + 1 < n_rows[i] && token != expected[row + k]) {
                break;
            }
        }
        row += n_rows[i];
    }
    return n_failed;
}

bool lb_top_two(struct llama_context * ctx, int32_t batch_idx, llama_token * ids, float * logits) {
    const int32_t       n_vocab = vocabulary_size(ctx);
    const float *       row     = llama_get_logits_ith(ctx, batch_idx);
    const struct room * room    = room_for(n_vocab);
    if (row == NULL || n_vocab < 2 || room == NULL) {
        return false;
    }
    const llama_token first = highest(row, n_vocab, room->wide.maxima);
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
