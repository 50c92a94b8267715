// dst = weights · tokens, for packed weights. Every element is one sum over the blocks in their order, and the integer
// part of each block is exact. The result does not depend on the other tokens, or on the number of threads.
#pragma once

#include "dots.h"
#include "shorts.h"

#ifdef LB_LANES

namespace llamabox {

static constexpr int TILE = 8; // tokens that share an unpacked group of weights

static inline void ask_ahead(const uint8_t * weights, int first, int last) {
    for (int at = first / 64 * 64; at < last; at += 64) {
        _mm_prefetch((const char *) weights + AHEAD + at, HINT);
    }
}

// Multiply LB_LANES rows of weights with `count` tokens. `rows` are the tokens' rows (tokens.h), one behind the other.
// The first token's results go to `dst`, the next token's `stride` floats further. With `is_first` the weights come
// from memory; otherwise they have just been in use.
template <class F, int count>
static void multiply_tile(const uint8_t * weights, const uint8_t * rows, int64_t n, float * dst, int64_t stride,
                          bool is_first) {
    constexpr int parts = F::columns / COLUMNS;
    const size_t  size  = token_size<F>(n);
    const bool    asks  = is_first && asks_ahead<F>(count);
    Tile<F, count> tile;
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) {
        tile.sums[t] = floats(0.0f);
    }
    for (const uint8_t * end = weights + n / F::columns * F::size; weights < end; weights += F::size) {
        const Opened<F> opened(weights);
        tile.begin();
        if constexpr (parts == 1) {
            if (asks) {
                ask_ahead(weights, 0, F::size);
            }
            tile.add_part(weights, opened, 0, rows, size);
            rows += step<F>;
        } else {
            for (int part = 0; part < parts; part += 4) { // parts are read in up to four ways
                if (asks) {
                    ask_ahead(weights, part * (F::size / parts), (part + 4) * (F::size / parts));
                }
                tile.add_part(weights, opened, part, rows, size);
                tile.add_part(weights, opened, part + 1, rows + step<F>, size);
                tile.add_part(weights, opened, part + 2, rows + 2 * step<F>, size);
                tile.add_part(weights, opened, part + 3, rows + 3 * step<F>, size);
                rows += 4 * step<F>;
            }
        }
        tile.end(opened, rows, size);
        rows += behind<F>;
    }
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) {
        store(dst + t * stride, tile.sums[t]);
    }
}

// As multiply_tile, for any number of tokens.
template <class F>
static void multiply(const uint8_t * weights, const uint8_t * rows, int64_t n_tokens, int64_t n, float * dst,
                     int64_t stride) {
    using Function = void (*)(const uint8_t *, const uint8_t *, int64_t, float *, int64_t, bool);

    static constexpr Function tiles[TILE] = {
        multiply_tile<F, 1>, multiply_tile<F, 2>, multiply_tile<F, 3>, multiply_tile<F, 4>,
        multiply_tile<F, 5>, multiply_tile<F, 6>, multiply_tile<F, 7>, multiply_tile<F, 8>,
    };
    for (int64_t t = 0; t < n_tokens; t += TILE) {
        const int64_t count = n_tokens - t < TILE ? n_tokens - t : TILE;
        tiles[count - 1](weights, rows + t * token_size<F>(n), n, dst + t * stride, stride, t == 0);
    }
}

} // namespace llamabox

#endif
