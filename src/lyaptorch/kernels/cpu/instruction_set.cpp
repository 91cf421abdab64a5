// All kernels for one instruction set; compiled once for each, with
// NAME (its table), VECTOR_BYTES and REGISTERS defined on the command line.
#include "scan.h"
#include "unroll.h"

#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)

namespace {

template <class T> double peak(int64_t rounds) {
    constexpr int CHAINS = REGISTERS == 32 ? 24 : 12;
    Vec<T> total[CHAINS], x = splat<T>((T)0.999), y = splat<T>((T)1e-3);
    UNROLL
    for (int i = 0; i < CHAINS; i++) total[i] = splat<T>((T)i);
    for (int64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) total[i] = total[i] * x + y;
    }
    Vec<T> all = Vec<T>{};
    UNROLL
    for (int i = 0; i < CHAINS; i++) all += total[i];
    volatile T sink = sum<T>(all);
    (void)sink;
    return 2.0 * CHAINS * WIDTH<T> * (double)rounds;
}

template <class T> const ScanArgs& scan_of(const void* args) { return *(const ScanArgs*)args; }
template <class T> Unroll<T> unroll_of(const void* args) { return Unroll<T>(*(const UnrollArgs*)args); }

template <class T> constexpr Precision precision() {
    return {
        Scan<T>::work,
        [](const void* args, int64_t item, void* work) { Scan<T>(scan_of<T>(args), item, work).forward(); },
        [](const void* args, int64_t item, void* work) { Scan<T>(scan_of<T>(args), item, work).adjoint(); },
        [](const void* args, int64_t member, void*) { reduce<T>(scan_of<T>(args), member); },
        Unroll<T>::work,
        Unroll<T>::units,
        Unroll<T>::weight_units,
        [](const void* args, int64_t unit, void* work) { unroll_of<T>(args).forward(unit, (T*)work); },
        [](const void* args, int64_t unit, void* work) { unroll_of<T>(args).adjoint(unit, (T*)work); },
        [](const void* args, int64_t unit, void* work) { unroll_of<T>(args).weight(unit, (T*)work); },
        peak<T>,
    };
}

}  // namespace

extern const InstructionSet NAME;
extern constexpr InstructionSet NAME = {QUOTE(NAME), precision<float>(), precision<double>()};
