// The log-R adjoint of the scan (tangent/adjoint.py): from gradients of log R_ii and of the final state to those
// of everything else. X of the recursion is stored transposed, too, in `left`, and the state's cotangent in `h`.
#pragma once
#include "scan.h"

namespace {

template <class T> struct ScanAdjoint : Scan<T> {
    using Scan<T>::a, Scan<T>::item, Scan<T>::items, Scan<T>::member, Scan<T>::trajectory, Scan<T>::n, Scan<T>::k;
    using Scan<T>::np, Scan<T>::kp, Scan<T>::net, Scan<T>::h, Scan<T>::u, Scan<T>::left, Scan<T>::right;
    using Scan<T>::pushed, Scan<T>::residual, Scan<T>::products, Scan<T>::outer_products, Scan<T>::scratch;
    using Scan<T>::row, Scan<T>::frame, Scan<T>::factor, Scan<T>::push, Scan<T>::scale_columns;
    Gradients<T> bars;
    T *bend, *share, *p_bar;

    ScanAdjoint(const ScanArgs& args, Size which, T* p)
        : Scan<T>(args, which, p), bars(args.form, this->tape + this->layout.gradients), bend(u + np),
          share(bend + np), p_bar(share + np) {}

    void run() {
        bars.clear();
        copy_in(h, (const T*)a.form.h_bar + item * n, n);
        scale_rows(coefficients(a.spans - 1), frame(a.spans), left);
        T spread = 0;
        for (Size i = a.spans - 1; i >= 0; i--) {
            if (i + 1 < a.spans) {
                spread += growth_spread(i + 1);
                if (spread > (T)2.3) project(frame(i + 1)), spread = 0;
            }
            Factor<T> f = factor(i, nullptr);
            solve_backwards(k, np, f.R, f.inverse, left, scratch.rows);
            span_back(i);
            if (i > 0) add_differences(i);
        }
        const T* a_bars = row(0, A_BAR);
        Size step = this->layout.step;
        product<T, ADD>(n, net.wide, a.form.steps, {a_bars, 1, step}, row(0, INPUT), step, bars.affine, net.wide);
        memcpy((T*)a.form.h_bar + item * n, h, n * sizeof(T));
        this->put_frame(left, (T*)a.frame_bar);
    }

  private:
    const T* coefficients(Size i) const { return (const T*)a.c + (i * items + item) * k; }

    void scale_rows(const T* by, const T* Y, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * by[j]);
    }

    // By how many nats the columns' growth differs in span i.
    T growth_spread(Size i) const {
        const T* log_r = (const T*)a.log_r + (i * items + item) * k;
        T top = 0, bottom = 0;
        bool any = false;
        for (Size j = 0; j < k; j++) {
            if (!finite(log_r[j])) continue;
            top = any && top > log_r[j] ? top : log_r[j];
            bottom = any && bottom < log_r[j] ? bottom : log_r[j];
            any = true;
        }
        return top - bottom;
    }

    // X -= Q triu(Q^T X, 1)
    void project(const T* Q) {
        transpose(k, np, left, np, scratch.transposed, kp);
        gram(n, k, np, Q, scratch.transposed, scratch.R);
        for (Size i = 0; i < k; i++) zero(scratch.R + i * kp + i / BLOCK * BLOCK, i % BLOCK + 1);
        for (Size j = 0; j < k; j += BLOCK) {
            Size height = least(BLOCK, k - j);
            product<T, SUBTRACT>(height, np, j + height, {scratch.R + j, 1, kp}, Q, np, left + j * np, np);
        }
    }

    void add_differences(Size i) {
        const T *after = coefficients(i), *before = coefficients(i - 1), *Q = frame(i);
        for (Size j = 0; j < k; j++) {
            T change = before[j] - after[j];
            if (change == 0) continue;
            for (Size l = 0; l < np; l += WIDTH<T>)
                store(left + j * np + l, load(left + j * np + l) + change * load(Q + j * np + l));
        }
    }

    void span_back(Size i) {
        Size first = a.cuts[i], last = a.cuts[i + 1] - 1;
        const T* Y = frame(i);
        for (Size s = first; s < last; s++) {
            T* to = products + (s - first) * kp * np;
            push(s, Y, to);
            Y = to;
        }
        for (Size s = last; s >= first; s--)
            step_back(s, s == first ? frame(i) : products + (s - 1 - first) * kp * np);
    }

    void step_back(Size s, const T* Y) {
        if (net.residual.any()) residual_back(s, Y);
        outer_back(s, Y);
        T* a_bar = row(s, A_BAR);
        product<T, SET>(k, np, n, {left, np, 1}, net.W, np, right, np);
        row_product<T, SET>(np, n, a_bar, net.W, np, h);
        if (net.inner.any()) {
            inner_back(s, Y);
        } else {
            T* result = right;
            right = left, left = result;
        }
        if (net.residual.any()) {
            for (Size i = 0; i < k * np; i += WIDTH<T>) store(left + i, load(left + i) + load(residual + i));
            for (Size i = 0; i < np; i += WIDTH<T>) store(h + i, load(h + i) + load(share + i));
        }
        if (a.form.inputs_bar) input_back(s, a_bar);
        if (a.cut && s % a.cut == 0) zero(h, np);
    }

    // Through phi(A h): X's share to `residual`, that of the state's cotangent to `share`.
    void residual_back(Size s, const T* Y) {
        const T *N = left, *state_bar = h;
        if (net.phi.any()) {
            const T *slope = row(s, PHI_SLOPE), *curvature = row(s, PHI_CURVATURE);
            net.residual.forward(k, Y, residual);
            column_sums(left, residual, bend);
            scale_columns(left, slope, pushed);
            for (Size i = 0; i < np; i += WIDTH<T>)
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
    void outer_back(Size s, const T* Y) {
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
        bend_outer(slope);
        scale_columns(left, slope, left);
        for (Size i = 0; i < np; i += WIDTH<T>)
            store(a_bar + i, load(h + i) * load(slope + i) + load(curvature + i) * load(bend + i));
        if (net.outer.surrogate()) add_products(bend, row(s, OUTER_SHARPENING), bars.outer);
        if (!a.form.train_coupling) return;
        add_products(h, row(s, PLAIN_VALUE), bars.coupling);
        add_products(bend, row(s, PLAIN_SLOPE), bars.coupling);
    }

    // W_bar += c f' (N^T P), bend = row sums of W (N^T P)
    void bend_outer(const T* slope) {
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
    void inner_back(Size s, const T* Y) {
        const T *slope = row(s, INNER_SLOPE), *curvature = row(s, INNER_CURVATURE);
        column_sums(right, Y, bend);
        scale_columns(right, slope, left);
        for (Size i = 0; i < np; i += WIDTH<T>)
            store(h + i, load(h + i) * load(slope + i) + load(bend + i) * load(curvature + i));
        if (net.inner.surrogate()) add_products(bend, row(s, INNER_SHARPENING), bars.inner);
    }

    void input_back(Size s, const T* a_bar) {
        Size m = a.form.m, mp = pad(m);
        T* to = (T*)a.form.inputs_bar + (s * items + item) * m;
        T block[BLOCK];
        for (Size j = 0; j < mp; j += BLOCK) {
            product<T, SET>(1, BLOCK, n, {a_bar, np, 1}, net.V + j, mp, block, BLOCK);
            memcpy(to + j, block, least(BLOCK, m - j) * sizeof(T));
        }
    }

    // to = sum over columns of A B
    void column_sums(const T* A, const T* B, T* to) const {
        Size i = 0;
        for (; i + 4 * WIDTH<T> <= np; i += 4 * WIDTH<T>) sums<4>(A + i, B + i, to + i);
        for (; i < np; i += WIDTH<T>) sums<1>(A + i, B + i, to + i);
    }

    template <int VECTORS> void sums(const T* A, const T* B, T* to) const {
        Vec<T> total[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) total[v] = Vec<T>{};
        for (Size j = 0; j < k * np; j += np)
            UNROLL
            for (int v = 0; v < VECTORS; v++)
                total[v] += load(A + j + v * WIDTH<T>) * load(B + j + v * WIDTH<T>);
        UNROLL
        for (int v = 0; v < VECTORS; v++) store(to + v * WIDTH<T>, total[v]);
    }

    void add_products(const T* x, const T* y, T* to) const {
        for (Size i = 0; i < np; i += WIDTH<T>) store(to + i, load(to + i) + load(x + i) * load(y + i));
    }
};

}  // namespace
