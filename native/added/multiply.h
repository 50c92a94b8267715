// dst = weights · tokens, for packed weights. Every element is one sum over the blocks in their order, and the integer
// part of each block is exact. The result does not depend on the other tokens, or on the number of threads.
#pragma once

#include "shorts.h"
#include "tokens.h"

#ifdef LB_LANES

namespace llamabox {

static constexpr int TILE = 8; // tokens that share an unpacked group of weights

#ifndef LB_SHORTS

// Multiply LB_LANES rows of weights with `count` tokens. `rows` are the tokens' rows (tokens.h), `size` bytes apart.
// The first token's results go to `dst`, the next token's `stride` floats further.
template <class F, int count>
static void multiply_tile(const uint8_t * weights, const uint8_t * rows, int64_t n, float * dst, int64_t stride) {
    const size_t size = token_size(n);
    Floats       sums[count];
    for (int t = 0; t < count; t++) {
        sums[t] = floats(0.0f);
    }
    for (int64_t block = 0; block < n / COLUMNS; block++) {
        constexpr int   parts = F::columns / COLUMNS;
        const uint8_t * group = weights + block / parts * F::size;
        const int       part  = (int) (block % parts);
        Ints            w[VECTORS];
        Floats          scales[F::n_scales];
        F::quants(group, part, w);
        F::scales(group, part, scales);
        for (int t = 0; t < count; t++) {
            const Token    token(rows + t * size, n);
            const int8_t * quants = token.quants + block * COLUMNS;
            // Two chains: a processor does two such sums at a time, and each waits for the one before it.
            Ints first  = F::bias ? ints(token.for_bias(block, 0)) : ints(0);
            Ints second = F::bias ? ints(token.for_bias(block, 1)) : ints(0);
            for (int i = 0; i < VECTORS / 2; i++) {
                first  = dot(first, w[i], four_bytes(quants + i * 4));
                second = dot(second, w[i + VECTORS / 2], four_bytes(quants + (i + VECTORS / 2) * 4));
            }
            const Floats scale = floats(token.scales[block]);
            if constexpr (F::n_scales == 2) {
                sums[t] = times_plus(times(scales[0], scale), to_floats(first), sums[t]);
                sums[t] = times_plus(times(scales[1], scale), to_floats(second), sums[t]);
            } else {
                sums[t] = times_plus(times(scales[0], scale), to_floats(add(first, second)), sums[t]);
            }
            if constexpr (F::has_min) {
                sums[t] = times_plus(F::minimums(group, part), floats(token.for_minimum(block)), sums[t]);
            }
        }
    }
    for (int t = 0; t < count; t++) {
        store(dst + t * stride, sums[t]);
    }
}

#endif

// As multiply_tile, for any number of tokens.
template <class F>
static void multiply(const uint8_t * weights, const uint8_t * rows, int64_t n_tokens, int64_t n, float * dst,
                     int64_t stride) {
    using Tile = void (*)(const uint8_t *, const uint8_t *, int64_t, float *, int64_t);

    static constexpr Tile tiles[TILE] = {
        multiply_tile<F, 1>, multiply_tile<F, 2>, multiply_tile<F, 3>, multiply_tile<F, 4>,
        multiply_tile<F, 5>, multiply_tile<F, 6>, multiply_tile<F, 7>, multiply_tile<F, 8>,
    };
    for (int64_t t = 0; t < n_tokens; t += TILE) {
        const int64_t count = n_tokens - t < TILE ? n_tokens - t : TILE;
        tiles[count - 1](weights, rows + t * token_size(n), n, dst + t * stride, stride);
    }
}

} // namespace llamabox

#endif
