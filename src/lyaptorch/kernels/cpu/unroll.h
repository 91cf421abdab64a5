// The states of a form and backpropagation through time. A unit of work is a few trajectories of one member:
// always the same ones, whatever the number of threads.
#pragma once
#include "network.h"

namespace {

constexpr Size CHUNK = 8, DEPTH = 256;

INLINE Size ceil_div(Size a, Size b) { return (a + b - 1) / b; }

// A sum of outer products left^T right, DEPTH rows at a time.
template <class T> struct OuterSum {
    Size height, width, ld, filled = 0;
    T *lefts, *rights, *total;  // rows of left: ld numbers

    static Size count(Size ld, Size width) { return DEPTH * (ld + width); }
    OuterSum(Size rows, Size ld_left, Size columns, T* to, T*& memory)
        : height(rows), width(columns), ld(ld_left), lefts(take(memory, DEPTH * ld)),
          rights(take(memory, DEPTH * width)), total(to) {}

    T* left() { return lefts + filled * ld; }
    T* right() { return rights + filled * width; }

    // whoever has written `rows` rows says so; CHUNK more must always fit
    void written(Size rows) {
        filled += rows;
        if (filled + CHUNK > DEPTH) flush();
    }
    void flush() {
        product<T, ADD>(height, width, filled, {lefts, 1, ld}, rights, width, total, width);
        filled = 0;
    }
};

template <class T> struct Unroll {
    const UnrollArgs& a;
    Size n, np, items, member, first, rows;  // first: of the unit's trajectories, within the member
    Network<T> net;
    T *tape, *slopes, *values, *phi_slopes, *gradients, *h, *u, *v, *p;
    Size kept;  // numbers a step keeps of each kind

    static Size units(const UnrollArgs& a) { return a.form.members * ceil_div(a.form.batch, CHUNK); }

    // numbers of a unit's tape: c f', f, phi' of every step, and the gradients
    static Size tape_count(const UnrollArgs& a) {
        const FormArgs& f = a.form;
        Size kinds = (f.outer.value != IDENTITY) + (f.train_coupling != 0) + (f.phi.value != IDENTITY);
        return a.keep ? Gradients<T>::count(f) + kinds * f.steps * CHUNK * pad(f.n) : 0;
    }
    static Size tape_size(const UnrollArgs& a) { return units(a) * tape_count(a) * (Size)sizeof(T); }

    static Size work(const UnrollArgs& a) {
        Size np = pad(a.form.n), wide = pad(a.form.n + a.form.m + 1);
        return (Network<T>::count(a.form) + CHUNK * (3 * np + wide + pad(a.form.m)) +
                OuterSum<T>::count(np, wide) + OuterSum<T>::count(np, np)) * (Size)sizeof(T);
    }

    Unroll(const UnrollArgs& args, Size unit, T*& work)
        : a(args), n(a.form.n), np(pad(n)), items(a.form.members * a.form.batch),
          member(unit / ceil_div(a.form.batch, CHUNK)), first(unit % ceil_div(a.form.batch, CHUNK) * CHUNK),
          rows(least(CHUNK, a.form.batch - first)), net(a.form, member, work), kept(a.form.steps * CHUNK * np) {
        tape = (T*)a.form.tape + unit * tape_count(a);
        gradients = tape, tape += a.keep ? Gradients<T>::count(a.form) : 0;
        slopes = net.outer.any() ? take(tape, kept) : nullptr;
        values = a.form.train_coupling ? take(tape, kept) : nullptr;
        phi_slopes = net.phi.any() ? take(tape, kept) : nullptr;
        h = take(work, CHUNK * np), u = take(work, CHUNK * net.wide), v = take(work, CHUNK * np);
        p = take(work, CHUNK * np);
    }

    void forward() const {
        rows_in((const T*)a.form.h0, 0, h);
        for (Size s = 0; s < a.form.steps; s++) {
            for (Size j = 0; j < rows; j++) {
                activate(net.inner, h + j * np, u + j * net.wide);
                net.complete(s, first + j, u + j * net.wide);
            }
            product<T, SET>(rows, np, net.terms, {u, net.wide, 1}, net.affine, np, v, np);
            if (net.residual.any()) net.residual.forward(rows, h, p);
            for (Size j = 0; j < rows; j++) activate_outer(s * CHUNK + j, j * np);
            rows_out(h, s, (T*)a.states);
        }
    }

    // Takes the scratch that the constructor left.
    void adjoint(T* work) {
        Gradients<T> bars(a.form, gradients);
        bars.clear();
        OuterSum<T> affine(n, np, net.wide, bars.affine, work), dense(n, np, np, bars.A, work);
        T *h_bar = h, *before = v, *share = p, *x_bar = work;
        bool of_A = a.form.A_bar;
        zero(h_bar, rows * np);
        for (Size s = a.form.steps - 1; s >= 0; s--) {
            add_rows((const T*)a.states_bar, s, h_bar);
            T *a_bar = affine.left(), *p_bar = dense.left();
            rows_in(s ? (const T*)a.states : (const T*)a.form.h0, s ? s - 1 : 0, before);
            outer_back(s, h_bar, a_bar, bars);
            if (net.residual.any()) {
                phi_back(s, h_bar, p_bar);
                net.residual.backward(rows, p_bar, share);
                if (of_A && net.residual.kind == DENSE) {
                    memcpy(dense.right(), before, rows * np * sizeof(T));
                    dense.written(rows);
                } else if (of_A) {
                    net.residual.gradient(rows, p_bar, before, np, bars.A);
                }
            }
            product<T, SET>(rows, np, n, {a_bar, np, 1}, net.W, np, h_bar, np);
            inner_back(s, before, h_bar, affine.right());
            if (net.residual.any())
                for (Size i = 0; i < rows * np; i += WIDTH<T>) store(h_bar + i, load(h_bar + i) + load(share + i));
            if (a.form.inputs_bar) input_back(s, a_bar, x_bar);
            affine.written(rows);
        }
        affine.flush();
        if (of_A && net.residual.kind == DENSE) dense.flush();
        rows_out(h_bar, 0, (T*)a.form.h_bar);
    }

  private:
    void activate(const Activation<T>& g, const T* x, T* value) const {
        for (Size i = 0; i < np; i += WIDTH<T>) store(value + i, g(load(x + i), i).value);
    }

    // h = c f(a) + phi(p) for one trajectory, a in `v` and A h in `p`
    void activate_outer(Size slot, Size at) const {
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> plain = net.outer(load(v + at + i), i), f = net.coupled(plain, i);
            if (a.keep && slopes) store(slopes + slot * np + i, f.slope);
            if (a.keep && values) store(values + slot * np + i, plain.value);
            if (net.residual.any()) {
                Jet<T> r = net.phi(load(p + at + i), i);
                if (a.keep && phi_slopes) store(phi_slopes + slot * np + i, r.slope);
                f.value += r.value;
            }
            store(h + at + i, f.value);
        }
    }

    void outer_back(Size s, const T* h_bar, T* a_bar, const Gradients<T>& bars) const {
        Size slot = s * CHUNK * np;
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Size at = j * np + i;
                Vec<T> bar = load(h_bar + at);
                if (values) store(bars.coupling + i, load(bars.coupling + i) + bar * load(values + slot + at));
                if (slopes)
                    bar *= load(slopes + slot + at);
                else if (net.coupling)
                    bar *= load(net.coupling + i);
                store(a_bar + at, bar);
            }
    }

    void phi_back(Size s, const T* h_bar, T* p_bar) const {
        for (Size i = 0; i < rows * np; i += WIDTH<T>)
            store(p_bar + i, phi_slopes ? load(h_bar + i) * load(phi_slopes + s * CHUNK * np + i) : load(h_bar + i));
    }

    // h_bar becomes the cotangent of h, and z = (g(h), x, 1) is written.
    void inner_back(Size s, const T* before, T* h_bar, T* z) const {
        for (Size j = 0; j < rows; j++, z += net.wide) {
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Jet<T> g = net.inner(load(before + j * np + i), i);
                store(z + i, g.value);
                store(h_bar + j * np + i, load(h_bar + j * np + i) * g.slope);
            }
            net.complete(s, first + j, z);
        }
    }

    void input_back(Size s, const T* a_bar, T* x_bar) const {
        Size m = a.form.m, mp = pad(m);
        product<T, SET>(rows, mp, n, {a_bar, np, 1}, net.V, mp, x_bar, mp);
        T* to = (T*)a.form.inputs_bar + row(s) * m;
        for (Size j = 0; j < rows; j++) memcpy(to + j * m, x_bar + j * mp, m * sizeof(T));
    }

    Size row(Size s) const { return s * items + member * a.form.batch + first; }

    void rows_in(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows; j++) copy_in(to + j * np, from + (row(s) + j) * n, n);
    }

    void rows_out(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows; j++) memcpy(to + (row(s) + j) * n, from + j * np, n * sizeof(T));
    }

    void add_rows(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < n; i++) to[j * np + i] += from[(row(s) + j) * n + i];
    }
};

}  // namespace
