// The product of a tile where the processor has an instruction that adds four products of bytes in 32 bits.
#pragma once

#include "sums.h"

#if defined(LB_LANES) && !defined(LB_SHORTS)

namespace llamabox {

// Whether weights are asked for, so many bytes ahead of those in use. A processor by itself fetches ahead what one or
// two tokens read in order. It does not when more of them make reading slow, or where two streams are read at a time.
static constexpr int      AHEAD = 12 * 1024;
static constexpr _mm_hint HINT  = _MM_HINT_T1; // into the second cache: so much would push tokens out of the first

template <class F> static constexpr bool asks_ahead(int count) { return count > 2 || F::is_apart; }

// The products of 32 columns with `few` tokens, whose rows are `size` bytes apart: of the first and of the second 16.
// Each has two chains, and tokens take turns: a processor begins such a sum each cycle, and each waits four for the one
// before it.
template <class F, int few>
static inline __attribute__((always_inline)) void dots(const Ints w[VECTORS], const uint8_t * rows, size_t size,
                                                       Ints to[few][2]) {
#pragma GCC unroll 2
    for (int t = 0; t < few; t++) {
        const Token token(rows + t * size);
        to[t][0] = ints(F::bias ? token.for_bias(0) : 0);
        to[t][1] = ints(F::bias && F::n_scales == 2 ? token.for_bias(1) : 0);
    }
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS / 2; i++) {
#pragma GCC unroll 2
        for (int t = 0; t < few; t++) {
            const Token token(rows + t * size);
            to[t][0] = dot(to[t][0], w[i], token.four(i));
            to[t][1] = dot(to[t][1], w[i + VECTORS / 2], token.four(i + VECTORS / 2));
        }
    }
}

// LB_LANES rows of weights times `count` tokens, whose rows are `size` bytes apart.
template <class F, int count> struct Tile : Sums<F, count> {
    // Add the products of 32 columns: `part` of a group. `rows` are where the tokens have these columns.
    inline __attribute__((always_inline)) void add_part(const uint8_t * group, const Opened<F> & opened, int part,
                                                        const uint8_t * rows, size_t size) {
        Ints w[VECTORS];
        F::quants(group, part, w);
        const Factors<F> factors = opened.factors(part);
#pragma GCC unroll 4
        for (int t = 0; t + 2 <= count; t += 2) {
            add_tokens<2>(w, factors, t, rows + t * size, size);
        }
        if constexpr (count % 2 != 0) {
            add_tokens<1>(w, factors, count - 1, rows + (count - 1) * size, size);
        }
    }

    // Add the products of `few` tokens from the t-th on.
    template <int few>
    inline __attribute__((always_inline)) void add_tokens(const Ints w[VECTORS], const Factors<F> & factors, int t,
                                                          const uint8_t * rows, size_t size) {
        Ints products[few][2];
        dots<F, few>(w, rows, size, products);
#pragma GCC unroll 2
        for (int i = 0; i < few; i++) {
            const Token token(rows + i * size);
            const Ints *both = products[i];
            if constexpr (!is_wide<F>) {
                this->add_product(t + i, add(both[0], both[1]), factors, token);
                this->add_minimum(t + i, factors, token);
            } else if constexpr (F::n_scales == 1) {
                this->add_product(t + i, low_product(add(both[0], both[1]), factors.each[0]), token);
            } else {
                const Ints first = low_product(both[0], factors.each[0]);
                this->add_product(t + i, add(first, low_product(both[1], factors.each[1])), token);
            }
        }
    }
};

} // namespace llamabox

#endif
