// The log-R adjoint of the scan (tangent/adjoint.py): from gradients of log R_ii and of the final state to those
// of everything else. X of the recursion is stored transposed, too, in `left`, and the state's cotangent in `h`.
#pragma once
#include "scan.h"

namespace {

// Nats; less than in tangent/adjoint.py, because there all members are projected as soon as one asks for it.
constexpr float SPREAD = 2.1f;

template <class Model> struct ScanAdjoint : Model {
    using T = typename Model::T;
    using Model::a, Model::item, Model::items, Model::n, Model::k, Model::np, Model::kp, Model::net, Model::h;
    using Model::left, Model::products, Model::scratch, Model::row, Model::frame, Model::factor, Model::layout;
    using Model::cuts, Model::begin, Model::end;
    Gradients<T> bars;

    ScanAdjoint(const ScanArgs& args, Size which, T* p)
        : Model(args, which, p), bars(args.form, this->tape + layout.gradients) {}

    void run() {
        bars.clear();
        this->take_state(a.form.h_bar);
        // X = Q_T diag(c_T): after the last factor only log R is left
        scale_rows(coefficients(end - 1), frame(end), left);
        T spread = 0;
        for (Size i = end - 1; i >= begin; i--) {
            if (i + 1 < end) {
                spread += growth_spread(i + 1);
                if (spread > SPREAD) project(frame(i + 1)), spread = 0;
            }
            Factor<T> f = factor(i, nullptr);
            // Z = X R^-T, stored transposed: R^-1 X
            solve_backwards(k, np, f.R, f.inverse, left, scratch.rows);
            span_back(i);
            if (i > begin) add_differences(i);
        }
        const T* a_bars = row(0, A_BAR);
        Size step = layout.step;
        // gradients of (W | V | b) of all steps in one product: a_bar (g(h), x, 1)^T, summed over rows of the
        // tape
        product<T, ADD>(n, net.wide, a.form.steps, {a_bars, 1, step}, row(0, INPUT), step, bars.affine, net.wide);
        this->put_state(a.form.h_bar);
        this->put_frame(left, (T*)a.frame_bar);
    }

  private:
    const T* coefficients(Size i) const { return (const T*)a.c + (i * items + item) * k; }

    void scale_rows(const T* by, const T* Y, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * by[j]);
    }

    // By how many nats the growth of the living columns differs in span i.
    T growth_spread(Size i) const {
        const T* log_r = (const T*)a.log_r + (i * items + item) * k;
        Vec<T> top = splat<T>(-Lanes<T>::MAX), bottom = -top;
        for (Size j = 0; j < k; j += WIDTH<T>) {
            T row[WIDTH<T>];
            for (int l = 0; l < WIDTH<T>; l++) row[l] = log_r[least(j + l, k - 1)];
            // -inf, of a dead column, minus itself is NaN
            Vec<T> v = load(row), none = v - v;
            top = none == 0 && v > top ? v : top;
            bottom = none == 0 && v < bottom ? v : bottom;
        }
        T highest = top[0], lowest = bottom[0];
        for (int l = 1; l < WIDTH<T>; l++) {
            highest = top[l] > highest ? top[l] : highest;
            lowest = bottom[l] < lowest ? bottom[l] : lowest;
        }
        return highest < lowest ? 0 : highest - lowest;
    }

    // X -= Q triu(Q^T X, 1)
    void project(const T* Q) {
        transpose(k, np, left, np, scratch.transposed, kp);
        gram(this->size, k, np, Q, scratch.transposed, scratch.R);
        // what is on and below the diagonal is no error: diag(c), and what the frame's cotangent really is
        for (Size i = 0; i < k; i++)
            for (Size l = i / BLOCK * BLOCK; l <= i; l += WIDTH<T>) {
                T* at = scratch.R + i * kp + l;
                store(at, lanes<T>() > splat<T>((T)(i - l)) ? load(at) : Vec<T>{});
            }
        for (Size j = 0; j < k; j += BLOCK) {
            Size height = least(BLOCK, k - j);
            product<T, SUBTRACT>(height, np, j + height, {scratch.R + j, 1, kp}, Q, np, left + j * np, np);
        }
    }

    void add_differences(Size i) {
        const T *after = coefficients(i), *before = coefficients(i - 1), *Q = frame(i);
        for (Size j = 0; j < k; j++) {
            T change = before[j] - after[j];
            // of a loss of means c is the same in all spans, but where counting begins
            if (change == 0) continue;
            for (Size l = 0; l < np; l += WIDTH<T>)
                store(left + j * np + l, load(left + j * np + l) + change * load(Q + j * np + l));
        }
    }

    void span_back(Size i) {
        Size first = cuts[i], last = cuts[i + 1] - 1;
        const T* Y = frame(i);
        for (Size s = first; s < last && !layout.every; s++) {
            T* to = products + (s - first) * kp * np;
            this->push(s, Y, to);
            Y = to;
        }
        for (Size s = last; s >= first; s--) {
            const T* before = layout.every ? this->within(s) : products + (s - 1 - first) * kp * np;
            this->step_back(s, s == first ? frame(i) : before, bars);
            if (a.form.inputs_bar) input_back(s, row(s, A_BAR));
            // the step left from a detached state: tangents go on, the state's cotangent does not
            if (a.cut && s % a.cut == 0) zero(h, np);
        }
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
};

}  // namespace
