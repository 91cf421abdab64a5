// Leaky integrate-and-fire neurons (cells/spiking.py), spikes S = g(U - threshold), d the slope of a surrogate:
//     I' = alpha I + W S + V x + b,   v = beta U + fresh I' + stale I,   U' = v (1 - S) or v - threshold S.
// One of fresh and stale is 1 - beta, the other 0. To derivatives dU' = keep dv - bite dS: see `keep` and `bite`.
// A state is two rows of n16 numbers, U and I, and so is a column of a frame.
#pragma once
#include "scan.h"
#include "unroll.h"

namespace {

enum Convention { NEURONS = 1, SUBTRACT_RESET = 2, FULL = 4, IGNORE = 8, SIMULTANEOUS = 16 };  // bits

template <class T> struct Lif : Network<T> {
    static constexpr int BLOCKS = 2;
    using Network<T>::a, Network<T>::n, Network<T>::np, Network<T>::inner;
    T *alpha, *beta, *fresh, *stale, *threshold;  // (n16)

    static Size count(const FormArgs& a) { return Network<T>::count(a) + 5 * pad(a.n); }

    // Takes `count` numbers of memory.
    Lif(const FormArgs& args, Size member, T*& memory)
        : Network<T>(args, member, memory), alpha(take(memory, np)), beta(take(memory, np)),
          fresh(take(memory, np)), stale(take(memory, np)), threshold(take(memory, np)) {
        copy_in(alpha, (const T*)a.alpha + member * n, n);
        copy_in(beta, (const T*)a.beta + member * n, n);
        copy_in(threshold, (const T*)a.threshold + member * n, n);
        zero(fresh, np), zero(stale, np);
        T* other = is(SIMULTANEOUS) ? stale : fresh;
        for (Size i = 0; i < n; i++) other[i] = 1 - beta[i];
    }

    bool is(Convention c) const { return a.neurons & c; }
    bool bent() const { return is(FULL) && !is(SUBTRACT_RESET); }  // whether dU' holds products of v and S

    INLINE Jet<T> spikes(Vec<T> U, Size i) const { return inner(U - load(threshold + i), i); }
    INLINE Vec<T> potential(Vec<T> U, Vec<T> I, Vec<T> current, Size i) const {
        return load(beta + i) * U + load(fresh + i) * current + load(stale + i) * I;
    }
    INLINE Vec<T> reset(Vec<T> v, Vec<T> S, Size i) const {
        return is(SUBTRACT_RESET) ? v - load(threshold + i) * S : v * (1 - S);
    }
    INLINE Vec<T> keep(Vec<T> S) const { return is(SUBTRACT_RESET) || is(IGNORE) ? splat<T>(1) : 1 - S; }
    INLINE Vec<T> bite(Vec<T> v, Size i) const {
        return !is(FULL) ? Vec<T>{} : is(SUBTRACT_RESET) ? load(threshold + i) : v;
    }
};

template <class T> struct LifUnroll : Batch<Lif<T>> {
    using Base = Batch<Lif<T>>;
    using Bars = Gradients<T>;
    static constexpr int READ = 2;
    using Base::a, Base::n, Base::hp, Base::np, Base::first, Base::rows, Base::net, Base::h, Base::u, Base::v;
    using Base::p, Base::chunk, Base::ahead, typename Base::Sums;
    T* inner_slopes = nullptr;  // of every step, where z is kept, too: then neither is made again on the way back
    T* potentials = nullptr;    // v of every step, where they are wanted, too

    static Size trace_count(const UnrollArgs&) { return 0; }
    static Size tape_count(const UnrollArgs& a) { return a.keep ? Gradients<T>::count(a.form) : 0; }

    using Base::Base;

    void lay(T*&) {}
    // Those of a step that is taken back in the same call: takes `kept_count` numbers.
    static Size kept_count(const FormArgs& a) {
        return ((a.steps + 1) + (a.neurons & FULL ? a.steps : 0)) * pad(a.n);
    }
    void keep(T*& memory) {
        inner_slopes = take(memory, (a.form.steps + 1) * chunk * hp);
        if (net.is(FULL)) potentials = take(memory, a.form.steps * chunk * hp);
    }

    void fetch_kept(Size s) const { ahead.add(inner_slopes + s * chunk * hp, rows * hp); }

    void read(Size s) const {
        T* slope = a.keep && inner_slopes ? inner_slopes + s * chunk * hp : nullptr;
        for (Size j = 0; j < rows; j++) {
            T *z = u + j * net.wide, *S = p + j * hp;
            for (Size i = 0; i < hp; i += WIDTH<T>) {
                Jet<T> spikes = net.spikes(load(h + j * np + i), i);
                store(S + i, spikes.value);
                if (slope) store(slope + j * hp + i, spikes.slope);
            }
            copy_row(z, S, n);
        }
    }

    void step(Size s) const {
        T* potential_of = a.keep && potentials ? potentials + s * chunk * hp : nullptr;
        for (Size j = 0; j < rows; j++) net.complete(s, first + j, u + j * net.wide);
        product<T, SET>(rows, hp, net.terms, {u, net.wide, 1}, net.affine, hp, v, hp, ahead);
        ahead.rest();
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>) {
                T *U = h + j * np + i, *I = U + hp;
                Vec<T> current = load(net.alpha + i) * load(I) + load(v + j * hp + i);
                Vec<T> potential = net.potential(load(U), load(I), current, i);
                if (potential_of) store(potential_of + j * hp + i, potential);
                store(U, net.reset(potential, load(p + j * hp + i), i));
                store(I, current);
            }
    }

    // From cotangents of the states after to those of the states before, both in `h`.
    template <class Sum> void step_back(Size s, const T* before, Sum& sums) const {
        T *a_bar = sums.affine.left(), *share = p + hp;
        const T* slope = Sum::KEPT ? inner_slopes + s * chunk * hp : p;
        const Size apart = Sum::KEPT ? hp : np;  // of rows of slopes
        for (Size j = 0; j < rows; j++)
            if constexpr (Sum::KEPT) row_of_tape(s, j, a_bar);
            else row_again(s, j, before, a_bar, sums);
        product<T, SET>(rows, hp, n, {a_bar, hp, 1}, net.W, hp, share, np, ahead);
        ahead.rest();
        for (Size j = 0; j < rows; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>) {
                T* U_bar = h + j * np + i;
                store(U_bar, load(U_bar) + load(slope + j * apart + i) * load(share + j * np + i));
            }
    }

  private:
    // dv sees U_bar keep; I' is seen by itself and, in sequence, by v
    INLINE void back(Size j, Size i, Vec<T> S, Vec<T> slope, Vec<T> bite, T* a_bar) const {
        T *U_bar = h + j * np + i, *I_bar = U_bar + hp;
        Vec<T> bar = net.keep(S) * load(U_bar), of_a = load(I_bar) + load(net.fresh + i) * bar;
        store(a_bar + j * hp + i, of_a);
        store(U_bar, load(net.beta + i) * bar - slope * bite * load(U_bar));
        store(I_bar, load(net.alpha + i) * of_a + load(net.stale + i) * bar);
    }

    void row_of_tape(Size s, Size j, T* a_bar) const {
        const T *S = u + j * net.wide, *slope = inner_slopes + (s * chunk + j) * hp;
        const T* v_of = potentials ? potentials + (s * chunk + j) * hp : slope;
        for (Size i = 0; i < hp; i += WIDTH<T>)
            back(j, i, load(S + i), load(slope + i), net.bite(load(v_of + i), i), a_bar);
    }

    template <class Sum> void row_again(Size s, Size j, const T* before, T* a_bar, Sum& sums) const {
        T *current = u + j * net.wide, *z = sums.affine.right() + j * net.wide;
        copy_in(current, (const T*)a.states + ((this->row(s) + j) * 2 + 1) * n, n);
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            const T *U = before + j * np + i, *I = U + hp;
            Jet<T> S = net.spikes(load(U), i);
            store(z + i, S.value);
            store(p + j * np + i, S.slope);
            back(j, i, S.value, S.slope, net.bite(net.potential(load(U), load(I), load(current + i), i), i), a_bar);
        }
        net.complete(s, first + j, z);
    }
};

template <class T> struct LifScan : Trajectory<Lif<T>> {
    using Base = Trajectory<Lif<T>>;
    using Base::a, Base::trajectory, Base::n, Base::k, Base::np, Base::net, Base::h, Base::u, Base::bend;
    using Base::share, Base::left, Base::right, Base::pushed, Base::residual, Base::row, Base::Base;
    const Size hp = np / 2;

    void step(Size s, const T* Y, T* to) {
        T *z = row(s, INPUT), *S = u, *arriving = bend;
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            Jet<T> f = net.spikes(load(h + i), i);
            store(S + i, f.value);
            store(row(s, INNER_SLOPE) + i, f.slope);
            store(row(s, INNER_CURVATURE) + i, f.curvature);
            store(row(s, INNER_SHARPENING) + i, f.sharpening);
        }
        memcpy(z, S, n * sizeof(T));
        net.complete(s, trajectory, z);
        row_product<T, SET>(hp, net.terms, z, net.affine, hp, arriving);
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            T *U = h + i, *I = U + hp;
            Vec<T> current = load(net.alpha + i) * load(I) + load(arriving + i);
            Vec<T> v = net.potential(load(U), load(I), current, i);
            store(row(s, KEEP) + i, net.keep(load(S + i)));
            store(row(s, BITE) + i, net.bite(v, i));
            store(U, net.reset(v, load(S + i), i));
            store(I, current);
        }
        push(s, Y, to);
    }

    void push(Size s, const T* Y, T* to) {
        const T *keep = row(s, KEEP), *bite = row(s, BITE), *P = pushed;
        spike(s, Y);
        product<T, SET>(k, hp, n, {P, hp, 1}, net.affine, hp, to + hp, np);
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>) {
                T *U = to + j * np + i, *I = U + hp;
                Vec<T> before = load(Y + j * np + hp + i), current = load(I) + load(net.alpha + i) * before;
                Vec<T> v = net.potential(load(Y + j * np + i), before, current, i);
                store(U, load(keep + i) * v - load(bite + i) * load(P + j * hp + i));
                store(I, current);
            }
    }

    // From cotangents of h' and Y' to those of h and Y, all in `h` and `left`.
    void step_back(Size s, const T* Y, Gradients<T>& bars) {
        T *a_bar = row(s, A_BAR), *P = pushed, *A = right;
        spike(s, Y);
        if (net.bent()) product<T, SET>(k, hp, n, {P, hp, 1}, net.affine, hp, residual, hp);
        reset_back(s, Y);
        product<T, SET>(k, hp, n, {left + hp, np, 1}, net.W, hp, A, hp);
        product<T, ADD>(n, hp, k, {left + hp, 1, np}, P, hp, bars.affine, net.wide);
        row_product<T, SET>(hp, n, a_bar, net.W, hp, share);
        spikes_back(s, Y, A, bars);
    }

  private:
    // Tangents of the spikes, (k, n16) in `pushed`.
    void spike(Size s, const T* Y) const {
        const T* slope = row(s, INNER_SLOPE);
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < hp; i += WIDTH<T>)
                store(pushed + j * hp + i, load(Y + j * np + i) * load(slope + i));
    }

    // Cotangents of I' and its tangents to A_BAR and the second half of `left`; that of S, but for what comes
    // through I', to `bend`; those of the state, but for what comes through S, to `h`.
    void reset_back(Size s, const T* Y) {
        bool bent = net.bent();
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            Vec<T> keep = load(row(s, KEEP) + i), alpha = load(net.alpha + i), fresh = load(net.fresh + i);
            Vec<T> of_v = Vec<T>{}, of_S = Vec<T>{};
            for (Size j = 0; j < k; j++) {
                T *N = left + j * np + i, *N_I = N + hp;
                const T *U = Y + j * np + i, *I = U + hp;
                // tangents: i' is seen by itself and by u' = keep (beta u + fresh i' + stale i) - bite s
                store(N_I, load(N_I) + fresh * keep * load(N));
                if (!bent) continue;
                Vec<T> current = load(residual + j * hp + i) + alpha * load(I);
                // keep = 1 - S and bite = v depend on the state: by S: -N v's tangent; by v: -N s
                of_S += load(N) * net.potential(load(U), load(I), current, i);
                of_v += load(N) * load(pushed + j * hp + i);
            }
            Vec<T> U_bar = load(h + i), v_bar = keep * U_bar - of_v, of_a = load(h + hp + i) + fresh * v_bar;
            store(bend + i, -of_S - load(row(s, BITE) + i) * U_bar);
            store(row(s, A_BAR) + i, of_a);
            store(h + i, load(net.beta + i) * v_bar);
            store(h + hp + i, alpha * of_a + load(net.stale + i) * v_bar);
        }
    }

    // The rest, given A, the cotangents of the spikes' tangents that come through I'.
    void spikes_back(Size s, const T* Y, const T* A, Gradients<T>& bars) {
        for (Size i = 0; i < hp; i += WIDTH<T>) {
            Vec<T> keep = load(row(s, KEEP) + i), bite = load(row(s, BITE) + i), beta = load(net.beta + i);
            Vec<T> slope = load(row(s, INNER_SLOPE) + i), of_slope = Vec<T>{};
            for (Size j = 0; j < k; j++) {
                T *N = left + j * np + i, *N_I = N + hp;
                Vec<T> of_U = load(N), bar = load(A + j * hp + i) - bite * of_U;
                of_slope += bar * load(Y + j * np + i);
                store(N, beta * keep * of_U + slope * bar);
                store(N_I, load(net.alpha + i) * load(N_I) + load(net.stale + i) * keep * of_U);
            }
            Vec<T> curvature = load(row(s, INNER_CURVATURE) + i), sharpening = load(row(s, INNER_SHARPENING) + i);
            store(h + i, load(h + i) + slope * (load(bend + i) + load(share + i)) + curvature * of_slope);
            store(bars.inner + i, load(bars.inner + i) + sharpening * of_slope);
        }
    }
};

}  // namespace
