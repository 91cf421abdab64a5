// Networks with gates as torch defines them (cells/gate_form.py), a whole sequence and back. The arguments of all
// gates of a trajectory lie side by side, n16 numbers each, so that one product gives those of several.
//     GRU:  r, z = sigmoid(a_r), sigmoid(a_z);  s = tanh(a_s + r u_s);  h' = (1 - z) s + z h
//     LSTM: i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g);  c' = f c + i g;  h' = o tanh(c')
// With z = (h, x, 1) all arguments are products with z, but for u_s, which sees no x, and a_s, which sees no h.
#pragma once
#include "unroll.h"

namespace {

enum Gated { GRU = 32, LSTM = 64 };  // of `neurons`

// sigmoid and 1 - sigmoid, which a difference would lose where the sigmoid is near 1
template <class T, int U> INLINE void sigmoid_of(const Many<T, U>& x, Many<T, U>& value, Many<T, U>& rest) {
    using All = Many<T, U>;
    All size = All::each([&](int u) { return size_of<T>(x.at[u]); });
    Power<T, U> power(All::each([&](int u) { return -least<T>(size.at[u], Lanes<T>::LOG_MAX); }));
    // q = e^-|x|: the sigmoid of |x| is 1 / (1 + q), that of -|x| q / (1 + q)
    All q = All::each([&](int u) {
        Vec<T> whole = (T)0.25 * (power.four.at[u] + power.four.at[u] * power.p.at[u]);
        return size.at[u] > splat<T>(Lanes<T>::LOG_MAX) ? Vec<T>{} : whole;
    });
    All large = All::each([&](int u) { return 1 / (1 + q.at[u]); });
    All small = All::each([&](int u) { return q.at[u] * large.at[u]; });
    value = All::each([&](int u) { return x.at[u] > Vec<T>{} ? large.at[u] : small.at[u]; });
    rest = All::each([&](int u) { return x.at[u] > Vec<T>{} ? small.at[u] : large.at[u]; });
}

// What is different about the two. PARTS: of all arguments, as the kernels number them.
//     GRU: u_s, a_r, a_z, a_s;  LSTM: i, f, g, o
template <int KIND> struct Gating {
    static constexpr int PARTS = 4;
    static constexpr bool LONG = KIND == LSTM;          // whether there is a c
    static constexpr int GATES = LONG ? 4 : 3;          // that torch stacks
    static constexpr int FACTORS = LONG ? 6 : 5;        // kept of a step for the way back
    static constexpr bool recurs(int part) { return LONG || part < 3; }   // sees h
    static constexpr bool driven(int part) { return LONG || part > 0; }   // sees x
    // where torch has the rows of a part: reset, update, new
    static constexpr int row(int part) { return LONG ? part : part == 0 || part == 3 ? 2 : part - 1; }
};

// Gradients of a member or a unit: of each part (n, wide) by (h, x, 1).
template <class T, int KIND> struct GateGradients : Gating<KIND> {
    using Here = Gating<KIND>;
    const FormArgs& a;
    Size wide, each, size;  // numbers of a part, of all
    T* affine;

    static Size count(const FormArgs& a) { return Here::PARTS * a.n * pad(a.n + a.m + 1); }

    GateGradients(const FormArgs& args, T* p)
        : a(args), wide(pad(a.n + a.m + 1)), each(a.n * wide), size(count(a)), affine(p) {}

    void clear() { zero(affine, size); }
    T* part(int which) const { return affine + which * each; }

    void scatter(Size member) const {
        Size n = a.n, m = a.m, first = member * Here::GATES * n;
        for (int which = 0; which < Here::PARTS; which++)
            for (Size i = 0; i < n; i++) {
                const T* from = part(which) + i * wide;
                Size to = first + Here::row(which) * n + i;
                bool recurs = Here::recurs(which), driven = Here::driven(which);
                if (recurs && a.W_bar) memcpy((T*)a.W_bar + to * n, from, n * sizeof(T));
                if (driven && a.V_bar) memcpy((T*)a.V_bar + to * m, from + n, m * sizeof(T));
                if (recurs && a.recurrent_bias_bar) ((T*)a.recurrent_bias_bar)[to] = from[n + m];
                if (driven && a.bias_bar) ((T*)a.bias_bar)[to] = from[n + m];
            }
    }
};

// The weights of one member.
template <class T, int KIND> struct GateNetwork : Gating<KIND> {
    using Here = Gating<KIND>;
    using Number = T;
    using Bars = GateGradients<T, KIND>;
    static constexpr int BLOCKS = Here::LONG ? 2 : 1;
    const FormArgs& a;
    Size member, n, hp, np, mp, terms, wide, across;  // across: numbers of all parts
    T *W, *affine, *V;  // of each part (n16, n16), rows W's; (n + m + 1, across), transposes; of each part (n16, m16)

    static Size rows_count(const FormArgs& a) { return pad(a.n) + pad(a.m) + BLOCK; }
    static Size count(const FormArgs& a) {
        Size hp = pad(a.n);
        return Here::PARTS * hp * (hp + pad(a.m) + rows_count(a));
    }

    // Takes `count` numbers of memory.
    GateNetwork(const FormArgs& args, Size which, T*& memory)
        : a(args), member(which), n(a.n), hp(pad(n)), np(BLOCKS * hp), mp(pad(a.m)), terms(n + a.m + 1),
          wide(pad(terms)), across(Here::PARTS * hp), W(take(memory, across * hp)),
          affine(take(memory, rows_count(a) * across)), V(take(memory, across * mp)) {
        zero(affine, rows_count(a) * across);
        for (int part = 0; part < Here::PARTS; part++) pack(part);
    }

    T* W_of(int part) const { return W + part * hp * hp; }
    T* V_of(int part) const { return V + part * hp * mp; }
    T* row(Size term, int part) const { return affine + term * across + part * hp; }

    // x and 1 after the n numbers of h; what comes then is never read
    void complete(Size step, Size trajectory, T* z) const {
        Size before = a.shared ? step : step * a.members + member;
        copy_row(z + n, (const T*)a.inputs + (before * a.batch + trajectory) * a.m, a.m);
        z[terms - 1] = 1;
    }

  private:
    void pack(int part) {
        Size m = a.m, first = (member * Here::GATES + Here::row(part)) * n;
        T* bias = row(n + m, part);
        if (Here::recurs(part)) {
            copy_rows((const T*)a.W + first * n, n, n, W_of(part), hp);
            transpose(hp, hp, W_of(part), hp, row(0, part), across);
        }
        if (Here::driven(part)) {
            copy_rows((const T*)a.V + first * m, n, m, V_of(part), mp);
            transpose(hp, mp, V_of(part), mp, row(n, part), across);
        }
        zero(bias, hp);
        if (Here::driven(part) && a.bias) copy_in(bias, (const T*)a.bias + first, n);
        if (Here::recurs(part) && a.recurrent_bias)
            for (Size i = 0; i < n; i++) bias[i] += ((const T*)a.recurrent_bias)[first + i];
    }
};

// Sums of outer products of cotangents of all parts with z, up to DEPTH rows at a time.
template <class T, int KIND> struct GateOuter : Gating<KIND> {
    using Here = Gating<KIND>;
    using Bars = GateGradients<T, KIND>;
    static constexpr Size ROOM = DEPTH + CHUNK;
    const Bars& bars;
    Size n, m, hp, wide, across;
    T *lefts, *tails;  // (ROOM, across); (FEW + 1, across): by x and 1, where they are few
    bool narrow;

    static constexpr Size FEW = 4;
    static Size count(const FormArgs& a) { return Here::PARTS * (ROOM + FEW + 1) * pad(a.n); }

    GateOuter(const Bars& to, T*& memory)
        : bars(to), n(to.a.n), m(to.a.m), hp(pad(n)), wide(to.wide), across(Here::PARTS * hp),
          lefts(take(memory, ROOM * across)), tails(take(memory, (FEW + 1) * across)), narrow(m <= FEW) {
        zero(tails, (FEW + 1) * across);
    }

    void add(Size rows, const T* z) {
        Size few = narrow ? m + 1 : 1;
        // where inputs are many, of what sees none the bias is summed by itself
        if (narrow || !Here::LONG)
            product<T, ADD>(few, narrow ? across : hp, rows, {z + n + m + 1 - few, 1, wide}, lefts, across, tails, across);
        // parts that follow one another without padding are one
        if (narrow && n == hp) return outer(0, Here::GATES, 0, hp, rows, z);
        for (int part = 0; part < Here::PARTS; part++) {
            bool recurs = Here::recurs(part), whole = Here::driven(part) && !narrow;
            // of what sees no h, columns from the block on in which x begins
            if (recurs || whole) outer(part, 1, recurs ? 0 : n / BLOCK * BLOCK, whole ? wide : hp, rows, z);
        }
    }

    void flush() const {
        for (int part = 0; part < Here::PARTS; part++)
            for (Size first = narrow ? 0 : Here::driven(part) ? m + 1 : m, c = first; c <= m; c++)
                for (Size i = 0; i < n; i++)
                    bars.part(part)[i * wide + n + c] = tails[(c - first) * across + part * hp + i];
    }

  private:
    // of `parts` parts by columns of z
    void outer(int part, int parts, Size from, Size to, Size rows, const T* z) const {
        product<T, ADD>(parts * n, to - from, rows, {lefts + part * hp, 1, across}, z + from, wide,
                        bars.part(part) + from, wide);
    }
};

template <class T, int KIND> struct GateUnroll : Batch<GateNetwork<T, KIND>> {
    using Here = Gating<KIND>;
    using Base = Batch<GateNetwork<T, KIND>>;
    using Bars = GateGradients<T, KIND>;
    using Base::a, Base::n, Base::hp, Base::np, Base::first, Base::rows, Base::net, Base::h, Base::u, Base::p;
    using Base::chunk, Base::ahead;
    static constexpr int READ = 1;  // parts of a state that an affine readout sees
    T* inner_slopes = nullptr;  // of those that spike
    T* factors = nullptr;       // of every step FACTORS times (chunk, n16)
    T* arguments;               // (CHUNK, across)
    Size across;

    // What the adjoint sums up, z being written again.
    struct Sums {
        static constexpr bool KEPT = false;
        Bars bars;
        struct Affine : GateOuter<T, KIND> {
            Size filled = 0;
            T* rights;
            Affine(const Bars& to, T*& memory)
                : GateOuter<T, KIND>(to, memory), rights(take(memory, DEPTH * this->wide)) {}
            T* left() { return this->lefts + filled * this->across; }
            T* right() { return rights + filled * this->wide; }
            void written(Size count) {
                filled += count;
                if (filled + CHUNK > DEPTH) rest();
            }
            void rest() {
                this->add(filled, rights);
                filled = 0;
            }
        } affine;
        Sums(const GateUnroll& unit, T*& work) : bars(unit.a.form, unit.gradients), affine(bars, work) { bars.clear(); }
        void flush() {
            affine.rest();
            affine.flush();
        }
    };

    static Size trace_count(const UnrollArgs& a) {
        return Here::FACTORS * a.form.steps * Base::most(a) * pad(a.form.n);
    }
    static Size tape_count(const UnrollArgs& a) { return a.keep ? Bars::count(a.form) + trace_count(a) : 0; }
    static Size own_count(const FormArgs& a) { return Here::PARTS * CHUNK * pad(a.n); }
    static Size work(const UnrollArgs& a) {
        Size hp = pad(a.form.n), wide = pad(a.form.n + a.form.m + 1);
        return (GateNetwork<T, KIND>::count(a.form) + CHUNK * (3 * Base::BLOCKS * hp + wide + pad(a.form.m)) +
                own_count(a.form) + GateOuter<T, KIND>::count(a.form) + DEPTH * wide) * (Size)sizeof(T);
    }

    GateUnroll(const UnrollArgs& args, Size unit, T* memory, T*& work)
        : Base(args, unit, memory, work), arguments(take(work, CHUNK * net.across)), across(net.across) {}

    void lay(T*& memory) { factors = take(memory, Here::FACTORS * a.form.steps * chunk * hp); }
    static Size kept_count(const FormArgs&) { return 0; }
    void keep(T*& memory) { lay(memory); }

    void fetch_tape(Size s) const { ahead.add(factor(s, 0), Here::FACTORS * chunk * hp); }
    void fetch_kept(Size s) const {
        if (s < a.form.steps) fetch_tape(s);
    }

    void read(Size) const {
        for (Size j = 0; j < rows; j++) copy_row(u + j * net.wide, h + j * np, hp);
    }

    void step(Size s) const {
        for (Size j = 0; j < rows; j++) net.complete(s, first + j, u + j * net.wide);
        argue();
        T* kept = a.keep && factors ? factor(s, 0) : nullptr;
        // as many rows at once, for their series wait for one another
        constexpr int U = REGISTERS == 32 ? 4 : 2;
        Size j = 0;
        for (; j + U <= rows; j += U)
            for (Size i = 0; i < hp; i += WIDTH<T>) bend<U>(j, i, kept);
        for (; j < rows; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>) bend<1>(j, i, kept);
    }

    // From cotangents of h' to those of h, both in `h`.
    template <class Sum> void step_back(Size s, const T* before, Sum& sums) const {
        T* a_bar = sums.affine.left();
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>)
                straighten(j * hp + i, h + j * np + i, factor(s, 0), a_bar + j * across + i);
        if (n == hp) recur_back<!Here::LONG>(0, Here::GATES, a_bar);
        else {
            // padding is not read, where an infinite x leaves what is no number
            recur_back<!Here::LONG>(0, 1, a_bar);
            for (int part = 1; part < Here::GATES; part++) recur_back<true>(part, 1, a_bar);
        }
        ahead.rest();
        if constexpr (!Sum::KEPT) {
            T* z = sums.affine.right();
            for (Size j = 0; j < rows; j++, z += net.wide) {
                copy_row(z, before + j * np, hp);
                net.complete(s, first + j, z);
            }
        }
    }

    // Cotangents of x, rows m16 apart.
    void inputs_back(const T* a_bar, T* x_bar) const {
        bool any = false;
        for (int part = 0; part < Here::PARTS; part++) {
            if (!Here::driven(part)) continue;
            Strided<T> bar = {a_bar + part * hp, across, 1};
            if (any) product<T, ADD>(rows, net.mp, n, bar, net.V_of(part), net.mp, x_bar, net.mp);
            else product<T, SET>(rows, net.mp, n, bar, net.V_of(part), net.mp, x_bar, net.mp);
            any = true;
        }
    }

  private:
    T* factor(Size s, int which) const { return factors + (s * Here::FACTORS + which) * chunk * hp; }

    void argue() const {
        Size m = a.form.m, others = across - hp;
        if (Here::LONG) {
            product<T, SET>(rows, across, net.terms, {u, net.wide, 1}, net.affine, across, arguments, across, ahead);
        } else {
            for (Size j = 0; j < rows; j++) copy_row(arguments + j * across, net.row(n + m, 0), hp);
            product<T, SET>(rows, others, m + 1, {u + n, net.wide, 1}, net.row(n, 1), across, arguments + hp, across);
            product<T, ADD>(rows, others, n, {u, net.wide, 1}, net.affine, across, arguments, across, ahead);
        }
        ahead.rest();
    }

    // What h gets of the cotangents of `parts` parts' arguments.
    template <bool MORE> void recur_back(int part, int parts, const T* a_bar) const {
        product<T, MORE ? ADD : SET>(rows, hp, parts * n, {a_bar + part * hp, across, 1}, net.W_of(part), hp, h, np,
                                     ahead);
    }

    // a vector of each of U rows
    template <int U> static INLINE Many<T, U> rows_at(const T* p, Size ld) {
        return Many<T, U>::each([&](int u) { return load(p + u * ld); });
    }
    template <int U> static INLINE void put_rows(T* p, Size ld, const Many<T, U>& x) {
        UNROLL
        for (int u = 0; u < U; u++) store(p + u * ld, x.at[u]);
    }

    template <int U> INLINE void bend(Size j, Size i, T* kept) const {
        T* now = h + j * np + i;
        kept = kept ? kept + j * hp + i : nullptr;
        if constexpr (Here::LONG) bend_long<U>(arguments + j * across + i, now, kept);
        else bend_short<U>(arguments + j * across + i, now, kept);
    }

    // h' = (1 - z) s + z h moves by (1 - z) s' with a_s, by r times that with u_s, by u_s r' times that with a_r, by
    // (h - s) z' with a_z and by z with h: what is kept, in this order but for r in the place of the second.
    template <int U> INLINE void bend_short(const T* a, T* now, T* kept) const {
        using All = Many<T, U>;
        Size k = chunk * hp;
        All r, no_r, z, no_z, s, slope;
        sigmoid_of<T, U>(rows_at<U>(a + hp, across), r, no_r);
        sigmoid_of<T, U>(rows_at<U>(a + 2 * hp, across), z, no_z);
        All us = rows_at<U>(a, across), as = rows_at<U>(a + 3 * hp, across);
        tanh_of<T, U>(All::each([&](int w) { return as.at[w] + r.at[w] * us.at[w]; }), s, slope);
        All before = rows_at<U>(now, np);
        put_rows<U>(now, np, All::each([&](int w) { return no_z.at[w] * s.at[w] + z.at[w] * before.at[w]; }));
        if (!kept) return;
        All by_s = All::each([&](int w) { return no_z.at[w] * slope.at[w]; });
        put_rows<U>(kept, hp, by_s);
        put_rows<U>(kept + k, hp, r);
        put_rows<U>(kept + 2 * k, hp,
                  All::each([&](int w) { return by_s.at[w] * us.at[w] * (r.at[w] * no_r.at[w]); }));
        put_rows<U>(kept + 3 * k, hp,
                  All::each([&](int w) { return (before.at[w] - s.at[w]) * (z.at[w] * no_z.at[w]); }));
        put_rows<U>(kept + 4 * k, hp, z);
    }

    // c' = f c + i g and h' = o tanh(c'): kept are how h' moves with c' and a_o, and c' with a_i, a_f, a_g and c.
    template <int U> INLINE void bend_long(const T* a, T* now, T* kept) const {
        using All = Many<T, U>;
        Size k = chunk * hp;
        All i, no_i, f, no_f, o, no_o, g, of_g, y, of_y;
        sigmoid_of<T, U>(rows_at<U>(a, across), i, no_i);
        sigmoid_of<T, U>(rows_at<U>(a + hp, across), f, no_f);
        tanh_of<T, U>(rows_at<U>(a + 2 * hp, across), g, of_g);
        All c = rows_at<U>(now + hp, np);
        if (kept) {
            put_rows<U>(kept + 2 * k, hp, All::each([&](int w) { return g.at[w] * (i.at[w] * no_i.at[w]); }));
            put_rows<U>(kept + 3 * k, hp, All::each([&](int w) { return c.at[w] * (f.at[w] * no_f.at[w]); }));
            put_rows<U>(kept + 4 * k, hp, All::each([&](int w) { return i.at[w] * of_g.at[w]; }));
            put_rows<U>(kept + 5 * k, hp, f);
        }
        c = All::each([&](int w) { return f.at[w] * c.at[w] + i.at[w] * g.at[w]; });
        put_rows<U>(now + hp, np, c);
        tanh_of<T, U>(c, y, of_y);
        sigmoid_of<T, U>(rows_at<U>(a + 3 * hp, across), o, no_o);
        put_rows<U>(now, np, All::each([&](int w) { return o.at[w] * y.at[w]; }));
        if (!kept) return;
        put_rows<U>(kept, hp, All::each([&](int w) { return o.at[w] * of_y.at[w]; }));
        put_rows<U>(kept + k, hp, All::each([&](int w) { return y.at[w] * (o.at[w] * no_o.at[w]); }));
    }

    // The cotangents of all arguments, and those of the state but for what comes through the arguments.
    INLINE void straighten(Size i, T* bar, const T* kept, T* a_bar) const {
        Size k = chunk * hp;
        auto of = [&](int which) { return load(kept + which * k + i); };
        auto to = [&](int part, Vec<T> x) { store(a_bar + part * hp, x); };
        Vec<T> H = load(bar);
        if constexpr (Here::LONG) {
            Vec<T> C = load(bar + hp) + of(0) * H;
            to(0, of(2) * C), to(1, of(3) * C), to(2, of(4) * C), to(3, of(1) * H);
            store(bar + hp, of(5) * C);
        } else {
            Vec<T> by_s = of(0) * H;
            to(3, by_s), to(0, of(1) * by_s), to(1, of(2) * H), to(2, of(3) * H);
            store(bar, of(4) * H);
        }
    }
};

}  // namespace
