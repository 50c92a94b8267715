// The product of a tile where the processor has no instruction that adds four products of bytes in 32 bits: AVX2. Two
// products are added in 16 bits, further pairs too as long as the sum fits, and only then in 32 bits. Sums are exact.
#pragma once

#include "opened.h"
#include "tokens.h"

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

// LB_LANES rows of weights times `count` tokens, whose rows are `size` bytes apart.
template <class F, int count> struct Tile {
    static constexpr int run       = run_of(F::most);
    static constexpr int per_scale = VECTORS / F::n_scales;
    static constexpr int at_once   = run == 1 || run == VECTORS ? 8 : 4; // tokens; otherwise there are two sums of each

    Floats sums[count];

    // Add the products of those of 32 columns that share a scale, of `few` tokens from the t-th on. Tokens take turns
    // inside of a vector of weights: so many sums, and one vector, fit the registers.
    template <int few>
    inline __attribute__((always_inline)) void add_tokens(const Ints w[VECTORS], Floats factor, int scale, int t,
                                                          const uint8_t * rows, size_t size) {
        Ints totals[few];
        rows += t * size;
#pragma GCC unroll 8
        for (int i = 0; i < few; i++) {
            totals[i] = ints(F::bias ? Token(rows + i * size).for_bias(scale) : 0);
        }
#pragma GCC unroll 8
        for (int first = scale * per_scale; first < (scale + 1) * per_scale; first += run) {
            Ints shorts[few];
#pragma GCC unroll 8
            for (int v = first; v < first + run; v++) {
#pragma GCC unroll 8
                for (int i = 0; i < few; i++) {
                    const int32_t four = Token(rows + i * size).four(v);
                    const Ints    pair = F::most ? pairs(w[v], four) : signed_pairs(w[v], four);
                    shorts[i]          = v == first ? pair : add_shorts(shorts[i], pair);
                }
            }
#pragma GCC unroll 8
            for (int i = 0; i < few; i++) {
                totals[i] = whole(add(totals[i], sum_shorts(shorts[i])));
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < few; i++) {
            const Floats both = times(factor, floats(Token(rows + i * size).scale()));
            sums[t + i]       = times_plus(both, to_floats(totals[i]), sums[t + i]);
        }
    }

    // Add the products of 32 columns: `part` of a group. `rows` are where the tokens have these columns.
    inline __attribute__((always_inline)) void add_part(const uint8_t * group, const Opened<F> & opened, int part,
                                                        const uint8_t * rows, size_t size) {
        Ints   w[VECTORS];
        Floats scales[F::n_scales];
        F::quants(group, part, w);
        opened.scales(part, scales);
#pragma GCC unroll 8
        for (int t = 0; t < count; t += at_once) {
            constexpr int few = count < at_once ? count : at_once;
#pragma GCC unroll 2
            for (int scale = 0; scale < F::n_scales; scale++) {
                if (count - t >= few) {
                    add_tokens<few>(w, scales[scale], scale, t, rows, size);
                } else {
                    add_tokens<count % few>(w, scales[scale], scale, t, rows, size);
                }
            }
        }
        if constexpr (F::has_min) {
            const Floats minimum = opened.minimums(part);
#pragma GCC unroll 8
            for (int t = 0; t < count; t++) {
                sums[t] = times_plus(minimum, floats(Token(rows + t * size).for_minimum()), sums[t]);
            }
        }
    }
};

} // namespace llamabox

#endif
