// The scan of a form with its frame, forwards, for one trajectory of one member.
// Frames are stored transposed (k x n16), so that no product needs a transposed matrix.
#pragma once
#include "factor.h"
#include "network.h"

namespace {

// What a step leaves on the tape, rows of n16 numbers: (g(h), x, 1), which may be wider; h; and, with their
// derivatives, g' and g'', c f' and c f'', f and f', phi' and phi''. A_BAR is the adjoint's.
enum Row {
    INPUT, STATE, INNER_SLOPE, INNER_CURVATURE, INNER_SHARPENING, OUTER_SLOPE, OUTER_CURVATURE, OUTER_SHARPENING,
    PLAIN_VALUE, PLAIN_SLOPE, PHI_SLOPE, PHI_CURVATURE, PHI_SHARPENING, A_BAR, ROWS
};

// Where everything lies on the tape of one trajectory, in numbers.
struct Layout {
    Size at[ROWS], step;  // of a row within a step, -1 if it is not kept; of a step
    Size frames, factors, inverses, gradients, total;

    template <class T> static Layout of(const ScanArgs& s) {
        const FormArgs& a = s.form;
        Size np = pad(a.n), kp = pad(s.k), steps = s.keep ? a.steps : 1, spans = s.keep ? s.spans : 1;
        bool bent = a.outer.value != IDENTITY || a.coupling, phi = a.phi.value != IDENTITY;
        bool inner = a.inner.value != IDENTITY;
        Layout l;
        l.step = pad(a.n + a.m + 1);
        l.at[INPUT] = 0;
        auto row = [&](Row r, bool kept) { l.at[r] = kept ? l.step : -1, l.step += kept ? np : 0; };
        row(STATE, a.residual != NONE), row(INNER_SLOPE, inner), row(INNER_CURVATURE, inner);
        row(INNER_SHARPENING, a.inner.shape != EXACT), row(OUTER_SLOPE, bent), row(OUTER_CURVATURE, bent);
        row(OUTER_SHARPENING, a.outer.shape != EXACT), row(PLAIN_VALUE, a.train_coupling);
        row(PLAIN_SLOPE, a.train_coupling);
        row(PHI_SLOPE, phi), row(PHI_CURVATURE, phi), row(PHI_SHARPENING, a.phi.shape != EXACT);
        row(A_BAR, true);
        l.frames = steps * l.step;
        l.factors = l.frames + (spans + 1) * s.k * np;
        l.inverses = l.factors + spans * kp * kp;
        l.gradients = l.inverses + spans * kp * BLOCK;
        l.total = l.gradients + (s.keep ? Gradients<T>::count(a) : 0);
        return l;
    }
};

template <class T> struct Scan {
    const ScanArgs& a;
    Size item, member, trajectory, items, n, k, np, kp;
    Network<T> net;
    Layout layout;
    T *tape, *h, *u, *left, *right, *pushed, *residual, *products, *outer_products;
    FactorScratch<T> scratch;

    static Size longest(const ScanArgs& a) {
        Size length = 1;
        for (Size i = 0; i < a.spans; i++)
            if (a.cuts[i + 1] - a.cuts[i] > length) length = a.cuts[i + 1] - a.cuts[i];
        return length;
    }

    static Size tape_size(const ScanArgs& a) {
        return a.form.members * a.form.batch * Layout::of<T>(a).total * (Size)sizeof(T);
    }

    static Size work(const ScanArgs& a) {
        Size np = pad(a.form.n), kp = pad(a.k), frame = kp * np;
        Size tape = a.keep ? 0 : Layout::of<T>(a).total;
        // the adjoint keeps the products within an interval
        return (Network<T>::count(a.form) + np * np + 5 * np + (4 + longest(a)) * frame + tape +
                FactorScratch<T>::count(np, kp)) * (Size)sizeof(T);
    }

    Scan(const ScanArgs& args, Size which, T* p)
        : a(args), item(which), member(which / a.form.batch), trajectory(which % a.form.batch),
          items(a.form.members * a.form.batch), n(a.form.n), k(a.k), np(pad(n)), kp(pad(k)),
          net(a.form, member, p), layout(Layout::of<T>(a)),
          tape(a.keep ? (T*)a.form.tape + item * layout.total : take(p, layout.total)), h(take(p, np)),
          u(take(p, 4 * np)), left(take(p, kp * np)), right(take(p, kp * np)), pushed(take(p, kp * np)),
          residual(take(p, kp * np)), products(take(p, longest(a) * kp * np)), outer_products(take(p, np * np)),
          scratch(p, np, kp) {}

    void forward();

    T* row(Size s, Row which) const { return tape + (a.keep ? s : 0) * layout.step + layout.at[which]; }
    T* frame(Size i) const { return tape + layout.frames + (a.keep ? i : i % 2) * k * np; }
    Factor<T> factor(Size i, uint8_t* dead) const {
        Size slot = a.keep ? i : 0;
        return {tape + layout.factors + slot * kp * kp, tape + layout.inverses + slot * kp * BLOCK, dead};
    }

    bool all_finite(const T* v) const {
        Vec<T> bad = Vec<T>{};
        for (Size i = 0; i < np; i += WIDTH<T>) bad += load(v + i) - load(v + i);
        return sum<T>(bad) == 0;
    }

    void put_frame(const T* Y, T* to) const {
        to += item * n * k;
        for (Size i = 0; i < n; i++)
            for (Size j = 0; j < k; j++) to[i * k + j] = Y[j * np + i];
    }

    void scale_columns(const T* Y, const T* by, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * load(by + i));
    }

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
        net.residual.forward(k, Y, residual);
        if (net.phi.any()) scale_columns(residual, row(s, PHI_SLOPE), residual);
        for (Size i = 0; i < k * np; i += WIDTH<T>) store(to + i, load(to + i) + load(residual + i));
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
};

template <class T> void Scan<T>::forward() {
    copy_in(h, (const T*)a.form.h0 + item * n, n);
    const T* start = (const T*)a.frame + item * n * k;
    zero(frame(0), k * np);
    for (Size i = 0; i < n; i++)
        for (Size j = 0; j < k; j++) frame(0)[j * np + i] = start[i * k + j];
    int64_t *broken = a.status + 2 * item, *overflow = broken + 1;
    *broken = *overflow = -1;
    uint8_t* before = nullptr;
    for (Size i = 0; i < a.spans; i++) {
        uint8_t* dead = a.dead + (i * items + item) * k;
        if (before) memcpy(dead, before, k); else memset(dead, 0, k);
        before = dead;
        const T* Y = frame(i);
        for (Size s = a.cuts[i]; s < a.cuts[i + 1]; s++) {
            T* to = Y == right ? products : right;
            step(s, Y, to);
            Y = to;
            if (*overflow < 0 && !all_finite(h)) *overflow = s;
        }
        Factor<T> f = factor(i, dead);
        if (!orthonormalise(n, k, Y, frame(i + 1), f, a.twice[i] != 0, scratch)) {
            *broken = i;
            return;
        }
        T* pivots = (T*)a.pivots + (i * items + item) * k;
        for (Size j = 0; j < k; j++) pivots[j] = f.R[j * kp + j];
    }
    if (all_finite(h)) *overflow = -1;
    memcpy((T*)a.h + item * n, h, n * sizeof(T));
    put_frame(frame(a.spans), (T*)a.Q);
}

}  // namespace
