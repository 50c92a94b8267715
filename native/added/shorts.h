// The product of a tile where the processor has no instruction that adds four products of bytes in 32 bits: AVX2. Two
// products are added in 16 bits, further pairs too as long as the sum fits, and only then in 32 bits. Sums are exact.
#pragma once

#include "sums.h"

#ifdef LB_SHORTS

namespace llamabox {

// How many vectors' pairs of products are added in 16 bits: the tokens' bytes are at most 127.
static constexpr int run_of(int most) {
    const int fits = most ? INT16_MAX / (2 * 127 * most) : 1;
    return fits >= 8 ? 8 : fits >= 4 ? 4 : fits >= 2 ? 2 : 1;
}

// So many tokens take less time than the memory: then weights are asked for, so many bytes ahead of those in use.
static constexpr int      AHEAD = 2048;
static constexpr _mm_hint HINT  = _MM_HINT_T0;

template <class F> static constexpr bool asks_ahead(int count) { return count <= 2; }

// Tokens whose products are added beside each other: so many sums, and one vector of weights, fit the registers.
template <class F> static constexpr int at_once = run_of(F::most) == 1 || run_of(F::most) == VECTORS ? 8 : 4;

// The products of those of 32 columns that have the `scale`-th scale, with `few` tokens: in sums of two, each times one
// of `factors`. Tokens take turns inside of a vector of weights.
template <class F, int few>
static inline __attribute__((always_inline)) void products(const Ints w[VECTORS], Ints factors, int scale,
                                                           const uint8_t * rows, size_t size, Ints totals[few]) {
    constexpr int run       = run_of(F::most);
    constexpr int per_scale = VECTORS / F::n_scales;
    if constexpr (F::bias != 0) {
#pragma GCC unroll 8
        for (int i = 0; i < few; i++) {
            totals[i] = ints(Token(rows + i * size).for_bias(scale));
        }
    }
#pragma GCC unroll 8
    for (int first = scale * per_scale; first < (scale + 1) * per_scale; first += run) {
        Ints shorts[few];
#pragma GCC unroll 8
        for (int v = first; v < first + run; v++) {
#pragma GCC unroll 8
            for (int i = 0; i < few; i++) {
                const int32_t four = four_bytes(Token(rows + i * size).four(v));
                const Ints    pair = F::most ? pairs(w[v], four) : signed_pairs(w[v], four);
                shorts[i]          = v == first ? pair : add_shorts(shorts[i], pair);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < few; i++) {
            const Ints sum = sum_shorts(shorts[i], factors);
            totals[i]      = F::bias == 0 && first == scale * per_scale ? sum : whole(add(totals[i], sum));
        }
    }
}

// LB_LANES rows of weights times `count` tokens, whose rows are `size` bytes apart.
template <class F, int count> struct Tile : Sums<F, count> {
    // Add the products of 32 columns: `part` of a group. `rows` are where the tokens have these columns.
    inline __attribute__((always_inline)) void add_part(const uint8_t * group, const Opened<F> & opened, int part,
                                                        const uint8_t * rows, size_t size) {
        constexpr int few = count < at_once<F> ? count : at_once<F>;
        Ints          w[VECTORS];
        F::quants(group, part, w);
        const Factors<F> factors = opened.factors(part);
#pragma GCC unroll 8
        for (int t = 0; t < count; t += few) {
#pragma GCC unroll 2
            for (int scale = 0; scale < F::n_scales; scale++) {
                if (count - t >= few) {
                    add_tokens<few>(w, factors, scale, t, rows + t * size, size);
                } else {
                    add_tokens<count % few>(w, factors, scale, t, rows + t * size, size);
                }
            }
        }
        if constexpr (!is_wide<F>) {
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                this->add_minimum(t, factors, Token(rows + t * size));
            }
        }
    }

    // Add the products of those columns that have the `scale`-th scale, of `few` tokens from the t-th on. Where the
    // weights' scale is a whole number, it is multiplied with sums of two products, unless a bias is added first.
    template <int few>
    inline __attribute__((always_inline)) void add_tokens(const Ints w[VECTORS], const Factors<F> & factors, int scale,
                                                          int t, const uint8_t * rows, size_t size) {
        Ints totals[few], factors_of_two = _mm256_set1_epi16(1);
        if constexpr (is_wide<F> && F::bias == 0) {
            factors_of_two = two_shorts(factors.each[scale], factors.each[scale]);
        }
        products<F, few>(w, factors_of_two, scale, rows, size, totals);
#pragma GCC unroll 8
        for (int i = 0; i < few; i++) {
            const Token token(rows + i * size);
            if constexpr (!is_wide<F>) {
                this->add_product(t + i, totals[i], factors, token);
            } else if constexpr (F::bias == 0) {
                this->add_product(t + i, totals[i], token);
            } else {
                this->add_product(t + i, low_product(totals[i], factors.each[scale]), token);
            }
        }
    }
};

} // namespace llamabox

#endif
