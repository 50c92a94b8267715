// The scales and minimums of a group of packed weights. Those of six bits are unpacked for all parts of it at once.
#pragma once

#include "packed.h"

#ifdef LB_LANES

namespace llamabox {

// What the products of 32 columns are multiplied with: of wide weights whole numbers, one for each 32 or 16 columns.
template <class F, bool wide = is_wide<F>> struct Factors {
    Floats scale, minimum;
};

template <class F> struct Factors<F, true> {
    Ints each[F::n_scales];
};

// Of weights in blocks of 32 columns.
template <class F> struct Opened {
    const uint8_t * group;

    explicit Opened(const uint8_t * group) : group(group) {}

    Factors<F> factors(int) const {
        if constexpr (F::has_min) {
            return { F::scales(group), F::minimums(group) };
        } else {
            return { F::scales(group), floats(0.0f) };
        }
    }
};

// Of wide weights: in every row the parts' scales are whole numbers times `scale`, their minimums whole
// numbers times `minimum`, which has the opposite sign.
template <class Block, int bits> struct Opened<Super<Block, bits>> {
    using F = Super<Block, bits>;

    Floats scale, minimum;
    alignas(VECTOR) uint8_t sixes[2][F::PARTS * LB_LANES]; // of scales, of minimums: for every part, for every row

    explicit Opened(const uint8_t * group) :
        scale(halves(group)), minimum(times(halves(group + F::MINIMUMS), floats(-1.0f))) {
        const Ints highs = load(group + F::HIGHS);
        for (int half = 0; half < 2; half++) {
            const Ints both = load(group + F::SIXES + half * VECTOR);
            store(sixes[0] + half * VECTOR, with_pair(low_nibbles(both), highs, half * 4));
            store(sixes[1] + half * VECTOR, with_pair(high_nibbles(both), highs, half * 4 + 2));
        }
    }

    Factors<F> factors(int part) const { return { { small_ints(sixes[0] + part * LB_LANES) } }; }

    // The whole minimums of two parts, as shorts.
    Ints minimums(int part) const {
        const uint8_t * from = sixes[1] + part * LB_LANES;
        return two_shorts(small_ints(from), small_ints(from + LB_LANES));
    }
};

template <> struct Opened<IQ4_XS> {
    Floats scale;
    alignas(VECTOR) uint8_t sixes[IQ4_XS::PARTS * LB_LANES]; // for every part, for every row

    explicit Opened(const uint8_t * group) : scale(halves(group)) {
        const Ints lows  = load(group + IQ4_XS::SIXES);
        const Ints highs = twice_shifted(group + IQ4_XS::HIGHS);
        store(sixes, minus_bytes(with_pair(low_nibbles(lows), highs, 0), 32));
        store(sixes + VECTOR, minus_bytes(with_pair(high_nibbles(lows), highs, 4), 32));
    }

    Factors<IQ4_XS> factors(int part) const { return { { small_ints(sixes + part * LB_LANES) } }; }
};

template <> struct Opened<Q6_K> {
    Floats          scale;
    const uint8_t * eights;

    explicit Opened(const uint8_t * group) : scale(halves(group)), eights(group + Q6_K::EIGHTS) {}

    Factors<Q6_K> factors(int part) const {
        const uint8_t * from = eights + part * 2 * LB_LANES;
        return { { small_ints(from), small_ints(from + LB_LANES) } };
    }
};

} // namespace llamabox

#endif
