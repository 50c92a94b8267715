// The other side of a multiplication: what the model computed for each token, as signed bytes, 32 columns with one
// scale. As ggml's block_q8_1, but that the scale and the sum keep 32 bits.
#pragma once

#include <cmath>

#include "packed.h"

#ifdef LB_LANES

namespace llamabox {

// One token's row lies as `n` bytes, then a scale for each 32 of them, then what the weights' minimum or bias adds for
// each 32: scale · sum, or −bias · sum for each 16.
static inline size_t token_size(int64_t n) { return (size_t) (n + n / COLUMNS * 12); }

struct Token {
    const int8_t *  quants;
    const float *   scales;
    const uint8_t * sums;

    Token(const uint8_t * at, int64_t n) :
        quants((const int8_t *) at), scales((const float *) (at + n)), sums(at + n + n / COLUMNS * 4) {}

    float for_minimum(int64_t block) const {
        float sum;
        memcpy(&sum, sums + block * 8, 4);
        return sum;
    }

    // Of the first or the second 16 columns.
    int32_t for_bias(int64_t block, int half) const {
        int32_t sum;
        memcpy(&sum, sums + block * 8 + half * 4, 4);
        return sum;
    }
};

static inline int32_t total(__m256i x) {
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1)));
}

// n floats into one token's row: scale = max |x| / 127, to the nearest.
template <class F> static void quantize_token(uint8_t * to, const float * from, int64_t n) {
    const __m256 sign   = _mm256_set1_ps(-0.0f);
    uint8_t *    scales = to + n;
    uint8_t *    sums   = scales + n / COLUMNS * 4;
    for (int64_t block = 0; block < n / COLUMNS; block++) {
        __m256 x[4];
        __m256 most = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            x[i] = _mm256_loadu_ps(from + block * COLUMNS + i * 8);
            most = _mm256_max_ps(most, _mm256_andnot_ps(sign, x[i]));
        }
        const float  amax    = highest_of(most);
        const float  scale   = amax / 127.0f;
        const __m256 inverse = _mm256_set1_ps(amax != 0.0f ? 127.0f / amax : 0.0f);
        __m256i      q[4];
        for (int i = 0; i < 4; i++) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
        }
        const int32_t sum[2] = {total(_mm256_add_epi32(q[0], q[1])), total(_mm256_add_epi32(q[2], q[3]))};
        const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        // The packs work on each half by itself: put the fours of bytes back into their order.
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((__m256i *) (to + block * COLUMNS), _mm256_permutevar8x32_epi32(bytes, order));
        memcpy(scales + block * 4, &scale, 4);
        const float   for_minimum = scale * (float) (sum[0] + sum[1]);
        const int32_t for_bias[2] = {-F::bias * sum[0], -F::bias * sum[1]};
        memcpy(sums + block * 8, for_bias, 8);
        if constexpr (F::has_min) {
            memcpy(sums + block * 8, &for_minimum, 4);
        }
    }
}

}  // namespace llamabox

#endif
