// How weights lie in memory for the kernels: LB_LANES rows side by side, one of ggml's blocks of each row. Such a group
// holds each row's scales; the minimums, where the type has them; then the quants, in vectors of four columns of every
// row, 8 vectors to 32 columns. Nibbles, single bits and scales of six bits stay packed: the time of a step goes into
// reading memory, and a packed matrix is no larger than the file's.
//
// A format defines how its groups are made and read: weight = scale · (quant − bias) + minimum. Quants are unsigned and
// `most` at most; where `most` is 0 they are signed. Where the bits of a quant lie in two places, too far from each
// other for one stream of reading, the format `is_apart`.
#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-impl.h"
#include "lanes.h"

#ifdef LB_LANES

namespace llamabox {

static constexpr int COLUMNS = 32; // columns that share a scale of a token, and mostly one of the weights
static constexpr int VECTORS = COLUMNS / 4;
static constexpr int VECTOR  = LB_LANES * 4; // bytes
static constexpr int HALVES  = LB_LANES * 2; // bytes of a 16-bit number for each row
static constexpr int BITS    = VECTOR / 8;   // bytes that hold a bit for each byte of a vector

// Whether weights have blocks of 256 columns.
template <class F> static constexpr bool is_wide = F::columns > COLUMNS;

// ---- writing -----------------------------------------------------------------------------------------------------

// Write the bytes of a row, four of them into each vector.
static inline void put_bytes(uint8_t * to, int row, const void * from, int n) {
    for (int i = 0; i < n / 4; i++) {
        memcpy(to + i * VECTOR + row * 4, (const uint8_t *) from + i * 4, 4);
    }
}

static inline void put_half(uint8_t * to, int row, const void * half) { memcpy(to + 2 * row, half, 2); }

// Write a few bits of a byte.
static inline void put_few(uint8_t & byte, int shift, int mask, int bits) {
    byte = (uint8_t) ((byte & ~(mask << shift)) | bits << shift);
}

// Write a bit for each of 32 columns, the first column's in the lowest bit.
static inline void put_bits(uint8_t * to, int row, uint32_t bits) {
    for (int i = 0; i < VECTORS; i++) {
        // This row and its neighbour share a byte.
        put_few(to[i * BITS + row / 2], row % 2 * 4, 15, bits >> i * 4 & 15);
    }
}

// ---- reading -----------------------------------------------------------------------------------------------------

// Weights of eight bits are signed in files. dot() takes them unsigned; where it cannot, they stay signed.
static constexpr int BYTES_BIAS = takes_bytes ? 128 : 0;
// The largest quant of such a type: where it is 0, they are signed.
static constexpr int BYTES_MOST = takes_bytes ? 255 : 0;

// Values of the nibbles of IQ4_NL and IQ4_XS (kvalues_iq4nl of ggml-common.h), plus BYTES_BIAS.
static constexpr uint8_t curved(int value) { return (uint8_t) (value + BYTES_BIAS); }
static constexpr uint8_t CURVE[16] = { curved(-127), curved(-104), curved(-83), curved(-65), curved(-49), curved(-35),
                                       curved(-22),  curved(-10),  curved(1),   curved(13),  curved(25),  curved(38),
                                       curved(53),   curved(69),   curved(89),  curved(113) };

// Values of the nibbles of MXFP4 times two (kvalues_mxfp4), plus FLOAT_BIAS.
static constexpr int     FLOAT_BIAS = 12;
static constexpr uint8_t FLOATS[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };

// Vector i of 32 columns whose nibbles hold columns c and c + 16.
static inline Ints nibbles_of(const uint8_t * from, int i) {
    const Ints both = load(from + i % 4 * VECTOR);
    return i < 4 ? low_nibbles(both) : high_nibbles(both);
}

// ---- blocks of 32 columns: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL ----------------------------------------------------

// Nibbles hold columns c and c + 16, as in ggml's blocks.
template <class Block_, int bits, int bias_, bool has_min_, bool is_curved = false> struct Plain {
    using Block = Block_;

    static constexpr int  columns  = COLUMNS;
    static constexpr int  bias     = bias_;
    static constexpr int  most     = bits == 8 || is_curved ? BYTES_MOST : (1 << bits) - 1;
    static constexpr bool has_min  = has_min_;
    static constexpr bool is_apart = false;
    static constexpr int  n_scales = 1;
    static constexpr int  MINIMUMS = HALVES;
    static constexpr int  FIFTHS   = MINIMUMS + (has_min ? HALVES : 0);
    static constexpr int  QUANTS   = FIFTHS + (bits == 5 ? VECTORS * BITS : 0);
    static constexpr int  size     = QUANTS + VECTORS * VECTOR / (bits == 8 ? 1 : 2);

    static void pack(uint8_t * to, int row, const Block & block) {
        const auto * bytes = (const uint8_t *) &block; // every block begins with its scale, then its minimum
        put_half(to, row, bytes);
        if constexpr (has_min) {
            put_half(to + MINIMUMS, row, bytes + 2);
        }
        if constexpr (bits == 5) {
            uint32_t fifths;
            memcpy(&fifths, block.qh, sizeof(fifths));
            put_bits(to + FIFTHS, row, fifths);
        }
        put_bytes(to + QUANTS, row, block.qs, sizeof(block.qs));
    }

    static Floats scales(const uint8_t * group) { return halves(group); }
    static Floats minimums(const uint8_t * group) { return halves(group + MINIMUMS); }

    static void quants(const uint8_t * group, int, Ints w[VECTORS]) {
        for (int i = 0; i < VECTORS; i++) {
            if constexpr (bits == 8) {
                w[i] = load(group + QUANTS + i * VECTOR);
                w[i] = takes_bytes ? unsign(w[i]) : w[i];
            } else {
                w[i] = nibbles_of(group + QUANTS, i);
            }
            if constexpr (bits == 5) {
                w[i] = with_fifth_bit(w[i], group + FIFTHS + i * BITS);
            }
            if constexpr (is_curved) {
                w[i] = looked_up(CURVE, w[i]);
            }
        }
    }
};

using Q4_0 = Plain<block_q4_0, 4, 8, false>;
using Q4_1 = Plain<block_q4_1, 4, 0, true>;
using Q5_0 = Plain<block_q5_0, 5, 16, false>;
using Q5_1 = Plain<block_q5_1, 5, 0, true>;
using Q8_0 = Plain<block_q8_0, 8, BYTES_BIAS, false>;

using IQ4_NL = Plain<block_iq4_nl, 4, BYTES_BIAS, false, true>;

// ---- MXFP4 -------------------------------------------------------------------------------------------------------

// 32 columns with one exponent of a power of two.
struct MXFP4 {
    using Block = block_mxfp4;

    static constexpr int  columns  = COLUMNS;
    static constexpr int  bias     = FLOAT_BIAS;
    static constexpr int  most     = 2 * FLOAT_BIAS;
    static constexpr bool has_min  = false;
    static constexpr bool is_apart = false;
    static constexpr int  n_scales = 1;
    static constexpr int  QUANTS   = LB_LANES;
    static constexpr int  size     = QUANTS + VECTORS * VECTOR / 2;

    static void pack(uint8_t * to, int row, const Block & block) {
        to[row] = block.e;
        put_bytes(to + QUANTS, row, block.qs, sizeof(block.qs));
    }

    static Floats scales(const uint8_t * group) { return powers(group); }

    static void quants(const uint8_t * group, int, Ints w[VECTORS]) {
        for (int i = 0; i < VECTORS; i++) {
            w[i] = looked_up(FLOATS, nibbles_of(group + QUANTS, i));
        }
    }
};

// ---- blocks of 256 columns: Q4_K, Q5_K -----------------------------------------------------------------------------

// Eight times 32 columns, each with a scale and a minimum of six bits. Nibbles hold columns c and c + 32 of 64, as in
// ggml's blocks. A byte has the low four bits of a scale and a minimum, another the high two of those of parts p and
// p + 4; all of a group are unpacked together (opened.h).
template <class Block_, int bits> struct Super {
    using Block = Block_;

    static constexpr int  columns  = QK_K;
    static constexpr int  bias     = 0;
    static constexpr int  most     = (1 << bits) - 1;
    static constexpr bool has_min  = true;
    static constexpr bool is_apart = bits == 5;
    static constexpr int  n_scales = 1;
    static constexpr int  PARTS    = QK_K / COLUMNS;
    static constexpr int  MINIMUMS = HALVES;
    static constexpr int  SIXES    = MINIMUMS + HALVES;
    static constexpr int  HIGHS    = SIXES + PARTS * LB_LANES;
    static constexpr int  FIFTHS   = HIGHS + PARTS / 2 * LB_LANES;
    static constexpr int  QUANTS   = FIFTHS + (bits == 5 ? PARTS * VECTORS * BITS : 0);
    static constexpr int  size     = QUANTS + PARTS * VECTORS * VECTOR / 2;

    // As get_scale_min_k4() of ggml-quants.c.
    static uint8_t six(const uint8_t * packed, int part, bool minimum) {
        const int at = part + (minimum ? 4 : 0);
        if (part < 4) {
            return packed[at] & 63;
        }
        const uint8_t low = minimum ? packed[part + 4] >> 4 : packed[part + 4] & 15;
        return (uint8_t) (low | packed[minimum ? part : part - 4] >> 6 << 4);
    }

    static void put_sixes(uint8_t * to, int row, int part, uint8_t scale, uint8_t minimum) {
        to[SIXES + part * LB_LANES + row] = (uint8_t) ((scale & 15) | (minimum & 15) << 4);
        put_few(to[HIGHS + part % 4 * LB_LANES + row], part / 4 * 4, 15, scale >> 4 | minimum >> 4 << 2);
    }

    static void pack(uint8_t * to, int row, const Block & block) {
        const auto * bytes = (const uint8_t *) &block;
        put_half(to, row, bytes);
        put_half(to + MINIMUMS, row, bytes + 2);
        for (int part = 0; part < PARTS; part++) {
            put_sixes(to, row, part, six(block.scales, part, false), six(block.scales, part, true));
            if constexpr (bits == 5) {
                uint32_t fifths = 0;
                for (int column = 0; column < COLUMNS; column++) {
                    fifths |= (uint32_t) (block.qh[column] >> part & 1) << column;
                }
                put_bits(to + FIFTHS + part * VECTORS * BITS, row, fifths);
            }
        }
        put_bytes(to + QUANTS, row, block.qs, sizeof(block.qs));
    }

    static void quants(const uint8_t * group, int part, Ints w[VECTORS]) {
        for (int i = 0; i < VECTORS; i++) {
            const Ints both = load(group + QUANTS + (part / 2 * VECTORS + i) * VECTOR);
            w[i]            = part % 2 ? high_nibbles(both) : low_nibbles(both);
            if constexpr (bits == 5) {
                w[i] = with_fifth_bit(w[i], group + FIFTHS + (part * VECTORS + i) * BITS);
            }
        }
    }
};

using Q4_K = Super<block_q4_K, 4>;
using Q5_K = Super<block_q5_K, 5>;

// ---- IQ4_XS ------------------------------------------------------------------------------------------------------

// Eight times 32 columns, each with a scale of six bits. Nibbles hold columns c and c + 16 of 32, as in ggml's blocks.
// The scales' low four bits of parts p and p + 4 share a byte, and the high two of parts p, p + 2, p + 4 and p + 6
// another; all of a group are unpacked together (opened.h).
struct IQ4_XS {
    using Block = block_iq4_xs;

    static constexpr int  columns  = QK_K;
    static constexpr int  bias     = BYTES_BIAS;
    static constexpr int  most     = BYTES_MOST;
    static constexpr bool has_min  = false;
    static constexpr bool is_apart = false;
    static constexpr int  n_scales = 1;
    static constexpr int  PARTS    = QK_K / COLUMNS;
    static constexpr int  SIXES    = HALVES;
    static constexpr int  HIGHS    = SIXES + PARTS / 2 * LB_LANES;
    static constexpr int  QUANTS   = HIGHS + PARTS / 4 * LB_LANES;
    static constexpr int  PART     = VECTORS * VECTOR / 2; // bytes of a part's quants
    static constexpr int  size     = QUANTS + PARTS * PART;

    static void pack(uint8_t * to, int row, const Block & block) {
        put_half(to, row, &block.d);
        for (int part = 0; part < PARTS; part++) {
            const int low  = block.scales_l[part / 2] >> part % 2 * 4 & 15;
            const int high = block.scales_h >> part * 2 & 3;
            put_few(to[SIXES + part % 4 * LB_LANES + row], part / 4 * 4, 15, low);
            put_few(to[HIGHS + part % 2 * LB_LANES + row], part / 2 * 2, 3, high);
        }
        put_bytes(to + QUANTS, row, block.qs, sizeof(block.qs));
    }

    static void quants(const uint8_t * group, int part, Ints w[VECTORS]) {
        for (int i = 0; i < VECTORS; i++) {
            w[i] = looked_up(CURVE, nibbles_of(group + QUANTS + part * PART, i));
        }
    }
};

// ---- Q6_K --------------------------------------------------------------------------------------------------------

// Sixteen times 16 columns, each with a scale of eight bits. Of 128 columns the low four bits of c and c + 64 share a
// byte, and the high two of c, c + 32, c + 64 and c + 96, as in ggml's blocks; both lie together.
struct Q6_K {
    using Block = block_q6_K;

    static constexpr int  columns  = QK_K;
    static constexpr int  bias     = 32;
    static constexpr int  most     = 63;
    static constexpr bool has_min  = false;
    static constexpr bool is_apart = true;
    static constexpr int  n_scales = 2; // one for columns 0 to 15, one for 16 to 31
    static constexpr int  PARTS    = QK_K / COLUMNS;
    static constexpr int  EIGHTS   = HALVES; // for every part: two scales of each row
    static constexpr int  PAIRS    = EIGHTS + PARTS * 2 * LB_LANES;
    static constexpr int  QUANTS   = PAIRS + VECTORS * VECTOR;
    static constexpr int  HALF     = 3 * VECTORS * VECTOR; // bytes of 128 columns
    static constexpr int  size     = PAIRS + 2 * HALF;

    static void pack(uint8_t * to, int row, const Block & block) {
        put_half(to, row, &block.d);
        for (int i = 0; i < QK_K / 16; i++) {
            to[EIGHTS + i * LB_LANES + row] = (uint8_t) block.scales[i];
        }
        for (int half = 0; half < 2; half++, to += HALF) {
            put_bytes(to + PAIRS, row, block.qh + half * 32, 32);
            put_bytes(to + QUANTS, row, block.ql + half * 64, 64);
        }
    }

    static void quants(const uint8_t * group, int part, Ints w[VECTORS]) {
        const int       quarter = part % 4; // a quarter of 128 columns
        const uint8_t * half    = group + part / 4 * HALF;
        for (int i = 0; i < VECTORS; i++) {
            const Ints both  = load(half + QUANTS + (quarter % 2 * VECTORS + i) * VECTOR);
            const Ints pairs = load(half + PAIRS + i * VECTOR);
            w[i]             = with_pair(quarter < 2 ? low_nibbles(both) : high_nibbles(both), pairs, quarter * 2);
        }
    }
};

} // namespace llamabox

#endif
