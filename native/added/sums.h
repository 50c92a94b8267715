// What a tile adds up: the results of LB_LANES rows of weights and `count` tokens.
#pragma once

#include "opened.h"
#include "tokens.h"

#ifdef LB_LANES

namespace llamabox {

template <class F, int count, bool wide = is_wide<F>> struct Sums;

// Of weights in blocks of 32 columns: floats.
template <class F, int count> struct Sums<F, count, false> {
    Floats sums[count];

    // Before the columns of a group of weights, and behind them.
    void begin() {}
    void end(const Opened<F> &, const uint8_t *, size_t) {}

    // Add the product of 32 columns with the t-th token.
    inline __attribute__((always_inline)) void add_product(int t, Ints product, const Factors<F> & factors,
                                                           Token token) {
        sums[t] = times_plus(times(factors.scale, floats(token.scale())), to_floats(product), sums[t]);
    }

    inline __attribute__((always_inline)) void add_minimum(int t, const Factors<F> & factors, Token token) {
        if constexpr (F::has_min) {
            sums[t] = times_plus(factors.minimum, floats(token.for_minimum()), sums[t]);
        }
    }
};

// Of wide weights: whole numbers within 256 columns, which fit 32 bits.
template <class F, int count> struct Sums<F, count, true> {
    Floats sums[count];
    Ints   totals[count];

    inline __attribute__((always_inline)) void begin() {
#pragma GCC unroll 8
        for (int t = 0; t < count; t++) {
            totals[t] = ints(0);
        }
    }

    // Add the product of 32 columns, or of 16, with the t-th token: it has the factor of the weights.
    inline __attribute__((always_inline)) void add_product(int t, Ints product, Token token) {
        totals[t] = whole(add(totals[t], shifted(product, token.shift())));
        rest(totals[t]);
    }

    // Add the totals to the sums. `ends` is what the first token has behind its columns; tokens are `size` bytes apart.
    inline __attribute__((always_inline)) void end(const Opened<F> & opened, const uint8_t * ends, size_t size) {
#pragma GCC unroll 8
        for (int t = 0; t < count; t++) {
            const TokenEnd<F> token(ends + t * size);
            Floats            sum = times(opened.scale, to_floats(totals[t]));
            if constexpr (F::has_min) {
                Ints minimums = ints(0);
#pragma GCC unroll 4
                for (int part = 0; part < F::PARTS; part += 2) {
                    minimums = dot_shorts(minimums, opened.minimums(part), token.two_sums(part / 2));
                }
                sum = times_plus(opened.minimum, to_floats(minimums), sum);
            }
            sums[t] = times_plus(sum, floats(token.scale()), sums[t]);
            rest(sums[t]);
        }
    }

  private:
    // Where there are 16 registers, all of these lie in memory while they are not in use.
    template <class Vector> static inline __attribute__((always_inline)) void rest(Vector & x) {
        if constexpr (LB_LANES == 8) {
            in_memory(x);
        }
    }
};

} // namespace llamabox

#endif
