// Numbers of counter-based streams, as _random.py defines them, to the bit.
#pragma once
#include "abi.h"
#include "vector.h"

namespace {

enum Drawn { BITS = 0, UNIFORM = 1, COINS = 2, MIDPOINTS = 3 };

using Word = uint64_t;

// the finaliser of splitmix64 and its step
INLINE Word scramble(Word z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
INLINE Word mix(Word z) { return scramble(z + 0x9E3779B97F4A7C15u); }

INLINE float number(Word z, float) { return (float)(int32_t)(z >> 40) * 0x1p-24f; }
INLINE double number(Word z, double) { return (double)(int64_t)(z >> 11) * 0x1p-53; }

template <class T> struct Drawing {
    const DrawArgs& a;

    // A unit is some rows of a member: always the same ones, whatever the number of threads.
    static Size rows(const DrawArgs& a) { return a.row < 4096 ? 4096 / (a.row + 1) + 1 : 1; }
    static Size units(const DrawArgs& a) { return a.members * ((a.outer + rows(a) - 1) / rows(a)); }

    void run(Size unit) const {
        switch (a.kind) {
            case BITS: return each<int64_t>(unit, [](Word z) { return (int64_t)z; });
            case UNIFORM: return each<T>(unit, [](Word z) { return number(z, T()); });
            case COINS: return each<T>(unit, [](Word z) { return (T)(int32_t)(z >> 63); });
            default:
                return each<double>(unit, [](Word z) { return ((double)(int64_t)(z >> 12) + 0.5) * 0x1p-52; });
        }
    }

  private:
    template <class N, class F> INLINE void each(Size unit, F f) const {
        const Size member = unit % a.members, from = unit / a.members * rows(a), to = least(from + rows(a), a.outer);
        const Word epoch = (Word)(a.epochs ? a.epochs[member] : a.epoch);
        const Word key = mix(mix((Word)a.key + (Word)a.ids[member]) + epoch);
        for (Size s = from; s < to; s++) {
            N* out = (N*)a.out + (s * a.members + member) * a.row;
            const Word index = key + (Word)(s * a.row);
            for (Size j = 0; j < a.row; j++) out[j] = f(scramble(scramble(index + (Word)j) + key));
        }
    }
};

}  // namespace
