// The form of one member, padded to whole blocks, and the gradients of all that is in it.
// With z = (g(h), x, 1) the argument of f is one product, a = (W | V | b) z.
#pragma once
#include "activation.h"
#include "residual.h"

namespace {

template <class T> struct Gradients;

template <class T> struct Network {
    using Number = T;
    using Bars = Gradients<T>;
    static constexpr int BLOCKS = 1;  // rows of n16 numbers in a state
    const FormArgs& a;
    Size member, n, np, terms, wide;  // terms: numbers in z; wide: padded
    T *W, *affine;                    // (n16, n16), its rows W's; (n + m + 1, n16), the transpose of (W | V | b)
    T* V;                             // (n16, m16)
    T* coupling;                      // (n16) or null
    Residual<T> residual;
    Activation<T> inner, outer, phi;

    static Size count(const FormArgs& a) {
        Size np = pad(a.n), mp = pad(a.m);
        return 2 * np * np + (2 * mp + BLOCK) * np + (a.coupling ? np : 0) + Residual<T>::count(a) +
               Activation<T>::count(a.inner, np) + Activation<T>::count(a.outer, np) +
               Activation<T>::count(a.phi, np);
    }

    // Takes `count` numbers of memory.
    Network(const FormArgs& args, Size which, T*& memory)
        : a(args), member(which), n(a.n), np(pad(n)), terms(n + a.m + 1), wide(pad(terms)),
          W(take(memory, np * np)), affine(take(memory, (np + pad(a.m) + BLOCK) * np)),
          V(take(memory, pad(a.m) * np)), coupling(a.coupling ? take(memory, np) : nullptr),
          residual(a, member, memory), inner(a.inner, member, n, memory), outer(a.outer, member, n, memory),
          phi(a.phi, member, n, memory) {
        Size m = a.m, mp = pad(m);
        copy_rows((const T*)a.W + member * n * n, n, n, W, np);
        copy_rows((const T*)a.V + member * n * m, n, m, V, mp);
        transpose(np, np, W, np, affine, np);
        transpose(np, mp, V, mp, affine + n * np, np);
        zero(affine + (n + m) * np, np);
        if (a.bias) copy_in(affine + (n + m) * np, (const T*)a.bias + member * n, n);
        if (coupling) copy_in(coupling, (const T*)a.coupling + member * n, n);
    }

    // whether anything stands between a and h'
    bool bent() const { return outer.any() || coupling; }

    // x and 1 after the n numbers of g(h); what comes then is never read
    void complete(Size step, Size trajectory, T* z) const {
        Size before = a.shared ? step : step * a.members + member;
        copy_row(z + n, (const T*)a.inputs + (before * a.batch + trajectory) * a.m, a.m);
        z[terms - 1] = 1;
    }

    // c times f and its derivatives
    INLINE Jet<T> coupled(Jet<T> f, Size i) const {
        if (!coupling) return f;
        Vec<T> c = load(coupling + i);
        return {c * f.value, c * f.slope, c * f.curvature, c * f.sharpening};
    }
};

template <class T> struct Gradients {
    const FormArgs& a;
    Size np, wide, size;
    T *affine, *A, *coupling, *inner, *outer, *phi;  // (n, wide) of (W | V | b); A as Residual; (n16) each

    static Size count(const FormArgs& a) {
        return a.n * pad(a.n + a.m + 1) + Residual<T>::gradient_count(a) + 4 * pad(a.n);
    }

    Gradients(const FormArgs& args, T* p)
        : a(args), np(pad(a.n)), wide(pad(a.n + a.m + 1)), size(count(a)), affine(take(p, a.n * wide)),
          A(take(p, Residual<T>::gradient_count(a))), coupling(take(p, np)), inner(take(p, np)),
          outer(take(p, np)), phi(take(p, np)) {}

    void clear() { zero(affine, size); }

    void scatter(Size member) const {
        Size n = a.n, m = a.m;
        for (Size i = 0; i < n; i++) {
            const T* row = affine + i * wide;
            if (a.W_bar) memcpy((T*)a.W_bar + (member * n + i) * n, row, n * sizeof(T));
            if (a.V_bar) memcpy((T*)a.V_bar + (member * n + i) * m, row + n, m * sizeof(T));
            if (a.bias_bar) ((T*)a.bias_bar)[member * n + i] = row[n + m];
        }
        if (a.A_bar) Residual<T>::scatter(a, member, A);
        void* targets[] = {a.coupling_bar, a.inner_bar, a.outer_bar, a.phi_bar};
        const T* rows[] = {coupling, inner, outer, phi};
        for (int i = 0; i < 4; i++)
            if (targets[i]) memcpy((T*)targets[i] + member * n, rows[i], n * sizeof(T));
    }
};

// The gradients of a member: the sum of its parts, `stride` numbers from one to the next, in their order.
template <class T, class Bars = Gradients<T>>
void reduce(const FormArgs& a, Size member, T* first, Size stride, Size parts) {
    Bars total(a, first);
    // always in the same order, so that no digit depends on the number of threads
    for (Size i = 1; i < parts; i++)
        for (Size j = 0; j < total.size; j += WIDTH<T>)
            store(first + j, load(first + j) + load(first + i * stride + j));
    total.scatter(member);
}

}  // namespace
