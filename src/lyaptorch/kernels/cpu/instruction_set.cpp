// All kernels for one instruction set; compiled once for each, with
// NAME (its table), VECTOR_BYTES and REGISTERS defined on the command line.
#include "scan_adjoint.h"
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

template <class T> void reduce_scan(const ScanArgs& a, Size member) {
    Layout layout = Layout::of<T>(a);
    T* tape = (T*)a.form.tape + member * a.form.batch * layout.total;
    reduce<T>(a.form, member, tape + layout.gradients, layout.total, a.form.batch);
}

template <class T> void reduce_unroll(const UnrollArgs& a, Size member) {
    Size units = ceil_div(a.form.batch, CHUNK), size = Unroll<T>::tape_count(a);
    reduce<T>(a.form, member, (T*)a.form.tape + member * units * size, size, units);
}

template <class T> constexpr Precision precision() {
    return {
        Scan<T>::work,
        Scan<T>::tape_size,
        [](const void* args, int64_t item, void* work) { Scan<T>(*(const ScanArgs*)args, item, (T*)work).forward(); },
        [](const void* args, int64_t item, void* work) {
            ScanAdjoint<T>(*(const ScanArgs*)args, item, (T*)work).run();
        },
        Unroll<T>::work,
        Unroll<T>::tape_size,
        Unroll<T>::units,
        [](const void* args, int64_t unit, void* work) {
            T* p = (T*)work;
            Unroll<T>(*(const UnrollArgs*)args, unit, p).forward();
        },
        [](const void* args, int64_t unit, void* work) {
            T* p = (T*)work;
            Unroll<T> unroll(*(const UnrollArgs*)args, unit, p);
            unroll.adjoint(p);
        },
        [](const void* args, int64_t member, void*) { reduce_scan<T>(*(const ScanArgs*)args, member); },
        [](const void* args, int64_t member, void*) { reduce_unroll<T>(*(const UnrollArgs*)args, member); },
        peak<T>,
    };
}

}  // namespace

extern const InstructionSet NAME;
extern constexpr InstructionSet NAME = {QUOTE(NAME), precision<float>(), precision<double>()};
