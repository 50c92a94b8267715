// The other side of a multiplication: what the model computed for each token, as signed bytes.
#pragma once

#include <cfloat>
#include <cmath>

#include "packed.h"

#ifdef LB_LANES

namespace llamabox {

// Weights are wide where their blocks have 256 columns, whose parts of 32 or 16 have whole numbers as scales. Then the
// products of a block are whole numbers, too, and a token has one scale for 256 columns, as ggml's block_q8_K has. Of
// parts whose columns are smaller it keeps up to so many bits more.
static constexpr int FINER = 3;

// A token's row. For each 32 columns: their bytes; their scale, or for wide weights by how many bits their products are
// shifted; and the term that the weights' minimum or bias adds, which is scale · sum, or −bias · sum (for each 16
// columns where they have a scale of their own). All that belongs to 32 columns lies together: then one address is
// enough for each token of a tile, and all of them are in registers. For wide weights there follow, behind each 256
// columns, the shifted sums of all 32, where there are minimums, as shorts; and the scale.
template <class F> static constexpr bool has_sums  = is_wide<F> && F::has_min; // behind 256 columns
template <class F> static constexpr int  n_terms   = has_sums<F> ? 0 : F::n_scales;
template <class F> static constexpr int  step      = COLUMNS + 4 + 4 * n_terms<F>; // bytes of 32 columns
template <class F> static constexpr int  for_sums  = has_sums<F> ? 2 * F::columns / COLUMNS : 0;
template <class F> static constexpr int  behind    = is_wide<F> ? for_sums<F> + 4 : 0; // bytes behind 256 columns
template <class F> static constexpr int  for_block = F::columns / COLUMNS * step<F> + behind<F>;
static constexpr int                     SCALES    = COLUMNS; // where these are in the bytes of 32 columns
static constexpr int                     TERMS     = COLUMNS + 4;

template <class F> static constexpr size_t token_size(int64_t n) { return (size_t) (n / F::columns * for_block<F>); }

// A token's 32 columns.
struct Token {
    const uint8_t * at;

    explicit Token(const uint8_t * at) : at(at) {}

    // Columns 4 · i to 4 · i + 3.
    const int8_t * four(int i) const { return (const int8_t *) at + i * 4; }

    float scale() const { return number<float>(SCALES); }

    int32_t shift() const { return number<int32_t>(SCALES); }

    float for_minimum() const { return number<float>(TERMS); }

    // The term of the bias for the first or the second 16 columns, or for both where these have one scale.
    int32_t for_bias(int half) const { return number<int32_t>(TERMS + half * 4); }

    template <class Number> Number number(int from) const {
        Number value;
        memcpy(&value, at + from, sizeof(value));
        return value;
    }
};

// What stands behind a token's 256 columns.
template <class F> struct TokenEnd {
    const Token end;

    explicit TokenEnd(const uint8_t * at) : end(at) {}

    // The sums of parts 2 · i and 2 · i + 1, as shorts.
    int32_t two_sums(int i) const { return end.number<int32_t>(i * 4); }

    float scale() const { return end.number<float>(for_sums<F>); }
};

static inline int32_t total(__m256i x) {
    __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y         = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1)));
}

// The greatest magnitude of 32 columns. Compared as integers: there a NaN is greater than every number.
static inline float greatest_of(const float * from) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i       most      = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        most = _mm256_max_epi32(most, _mm256_and_si256(magnitude, _mm256_castps_si256(_mm256_loadu_ps(from + i * 8))));
    }
    const int32_t bits = highest_of(most);
    float         amax;
    memcpy(&amax, &bits, sizeof(amax));
    return amax;
}

// Write 32 columns times `inverse`, rounded to the nearest, as bytes. `sums` become those of each 16.
static inline void put_quants(uint8_t * to, const float * from, float inverse, int32_t sums[2]) {
    __m256i q[4];
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i * 8), _mm256_set1_ps(inverse)));
    }
    sums[0]             = total(_mm256_add_epi32(q[0], q[1]));
    sums[1]             = total(_mm256_add_epi32(q[2], q[3]));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    // The packs work on each half of a vector by itself, so the groups of four bytes are put back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *) to, _mm256_permutevar8x32_epi32(bytes, order));
}

// Write the terms of the bias of 32 columns.
template <class F> static void put_bias(uint8_t * to, const int32_t sums[2]) {
    const int32_t terms[2] = { -F::bias * (F::n_scales == 1 ? sums[0] + sums[1] : sums[0]), -F::bias * sums[1] };
    memcpy(to + TERMS, terms, 4 * F::n_scales);
}

// The inverse of a scale would be infinite for less than this.
static constexpr float LEAST = 1024 * FLT_MIN;

// Write 32 columns: scale = max |x| / 127. Columns below LEAST count as 0.
template <class F> static void quantize_step(uint8_t * to, const float * from) {
    const float amax      = greatest_of(from);
    const bool  is_number = amax <= FLT_MAX;
    const float scale     = is_number ? amax / 127.0f : NAN;
    int32_t     sums[2];
    if (!is_number || amax < LEAST) {
        memset(to, 0, step<F>);
        memcpy(to + SCALES, &scale, 4);
        return;
    }
    put_quants(to, from, 127.0f / amax, sums);
    memcpy(to + SCALES, &scale, 4);
    if constexpr (F::has_min) {
        const float for_minimum = scale * (float) (sums[0] + sums[1]);
        memcpy(to + TERMS, &for_minimum, 4);
    } else {
        put_bias<F>(to, sums);
    }
}

// Write 256 columns. The scale is max |x| / 127 of all of them, divided by a power of two; that of 32 columns is as
// many times as great as keeps them below 128.
template <class F> static void quantize_block(uint8_t * to, const float * from) {
    constexpr int PARTS = F::columns / COLUMNS;
    float         most[PARTS], amax = 0.0f;
    bool          is_number = true;
    for (int part = 0; part < PARTS; part++) {
        most[part] = greatest_of(from + part * COLUMNS);
        amax       = std::fmax(amax, most[part]);
        is_number  = is_number && most[part] <= FLT_MAX;
    }
    const float scale = is_number ? amax / 127.0f / (1 << FINER) : NAN;
    memset(to, 0, for_block<F>);
    memcpy(to + for_block<F> - 4, &scale, 4);
    if (!is_number || amax < LEAST) {
        return;
    }
    uint8_t * end = to + PARTS * step<F>;
    for (int part = 0; part < PARTS; part++, to += step<F>) {
        int32_t shift = FINER, sums[2];
        while (shift > 0 && most[part] * (float) (2 << (FINER - shift)) <= amax) {
            shift--;
        }
        put_quants(to, from + part * COLUMNS, 127.0f / amax * (float) (1 << (FINER - shift)), sums);
        memcpy(to + SCALES, &shift, 4);
        if constexpr (F::has_min) {
            const auto sum = (int16_t) ((sums[0] + sums[1]) * (1 << shift)); // 32 · 127 · 8 at most
            memcpy(end + part * 2, &sum, 2);
        } else {
            put_bias<F>(to, sums);
        }
    }
}

// Write floats as a token's row, of which this call does the weights' blocks `first` to before `last`. Where a NaN or
// an infinity is among the columns of a scale, this is NaN, and so is every product with the row.
template <class F> static void quantize_token(uint8_t * to, const float * from, int64_t first, int64_t last) {
    for (int64_t block = first; block < last; block++) {
        if constexpr (is_wide<F>) {
            quantize_block<F>(to + block * for_block<F>, from + block * F::columns);
        } else {
            quantize_step<F>(to + block * for_block<F>, from + block * F::columns);
        }
    }
}

} // namespace llamabox

#endif
