// A training step of a few trajectories of one member, forwards and back at once: states, an affine readout, a loss
// at the steps that count, and gradients of the loss's sum. What the way back needs of each step lies in the scratch
// of the thread and is read again before it has left the caches; `conclude` makes of the sums of all units of a
// member its loss, accuracy and gradients.
#pragma once
#include <cmath>

#include "form_unroll.h"
#include "gates.h"
#include "lif.h"

namespace {

enum Loss { CROSS_ENTROPY_OF_BITS, CROSS_ENTROPY, SQUARED_ERROR, ROOT_MEAN_SQUARE };
enum Sum { ERROR, RIGHT, COUNT, TARGET, SQUARE, SUMS };

// log(1 + q) for 0 <= q <= 1, with s = q / (2 + q): 2 atanh s by its series, s <= 1/3
template <class T> INLINE Vec<T> log_of_1_and(Vec<T> q) {
    constexpr int TERMS = sizeof(T) == 4 ? 8 : 17;  // s^(2 TERMS) / (2 TERMS + 1) is below round-off
    Vec<T> s = q / (2 + q), square = s * s, series = splat<T>(1 / (T)(2 * TERMS - 1));
    UNROLL
    for (int i = TERMS - 1; i > 0; i--) series = series * square + 1 / (T)(2 * i - 1);
    return 2 * s * series;
}

// e^x for x <= 0, but never denormal
template <class T> INLINE Vec<T> exp_of(Vec<T> x) {
    return exp_of_minus<T>(least<T>(-x, Lanes<T>::LOG_MAX - 2));
}

// While it lives, numbers below the least normal one are 0: gradients that vanish pass through them, where an
// operation takes a hundred times as long (784 steps of a residual network: 145 ms, or 97), and no optimiser sees them.
struct NoDenormals {
#ifdef __SSE__
    static constexpr unsigned FLUSH = 0x8040;  // results and operands
    const unsigned before = __builtin_ia32_stmxcsr();
    NoDenormals() { __builtin_ia32_ldmxcsr(before | FLUSH); }
    ~NoDenormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// The readout and the loss of the rows of a unit. Outputs lie in lines of CHUNK numbers, one a trajectory.
template <class T, int BLOCKS> struct Answers {
    const FitArgs& a;
    Size member, first, rows, parts, n, hp, np, outputs;  // np: numbers that an output reads, in padded parts of n
    T *R, *offset;                    // (o, np), (o)
    T *R_bar, *offset_bar;            // of the unit
    T *current, *potential, *now;     // (o, CHUNK): of leaky neurons; outputs, and what comes back
    T *targets, *weights;             // (o, CHUNK), (CHUNK)
    T lines[SUMS][CHUNK];             // sums of a few steps
    Size since = 0;                   // how many
    double* sums;

    // an affine readout of neurons sees potentials and currents
    static Size parts_of(const FitArgs& a) { return BLOCKS == 1 || a.leaky ? 1 : BLOCKS; }
    static Size bars_count(const FitArgs& a) {
        return a.outputs * parts_of(a) * pad(a.unroll.form.n) + pad(a.outputs);
    }
    static Size count(const FitArgs& a) { return bars_count(a) + (4 * a.outputs + 1) * CHUNK; }

    Answers(const FitArgs& args, Size unit, Size member_, Size first_, Size rows_, T* bars, T*& memory)
        : a(args), member(member_), first(first_), rows(rows_), parts(parts_of(a)), n(a.unroll.form.n), hp(pad(n)),
          np(parts_of(args) * hp), outputs(a.outputs),
          R(take(memory, outputs * np)), offset(take(memory, pad(outputs))), R_bar(bars),
          offset_bar(bars + outputs * np), current(take(memory, outputs * CHUNK)),
          potential(take(memory, outputs * CHUNK)), now(take(memory, outputs * CHUNK)),
          targets(take(memory, outputs * CHUNK)), weights(take(memory, CHUNK)), sums(a.sums + unit * SUMS) {
        for (Size c = 0; c < outputs * parts; c++)
            copy_in(R + c * hp, (const T*)a.R + (member * outputs * parts + c) * n, n);
        copy_in(offset, (const T*)a.offset + member * outputs, outputs);
        if (a.unroll.keep) zero(bars, bars_count(a));
        zero(current, 2 * outputs * CHUNK);
        for (int i = 0; i < SUMS; i++) sums[i] = 0;
        memset(lines, 0, sizeof lines);
    }

    // The outputs of a step, read from rows `ld` apart; their cotangents to `bars` where the step counts.
    void forward(Size s, const T* read, Size ld, T* bars) {
        for (Size c = 0; c < outputs; c++) line_of(read, ld, c);
        if (a.leaky) leak();
        if (s < a.unroll.first) return;
        take_targets(s);
        bool any = false;
        for (Size j = 0; j < rows; j++) any |= weights[j] != 0;
        if (!any) {
            zero(bars, a.unroll.keep ? outputs * CHUNK : 0);
            return;
        }
        switch (a.loss) {
            case CROSS_ENTROPY_OF_BITS: bits(); break;
            case CROSS_ENTROPY: classes(); break;
            default: squares();
        }
        if (a.unroll.keep) memcpy(bars, now, outputs * CHUNK * sizeof(T));
        if (++since == 8) flush();
    }

    // Adds what comes back from outputs to cotangents of what was read, rows `ld` apart.
    void spread(const T* bars, T* to, Size ld, const T* slopes, Size ld_slopes) const {
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Vec<T> all = Vec<T>{};
                for (Size c = 0; c < outputs; c++) all += bars[c * CHUNK + j] * load(R + c * np + i);
                if (slopes) all *= load(slopes + j * ld_slopes + i);
                store(to + j * ld + i, load(to + j * ld + i) + all);
            }
    }

    // Gradients of the readout's own weights.
    void gather(const T* bars, const T* read, Size ld) const {
        for (Size c = 0; c < outputs; c++) {
            T total = 0;
            for (Size j = 0; j < rows; j++) total += bars[c * CHUNK + j];
            offset_bar[c] += total;
            for (Size i = 0; i < np; i += WIDTH<T>) {
                Vec<T> all = load(R_bar + c * np + i);
                for (Size j = 0; j < rows; j++) all += bars[c * CHUNK + j] * load(read + j * ld + i);
                store(R_bar + c * np + i, all);
            }
        }
    }

    // Leaky neurons, back through a step: from cotangents of outputs, null for none, to those of their inputs.
    const T* leak_back(const T* bars) {
        T alpha = (T)a.alpha, beta = (T)a.beta;
        // out = (1 - beta) U, U' = beta U + I', I' = alpha I + input
        for (Size i = 0; i < outputs * CHUNK; i += WIDTH<T>) {
            Vec<T> of_U = beta * load(potential + i);
            if (bars) of_U += (1 - beta) * load(bars + i);
            store(potential + i, of_U);
            store(current + i, alpha * load(current + i) + of_U);
        }
        return current;
    }
    void turn() { zero(current, 2 * outputs * CHUNK); }

    void flush() {
        for (int k = 0; k < SUMS; k++)
            for (Size j = 0; j < CHUNK; j++) sums[k] += lines[k][j];
        memset(lines, 0, sizeof lines);
        since = 0;
    }

  private:
    // Output c of all rows: products with its weights, summed across by transposing.
    void line_of(const T* read, Size ld, Size c) const {
        constexpr int W = WIDTH<T>;
        for (Size j = 0; j < CHUNK; j += W) {
            Vec<T> r[W];
            UNROLL
            for (int b = 0; b < W; b++) {
                r[b] = Vec<T>{};
                if (j + b >= rows) continue;
                const T* x = read + (j + b) * ld;
                // of what is read beyond n the readout's weights are 0
                for (Size i = 0; i < np; i += W) r[b] += load(x + i) * load(R + c * np + i);
            }
            Stage<T, W / 2>::run(r);
            Vec<T> total = splat<T>(offset[c]);
            UNROLL
            for (int b = 0; b < W; b++) total += r[b];
            store(now + c * CHUNK + j, total);
        }
    }

    void leak() {
        T alpha = (T)a.alpha, beta = (T)a.beta;
        for (Size i = 0; i < outputs * CHUNK; i += WIDTH<T>) {
            Vec<T> I = alpha * load(current + i) + load(now + i), U = beta * load(potential + i) + I;
            store(current + i, I), store(potential + i, U), store(now + i, (1 - beta) * U);
        }
    }

    void take_targets(Size s) {
        Size columns = a.loss == CROSS_ENTROPY ? 1 : outputs;
        s -= a.unroll.first;
        const T* y = (const T*)a.targets + s * a.target_step + member * a.target_member + first * a.target_row;
        const uint8_t* w = a.counts + s * a.count_step + member * a.count_member + first * a.count_row;
        zero(weights, CHUNK);
        for (Size j = 0; j < rows; j++) weights[j] = w[j * a.count_row] != 0;
        for (Size c = 0; c < columns; c++) {
            zero(targets + c * CHUNK, CHUNK);
            for (Size j = 0; j < rows; j++) targets[c * CHUNK + j] = y[j * a.target_row + c * a.target_column];
        }
    }

    INLINE void add(Sum which, Size i, Vec<T> x) { store(lines[which] + i, load(lines[which] + i) + x); }

    void bits() {
        Vec<T> none = Vec<T>{}, one = splat<T>(1);
        for (Size c = 0; c < outputs; c++)
            for (Size i = 0; i < CHUNK; i += WIDTH<T>) {
                Vec<T> z = load(now + c * CHUNK + i), y = load(targets + c * CHUNK + i), w = load(weights + i);
                // log(1 + e^z) - y z, with q = e^-|z|: of large z no digit is lost
                Vec<T> q = exp_of<T>(-size_of<T>(z)), over = 1 / (1 + q);
                Vec<T> error = (z > none ? z : z == z ? none : z) - y * z + log_of_1_and<T>(q);
                Vec<T> p = (z > none ? one : q) * over;
                Vec<T> said = z > none ? one : none, meant = y > splat<T>((T)0.5) ? one : none;
                add(ERROR, i, w * error), add(COUNT, i, w);
                add(RIGHT, i, w * (said == meant ? one : none));
                store(now + c * CHUNK + i, w * (p - y));
            }
    }

    void squares() {
        for (Size c = 0; c < outputs; c++)
            for (Size i = 0; i < CHUNK; i += WIDTH<T>) {
                Vec<T> z = load(now + c * CHUNK + i), y = load(targets + c * CHUNK + i), w = load(weights + i);
                Vec<T> off = z - y;
                add(ERROR, i, w * off * off), add(COUNT, i, w);
                add(TARGET, i, w * y), add(SQUARE, i, w * y * y);
                store(now + c * CHUNK + i, 2 * w * off);
            }
    }

    void classes() {
        Vec<T> one = splat<T>(1), none = Vec<T>{};
        for (Size i = 0; i < CHUNK; i += WIDTH<T>) {
            Vec<T> y = load(targets + i), w = load(weights + i), top = load(now + i), best = none, at_y = none;
            for (Size c = 1; c < outputs; c++) {
                Vec<T> z = load(now + c * CHUNK + i);
                best = z > top ? splat<T>((T)c) : best;
                top = z > top ? z : top;
            }
            Vec<T> total = none;
            for (Size c = 0; c < outputs; c++) {
                Vec<T> z = load(now + c * CHUNK + i), q = exp_of<T>(z - top), here = splat<T>((T)c);
                total += q;
                at_y = y == here ? z : at_y;
                store(now + c * CHUNK + i, q);
            }
            Vec<T> log_total;
            for (int l = 0; l < WIDTH<T>; l++) log_total[l] = std::log(total[l]);
            for (Size c = 0; c < outputs; c++) {
                Vec<T> hit = y == splat<T>((T)c) ? one : none;
                store(now + c * CHUNK + i, w * (load(now + c * CHUNK + i) / total - hit));
            }
            add(ERROR, i, w * (log_total + (top - at_y))), add(COUNT, i, w);
            add(RIGHT, i, w * (best == y ? one : none));
        }
    }
};

// Sums of outer products whose right factors lie on the tape, steps downwards: DEPTH rows at a time.
template <class Model> struct TapeSums {
    using T = typename Model::T;
    static constexpr bool KEPT = true;
    struct Affine {
        const Model& unit;
        Size steps, at = -1;  // of a block; where its lefts begin
        T *lefts, *tail, *total;
        const T* rights;
        bool narrow;  // few columns beyond those of W, which are summed by themselves

        static Size count(const FormArgs& a) { return (DEPTH + CHUNK + 4) * pad(a.n); }
        Affine(const Model& model, T* to, const T* z, T*& memory)
            : unit(model), steps(DEPTH / unit.rows), lefts(take(memory, (DEPTH + CHUNK) * unit.hp)),
              tail(take(memory, 4 * unit.hp)), total(to), rights(z),
              narrow(unit.net.wide > unit.hp && unit.a.form.m < 4) {
            zero(tail, 4 * unit.hp);
        }
        T* left() { return lefts + at * unit.hp; }
        // before a step, after it
        void begin(Size s) { at = s % steps * unit.rows; }
        void written(Size s) {
            if (narrow) columns(s);
            if (at > 0) return;
            Size last = least(s + steps, unit.a.form.steps), wide = unit.net.wide;
            product<T, ADD>(unit.n, narrow ? unit.hp : wide, (last - s) * unit.rows, {lefts, 1, unit.hp},
                            rights + s * unit.rows * wide, wide, total, wide);
        }
        void columns(Size s) {
            const T* z = rights + s * unit.rows * unit.net.wide + unit.n;
            for (Size c = 0; c <= unit.a.form.m; c++)
                for (Size i = 0; i < unit.hp; i += WIDTH<T>) {
                    Vec<T> all = load(tail + c * unit.hp + i);
                    for (Size j = 0; j < unit.rows; j++)
                        all += z[j * unit.net.wide + c] * load(left() + j * unit.hp + i);
                    store(tail + c * unit.hp + i, all);
                }
        }
        void flush() {
            if (!narrow) return;
            for (Size i = 0; i < unit.n; i++)
                for (Size c = 0; c <= unit.a.form.m; c++)
                    total[i * unit.net.wide + unit.n + c] = tail[c * unit.hp + i];
        }
    };

    Gradients<T> bars;
    Affine affine;
    OuterSum<T> dense;
    TapeSums(const Model& unit, const T* z, T*& work)
        : bars(unit.a.form, unit.gradients), affine(unit, bars.affine, z, work),
          dense(unit.n, unit.hp, unit.hp, bars.A, work) {
        bars.clear();
    }
    void flush() {
        affine.flush();
        if (bars.a.A_bar && bars.a.residual == DENSE) dense.flush();
    }
};

// Likewise of gated networks.
template <class T, int KIND> struct TapeSums<GateUnroll<T, KIND>> {
    static constexpr bool KEPT = true;
    struct Affine : GateOuter<T, KIND> {
        using Outer = GateOuter<T, KIND>;
        const GateUnroll<T, KIND>& unit;
        const T* rights;
        Size steps, at = -1;

        Affine(const GateUnroll<T, KIND>& model, const GateGradients<T, KIND>& to, const T* z, T*& memory)
            : Outer(to, memory), unit(model), rights(z), steps(DEPTH / unit.rows) {}
        T* left() { return this->lefts + at * this->across; }
        // before a step, after it
        void begin(Size s) { at = s % steps * unit.rows; }
        void written(Size s) {
            const T* z = rights + s * unit.rows * this->wide;
            if (at == 0) this->add((least(s + steps, unit.a.form.steps) - s) * unit.rows, z);
        }
    };
    GateGradients<T, KIND> bars;
    Affine affine;
    TapeSums(const GateUnroll<T, KIND>& unit, const T* z, T*& work)
        : bars(unit.a.form, unit.gradients), affine(unit, bars, z, work) {
        bars.clear();
    }
    void flush() { affine.flush(); }
};

template <class Model> struct Fit : Model {
    using T = typename Model::T;
    using Model::a, Model::hp, Model::np, Model::rows, Model::net, Model::h, Model::u, Model::inner_slopes;
    using Model::chunk;
    const FitArgs& fit;
    const Size steps, apart;  // numbers of z of a step
    T *z, *answers_bar, *states = nullptr;
    Answers<T, Model::READ> answers;

    // numbers of a unit that outlive it: gradients of the network and of the readout
    static Size parts_count(const FitArgs& f) {
        return Model::Bars::count(f.unroll.form) + Answers<T, Model::READ>::bars_count(f);
    }
    static Size tape_size(const FitArgs& f) {
        return f.unroll.keep ? Model::units(f.unroll) * parts_count(f) * (Size)sizeof(T) : 0;
    }

    static Size work(const FitArgs& f) {
        const FormArgs& a = f.unroll.form;
        Size np = pad(a.n), chunk = Model::most(f.unroll), steps = f.unroll.keep ? a.steps : 0;
        Size tape = (steps + 1) * (chunk * pad(a.n + a.m + 1) + f.outputs * CHUNK);
        if (f.unroll.keep) tape += Model::trace_count(f.unroll) + chunk * (Model::kept_count(a) + a.steps * np);
        Size rest = Answers<T, Model::READ>::count(f) + TapeSums<Model>::Affine::count(a);
        return Model::work(f.unroll) + (tape + rest) * (Size)sizeof(T);
    }

    Fit(const FitArgs& args, Size unit, T*& work)
        : Model(args.unroll, unit, (T*)args.unroll.form.tape + unit * parts_count(args), work), fit(args),
          steps(a.form.steps), apart(rows * net.wide), z(take(work, (a.keep ? steps + 1 : 1) * chunk * net.wide)),
          answers_bar(take(work, (a.keep ? steps : 1) * fit.outputs * CHUNK)),
          answers(args, unit, this->member, this->first, rows, this->gradients + Model::Bars::count(a.form), work) {
        if (!a.keep) return;
        this->keep(work);
        if (a.form.A_bar) states = take(work, steps * chunk * np);
    }

    T* bars(Size s) const { return answers_bar + (a.keep ? s : 0) * fit.outputs * CHUNK; }
    T* z_of(Size s) const { return z + (a.keep ? s : 0) * apart; }

    void run(T* work) {
        NoDenormals here;
        this->rows_in((const T*)a.form.h0, 0, h);
        for (Size s = 0; s < steps; s++) {
            this->u = z_of(s);
            if (a.keep) this->ahead.add(z_of(s + 1), apart), this->fetch_kept(s + 1);
            this->read(s);
            if (states) memcpy(states + s * chunk * np, h, rows * np * sizeof(T));
            this->step(s);
            if (!fit.leaky && s >= a.first) answer(s, h, np);
            // neurons are read by their spikes, which are z of the step after
            if (fit.leaky && s > 0) {
                // a weight of 0 times what nobody wrote may be NaN
                for (Size j = 0; j < rows; j++) zero(u + j * net.wide + net.terms, net.wide - net.terms);
                answer(s - 1, u, net.wide);
            }
        }
        if (fit.leaky) {
            this->u = z_of(steps);
            zero(u, rows * net.wide);
            this->read(steps);
            answer(steps - 1, u, net.wide);
        }
        answers.flush();
        if (a.keep) back(work);
    }

  private:
    void answer(Size s, const T* read, Size ld) {
        answers.forward(s, read, ld, bars(s));
        if (a.keep && !fit.leaky) answers.gather(bars(s), read, ld);
    }

    void back(T* work) {
        TapeSums<Model> sums(*this, z, work);
        zero(h, rows * np);
        answers.turn();
        for (Size s = steps - 1; s >= 0; s--) {
            if (fit.leaky) {
                const T* bar = answers.leak_back(s >= a.first ? bars(s) : nullptr);
                answers.gather(bar, z_of(s + 1), net.wide);
                answers.spread(bar, h, np, inner_slopes + (s + 1) * chunk * hp, hp);
            } else if (s >= a.first) {
                answers.spread(bars(s), h, np, nullptr, 0);
            }
            this->u = z_of(s);
            if (s > 0) this->ahead.add(z_of(s - 1), apart), this->fetch_kept(s - 1);
            sums.affine.begin(s);
            this->step_back(s, states ? states + s * chunk * np : nullptr, sums);
            sums.affine.written(s);
        }
        sums.flush();
        this->rows_out(h, 0, (T*)a.form.h_bar);
    }
};

// The share of a mean square below which a variance is that of a constant, as in `training/model.py`.
constexpr double CONSTANT = 1e-14;

// Loss, accuracy and gradients of a member, of the sums of its units in their order.
template <class Model> void conclude(const FitArgs& f, Size member) {
    using T = typename Model::T;
    const FormArgs& a = f.unroll.form;
    Size parts = ceil_div(a.batch, CHUNK), stride = Fit<Model>::parts_count(f);
    double total[SUMS] = {};
    for (Size i = 0; i < parts; i++)
        for (int k = 0; k < SUMS; k++) total[k] += f.sums[(member * parts + i) * SUMS + k];
    double error = total[ERROR] / total[COUNT], mean = total[TARGET] / total[COUNT];
    bool squared = f.loss == SQUARED_ERROR || f.loss == ROOT_MEAN_SQUARE, rooted = f.loss == ROOT_MEAN_SQUARE;
    // d sqrt(e) = de / (2 sqrt(e)) has no value at 0, where de is 0, too
    double root = std::sqrt(error < Lanes<T>::TINY ? (double)Lanes<T>::TINY : error);
    double scale = (rooted ? 1 / (2 * root) : 1) / total[COUNT];
    ((T*)f.loss_of)[member] = (T)(rooted ? root : error);
    // of targets that do not vary round-off is left, of either sign
    double square = total[SQUARE] / total[COUNT], variance = square - mean * mean;
    if (variance <= CONSTANT * square) variance = 0;
    ((T*)f.right_of)[member] = (T)(squared ? 1 - error / variance : total[RIGHT] / total[COUNT]);
    if (!f.unroll.keep) return;
    T* first = (T*)a.tape + member * parts * stride;
    for (Size i = 1; i < parts; i++)
        for (Size j = 0; j < stride; j += WIDTH<T>)
            store(first + j, load(first + j) + load(first + i * stride + j));
    for (Size j = 0; j < stride; j += WIDTH<T>) store(first + j, load(first + j) * (T)scale);
    typename Model::Bars(a, first).scatter(member);
    const T* readout = first + Model::Bars::count(a);
    Size o = f.outputs, n = a.n, lines = o * Answers<T, Model::READ>::parts_of(f);
    if (f.R_bar)
        for (Size c = 0; c < lines; c++)
            memcpy((T*)f.R_bar + (member * lines + c) * n, readout + c * pad(n), n * sizeof(T));
    if (f.offset_bar) memcpy((T*)f.offset_bar + member * o, readout + lines * pad(n), o * sizeof(T));
    T* h_bar = (T*)a.h_bar + member * a.batch * n * Model::BLOCKS;
    for (Size i = 0; i < a.batch * n * Model::BLOCKS; i++) h_bar[i] *= (T)scale;
}

}  // namespace
