// The states of a model and backpropagation through time. A unit of work is a few trajectories of one member:
// always the same ones, whatever the number of threads. A model is a Batch with
//     read(s)                     z = g(h) for the step s, in `u`
//     step(s)                     the rest of the step, from z: new states `h`
//     step_back(s, before, sums)  the pullback, given the states before
#pragma once
#include "network.h"

namespace {

// 16 trajectories share what is read of W in a step; 128 rows make of outer products, which only move memory,
// a product of matrices
constexpr Size CHUNK = 16, DEPTH = 128;

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

// A unit: rows of states, and what all models keep.
template <class Net> struct Batch {
    using T = typename Net::Number;
    static constexpr int BLOCKS = Net::BLOCKS;
    const UnrollArgs& a;
    Size n, hp, np, items, chunk, member, first, rows;  // np: numbers in a state, padded; first: trajectory
    Net net;
    T *tape, *gradients, *h, *u, *v, *p;
    mutable Ahead ahead;  // of the step's product

    // What the adjoint sums up.
    struct Sums {
        static constexpr bool KEPT = false;  // whether z and the slopes are on a tape
        Gradients<T> bars;
        OuterSum<T> affine;
        Sums(const Batch& unit, T*& work)
            : bars(unit.a.form, unit.gradients), affine(unit.n, unit.hp, unit.net.wide, bars.affine, work) {
            bars.clear();
        }
        void flush() { affine.flush(); }
    };

    // the most rows of a unit
    static Size most(const UnrollArgs& a) { return least(CHUNK, a.form.batch); }
    static Size units(const UnrollArgs& a) { return a.form.members * ceil_div(a.form.batch, CHUNK); }

    static Size work(const UnrollArgs& a) {
        Size hp = pad(a.form.n), np = Net::BLOCKS * hp, wide = pad(a.form.n + a.form.m + 1);
        return (Net::count(a.form) + CHUNK * (3 * np + wide + pad(a.form.m)) + OuterSum<T>::count(hp, wide) +
                OuterSum<T>::count(hp, hp)) * (Size)sizeof(T);
    }

    // `tape`: of this unit, the gradients first
    Batch(const UnrollArgs& args, Size unit, T* memory, T*& work)
        : a(args), n(a.form.n), hp(pad(n)), np(Net::BLOCKS * hp), items(a.form.members * a.form.batch), chunk(most(args)),
          member(unit / ceil_div(a.form.batch, CHUNK)), first(unit % ceil_div(a.form.batch, CHUNK) * CHUNK),
          rows(least(CHUNK, a.form.batch - first)), net(a.form, member, work) {
        gradients = memory, tape = memory + (a.keep ? Net::Bars::count(a.form) : 0);
        h = take(work, CHUNK * np), u = take(work, CHUNK * net.wide), v = take(work, CHUNK * np);
        p = take(work, CHUNK * np);
    }

    Size row(Size s) const { return s * items + member * a.form.batch + first; }

    void rows_in(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows * Net::BLOCKS; j++) copy_in(to + j * hp, from + (row(s) * Net::BLOCKS + j) * n, n);
    }

    void rows_out(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows * Net::BLOCKS; j++) copy_row(to + (row(s) * Net::BLOCKS + j) * n, from + j * hp, n);
    }

    void add_rows(const T* from, Size s, T* to) const {
        for (Size j = 0; j < rows * Net::BLOCKS; j++) {
            const T* part = from + (row(s) * Net::BLOCKS + j) * n;
            Size i = 0;
            for (; i + WIDTH<T> <= n; i += WIDTH<T>) store(to + j * hp + i, load(to + j * hp + i) + load(part + i));
            for (; i < n; i++) to[j * hp + i] += part[i];
        }
    }

    // the states and what else of a step lies far away
    void fetch_rows(Size s, const T* of) const { ahead.add(of + row(s) * Net::BLOCKS * n, rows * Net::BLOCKS * n); }
    void fetch_tape(Size) const {}

    // Cotangents of x, rows m16 apart.
    void inputs_back(const T* a_bar, T* x_bar) const {
        Size mp = pad(a.form.m);
        product<T, SET>(rows, mp, n, {a_bar, hp, 1}, net.V, mp, x_bar, mp);
    }
};

template <class Model> struct Unroll : Model {
    using T = typename Model::T;
    using Model::a, Model::n, Model::hp, Model::np, Model::rows, Model::net, Model::h, Model::v;
    using Model::rows_in, Model::rows_out;

    static Size tape_size(const UnrollArgs& a) { return Model::units(a) * Model::tape_count(a) * (Size)sizeof(T); }

    Unroll(const UnrollArgs& args, Size unit, T*& work)
        : Model(args, unit, (T*)args.form.tape + unit * Model::tape_count(args), work) {
        if (a.keep) this->lay(this->tape);
    }

    void forward() const {
        rows_in((const T*)a.form.h0, 0, h);
        for (Size s = 0; s < a.form.steps; s++) {
            if (s + 1 < a.form.steps) this->fetch_rows(s + 1, (const T*)a.states);
            this->read(s);
            this->step(s);
            rows_out(h, s, (T*)a.states);
        }
        settle();
    }

    // Takes the scratch that the constructor left.
    void adjoint(T* work) {
        typename Model::Sums sums(*this, work);
        zero(h, rows * np);
        for (Size s = a.form.steps - 1; s >= 0; s--) {
            if (s > 1) this->fetch_rows(s - 2, (const T*)a.states);
            if (s > 0) this->fetch_tape(s - 1);
            if (s > a.first) this->fetch_rows(s - 1 - a.first, (const T*)a.states_bar);
            if (s >= a.first) this->add_rows((const T*)a.states_bar, s - a.first, h);
            rows_in(s ? (const T*)a.states : (const T*)a.form.h0, s ? s - 1 : 0, v);
            this->step_back(s, v, sums);
            if (a.form.inputs_bar) input_back(s, sums.affine.left(), work);
            sums.affine.written(rows);
        }
        sums.flush();
        rows_out(h, 0, (T*)a.form.h_bar);
    }

  private:
    void input_back(Size s, const T* a_bar, T* x_bar) const {
        Size m = a.form.m, mp = pad(m);
        this->inputs_back(a_bar, x_bar);
        T* to = (T*)a.form.inputs_bar + this->row(s) * m;
        for (Size j = 0; j < rows; j++) memcpy(to + j * m, x_bar + j * mp, m * sizeof(T));
    }
};

}  // namespace
