// Passes over a row of logits. Compiled into each file that includes it; no interface of the module's.
#pragma once

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include "llama.h"

enum { BLOCK = 64, LANES = 4, STRIDE = 4 * LANES };

// How many of a block's logits are above the floor. Integers only are summed up, so that the compiler may do it in
// vectors without being allowed to reorder floating-point arithmetic.
static inline int32_t n_above(const float * logits, float floor) {
    int32_t n_found = 0;
    for (int32_t i = 0; i < BLOCK; i++) {
        n_found += logits[i] > floor;
    }
    return n_found;
}

typedef float   float_lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t int_lanes __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline float_lanes lanes_at(const float * values) {
    float_lanes lanes;
    memcpy(&lanes, values, sizeof(lanes));
    return lanes;
}

static inline float_lanes higher_lanes(float_lanes a, float_lanes b) {
#ifdef __SSE__
    return _mm_max_ps(a, b);
#else
    const int_lanes is_higher = a > b;
    return (float_lanes) ((is_higher & (int_lanes) a) | (~is_higher & (int_lanes) b));
#endif
}

// The highest logit of a block, of no meaning where one of them is NaN or +inf. The lanes of n_fit together fall by the
// number of those that are neither.
static inline float highest_of_block(const float * logits, int_lanes * n_fit) {
    const float_lanes limit = { FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX };
    float_lanes       best[STRIDE / LANES];
    int_lanes         fit = { 0 };
    for (int32_t i = 0; i < BLOCK; i += STRIDE) {
        for (int32_t j = 0; j < STRIDE / LANES; j++) {
            const float_lanes here = lanes_at(logits + i + j * LANES);
            fit += here <= limit; // -1 where it is so
            best[j] = i == 0 ? here : higher_lanes(here, best[j]);
        }
    }
    *n_fit += fit;
    const float_lanes four = higher_lanes(higher_lanes(best[0], best[1]), higher_lanes(best[2], best[3]));
    const float       x    = four[0] > four[1] ? four[0] : four[1];
    const float       y    = four[2] > four[3] ? four[2] : four[3];
    return x > y ? x : y;
}

static inline int32_t n_blocks_of(int32_t n_vocab) { return (n_vocab + BLOCK - 1) / BLOCK; }

// The highest logit of each block of a row, n_blocks_of(n_vocab) of them. False for a row with NaN or +inf.
static inline bool block_maxima(const float * logits, int32_t n_vocab, float * maxima) {
    const int32_t n_whole = n_vocab / BLOCK;
    int_lanes     n_fit   = { 0 };
    for (int32_t b = 0; b < n_whole; b++) {
        maxima[b] = highest_of_block(logits + b * BLOCK, &n_fit);
    }
    int32_t n_padded = n_whole * BLOCK;
    if (n_padded < n_vocab) {
        float rest[BLOCK];
        for (int32_t i = 0; i < BLOCK; i++) {
            rest[i] = n_padded + i < n_vocab ? logits[n_padded + i] : -INFINITY;
        }
        maxima[n_whole] = highest_of_block(rest, &n_fit);
        n_padded += BLOCK;
    }
    return -(n_fit[0] + n_fit[1] + n_fit[2] + n_fit[3]) == n_padded;
}

// The highest logit, the lowest id among equals, as llama_sampler_init_greedy() has it; -1 for a row with NaN or +inf.
static inline llama_token highest(const float * logits, int32_t n_vocab, float * maxima) {
    if (!block_maxima(logits, n_vocab, maxima)) {
        return -1;
    }
    int32_t best = 0;
    for (int32_t b = 1; b < n_blocks_of(n_vocab); b++) {
        best = maxima[b] > maxima[best] ? b : best;
    }
    int32_t token = best * BLOCK;
    while (logits[token] != maxima[best]) {
        token++;
    }
    return token;
}

// Put a candidate in the place of the lowest one, which stands first in the heap.
static inline void replace_lowest(llama_token_data * heap, int32_t size, llama_token_data candidate) {
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
        hole       = child;
    }
    heap[hole] = candidate;
}

static inline int32_t n_from(const float * values, int32_t n, float floor) {
    int32_t n_found = 0;
    for (int32_t i = 0; i < n; i++) {
        n_found += values[i] >= floor;
    }
    return n_found;
}

// A floor that at least n blocks reach, and if it is soon found not many more: so many logits of the row do, too.
static inline float floor_of_highest(const float * maxima, int32_t n_blocks, int32_t n) {
    enum { TRIES = 12 };
    float low = INFINITY, high = -INFINITY;
    for (int32_t b = 0; b < n_blocks; b++) {
        low  = maxima[b] < low ? maxima[b] : low;
        high = maxima[b] > high ? maxima[b] : high;
    }
    int32_t n_found = n_blocks;
    for (int32_t i = 0; i < TRIES && n_found > n + n / 4; i++) {
        const float   middle  = low + (high - low) / 2;
        const int32_t n_there = n_from(maxima, n_blocks, middle);
        if (n_there >= n) {
            low     = middle;
            n_found = n_there;
        } else {
            high = middle;
        }
    }
    return n_found >= n ? low : -INFINITY;
}

// Whether a mask lets a token come. Without a mask all do.
static inline bool is_allowed(const uint32_t * mask, int32_t token) {
    return mask == NULL || (mask[token >> 5] >> (token & 31) & 1) != 0;
}

// The n highest logits of the tokens that a mask allows in a heap, the lowest first, of those that reach the floor.
// Returns how many there are. Only the blocks that have such a logit are looked into.
static inline size_t heap_from(const float * logits, int32_t n_vocab, int32_t n, float floor, const uint32_t * mask,
                               llama_token_data * heap, const float * maxima) {
    for (int32_t i = 0; i < n; i++) {
        heap[i] = (llama_token_data) { 0, -INFINITY, 0.0f };
    }
    int32_t n_in = 0;
    for (int32_t b = 0; b < n_blocks_of(n_vocab); b++) {
        const int32_t end = (b + 1) * BLOCK < n_vocab ? (b + 1) * BLOCK : n_vocab;
        for (int32_t i = b * BLOCK; maxima[b] >= floor && i < end; i++) {
            if (logits[i] >= floor && logits[i] > heap[0].logit && is_allowed(mask, i)) {
                replace_lowest(heap, n, (llama_token_data) { i, logits[i], 0.0f });
                n_in += n_in < n;
            }
        }
    }
    return (size_t) n_in;
}

// The n highest logits of a row in a heap, the lowest first. Returns how many there are, 0 for a row with NaN or +inf.
static inline size_t heap_of_highest(const float * logits, int32_t n_vocab, int32_t n, llama_token_data * heap,
                                     float * maxima) {
    n = n < n_vocab ? n : n_vocab;
    if (!block_maxima(logits, n_vocab, maxima)) {
        return 0;
    }
    const float floor = floor_of_highest(maxima, n_blocks_of(n_vocab), n);
    return heap_from(logits, n_vocab, n, floor, NULL, heap, maxima);
}

// Whether two candidates, which are sorted by their logits, have the same one.
static inline bool has_equals(const llama_token_data * sorted, size_t n) {
    for (size_t i = 1; i < n; i++) {
        if (sorted[i].logit == sorted[i - 1].logit) {
            return true;
        }
    }
    return false;
}
