// The product with weights in half precision, which encoders often have: nothing is rounded, weights and tokens are
// multiplied as float32. LB_LANES rows of weights lie side by side, one column of them behind the other; so do the
// tokens of a tile. Every element is the sum of its even columns plus that of its odd ones, whoever else is in the
// tile.
#pragma once

#include "multiply.h"

#ifdef LB_LANES

namespace llamabox {

static constexpr int HALF_TILE = LB_LANES == 16 ? 12 : 6; // tokens whose two sums each fit the registers

// Write columns `first` to before `last` of `count` tokens as those of a tile.
template <int count> static void put_floats(float * to, const float * const * tokens, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++) {
#pragma GCC unroll 12
        for (int t = 0; t < count; t++) {
            to[i * count + t] = tokens[t][i];
        }
    }
}

// Multiply LB_LANES rows of weights with the `count` tokens of a tile. The first token's results go to `dst`, the next
// token's `stride` floats further.
template <int count>
static void multiply_halves(const uint8_t * weights, const float * tokens, int64_t n, float * dst, int64_t stride) {
    Floats sums[2][count];
#pragma GCC unroll 12
    for (int t = 0; t < count; t++) {
        sums[0][t] = sums[1][t] = floats(0.0f);
    }
    for (int64_t i = 0; i < n; i += 2, weights += 2 * HALVES, tokens += 2 * count) {
        if (count > 2) {
            ask_ahead(weights, 0, 2 * HALVES);
        }
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; odd++) {
            const Floats w = halves(weights + odd * HALVES);
#pragma GCC unroll 12
            for (int t = 0; t < count; t++) {
                sums[odd][t] = times_plus(w, floats(tokens[odd * count + t]), sums[odd][t]);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < count; t++) {
        store(dst + t * stride, plus(sums[0][t], sums[1][t]));
    }
}

// The two for a tile of so many tokens.
struct HalfTile {
    void (*put)(float *, const float * const *, int64_t, int64_t);
    void (*multiply)(const uint8_t *, const float *, int64_t, float *, int64_t);
};

template <int count> static constexpr HalfTile half_tile = { put_floats<count>, multiply_halves<count> };

static constexpr HalfTile HALF_TILES[] = {
    half_tile<1>, half_tile<2>, half_tile<3>, half_tile<4>,  half_tile<5>,  half_tile<6>,
#if LB_LANES == 16
    half_tile<7>, half_tile<8>, half_tile<9>, half_tile<10>, half_tile<11>, half_tile<12>,
#endif
};

} // namespace llamabox

#endif
