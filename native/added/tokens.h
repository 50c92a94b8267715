// The other side of a multiplication: what the model computed for each token, as signed bytes, one scale for each 32
// columns. Like ggml's block_q8_1, but scale and sum keep 32 bits.
#pragma once

#include <cfloat>
#include <cmath>

#include "packed.h"

#ifdef LB_LANES

namespace llamabox {

// A token's row: for each 32 columns their bytes, their scale, and the term that the weights' minimum or bias adds,
// which is scale · sum, or −bias · sum (for each 16 columns where they have a scale of their own). All that belongs to
// 32 columns lies together: then one address is enough for each token of a tile, and all of them are in registers.
static constexpr int64_t STEP   = COLUMNS + 12; // bytes
static constexpr int64_t SCALES = COLUMNS;
static constexpr int64_t SUMS   = COLUMNS + 4;

static inline size_t token_size(int64_t n) { return (size_t) (n / COLUMNS * STEP); }

// Whether the first term of the bias is that of all 32 columns.
template <class F> static constexpr bool has_whole_bias = F::n_scales == 1;

// A token's 32 columns.
struct Token {
    const uint8_t * at;

    explicit Token(const uint8_t * at) : at(at) {}

    // Columns 4 · i to 4 · i + 3.
    int32_t four(int i) const { return four_bytes((const int8_t *) at + i * 4); }

    float scale() const {
        float scale;
        memcpy(&scale, at + SCALES, 4);
        return scale;
    }

    float for_minimum() const {
        float sum;
        memcpy(&sum, at + SUMS, 4);
        return sum;
    }

    // The term of the bias for the first or the second 16 columns, or for both (has_whole_bias).
    int32_t for_bias(int half) const {
        int32_t sum;
        memcpy(&sum, at + SUMS + half * 4, 4);
        return sum;
    }
};

static inline int32_t total(__m256i x) {
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y         = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1)));
}

// The inverse of a scale would be infinite for less than this.
static constexpr float LEAST = 128 * FLT_MIN;

// Write floats as a token's row, of which this call does blocks `first` to before `last` of 32 columns:
// scale = max |x| / 127, rounded to the nearest. Columns below LEAST count as 0. Where a NaN or an infinity is among 32
// columns, their scale is NaN, and so is every product with the row.
template <class F> static void quantize_token(uint8_t * to, const float * from, int64_t first, int64_t last) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int64_t block = first; block < last; block++) {
        __m256  x[4];
        __m256i most = _mm256_setzero_si256(); // as integers: there a NaN is greater than every number
        for (int i = 0; i < 4; i++) {
            x[i] = _mm256_loadu_ps(from + block * COLUMNS + i * 8);
            most = _mm256_max_epi32(most, _mm256_and_si256(magnitude, _mm256_castps_si256(x[i])));
        }
        const int32_t bits = highest_of(most);
        float         amax;
        memcpy(&amax, &bits, sizeof(amax));
        uint8_t *   quants    = to + block * STEP;
        uint8_t *   sums      = quants + SUMS;
        const bool  is_number = amax <= FLT_MAX;
        const float scale     = is_number ? amax / 127.0f : NAN;
        memcpy(quants + SCALES, &scale, 4);
        if (!is_number || amax < LEAST) {
            memset(quants, 0, COLUMNS);
            memset(sums, 0, 8);
            continue;
        }
        const __m256 inverse = _mm256_set1_ps(127.0f / amax);
        __m256i      q[4];
        for (int i = 0; i < 4; i++) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
        }
        const int32_t sum[2] = { total(_mm256_add_epi32(q[0], q[1])), total(_mm256_add_epi32(q[2], q[3])) };
        const __m256i bytes  = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        // The packs work on each half of a vector by itself, so the groups of four bytes are put back in order.
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((__m256i *) quants, _mm256_permutevar8x32_epi32(bytes, order));
        const int32_t whole       = sum[0] + sum[1];
        const float   for_minimum = scale * (float) whole;
        const int32_t for_bias[2] = { -F::bias * (has_whole_bias<F> ? whole : sum[0]), -F::bias * sum[1] };
        memcpy(sums, for_bias, 8);
        if constexpr (F::has_min) {
            memcpy(sums, &for_minimum, 4);
        }
    }
}

} // namespace llamabox

#endif
