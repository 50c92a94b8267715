// The vector unit, under the few names that the kernels need: N lanes of 32 bits each, a row of the weights in each
// lane. With AVX-512 VNNI there are 16, with AVX2 8. LB_LANES is not defined where there is neither.
#pragma once

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

// Four bytes of a token, which every lane multiplies with its own four.
static inline int32_t four_bytes(const int8_t * from) {
    int32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

#if LB_LANES == 16

using Ints   = __m512i;
using Floats = __m512;

static constexpr const char * lanes_name  = "AVX-512 VNNI";
static constexpr bool         takes_bytes = true; // whether dot() is exact for weights above 127

static inline Ints   load(const void * from) { return _mm512_loadu_si512(from); }
static inline void   store(float * to, Floats x) { _mm512_storeu_ps(to, x); }
static inline Ints   ints(int32_t x) { return _mm512_set1_epi32(x); }
static inline Ints   add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
static inline Floats floats(float x) { return _mm512_set1_ps(x); }
static inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
static inline Floats halves(const uint8_t * from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from)); }
static inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline Floats times_plus(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline Floats small_ints(const int8_t * from) { return to_floats(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) from))); }
static inline Ints   unsign(Ints x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char) 0x80)); }
static inline Ints   low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline Ints   high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }

// Two bits of each byte of `pairs`, which begin at bit `from`, above the nibbles x.
static inline Ints with_pair(Ints x, Ints pairs, int from) {
    const Ints placed = from < 4 ? _mm512_slli_epi16(pairs, 4 - from) : _mm512_srli_epi16(pairs, from - 4);
    return _mm512_or_si512(x, _mm512_and_si512(placed, _mm512_set1_epi8(0x30)));
}

// 16 where the byte's bit is set, and the byte.
static inline Ints with_fifth_bit(Ints x, const uint8_t * bits) {
    uint64_t mask;
    memcpy(&mask, bits, sizeof(mask));
    return _mm512_mask_add_epi8(x, mask, x, _mm512_set1_epi8(16));
}

// Each lane: sum + its four unsigned bytes of w times four signed bytes.
static inline Ints dot(Ints sum, Ints w, int32_t four) { return _mm512_dpbusd_epi32(sum, w, ints(four)); }

#else

using Ints   = __m256i;
using Floats = __m256;

#if defined(__AVXVNNI__)
static constexpr const char * lanes_name  = "AVX-VNNI";
static constexpr bool         takes_bytes = true;
#else
static constexpr const char * lanes_name  = "AVX2";
static constexpr bool         takes_bytes = false; // two products of such bytes do not fit the 16 bits they are added in
#endif

static inline Ints   load(const void * from) { return _mm256_loadu_si256((const __m256i *) from); }
static inline void   store(float * to, Floats x) { _mm256_storeu_ps(to, x); }
static inline Ints   ints(int32_t x) { return _mm256_set1_epi32(x); }
static inline Ints   add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
static inline Floats floats(float x) { return _mm256_set1_ps(x); }
static inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
static inline Floats halves(const uint8_t * from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)); }
static inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
static inline Floats times_plus(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline Floats small_ints(const int8_t * from) { return to_floats(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) from))); }
static inline Ints   unsign(Ints x) { return _mm256_xor_si256(x, _mm256_set1_epi8((char) 0x80)); }
static inline Ints   low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline Ints   high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

static inline Ints with_pair(Ints x, Ints pairs, int from) {
    const Ints placed = from < 4 ? _mm256_slli_epi16(pairs, 4 - from) : _mm256_srli_epi16(pairs, from - 4);
    return _mm256_or_si256(x, _mm256_and_si256(placed, _mm256_set1_epi8(0x30)));
}

static inline Ints with_fifth_bit(Ints x, const uint8_t * bits) {
    const Ints byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const Ints bit_of  = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    int32_t    mask;
    memcpy(&mask, bits, sizeof(mask));
    const Ints spread = _mm256_and_si256(_mm256_shuffle_epi8(ints(mask), byte_of), bit_of);
    return _mm256_or_si256(x, _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(16)));
}

static inline Ints dot(Ints sum, Ints w, int32_t four) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, w, ints(four));
#else
    return add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, ints(four)), _mm256_set1_epi16(1)));
#endif
}

#endif

}  // namespace llamabox

#endif
