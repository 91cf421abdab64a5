// All kernels for one instruction set; compiled once for each, with
// NAME (its table), VECTOR_BYTES and REGISTERS defined on the command line.
#include "descent.h"
#include "draw.h"
#include "form_scan.h"
#include "fit.h"
#include "scan_adjoint.h"

#define QUOTE_(x) #x
#define QUOTE(x) QUOTE_(x)

namespace {

template <class T> double peak(int64_t rounds) {
    // more independent sums than are under way at once (about 4 cycles times 2 units), as product.h keeps
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

template <class T, class Stepped, class Unrolled> constexpr Precision precision() {
    return {
        Stepped::work,
        Stepped::tape_size,
        [](const void* args, int64_t item, void* work) {
            Scan<Stepped>(*(const ScanArgs*)args, item, (T*)work).forward();
        },
        [](const void* args, int64_t item, void* work) {
            ScanAdjoint<Stepped>(*(const ScanArgs*)args, item, (T*)work).run();
        },
        Unrolled::work,
        Unroll<Unrolled>::tape_size,
        Unrolled::units,
        [](const void* args, int64_t unit, void* work) {
            T* p = (T*)work;
            Unroll<Unrolled>(*(const UnrollArgs*)args, unit, p).forward();
        },
        [](const void* args, int64_t unit, void* work) {
            T* p = (T*)work;
            Unroll<Unrolled> unroll(*(const UnrollArgs*)args, unit, p);
            unroll.adjoint(p);
        },
        Fit<Unrolled>::work,
        Fit<Unrolled>::tape_size,
        [](const void* args, int64_t unit, void* work) {
            T* p = (T*)work;
            Fit<Unrolled> fit(*(const FitArgs*)args, unit, p);
            fit.run(p);
        },
        [](const void* args, int64_t member, void*) {
            const ScanArgs& a = *(const ScanArgs*)args;
            Size size = Stepped::tape_count(a), before = size - Gradients<T>::count(a.form);
            T* tape = (T*)a.form.tape + member * a.form.batch * size;
            reduce<T>(a.form, member, tape + before, size, a.form.batch);
        },
        [](const void* args, int64_t member, void*) {
            const UnrollArgs& a = *(const UnrollArgs*)args;
            Size units = ceil_div(a.form.batch, CHUNK), size = Unrolled::tape_count(a);
            T* tape = (T*)a.form.tape + member * units * size;
            reduce<T, typename Unrolled::Bars>(a.form, member, tape, size, units);
        },
        [](const void* args, int64_t member, void*) { conclude<Unrolled>(*(const FitArgs*)args, member); },
        peak<T>,
    };
}

template <class T>
constexpr Common common = {
    [](const void* args, int64_t member, void*) { Descent<T>{*(const DescentArgs*)args, member}.measure(); },
    [](const void* args, int64_t member, void*) { Descent<T>{*(const DescentArgs*)args, member}.move(); },
    Drawing<T>::units,
    [](const void* args, int64_t unit, void*) { Drawing<T>{*(const DrawArgs*)args}.run(unit); },
};

template <class T> constexpr Precision of_forms = precision<T, FormScan<T>, FormUnroll<T>>();
template <class T> constexpr Precision of_neurons = precision<T, LifScan<T>, LifUnroll<T>>();

// No scans of gated networks: the Python side refuses their frames.
constexpr Precision without_scans(Precision p) {
    p.scan_work = p.scan_tape = nullptr;
    p.scan_forward = p.scan_adjoint = p.scan_reduce = nullptr;
    return p;
}
template <class T, int KIND>
constexpr Precision of_gates = without_scans(precision<T, FormScan<T>, GateUnroll<T, KIND>>());

}  // namespace

extern const InstructionSet NAME;
extern constexpr InstructionSet NAME = {
    QUOTE(NAME), {of_forms<float>, of_forms<double>}, {of_neurons<float>, of_neurons<double>},
    {of_gates<float, GRU>, of_gates<double, GRU>}, {of_gates<float, LSTM>, of_gates<double, LSTM>},
    {common<float>, common<double>}};
