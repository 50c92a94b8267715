// Passes over a row of logits. Compiled into each file that includes it; no interface of the module's.
#pragma once

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "llama.h"

enum { BLOCK = 64 };

// How many of a block's logits are above the floor; INT32_MAX where one is NaN or +inf. Integers only are summed up, so
// that the compiler may do it in vectors without being allowed to reorder floating-point arithmetic.
static inline int32_t n_above(const float * logits, float floor) {
    int32_t n_bad = 0, n_found = 0;
    for (int32_t i = 0; i < BLOCK; i++) {
        n_bad   += !(logits[i] <= FLT_MAX);
        n_found += logits[i] > floor;
    }
    return n_bad ? INT32_MAX : n_found;
}

// The same for the rest of a row, shorter than a block.
static inline int32_t n_above_in_rest(const float * logits, int32_t n, float floor) {
    float block[BLOCK];
    for (int32_t i = 0; i < BLOCK; i++) {
        block[i] = i < n ? logits[i] : -INFINITY;
    }
    return n_above(block, floor);
}

// The highest logit, the lowest id among equals, as llama_sampler_init_greedy() has it; -1 for a row with NaN or +inf.
static inline llama_token highest(const float * logits, int32_t n_vocab) {
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
        hole = child;
    }
    heap[hole] = candidate;
}

// The n highest logits of a row in a heap, the lowest first. Returns how many there are, 0 for a row with NaN or +inf.
// Few of a block get past the lowest of the heap.
static inline size_t heap_of_highest(const float * logits, int32_t n_vocab, int32_t n, llama_token_data * heap) {
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
    return (size_t) n_in;
}
