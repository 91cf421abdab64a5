// Networks with gates as torch defines them (cells/gate_form.py), a whole sequence and back. A gate's arguments lie
// apart from those of the next, each (rows, n16), so that a pass over a gate is one over whole vectors.
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
    Size member, n, hp, np, mp, terms, wide, each;  // each: numbers of `affine` of a part
    T *W, *affine, *V;  // of each part (n16, n16), rows W's; (n + m + 1, n16), transposes; (n16, m16)

    static Size rows_count(const FormArgs& a) { return pad(a.n) + pad(a.m) + BLOCK; }
    static Size count(const FormArgs& a) {
        Size hp = pad(a.n);
        return Here::PARTS * hp * (hp + pad(a.m) + rows_count(a));
    }

    // Takes `count` numbers of memory.
    GateNetwork(const FormArgs& args, Size which, T*& memory)
        : a(args), member(which), n(a.n), hp(pad(n)), np(BLOCKS * hp), mp(pad(a.m)), terms(n + a.m + 1),
          wide(pad(terms)), each(rows_count(a) * hp), W(take(memory, Here::PARTS * hp * hp)),
          affine(take(memory, Here::PARTS * each)), V(take(memory, Here::PARTS * hp * mp)) {
        for (int part = 0; part < Here::PARTS; part++) pack(part);
    }

    T* W_of(int part) const { return W + part * hp * hp; }
    T* V_of(int part) const { return V + part * hp * mp; }
    T* affine_of(int part) const { return affine + part * each; }

    // x and 1 after the n numbers of h; what comes then is never read
    void complete(Size step, Size trajectory, T* z) const {
        Size before = a.shared ? step : step * a.members + member;
        copy_row(z + n, (const T*)a.inputs + (before * a.batch + trajectory) * a.m, a.m);
        z[terms - 1] = 1;
    }

  private:
    void pack(int part) {
        Size m = a.m, first = (member * Here::GATES + Here::row(part)) * n;
        T *to = affine_of(part), *bias = to + (n + m) * hp;
        zero(to, each);
        if (Here::recurs(part)) {
            copy_rows((const T*)a.W + first * n, n, n, W_of(part), hp);
            transpose(hp, hp, W_of(part), hp, to, hp);
        }
        if (Here::driven(part)) {
            copy_rows((const T*)a.V + first * m, n, m, V_of(part), mp);
            transpose(hp, mp, V_of(part), mp, to + n * hp, hp);
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
    Size n, m, hp, wide, apart;
    T *lefts, *tails;  // of each part (ROOM, n16); (m + 1, n16): columns of x and 1, where they are few
    bool narrow;

    static Size count(const FormArgs& a) { return Here::PARTS * (ROOM + FEW + 1) * pad(a.n); }
    static constexpr Size FEW = 4;

    GateOuter(const Bars& to, T*& memory)
        : bars(to), n(to.a.n), m(to.a.m), hp(pad(n)), wide(to.wide), apart(ROOM * hp),
          lefts(take(memory, Here::PARTS * apart)), tails(take(memory, Here::PARTS * (FEW + 1) * hp)),
          narrow(m <= FEW) {
        zero(tails, Here::PARTS * (FEW + 1) * hp);
    }

    // of `rows` rows of z, from row `at` of the lefts on
    void columns(Size at, Size rows, const T* z) {
        for (int part = 0; part < Here::PARTS; part++)
            // in a product over all of z the bias of what sees no x would come with x
            for (Size c = narrow && Here::driven(part) ? 0 : m; c <= m; c++)
                if (narrow || !Here::driven(part)) column(part, narrow ? c : 0, at, rows, z + n + c);
    }

    void add(Size rows, const T* z) {
        for (int part = 0; part < Here::PARTS; part++) {
            bool recurs = Here::recurs(part), driven = Here::driven(part) && !narrow;
            if (!recurs && !driven) continue;
            // of what sees no h, columns from the block on in which x begins
            Size from = recurs ? 0 : n / BLOCK * BLOCK, to = driven ? wide : hp;
            product<T, ADD>(n, to - from, rows, {lefts + part * apart, 1, hp}, z + from, wide,
                            bars.part(part) + from, wide);
        }
    }

    void flush() const {
        for (int part = 0; part < Here::PARTS; part++)
            if (narrow || !Here::driven(part))
                for (Size c = narrow && Here::driven(part) ? 0 : m; c <= m; c++)
                    for (Size i = 0; i < n; i++)
                        bars.part(part)[i * wide + n + c] = tail(part, narrow ? c : 0)[i];
    }

  private:
    T* tail(int part, Size c) const { return tails + (part * (FEW + 1) + c) * hp; }

    void column(int part, Size c, Size at, Size rows, const T* z) const {
        T* total = tail(part, c);
        const T* left = lefts + part * apart + at * hp;
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            Vec<T> all = load(total + i);
            for (Size j = 0; j < rows; j++) all += z[j * wide] * load(left + j * hp + i);
            store(total + i, all);
        }
    }
};

template <class T, int KIND> struct GateUnroll : Batch<GateNetwork<T, KIND>> {
    using Here = Gating<KIND>;
    using Base = Batch<GateNetwork<T, KIND>>;
    using Bars = GateGradients<T, KIND>;
    using Base::a, Base::n, Base::hp, Base::np, Base::first, Base::rows, Base::net, Base::h, Base::u, Base::p;
    using Base::chunk, Base::ahead;
    static constexpr int READ = 1;   // parts of a state that a readout sees
    T* inner_slopes = nullptr;       // of those that spike
    T* factors = nullptr;            // of every step FACTORS times (chunk, n16)
    T *arguments, *cells, *memories; // PARTS times (CHUNK, n16); c and tanh of it, (CHUNK, n16)
    Size apart;                      // numbers of a part

    // What the adjoint sums up, z being written again.
    struct Sums {
        static constexpr bool KEPT = false;
        Bars bars;
        struct Affine : GateOuter<T, KIND> {
            Size filled = 0;
            T* rights;
            Affine(const Bars& to, T*& memory)
                : GateOuter<T, KIND>(to, memory), rights(take(memory, DEPTH * this->wide)) {}
            T* left() { return this->lefts + filled * this->hp; }
            T* right() { return rights + filled * this->wide; }
            void written(Size count) {
                this->columns(filled, count, right());
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
    static Size own_count(const FormArgs& a) { return (Here::PARTS + 2) * CHUNK * pad(a.n); }
    static Size work(const UnrollArgs& a) {
        Size hp = pad(a.form.n), wide = pad(a.form.n + a.form.m + 1);
        return (GateNetwork<T, KIND>::count(a.form) + CHUNK * (3 * Base::BLOCKS * hp + wide + pad(a.form.m)) +
                own_count(a.form) + GateOuter<T, KIND>::count(a.form) + DEPTH * wide) * (Size)sizeof(T);
    }

    GateUnroll(const UnrollArgs& args, Size unit, T* memory, T*& work)
        : Base(args, unit, memory, work), arguments(take(work, Here::PARTS * CHUNK * hp)),
          cells(take(work, CHUNK * hp)), memories(take(work, CHUNK * hp)), apart(CHUNK * hp) {}

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
        for (int part = 0; part < Here::PARTS; part++) argue(part);
        ahead.rest();
        if (Here::LONG)
            for (Size j = 0; j < rows; j++) copy_row(cells + j * hp, h + j * np + hp, hp);
        T* kept = a.keep && factors ? factor(s, 0) : nullptr;
        constexpr int U = REGISTERS == 32 ? 4 : 2;
        Size count = rows * hp, i = 0;
        for (; i + U * WIDTH<T> <= count; i += U * WIDTH<T>) bend<U>(i, kept);
        for (; i < count; i += WIDTH<T>) bend<1>(i, kept);
        if (!Here::LONG) return;
        for (Size j = 0; j < rows; j++) {
            copy_row(h + j * np, memories + j * hp, hp);
            copy_row(h + j * np + hp, cells + j * hp, hp);
        }
    }

    // From cotangents of h' to those of h, both in `h`.
    template <class Sum> void step_back(Size s, const T* before, Sum& sums) const {
        T* a_bar = sums.affine.left();
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>) straighten(j * hp + i, h + j * np + i, factor(s, 0), a_bar);
        bool any = !Here::LONG;  // the part of h' that comes from h alone
        for (int part = 0; part < Here::PARTS; part++) {
            if (!Here::recurs(part)) continue;
            Strided<T> bar = {a_bar + part * lane, hp, 1};
            if (any) product<T, ADD>(rows, hp, n, bar, net.W_of(part), hp, h, np, ahead);
            else product<T, SET>(rows, hp, n, bar, net.W_of(part), hp, h, np, ahead);
            any = true;
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
            Strided<T> bar = {a_bar + part * lane, hp, 1};
            if (any) product<T, ADD>(rows, net.mp, n, bar, net.V_of(part), net.mp, x_bar, net.mp);
            else product<T, SET>(rows, net.mp, n, bar, net.V_of(part), net.mp, x_bar, net.mp);
            any = true;
        }
    }

  private:
    const Size lane = GateOuter<T, KIND>::ROOM * hp;  // numbers from the lefts of a part to those of the next

    T* factor(Size s, int which) const { return factors + (s * Here::FACTORS + which) * chunk * hp; }
    T* argument(int part) const { return arguments + part * apart; }

    void argue(int part) const {
        Size m = a.form.m, from = Here::recurs(part) ? 0 : n;
        const T* affine = net.affine_of(part);
        if (Here::driven(part)) {
            product<T, SET>(rows, hp, net.terms - from, {u + from, net.wide, 1}, affine + from * hp, hp,
                            argument(part), hp, ahead);
            return;
        }
        for (Size j = 0; j < rows; j++) copy_row(argument(part) + j * hp, affine + (n + m) * hp, hp);
        product<T, ADD>(rows, hp, n, {u, net.wide, 1}, affine, hp, argument(part), hp, ahead);
    }

    template <int U> INLINE Many<T, U> take_at(const T* p, Size i) const {
        return Many<T, U>::each([&](int u) { return load(p + i + u * WIDTH<T>); });
    }
    template <int U> INLINE void put_at(T* p, Size i, const Many<T, U>& x) const {
        UNROLL
        for (int u = 0; u < U; u++) store(p + i + u * WIDTH<T>, x.at[u]);
    }

    template <int U> INLINE void bend(Size i, T* kept) const {
        if constexpr (Here::LONG) bend_long<U>(i, kept);
        else bend_short<U>(i, kept);
    }

    // h' = (1 - z) s + z h moves by (1 - z) s' with a_s, by r times that with u_s, by u_s r' times that with a_r, by
    // (h - s) z' with a_z and by z with h: what is kept, in this order but for r in the place of the second.
    template <int U> INLINE void bend_short(Size i, T* kept) const {
        using All = Many<T, U>;
        Size k = chunk * hp;
        All r, no_r, z, no_z, s, slope;
        sigmoid_of<T, U>(take_at<U>(argument(1), i), r, no_r);
        sigmoid_of<T, U>(take_at<U>(argument(2), i), z, no_z);
        All us = take_at<U>(argument(0), i), as = take_at<U>(argument(3), i);
        tanh_of<T, U>(All::each([&](int w) { return as.at[w] + r.at[w] * us.at[w]; }), s, slope);
        All before = take_at<U>(h, i);
        put_at<U>(h, i, All::each([&](int w) { return no_z.at[w] * s.at[w] + z.at[w] * before.at[w]; }));
        if (!kept) return;
        All by_s = All::each([&](int w) { return no_z.at[w] * slope.at[w]; });
        put_at<U>(kept, i, by_s);
        put_at<U>(kept + k, i, r);
        put_at<U>(kept + 2 * k, i,
                  All::each([&](int w) { return by_s.at[w] * us.at[w] * (r.at[w] * no_r.at[w]); }));
        put_at<U>(kept + 3 * k, i,
                  All::each([&](int w) { return (before.at[w] - s.at[w]) * (z.at[w] * no_z.at[w]); }));
        put_at<U>(kept + 4 * k, i, z);
    }

    // c' = f c + i g and h' = o tanh(c'): kept are how h' moves with c' and a_o, and c' with a_i, a_f, a_g and c.
    template <int U> INLINE void bend_long(Size at, T* kept) const {
        using All = Many<T, U>;
        Size k = chunk * hp;
        All i, no_i, f, no_f, o, no_o, g, of_g, y, of_y;
        sigmoid_of<T, U>(take_at<U>(argument(0), at), i, no_i);
        sigmoid_of<T, U>(take_at<U>(argument(1), at), f, no_f);
        tanh_of<T, U>(take_at<U>(argument(2), at), g, of_g);
        All c = take_at<U>(cells, at);
        if (kept) {
            put_at<U>(kept + 2 * k, at, All::each([&](int w) { return g.at[w] * (i.at[w] * no_i.at[w]); }));
            put_at<U>(kept + 3 * k, at, All::each([&](int w) { return c.at[w] * (f.at[w] * no_f.at[w]); }));
            put_at<U>(kept + 4 * k, at, All::each([&](int w) { return i.at[w] * of_g.at[w]; }));
            put_at<U>(kept + 5 * k, at, f);
        }
        c = All::each([&](int w) { return f.at[w] * c.at[w] + i.at[w] * g.at[w]; });
        put_at<U>(cells, at, c);
        tanh_of<T, U>(c, y, of_y);
        sigmoid_of<T, U>(take_at<U>(argument(3), at), o, no_o);
        put_at<U>(memories, at, All::each([&](int w) { return o.at[w] * y.at[w]; }));
        if (!kept) return;
        put_at<U>(kept, at, All::each([&](int w) { return o.at[w] * of_y.at[w]; }));
        put_at<U>(kept + k, at, All::each([&](int w) { return y.at[w] * (o.at[w] * no_o.at[w]); }));
    }

    // The cotangents of all arguments, and those of the state but for what comes through the arguments.
    INLINE void straighten(Size i, T* bar, const T* kept, T* a_bar) const {
        Size k = chunk * hp;
        auto of = [&](int which) { return load(kept + which * k + i); };
        auto to = [&](int part, Vec<T> x) { store(a_bar + part * lane + i, x); };
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
