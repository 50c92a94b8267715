// The product of a tile where the processor has no instruction that adds four products of bytes in 32 bits: AVX2. Two
// products are added in 16 bits, further pairs too as long as the sum fits, and only then in 32 bits. Sums are exact.
#pragma once

#include "tokens.h"

#ifdef LB_SHORTS

namespace llamabox {

// How many vectors' pairs of products are added in 16 bits: the tokens' bytes are at most 127.
static constexpr int run_of(int most) {
    const int fits = most ? INT16_MAX / (2 * 127 * most) : 1;
    return fits >= 8 ? 8 : fits >= 4 ? 4 : fits >= 2 ? 2 : 1;
}

// So many tokens take less time than the memory: then weights are asked for, so many bytes ahead of those in use.
static constexpr int FEW   = 2;
static constexpr int AHEAD = 2048;

static inline void ask_ahead(const uint8_t * weights, int first, int last) {
    for (int at = first / 64 * 64; at < last; at += 64) {
        _mm_prefetch((const char *) weights + AHEAD + at, _MM_HINT_T0);
    }
}

// The scales and minimums of a group.
template <class F> struct Opened {
    const uint8_t * group;

    explicit Opened(const uint8_t * group) : group(group) {}

    void   scales(int part, Floats to[F::n_scales]) const { F::scales(group, part, to); }
    Floats minimums(int part) const { return F::minimums(group, part); }
};

// Those of six bits are unpacked for all parts of a group at once.
template <class Block, int bits> struct Opened<Super<Block, bits>> {
    using F = Super<Block, bits>;

    Floats scale, minimum;
    alignas(32) uint8_t sixes[2][F::PARTS * LB_LANES]; // of scales, of minimums: for every part, for every row

    explicit Opened(const uint8_t * group) :
        scale(halves(group)), minimum(times(halves(group + F::MINIMUMS), floats(-1.0f))) {
        const Ints highs = load(group + F::HIGHS);
        for (int half = 0; half < 2; half++) {
            const Ints both = load(group + F::SIXES + half * VECTOR);
            store(sixes[0] + half * VECTOR, with_pair(low_nibbles(both), highs, half * 4));
            store(sixes[1] + half * VECTOR, with_pair(high_nibbles(both), highs, half * 4 + 2));
        }
    }

    void scales(int part, Floats to[1]) const {
        to[0] = times(scale, small_ints((const int8_t *) sixes[0] + part * LB_LANES));
    }

    Floats minimums(int part) const { return times(minimum, small_ints((const int8_t *) sixes[1] + part * LB_LANES)); }
};

template <> struct Opened<IQ4_XS> {
    Floats scale;
    alignas(32) uint8_t sixes[IQ4_XS::PARTS * LB_LANES]; // for every part, for every row

    explicit Opened(const uint8_t * group) : scale(halves(group)) {
        const Ints lows  = load(group + IQ4_XS::SIXES);
        const Ints few   = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (group + IQ4_XS::HIGHS)));
        const Ints highs = _mm256_blend_epi32(few, _mm256_srli_epi16(few, 2), 0xf0);
        const Ints bias  = _mm256_set1_epi8(32);
        store(sixes, _mm256_sub_epi8(with_pair(low_nibbles(lows), highs, 0), bias));
        store(sixes + VECTOR, _mm256_sub_epi8(with_pair(high_nibbles(lows), highs, 4), bias));
    }

    void scales(int part, Floats to[1]) const {
        to[0] = times(scale, small_ints((const int8_t *) sixes + part * LB_LANES));
    }
};

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
            totals[i] = ints(F::bias ? Token(rows + i * size, 0).for_bias(0, scale) : 0);
        }
#pragma GCC unroll 8
        for (int first = scale * per_scale; first < (scale + 1) * per_scale; first += run) {
            Ints shorts[few];
#pragma GCC unroll 8
            for (int v = first; v < first + run; v++) {
#pragma GCC unroll 8
                for (int i = 0; i < few; i++) {
                    const int32_t four = Token(rows + i * size, 0).four(0, v);
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
            const Floats both = times(factor, floats(Token(rows + i * size, 0).scale(0)));
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
                sums[t] = times_plus(minimum, floats(Token(rows + t * size, 0).for_minimum(0)), sums[t]);
            }
        }
    }
};

// See multiply.h.
template <class F, int count>
static void multiply_tile(const uint8_t * weights, const uint8_t * rows, int64_t n, float * dst, int64_t stride) {
    constexpr int  parts = F::columns / COLUMNS;
    const size_t   size  = token_size(n);
    Tile<F, count> tile;
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) {
        tile.sums[t] = floats(0.0f);
    }
    for (const uint8_t * end = weights + n / F::columns * F::size; weights < end; weights += F::size) {
        const Opened<F> opened(weights);
        if constexpr (parts == 1) {
            if (count <= FEW) {
                ask_ahead(weights, 0, F::size);
            }
            tile.add_part(weights, opened, 0, rows, size);
            rows += QUANTS_STEP;
        } else {
            for (int part = 0; part < parts; part += 4) { // parts are read in up to four ways
                if (count <= FEW) {
                    ask_ahead(weights, part * (F::size / parts), (part + 4) * (F::size / parts));
                }
                tile.add_part(weights, opened, part, rows, size);
                tile.add_part(weights, opened, part + 1, rows + QUANTS_STEP, size);
                tile.add_part(weights, opened, part + 2, rows + 2 * QUANTS_STEP, size);
                tile.add_part(weights, opened, part + 3, rows + 3 * QUANTS_STEP, size);
                rows += 4 * QUANTS_STEP;
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < count; t++) {
        store(dst + t * stride, tile.sums[t]);
    }
}

} // namespace llamabox

#endif
