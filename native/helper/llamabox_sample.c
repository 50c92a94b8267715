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
    float *            masked; // a row with -inf wherever a mask lets no token come
    struct wide_room   wide;
    int32_t            capacity;
};

static struct room * room_for(int32_t n_vocab) {
    static _Thread_local struct room room = { 0 };
    if (room.capacity < n_vocab) {
        free(room.candidates);
        free(room.masked);
        room.candidates     = malloc((size_t) n_vocab * sizeof(*room.candidates));
        room.masked         = malloc((size_t) n_vocab * sizeof(*room.masked));
        const bool is_ready = wide_room_make(&room.wide, n_vocab) && room.candidates && room.masked;
        room.capacity       = is_ready ? n_vocab : 0;
    }
    return room.capacity ? &room : NULL;
}

// Whether a mask lets so many tokens come that it takes long to look at each of them.
static bool allows_many(const uint32_t * mask, int32_t n_vocab) {
    enum { MANY = 1024 };
    int32_t n_allowed = 0;
    for (int32_t i = 0; i < n_vocab / 32 && n_allowed <= MANY; i++) {
        n_allowed += __builtin_popcount(mask[i]);
    }
    return n_allowed > MANY;
}

// A row with -inf in the place of the logits that the mask leaves out. Most words of a large mask allow all 32.
static const float * masked_row(const float * logits, int32_t n_vocab, const uint32_t * mask,
                                const struct room * room) {
    float *           masked = room->masked;
    const int_lanes   first  = { 1, 2, 4, 8 };
    const float_lanes none   = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
    for (int32_t w = 0; w < n_vocab / 32; w++) {
        const float * from = logits + 32 * w;
        float *       to   = masked + 32 * w;
        if (mask[w] == UINT32_MAX) {
            memcpy(to, from, 32 * sizeof(*to));
            continue;
        }
        for (int32_t i = 0; i < 32; i += LANES) {
            const int32_t     four = (int32_t) (mask[w] >> i & 15);
            const int_lanes   bits = { four, four, four, four };
            const int_lanes   in   = (bits & first) == first;
            const float_lanes kept = (float_lanes) ((in & (int_lanes) lanes_at(from + i)) | (~in & (int_lanes) none));
            memcpy(to + i, &kept, sizeof(kept));
        }
    }
    for (int32_t i = n_vocab / 32 * 32; i < n_vocab; i++) {
        masked[i] = is_allowed(mask, i) ? logits[i] : -INFINITY;
    }
    return masked;
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

// The same among the tokens that a large mask allows, or 0 where a row has NaN or +inf, or few logits are left. What a
// model finds likely is seldom forbidden: a floor that a few more logits reach than are wanted is mostly reached by
// enough of those that are allowed.
static size_t likely_and_allowed(const float * logits, int32_t n_vocab, int32_t n, const uint32_t * mask,
                                 const struct room * room) {
    const int32_t spares[] = { 2, n + 14 };
    const bool    is_fit   = n < n_vocab && block_maxima(logits, n_vocab, room->wide.maxima);
    for (int32_t i = 0; is_fit && i < 2; i++) {
        const float  floor  = floor_of_highest(room->wide.maxima, n_blocks_of(n_vocab), n + spares[i]);
        const size_t n_kept = heap_from(logits, n_vocab, n, floor, mask, room->candidates, room->wide.maxima);
        if (n_kept == (size_t) n) {
            qsort(room->candidates, n_kept, sizeof(*room->candidates), higher_first);
            return n_kept;
        }
    }
    return 0;
}

static size_t highest_few_allowed(const float * logits, int32_t n_vocab, int32_t n, const uint32_t * mask,
                                  const struct room * room) {
    const size_t n_kept = likely_and_allowed(logits, n_vocab, n, mask, room);
    return n_kept ? n_kept : highest_few(masked_row(logits, n_vocab, mask, room), n_vocab, n, room);
}

// The highest logit of the tokens that the mask allows, the lowest id among equals; -1 where it allows none, or a NaN
// or +inf.
static llama_token highest_allowed(const float * logits, int32_t n_vocab, const uint32_t * mask,
                                   const struct room * room) {
    if (allows_many(mask, n_vocab)) {
        if (likely_and_allowed(logits, n_vocab, 1, mask, room)) {
            return room->candidates[0].id;
        }
        const float *     row  = masked_row(logits, n_vocab, mask, room);
        const llama_token next = highest(row, n_vocab, room->wide.maxima);
        if (next < 0 || row[next] > -INFINITY) {
            return next;
        }
    }
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
    for (int32_t start = 0; start < n_vocab; start += 32) {
        const uint32_t word = mask ? mask[start >> 5] : UINT32_MAX;
        const int32_t  end  = word == 0 ? start : start + 32 < n_vocab ? start + 32 : n_vocab;
        for (int32_t i = start; i < end; i++) { // no branch: the processor could not predict it
            const bool is_in = word >> (i & 31) & 1;
            bad |= is_in && !(logits[i] <= FLT_MAX);
            candidates[size] = (llama_token_data) { i, logits[i], 0.0f };
            size += is_in;
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

// The longest shortlist for which libllama takes the partial sort of C++'s library.
enum { SORTED_AT_ONCE = 128 };

// The candidates that a partial sort for the n highest takes hold of, in the order of their ids: the first n, and each
// that is above the n highest before it. Others leave all as it is, so that among these alone it finds the same, equal
// ones in the same order. Samplers in front may lower as many as a shortlist allows for (bindings.sampling.shortlist).
// The maxima of blocks are known.
static size_t held_by_sort(const float * logits, int32_t n_vocab, int32_t n, const uint32_t * mask,
                           const struct room * room) {
    llama_token_data * held   = room->candidates;
    llama_token_data * heap   = room->wide.chosen;
    int32_t            n_held = 0;
    for (int32_t i = 0; i < n; i++) {
        heap[i] = (llama_token_data) { 0, -INFINITY, 0.0f };
    }
    for (int32_t b = 0; b < n_blocks_of(n_vocab); b++) {
        const int32_t end = (b + 1) * BLOCK < n_vocab ? (b + 1) * BLOCK : n_vocab;
        for (int32_t i = b * BLOCK; i < end && (n_held < n || room->wide.maxima[b] > heap[0].logit); i++) {
            if (is_allowed(mask, i) && (n_held < n || logits[i] > heap[0].logit)) {
                held[n_held++] = (llama_token_data) { i, logits[i], 0.0f };
                if (logits[i] > heap[0].logit) {
                    replace_lowest(heap, n, held[n_held - 1]);
                }
            }
        }
    }
    return (size_t) n_held;
}

// A token by the chain: from the n_best highest logits of those that may come, or from all of them. Which of equal
// logits comes first when libllama sorts depends on all that it sorts. A GPU's logits are often of half precision, of
// which some are equal in most rows.
static llama_token chosen(struct llama_sampler * chain, const float * logits, int32_t n_vocab, int32_t n_best,
                          const struct lb_wide * wide, const uint32_t * mask, struct room * room) {
    if (n_best > 0 && (mask == NULL || allows_many(mask, n_vocab))) {
        const size_t size = mask ? highest_few_allowed(logits, n_vocab, n_best + 1, mask, room)
                                 : highest_few(logits, n_vocab, n_best + 1, room);
        if (size == 0 && mask == NULL) {
            return -1;
        }
        if (size > 0 && !has_equals(room->candidates, size)) {
            const size_t           n_shown = size < (size_t) n_best ? size : (size_t) n_best;
            llama_token_data_array array   = { room->candidates, n_shown, -1, false };
            return token_of_rest(chain, 0, &array);
        }
        if (size > 0 && n_best <= SORTED_AT_ONCE) {
            const size_t           n_held = held_by_sort(logits, n_vocab, n_best, mask, room);
            llama_token_data_array array  = { room->candidates, n_held, -1, false };
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
        return mask ? highest_allowed(logits, n_vocab, mask, room) : highest(logits, n_vocab, room->wide.maxima);
    }
    return chosen(chain, logits, n_vocab, n_best, wide, mask, room);
}

// Ask for a mask before it is read: another core has written it, and of its lines a few dozen are looked at in no
// order.
static void fetch(const uint32_t * mask, int32_t n_vocab) {
    enum { LINE = 64 / sizeof(*mask) };
    for (int32_t i = 0; mask && i < n_vocab / 32; i += LINE) {
        __builtin_prefetch(mask + i);
    }
}

int32_t lb_sample_rows(struct llama_context * ctx, int32_t n_chains, const int32_t * first, const int32_t * n_rows,
                       struct llama_sampler ** chains, const int32_t * n_best, const struct lb_wide ** wide,
                       const uint32_t ** masks, const llama_token * expected, llama_token * out, int32_t * n_out) {
    const int32_t n_vocab  = vocabulary_size(ctx);
    struct room * room     = room_for(n_vocab);
    int32_t       n_failed = 0;
    int32_t       row      = 0; // of all chains
    for (int32_t i = 0; i < n_chains; i++) {
        if (masks && i + 1 < n_chains) {
            fetch(masks[row + n_rows[i]], n_vocab);
        }
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
