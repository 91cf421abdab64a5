// One step of a form, and its pullback.
#pragma once
#include "unroll.h"

namespace {

template <class T> struct FormUnroll : Batch<Network<T>> {
    using Base = Batch<Network<T>>;
    using Bars = Gradients<T>;
    static constexpr int READ = 1;  // parts of a state that an affine readout sees
    using Base::a, Base::n, Base::np, Base::first, Base::rows, Base::net, Base::h, Base::u, Base::v;
    using Base::chunk, Base::p, Base::ahead;
    T *slopes = nullptr, *values = nullptr, *phi_slopes = nullptr;
    T* inner_slopes = nullptr;  // of every step, where z is kept, too: then neither is made again on the way back
    bool large = false;         // more than caches hold

    struct Sums : Base::Sums {
        OuterSum<T> dense;
        Sums(const FormUnroll& unit, T*& work)
            : Base::Sums(unit, work), dense(unit.n, unit.np, unit.np, this->bars.A, work) {}
        void flush() {
            this->affine.flush();
            if (this->bars.a.A_bar && this->bars.a.residual == DENSE) dense.flush();
        }
    };

    // f', f, phi' of every step
    static Size trace_count(const UnrollArgs& a) {
        const FormArgs& f = a.form;
        Size kinds = (f.outer.value != IDENTITY) + (f.train_coupling != 0) + (f.phi.value != IDENTITY);
        return kinds * f.steps * Base::most(a) * pad(f.n);
    }
    // numbers of a unit's tape: the gradients, and those
    static Size tape_count(const UnrollArgs& a) {
        return a.keep ? Gradients<T>::count(a.form) + trace_count(a) : 0;
    }

    using Base::Base;

    // Takes `trace_count` numbers.
    void lay(T*& memory) {
        Size size = a.form.steps * chunk * np;
        // 16 MB: a tape that will have left the caches before it is read is written past them
        large = this->units(a) * size * (Size)sizeof(T) > Size(1) << 24;
        slopes = net.outer.any() ? take(memory, size) : nullptr;
        values = a.form.train_coupling ? take(memory, size) : nullptr;
        phi_slopes = net.phi.any() ? take(memory, size) : nullptr;
    }

    // Those of a step that is taken back in the same call: takes `kept_count` more.
    static Size kept_count(const FormArgs& a) { return a.inner.value == IDENTITY ? 0 : a.steps * pad(a.n); }
    void keep(T*& memory) {
        lay(memory);
        large = false;
        if (net.inner.any()) inner_slopes = take(memory, a.form.steps * chunk * np);
    }

    void fetch_tape(Size s) const {
        const T* all[] = {slopes, values, phi_slopes};
        for (const T* trace : all)
            if (trace) ahead.add(trace + s * chunk * np, rows * np);
    }

    void fetch_kept(Size s) const {
        if (s < a.form.steps) fetch_tape(s);
        if (inner_slopes && s < a.form.steps) ahead.add(inner_slopes + s * chunk * np, rows * np);
    }

    void read(Size s) const {
        T* slope = a.keep && inner_slopes ? inner_slopes + s * chunk * np : nullptr;
        bool smooth = net.inner.value == TANH;
        if (smooth) tanh_of_all(rows * np, h, v, slope ? slope : p, false);
        for (Size j = 0; j < rows; j++) {
            T* z = u + j * net.wide;
            if (smooth || !net.inner.any()) copy_row(z, (smooth ? v : h) + j * np, np);
            else
                for (Size i = 0; i < np; i += WIDTH<T>) {
                    Jet<T> g = net.inner(load(h + j * np + i), i);
                    store(z + i, g.value);
                    if (slope) store(slope + j * np + i, g.slope);
                }
        }
    }

    void step(Size s) const {
        for (Size j = 0; j < rows; j++) net.complete(s, first + j, u + j * net.wide);
        product<T, SET>(rows, np, net.terms, {u, net.wide, 1}, net.affine, np, v, np, ahead);
        ahead.rest();
        if (net.residual.kind == DENSE) net.residual.forward(rows, h, p);
        activate_outer(s);
    }

    // From cotangents of h' to those of h, both in `h`.
    template <class Sum> void step_back(Size s, const T* before, Sum& sums) const {
        T *a_bar = sums.affine.left(), *p_bar = h, *share = p;
        bool added = false;  // whether what comes through W is added to what comes through A, already in h
        outer_back(s, h, a_bar, sums.bars);
        if (net.residual.any()) {
            bool dense = a.form.A_bar && net.residual.kind == DENSE;
            if (phi_slopes || dense) phi_back(s, h, p_bar = sums.dense.left());
            if (dense) {
                memcpy(sums.dense.right(), before, rows * np * sizeof(T));
                sums.dense.written(rows);
            } else if (a.form.A_bar) {
                net.residual.gradient(rows, p_bar, before, np, sums.bars.A);
            }
            added = !net.inner.any() && (net.residual.kind != DENSE || p_bar != h);
            net.residual.backward(rows, p_bar, added ? h : share);
        }
        if (added) product<T, ADD>(rows, np, n, {a_bar, np, 1}, net.W, np, h, np, ahead);
        else product<T, SET>(rows, np, n, {a_bar, np, 1}, net.W, np, h, np, ahead);
        ahead.rest();
        if constexpr (!Sum::KEPT) inner_back(s, before, h, sums.affine.right());
        else if (inner_slopes)
            for (Size i = 0; i < rows * np; i += WIDTH<T>)
                store(h + i, load(h + i) * load(inner_slopes + s * chunk * np + i));
        if (net.residual.any() && !added)
            for (Size i = 0; i < rows * np; i += WIDTH<T>) store(h + i, load(h + i) + load(share + i));
    }

  private:
    // h = c f(a) + phi(A h), a in `v` and A h, if A is dense, in `p`; f(a) to `v`
    void activate_outer(Size s) const {
        T* slope = a.keep && slopes ? slopes + s * chunk * np : nullptr;
        if (net.outer.value == TANH)
            tanh_of_all(rows * np, v, v, slope ? slope : u, slope && large);
        else if (net.outer.any())
            for (Size j = 0; j < rows * np; j += np)
                for (Size i = 0; i < np; i += WIDTH<T>) {
                    Jet<T> f = net.outer(load(v + j + i), i);
                    store(v + j + i, f.value);
                    if (slope) store(slope + j + i, f.slope);
                }
        if (a.keep && values) memcpy(values + s * chunk * np, v, rows * np * sizeof(T));
        for (Size j = 0; j < rows * np; j += np)
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Vec<T> f = load(v + j + i);
                if (net.coupling) f *= load(net.coupling + i);
                if (net.residual.any()) f += residual(s, j, i);
                store(h + j + i, f);
            }
    }

    INLINE Vec<T> residual(Size s, Size j, Size i) const {
        Vec<T> of_h = net.residual.kind == DENSE ? load(p + j + i) : net.residual.of(h + j, i);
        if (!net.phi.any()) return of_h;
        Jet<T> r = net.phi(of_h, i);
        if (a.keep) store(phi_slopes + s * chunk * np + j + i, r.slope);
        return r.value;
    }

    void outer_back(Size s, const T* h_bar, T* a_bar, const Gradients<T>& bars) const {
        Size slot = s * chunk * np;
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Size at = j * np + i;
                Vec<T> bar = load(h_bar + at);
                if (values) store(bars.coupling + i, load(bars.coupling + i) + bar * load(values + slot + at));
                if (slopes) bar *= load(slopes + slot + at);
                if (net.coupling) bar *= load(net.coupling + i);
                store(a_bar + at, bar);
            }
    }

    void phi_back(Size s, const T* h_bar, T* p_bar) const {
        for (Size i = 0; i < rows * np; i += WIDTH<T>)
            store(p_bar + i, phi_slopes ? load(h_bar + i) * load(phi_slopes + s * chunk * np + i) : load(h_bar + i));
    }

    // h_bar becomes the cotangent of h, and z = (g(h), x, 1) is written.
    void inner_back(Size s, const T* before, T* h_bar, T* z) const {
        for (Size j = 0; j < rows; j++, z += net.wide) {
            if (!net.inner.any()) copy_row(z, before + j * np, np);
            else
                for (Size i = 0; i < np; i += WIDTH<T>) {
                    Jet<T> g = net.inner(load(before + j * np + i), i);
                    store(z + i, g.value);
                    store(h_bar + j * np + i, load(h_bar + j * np + i) * g.slope);
                }
            net.complete(s, first + j, z);
        }
    }
};

}  // namespace
