// One step of a form with its frame, and its pullback.
#pragma once
#include "scan.h"

namespace {

template <class T> struct FormScan : Trajectory<Network<T>> {
    using Base = Trajectory<Network<T>>;
    using Base::a, Base::trajectory, Base::n, Base::k, Base::np, Base::net, Base::h, Base::u, Base::bend;
    using Base::share, Base::p_bar, Base::left, Base::right, Base::pushed, Base::residual, Base::outer_products;
    using Base::row, Base::scale_columns, Base::scale_and_sum, Base::column_sums, Base::add_products, Base::Base;

    void step(Size s, const T* Y, T* to) {
        if (net.residual.any()) memcpy(row(s, STATE), h, np * sizeof(T));
        activate_inner(s);
        net.complete(s, trajectory, row(s, INPUT));
        row_product<T, SET>(np, net.terms, row(s, INPUT), net.affine, np, u);
        activate_outer(s);
        if (net.residual.any()) {
            T* p = u + np;
            net.residual.forward(1, row(s, STATE), p);
            activate_residual(s, p);
        }
        push(s, Y, to);
    }

    // Y' = (Y g') W^T c f' + Y A^T phi'
    void push(Size s, const T* Y, T* to) {
        const T* P = Y;
        if (net.inner.any()) scale_columns(Y, row(s, INNER_SLOPE), pushed), P = pushed;
        product<T, SET>(k, np, n, {P, np, 1}, net.affine, np, to, np);
        if (net.bent()) scale_columns(to, row(s, OUTER_SLOPE), to);
        if (!net.residual.any()) return;
        if (net.residual.kind != DENSE && !net.phi.any()) {
            // that of a band is added as it is made
            for (Size j = 0; j < k * np; j += np)
                for (Size i = 0; i < np; i += WIDTH<T>)
                    store(to + j + i, load(to + j + i) + net.residual.of(Y + j, i));
            return;
        }
        net.residual.forward(k, Y, residual);
        if (net.phi.any()) scale_columns(residual, row(s, PHI_SLOPE), residual);
        for (Size i = 0; i < k * np; i += WIDTH<T>) store(to + i, load(to + i) + load(residual + i));
    }

    // From cotangents of h' and Y' to those of h and Y, all in `h` and `left`.
    void step_back(Size s, const T* Y, Gradients<T>& bars) {
        if (net.residual.any()) residual_back(s, Y, bars);
        outer_back(s, Y, bars);
        T* a_bar = row(s, A_BAR);
        product<T, SET>(k, np, n, {left, np, 1}, net.W, np, right, np);
        row_product<T, SET>(np, n, a_bar, net.W, np, h);
        if (net.inner.any()) {
            inner_back(s, Y, bars);
        } else {
            T* result = right;
            right = left, left = result;
        }
        if (net.residual.any()) {
            for (Size i = 0; i < k * np; i += WIDTH<T>) store(left + i, load(left + i) + load(residual + i));
            for (Size i = 0; i < np; i += WIDTH<T>) store(h + i, load(h + i) + load(share + i));
        }
    }

  private:
    void activate_inner(Size s) {
        T* z = row(s, INPUT);
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> g = net.inner(load(h + i), i);
            store(z + i, g.value);
            if (!net.inner.any()) continue;
            store(row(s, INNER_SLOPE) + i, g.slope);
            store(row(s, INNER_CURVATURE) + i, g.curvature);
            if (net.inner.surrogate()) store(row(s, INNER_SHARPENING) + i, g.sharpening);
        }
    }

    // h = c f(a), a in `u`
    void activate_outer(Size s) {
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> plain = net.outer(load(u + i), i), f = net.coupled(plain, i);
            store(h + i, f.value);
            if (!net.bent()) continue;
            store(row(s, OUTER_SLOPE) + i, f.slope);
            store(row(s, OUTER_CURVATURE) + i, f.curvature);
            if (net.outer.surrogate()) store(row(s, OUTER_SHARPENING) + i, f.sharpening);
            if (!a.form.train_coupling) continue;
            store(row(s, PLAIN_VALUE) + i, plain.value);
            store(row(s, PLAIN_SLOPE) + i, plain.slope);
        }
    }

    // h += phi(p)
    void activate_residual(Size s, const T* p) {
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> f = net.phi(load(p + i), i);
            store(h + i, load(h + i) + f.value);
            if (!net.phi.any()) continue;
            store(row(s, PHI_SLOPE) + i, f.slope);
            store(row(s, PHI_CURVATURE) + i, f.curvature);
            if (net.phi.surrogate()) store(row(s, PHI_SHARPENING) + i, f.sharpening);
        }
    }

    // Through phi(A h): X's share to `residual`, that of the state's cotangent to `share`.
    void residual_back(Size s, const T* Y, Gradients<T>& bars) {
        const T *N = left, *state_bar = h;
        if (net.phi.any()) {
            const T *slope = row(s, PHI_SLOPE), *curvature = row(s, PHI_CURVATURE);
            net.residual.forward(k, Y, residual);
            column_sums(left, residual, bend);
            scale_columns(left, slope, pushed);
            for (Size i = 0; i < np; i += WIDTH<T>)
                // p sees phi' h_bar + phi'' sum_k N (A Y)
                store(p_bar + i, load(h + i) * load(slope + i) + load(bend + i) * load(curvature + i));
            if (net.phi.surrogate()) add_products(bend, row(s, PHI_SHARPENING), bars.phi);
            N = pushed, state_bar = p_bar;
        }
        if (a.form.A_bar) {
            net.residual.gradient(k, N, Y, np, bars.A);
            net.residual.gradient(1, state_bar, row(s, STATE), np, bars.A);
        }
        net.residual.backward(k, N, residual);
        net.residual.backward(1, state_bar, share);
    }

    // Through c f(a): `left` and the row A_BAR become cotangents of a and of its tangents, whose share of
    // W's gradient is taken.
    void outer_back(Size s, const T* Y, Gradients<T>& bars) {
        const T* P = Y;
        T* a_bar = row(s, A_BAR);
        if (net.inner.any()) scale_columns(Y, row(s, INNER_SLOPE), pushed), P = pushed;
        if (!net.bent()) {
            product<T, ADD>(n, np, k, {left, 1, np}, P, np, bars.affine, net.wide);
            memcpy(a_bar, h, np * sizeof(T));
            return;
        }
        // N^T P serves twice: f'' sees sum_k N (W P) = its rows times those of W
        const T *slope = row(s, OUTER_SLOPE), *curvature = row(s, OUTER_CURVATURE);
        product<T, SET>(n, np, k, {left, 1, np}, P, np, outer_products, np);
        zero(bend, np);
        bend_outer(slope, bars);
        scale_columns(left, slope, left);
        for (Size i = 0; i < np; i += WIDTH<T>)
            // a sees c f' h_bar + c f'' sum_k N M; slope and curvature have c in them
            store(a_bar + i, load(h + i) * load(slope + i) + load(curvature + i) * load(bend + i));
        if (net.outer.surrogate()) add_products(bend, row(s, OUTER_SHARPENING), bars.outer);
        if (!a.form.train_coupling) return;
        add_products(h, row(s, PLAIN_VALUE), bars.coupling);
        add_products(bend, row(s, PLAIN_SLOPE), bars.coupling);
    }

    // W_bar += c f' (N^T P), bend = row sums of W (N^T P)
    void bend_outer(const T* slope, Gradients<T>& bars) {
        for (Size i = 0; i < n; i++) {
            Vec<T> total = Vec<T>{};
            T* W_bar = bars.affine + i * net.wide;
            for (Size j = 0; j < np; j += WIDTH<T>) {
                Vec<T> entry = load(outer_products + i * np + j);
                total += entry * load(net.W + i * np + j);
                store(W_bar + j, load(W_bar + j) + slope[i] * entry);
            }
            bend[i] = sum<T>(total);
        }
    }

    // Through g(h), with A in `right` and the cotangent of g(h) in `h`.
    void inner_back(Size s, const T* Y, Gradients<T>& bars) {
        const T *slope = row(s, INNER_SLOPE), *curvature = row(s, INNER_CURVATURE);
        scale_and_sum(right, Y, slope, left, bend);
        for (Size i = 0; i < np; i += WIDTH<T>)
            store(h + i, load(h + i) * load(slope + i) + load(bend + i) * load(curvature + i));
        if (net.inner.surrogate()) add_products(bend, row(s, INNER_SHARPENING), bars.inner);
    }
};

}  // namespace
