// The processor's vectors, under the few names that the kernels need: LB_LANES lanes of 32 bits, a row of the weights
// in each. AVX-512 VNNI has 16 lanes, AVX2 has 8. Without either, LB_LANES is not defined.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define LB_LANES 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LB_LANES 8
#endif

#ifdef LB_LANES

#include <immintrin.h>

namespace llamabox {

// Four bytes of a token in every lane: each lane multiplies them with its own four.
static inline int32_t four_bytes(const int8_t * from) {
    int32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline int32_t highest_of(__m256i x) {
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    four         = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

#if LB_LANES == 16

using Ints   = __m512i;
using Floats = __m512;

static constexpr const char * lanes_name  = "AVX-512 VNNI";
static constexpr bool         takes_bytes = true; // whether weights may be bytes above 127

static inline Ints   load(const void * from) { return _mm512_loadu_si512(from); }
static inline void   store(float * to, Floats x) { _mm512_storeu_ps(to, x); }
static inline void   store(void * to, Ints x) { _mm512_storeu_si512(to, x); }
static inline Ints   ints(int32_t x) { return _mm512_set1_epi32(x); }
static inline Ints   add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
static inline Floats floats(float x) { return _mm512_set1_ps(x); }
static inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
static inline Floats halves(const uint8_t * from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from));
}
static inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline Floats times_plus(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline Ints   small_ints(const uint8_t * from) { // of signed bytes
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) from));
}
static inline Ints low_product(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
static inline Ints shifted(Ints x, int32_t bits) { return _mm512_sllv_epi32(x, ints(bits)); }
// In each lane: the shorts of low and of high.
static inline Ints two_shorts(Ints low, Ints high) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
}

// Powers of two from bytes of MXFP4: 2^(byte − 128), as GGML_E8M0_TO_FP32_HALF.
static inline Floats powers(const uint8_t * from) {
    const Ints bytes  = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) from));
    const Ints normal = _mm512_slli_epi32(_mm512_sub_epi32(bytes, ints(1)), 23);
    const Ints small  = _mm512_sllv_epi32(ints(0x00200000), bytes); // of the bytes 0 and 1
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(small, _mm512_cmpgt_epi32_mask(bytes, ints(1)), normal));
}

static inline Ints unsign(Ints x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char) 0x80)); }
static inline Ints minus_bytes(Ints x, int8_t n) { return _mm512_sub_epi8(x, _mm512_set1_epi8(n)); }
static inline Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline Ints high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

// For each nibble, its byte in a table of 16.
static inline Ints looked_up(const uint8_t * table, Ints nibbles) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) table)), nibbles);
}

// The nibbles x, with two bits of each byte of `pairs`, from bit `from` on, above them.
static inline Ints with_pair(Ints x, Ints pairs, int from) {
    const Ints placed = from < 4 ? _mm512_slli_epi16(pairs, 4 - from) : _mm512_srli_epi16(pairs, from - 4);
    return _mm512_or_si512(x, _mm512_and_si512(placed, _mm512_set1_epi8(0x30)));
}

// Half a vector twice; the second time shifted right by two bits.
static inline Ints twice_shifted(const uint8_t * from) {
    const Ints both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) from));
    return _mm512_mask_srli_epi16(both, 0xffff0000, both, 2);
}

// The bytes, with 16 added where the byte's bit is set.
static inline Ints with_fifth_bit(Ints x, const uint8_t * bits) {
    uint64_t mask;
    memcpy(&mask, bits, sizeof(mask));
    return _mm512_mask_add_epi8(x, mask, x, _mm512_set1_epi8(16));
}

// In each lane: sum + the lane's four unsigned bytes of w times four signed bytes. Compilers load these by an
// instruction of their own (GCC 12): that makes a third more of them.
static inline Ints dot(Ints sum, Ints w, const int8_t * four) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4]) four));
    return sum;
}

// In each lane: sum + the lane's two shorts of w times two shorts.
static inline Ints dot_shorts(Ints sum, Ints w, int32_t two) { return _mm512_dpwssd_epi32(sum, w, ints(two)); }

static inline Floats load_floats(const float * from) { return _mm512_loadu_ps(from); }
static inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
static inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
static inline Floats over(Floats a, Floats b) { return _mm512_div_ps(a, b); }
static inline float  sum_of(Floats x) { return _mm512_reduce_add_ps(x); }
static inline float  highest_of(Floats x) { return _mm512_reduce_max_ps(x); }

// Lane i is the sum of all lanes of vector i.
static inline Floats sums_of(const Floats z[LB_LANES]) {
    Floats pairs[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        pairs[i] = plus(_mm512_unpacklo_ps(z[2 * i], z[2 * i + 1]), _mm512_unpackhi_ps(z[2 * i], z[2 * i + 1]));
    }
    Floats fours[4]; // in each quarter of a vector: the sums of four vectors' same quarter
#pragma GCC unroll 8
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]);
        const __m512d b = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i]        = plus(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    Floats eights[2];
#pragma GCC unroll 8
    for (int i = 0; i < 2; i++) {
        eights[i] = plus(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
    }
    return plus(_mm512_shuffle_f32x4(eights[0], eights[1], 0x88), _mm512_shuffle_f32x4(eights[0], eights[1], 0xdd));
}

// x in the lanes whose bit is set, −inf in the others.
static inline Floats where(uint32_t bits, Floats x) {
    return _mm512_mask_mov_ps(floats(-INFINITY), (__mmask16) bits, x);
}

// y, but 0 in the lanes where x is not above a bound.
static inline Floats where_above(Floats x, float bound, Floats y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, floats(bound), _CMP_NLE_UQ), y);
}

// A mask with the bits of the lanes that are not −inf.
static inline uint32_t finite(Floats x) { return _mm512_cmp_ps_mask(x, floats(-INFINITY), _CMP_NEQ_UQ); }

// For the lanes whose bit is set, store first + lane and the lane of x, without gaps. May write LB_LANES elements.
static inline void pick(int32_t * numbers, float * to, uint32_t bits, int32_t first, Floats x) {
    const Ints lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32((__mmask16) bits, add(ints(first), lanes)));
    store(to, _mm512_maskz_compress_ps((__mmask16) bits, x));
}

#else

using Ints   = __m256i;
using Floats = __m256;

#if defined(__AVXVNNI__)
static constexpr const char * lanes_name  = "AVX-VNNI";
static constexpr bool         takes_bytes = true;
#else
#define LB_SHORTS 1 // there is no dot(): products are added in 16 bits first (shorts.h)
static constexpr const char * lanes_name  = "AVX2";
static constexpr bool         takes_bytes = false;
#endif

static inline Ints   load(const void * from) { return _mm256_loadu_si256((const __m256i *) from); }
static inline void   store(float * to, Floats x) { _mm256_storeu_ps(to, x); }
static inline void   store(void * to, Ints x) { _mm256_storeu_si256((__m256i *) to, x); }
static inline Ints   ints(int32_t x) { return _mm256_set1_epi32(x); }
static inline Ints   add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
static inline Floats floats(float x) { return _mm256_set1_ps(x); }
static inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
static inline Floats halves(const uint8_t * from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)); }
static inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
static inline Floats times_plus(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline Ints   small_ints(const uint8_t * from) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) from));
}
static inline Ints low_product(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
static inline Ints shifted(Ints x, int32_t bits) { return _mm256_sllv_epi32(x, ints(bits)); }
static inline Ints two_shorts(Ints low, Ints high) {
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}

static inline Floats powers(const uint8_t * from) {
    const Ints bytes  = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) from));
    const Ints normal = _mm256_slli_epi32(_mm256_sub_epi32(bytes, ints(1)), 23);
    const Ints small  = _mm256_sllv_epi32(ints(0x00200000), bytes); // of the bytes 0 and 1
    return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, _mm256_cmpgt_epi32(bytes, ints(1))));
}

static inline Ints unsign(Ints x) { return _mm256_xor_si256(x, _mm256_set1_epi8((char) 0x80)); }
static inline Ints minus_bytes(Ints x, int8_t n) { return _mm256_sub_epi8(x, _mm256_set1_epi8(n)); }
static inline Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline Ints high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

static inline Ints looked_up(const uint8_t * table, Ints nibbles) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) table)), nibbles);
}

static inline Ints with_pair(Ints x, Ints pairs, int from) {
    const Ints placed = from < 4 ? _mm256_slli_epi16(pairs, 4 - from) : _mm256_srli_epi16(pairs, from - 4);
    return _mm256_or_si256(x, _mm256_and_si256(placed, _mm256_set1_epi8(0x30)));
}

static inline Ints twice_shifted(const uint8_t * from) {
    const Ints both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) from));
    return _mm256_blend_epi32(both, _mm256_srli_epi16(both, 2), 0xf0);
}

static inline Ints with_fifth_bit(Ints x, const uint8_t * bits) {
    const Ints byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const Ints bit_of  = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    int32_t    mask;
    memcpy(&mask, bits, sizeof(mask));
    const Ints spread = _mm256_and_si256(_mm256_shuffle_epi8(ints(mask), byte_of), bit_of);
    return _mm256_or_si256(x, _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(16)));
}

static inline Ints dot_shorts(Ints sum, Ints w, int32_t two) { return add(sum, _mm256_madd_epi16(w, ints(two))); }

#ifndef LB_SHORTS
static inline Ints dot(Ints sum, Ints w, const int8_t * four) {
    return _mm256_dpbusd_avx_epi32(sum, w, ints(four_bytes(four)));
}
#else
// In each 16 bits: the sum of two products of unsigned bytes of w with signed bytes.
static inline Ints pairs(Ints w, int32_t four) { return _mm256_maddubs_epi16(w, ints(four)); }

// The same for signed bytes of w.
static inline Ints signed_pairs(Ints w, int32_t four) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(ints(four), w));
}

// In each lane: the sum of its two shorts, each times that of `factors`.
static inline Ints sum_shorts(Ints x, Ints factors) { return _mm256_madd_epi16(x, factors); }
#endif

static inline Floats load_floats(const float * from) { return _mm256_loadu_ps(from); }
static inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
static inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
static inline Floats over(Floats a, Floats b) { return _mm256_div_ps(a, b); }

static inline float sum_of(Floats x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four        = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

static inline float highest_of(Floats x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four        = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

static inline Floats sums_of(const Floats z[LB_LANES]) {
    const Floats low  = _mm256_hadd_ps(_mm256_hadd_ps(z[0], z[1]), _mm256_hadd_ps(z[2], z[3]));
    const Floats high = _mm256_hadd_ps(_mm256_hadd_ps(z[4], z[5]), _mm256_hadd_ps(z[6], z[7]));
    return plus(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

static inline Floats where(uint32_t bits, Floats x) {
    const Ints bit_of = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const Ints is_set = _mm256_cmpeq_epi32(_mm256_and_si256(ints((int32_t) bits), bit_of), bit_of);
    return _mm256_blendv_ps(floats(-INFINITY), x, _mm256_castsi256_ps(is_set));
}

static inline Floats where_above(Floats x, float bound, Floats y) {
    return _mm256_and_ps(y, _mm256_cmp_ps(x, floats(bound), _CMP_NLE_UQ));
}

static inline uint32_t finite(Floats x) {
    return (uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(x, floats(-INFINITY), _CMP_NEQ_UQ));
}

static inline void pick(int32_t * numbers, float * to, uint32_t bits, int32_t first, Floats x) {
    const Ints lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    if (bits == 0xff) { // the usual case, and there is no instruction for the others
        _mm256_storeu_si256((__m256i *) numbers, add(ints(first), lanes));
        store(to, x);
        return;
    }
    alignas(32) float each[LB_LANES];
    store(each, x);
    for (; bits; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        *numbers++     = first + lane;
        *to++          = each[lane];
    }
}

#endif

// The compiler must not divide a long sum into several: their parts would not fit the registers.
static inline Ints whole(Ints sum) {
    __asm__("" : "+v"(sum));
    return sum;
}

// Lets a vector lie in memory until it is wanted, and leaves the registers to others.
template <class Vector> static inline void in_memory(Vector & x) { __asm__("" : "+m"(x)); }

#ifdef LB_SHORTS
static inline Ints add_shorts(Ints a, Ints b) { return whole(_mm256_add_epi16(a, b)); }
#endif

} // namespace llamabox

#endif
