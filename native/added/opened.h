// The scales and minimums of a group of packed weights. Those of six bits are unpacked for all parts of it at once.
#pragma once

#include "packed.h"

#ifdef LB_LANES

namespace llamabox {

template <class F> struct Opened {
    const uint8_t * group;

    explicit Opened(const uint8_t * group) : group(group) {}

    void   scales(int part, Floats to[F::n_scales]) const { F::scales(group, part, to); }
    Floats minimums(int part) const { return F::minimums(group, part); }
};

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

    void scales(int part, Floats to[1]) const {
        to[0] = times(scale, small_ints((const int8_t *) sixes[0] + part * LB_LANES));
    }

    Floats minimums(int part) const { return times(minimum, small_ints((const int8_t *) sixes[1] + part * LB_LANES)); }
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

    void scales(int part, Floats to[1]) const {
        to[0] = times(scale, small_ints((const int8_t *) sixes + part * LB_LANES));
    }
};

} // namespace llamabox

#endif
