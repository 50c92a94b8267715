// The product of a tile where the processor has an instruction that adds four products of bytes in 32 bits.
#pragma once

#include "opened.h"
#include "tokens.h"

#if defined(LB_LANES) && !defined(LB_SHORTS)

namespace llamabox {

// Whether weights are asked for, so many bytes ahead of those in use. A processor by itself fetches ahead what one or
// two tokens read in order. It does not when more of them make reading slow, or where two streams are read at a time.
static constexpr int      AHEAD = 12 * 1024;
static constexpr _mm_hint HINT  = _MM_HINT_T1; // into the second cache: so much would push tokens out of the first

template <class F> static constexpr bool asks_ahead(int count) { return count > 2 || F::is_apart; }

// LB_LANES rows of weights times `count` tokens, whose rows are `size` bytes apart.
template <class F, int count> struct Tile {
    Floats sums[count];

    // Add the products of 32 columns: `part` of a group. `rows` are where the tokens have these columns.
    inline __attribute__((always_inline)) void add_part(const uint8_t * group, const Opened<F> & opened, int part,
                                                        const uint8_t * rows, size_t size) {
        Ints   w[VECTORS];
        Floats scales[F::n_scales];
        Floats minimum;
        F::quants(group, part, w);
        opened.scales(part, scales);
        if constexpr (F::has_min) {
            minimum = opened.minimums(part);
        }
#pragma GCC unroll 8
        for (int t = 0; t < count; t++) {
            const Token token(rows + t * size);
            // Two chains: a processor does two such sums at a time, and each waits for the one before it.
            Ints first  = ints(F::bias ? token.for_bias(0) : 0);
            Ints second = ints(F::bias && !has_whole_bias<F> ? token.for_bias(1) : 0);
#pragma GCC unroll 4
            for (int i = 0; i < VECTORS / 2; i++) {
                first  = dot(first, w[i], token.four(i));
                second = dot(second, w[i + VECTORS / 2], token.four(i + VECTORS / 2));
            }
            const Floats scale = floats(token.scale());
            if constexpr (F::n_scales == 2) {
                sums[t] = times_plus(times(scales[0], scale), to_floats(first), sums[t]);
                sums[t] = times_plus(times(scales[1], scale), to_floats(second), sums[t]);
            } else {
                sums[t] = times_plus(times(scales[0], scale), to_floats(add(first, second)), sums[t]);
            }
            if constexpr (F::has_min) {
                sums[t] = times_plus(minimum, floats(token.for_minimum()), sums[t]);
            }
        }
    }
};

} // namespace llamabox

#endif
