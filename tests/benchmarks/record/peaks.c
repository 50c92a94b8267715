// What a processor can do at the most, for tests/benchmarks/record/machine.py: read memory, and multiply bytes.

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512VNNI__)
#define WAY "AVX-512 VNNI"
typedef __m512i lanes;
static lanes zero(void) { return _mm512_setzero_si512(); }
static lanes load(void const * at) { return _mm512_loadu_si512(at); }
static lanes add(lanes a, lanes b) { return _mm512_add_epi32(a, b); }
static lanes multiply(lanes sum, lanes a, lanes b) { return _mm512_dpbusd_epi32(sum, a, b); }
#elif defined(__AVX2__)
typedef __m256i lanes;
static lanes zero(void) { return _mm256_setzero_si256(); }
static lanes load(void const * at) { return _mm256_loadu_si256(at); }
static lanes add(lanes a, lanes b) { return _mm256_add_epi32(a, b); }
#if defined(__AVXVNNI__)
#define WAY "AVX-VNNI"
static lanes multiply(lanes sum, lanes a, lanes b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#else
#define WAY "AVX2"
static lanes multiply(lanes sum, lanes a, lanes b) {
    lanes const pairs = _mm256_maddubs_epi16(a, b);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
#endif

#if defined(WAY)
#define N 12 // sums side by side: more than one multiplication takes, so that none waits for the one before it

char const * peaks_way(void) { return WAY; }

static int64_t first_of(lanes sum) {
    int64_t found;
    memcpy(&found, &sum, sizeof(found));
    return found;
}

// Reads n bytes, a multiple of 1024, once. What it returns means nothing.
int64_t peaks_read(char const * at, size_t n) {
    lanes sums[4] = { zero(), zero(), zero(), zero() };
    for (char const * end = at + n; at < end; at += 4 * sizeof(lanes)) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            sums[i] = add(sums[i], load(at + i * sizeof(lanes)));
        }
    }
    return first_of(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

// Multiplies pairs of bytes and adds them up, n times N vectors of them. Returns the number of pairs.
int64_t peaks_multiply(int64_t n, char const * operands) {
    lanes a = load(operands), b = load(operands + sizeof(lanes));
    lanes sums[N];
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) {
        sums[i] = b;
    }
    for (int64_t k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < N; i++) {
            __asm__ volatile("" : "+x"(a)); // or the compiler would multiply once for all
            sums[i] = multiply(sums[i], a, b);
        }
    }
    volatile int64_t kept = 0; // so that it multiplies at all
#pragma GCC unroll 12
    for (int i = 0; i < N; i++) {
        kept += first_of(sums[i]);
    }
    return n * N * (int64_t) sizeof(lanes);
}
#endif
