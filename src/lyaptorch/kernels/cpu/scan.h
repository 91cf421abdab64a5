// The scan of h' = f(W g(h) + drive) with its frame, and the log-R adjoint, for one trajectory of one member.
// Frames are stored transposed (k x n16), so that no product needs a transposed matrix.
#pragma once
#include "abi.h"
#include "factor.h"

namespace {

enum Unit { VALUE, INNER_SLOPE, INNER_CURVATURE, OUTER_SLOPE, OUTER_CURVATURE, UNITS };

template <class T> struct Scan {
    const ScanArgs& a;
    Size item, member, items, n, k, np, kp;
    T *units, *frames, *factors, *inverses;
    T *W, *h, *u, *left, *right, *pushed, *spare, *products;
    FactorScratch<T> scratch;

    static Size longest(const ScanArgs& a) {
        Size length = 1;
        for (Size i = 0; i < a.spans; i++)
            if (a.cuts[i + 1] - a.cuts[i] > length) length = a.cuts[i + 1] - a.cuts[i];
        return length;
    }

    static Size work(const ScanArgs& a) {
        Size np = pad(a.n), kp = pad(a.k), frame = kp * np;
        Size tape = a.keep ? 0 : UNITS * np + 2 * frame + kp * kp + kp * BLOCK;
        // the adjoint keeps the products within an interval
        return (2 * np * np + 4 * np + 3 * frame + tape + longest(a) * frame +
                FactorScratch<T>::count(np, kp)) * (Size)sizeof(T);
    }

    Scan(const ScanArgs& args, Size which, void* memory)
        : a(args), item(which), member(which / args.batch), items(args.members * args.batch), n(args.n), k(args.k),
          np(pad(n)), kp(pad(k)), scratch(take(args, memory), np, kp) {}

    bool scaled() const { return a.inner != 0; }
    T* unit(Size s, Unit which) const { return units + ((a.keep ? s : 0) * UNITS + which) * np; }
    T* frame(Size i) const { return frames + (a.keep ? i : i % 2) * k * np; }
    Factor<T> factor(Size i, uint8_t* dead) const {
        Size slot = a.keep ? i : 0;
        return {factors + slot * kp * kp, inverses + slot * kp * BLOCK, dead};
    }

    void forward() {
        const T* given = (const T*)a.W + member * n * n;
        zero(spare, np * np);
        for (Size i = 0; i < n; i++) copy_in(spare + i * np, given + i * n, n);
        transpose(np, np, spare, np, W, np);
        copy_in(h, (const T*)a.h0 + item * n, n);
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

    // a.c to gradients; X of the recursion is stored transposed, too, in `left`.
    void adjoint() {
        zero(W, np * np);
        for (Size i = 0; i < n; i++) copy_in(W + i * np, (const T*)a.W + member * n * n + i * n, n);
        T* W_bar = (T*)a.W_items + item * n * np;
        zero(W_bar, n * np);
        copy_in(h, (const T*)a.h_bar + item * n, n);
        scale_rows(coefficients(a.spans - 1), frame(a.spans), left);
        T spread = 0;
        for (Size i = a.spans - 1; i >= 0; i--) {
            if (i + 1 < a.spans) {
                spread += growth_spread(i + 1);
                if (spread > (T)2.3) project(frame(i + 1)), spread = 0;
            }
            Factor<T> f = factor(i, nullptr);
            solve_backwards(k, np, f.R, f.inverse, left, scratch.rows);
            span_back(i, W_bar);
            if (i > 0) add_differences(i);
        }
        Size stride = items * n;
        const T* a_bars = (const T*)a.a_bars + item * n;
        product<T, ADD>(n, np, a.steps, {a_bars, 1, stride}, unit(0, VALUE), UNITS * np, W_bar, np);
        memcpy((T*)a.h_bar + item * n, h, n * sizeof(T));
        put_frame(left, (T*)a.frame_bar);
    }

  private:
    T* take(const ScanArgs& args, void* memory) {
        T* p = (T*)memory;
        Size frame_size = kp * np;
        W = p, p += np * np;
        spare = p, p += np * np;
        h = p, p += np;
        u = p, p += 3 * np;
        left = p, p += frame_size;
        right = p, p += frame_size;
        pushed = p, p += frame_size;
        products = p, p += longest(args) * frame_size;
        if (args.keep) {
            units = (T*)args.units + item * args.steps * UNITS * np;
            frames = (T*)args.frames + item * (args.spans + 1) * k * np;
            factors = (T*)args.factors + item * args.spans * kp * kp;
            inverses = (T*)args.inverses + item * args.spans * kp * BLOCK;
        } else {
            units = p, p += UNITS * np;
            frames = p, p += 2 * frame_size;
            factors = p, p += kp * kp;
            inverses = p, p += kp * BLOCK;
        }
        return p;
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

    // One step of state and frame: Y' = (Y g'(h)) W^T f'(a).
    void step(Size s, const T* Y, T* to) {
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> g = jet<T>(a.inner, load(h + i));
            store(unit(s, VALUE) + i, g.value);
            store(unit(s, INNER_SLOPE) + i, g.slope);
            store(unit(s, INNER_CURVATURE) + i, g.curvature);
        }
        row_product(np, n, unit(s, VALUE), W, np, h);
        copy_in(u, (const T*)a.drive + (s * items + item) * n, n);
        for (Size i = 0; i < np; i += WIDTH<T>) {
            Jet<T> f = jet<T>(a.outer, load(h + i) + load(u + i));
            store(h + i, f.value);
            store(unit(s, OUTER_SLOPE) + i, f.slope);
            store(unit(s, OUTER_CURVATURE) + i, f.curvature);
        }
        push(s, Y, to, W);
    }

    void push(Size s, const T* Y, T* to, const T* transposed) {
        if (scaled()) scale_columns(Y, unit(s, INNER_SLOPE), pushed), Y = pushed;
        product<T, SET>(k, np, n, {Y, np, 1}, transposed, np, to, np);
        if (a.outer) scale_columns(to, unit(s, OUTER_SLOPE), to);
    }

    void scale_columns(const T* Y, const T* by, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * load(by + i));
    }

    void scale_rows(const T* by, const T* Y, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * by[j]);
    }

    const T* coefficients(Size i) const { return (const T*)a.c + (i * items + item) * k; }

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

    void span_back(Size i, T* W_bar) {
        Size first = a.cuts[i], last = a.cuts[i + 1] - 1;
        if (last > first) {
            transpose(np, np, W, np, spare, np);
            const T* Y = frame(i);
            for (Size s = first; s < last; s++) {
                T* to = products + (s - first) * kp * np;
                push(s, Y, to, spare);
                Y = to;
            }
        }
        for (Size s = last; s >= first; s--)
            step_back(s, s == first ? frame(i) : products + (s - 1 - first) * kp * np, W_bar);
    }

    // One step of (h_bar, X), in `h` and `left`; W_bar takes the frame's share of the gradient.
    void step_back(Size s, const T* Y, T* W_bar) {
        T *a_bar = u, *bend = u + np;
        zero(bend, np);
        const T* P = Y;
        if (scaled()) scale_columns(Y, unit(s, INNER_SLOPE), pushed), P = pushed;
        if (a.outer) {
            // N^T P serves twice: f'' sees sum_k N (W P) = its rows times those of W
            product<T, SET>(n, np, k, {left, 1, np}, P, np, spare, np);
            bend_outer(unit(s, OUTER_SLOPE), bend, W_bar);
            scale_columns(left, unit(s, OUTER_SLOPE), left);
        } else {
            product<T, ADD>(n, np, k, {left, 1, np}, P, np, W_bar, np);
        }
        for (Size i = 0; i < np; i += WIDTH<T>)
            store(a_bar + i, load(h + i) * load(unit(s, OUTER_SLOPE) + i) +
                                 load(unit(s, OUTER_CURVATURE) + i) * load(bend + i));
        memcpy((T*)a.a_bars + (s * items + item) * n, a_bar, n * sizeof(T));
        product<T, SET>(k, np, n, {left, np, 1}, W, np, right, np);
        row_product(np, n, a_bar, W, np, h);
        if (scaled()) {
            bend_inner(s, Y);
        } else {
            T* result = right;
            right = left, left = result;
        }
        if (a.cut && s % a.cut == 0) zero(h, np);
    }

    // W_bar += f' (N^T P), bend = row sums of W (N^T P), N^T P in `spare`
    void bend_outer(const T* slope, T* bend, T* W_bar) const {
        for (Size i = 0; i < n; i++) {
            Vec<T> total = Vec<T>{};
            for (Size j = 0; j < np; j += WIDTH<T>) {
                Vec<T> entry = load(spare + i * np + j);
                total += entry * load(W + i * np + j);
                store(W_bar + i * np + j, load(W_bar + i * np + j) + slope[i] * entry);
            }
            bend[i] = sum<T>(total);
        }
    }

    // X = A g', h_bar = u_bar g' + g'' sum_k A Y, with A in `right` and u_bar in `h`
    void bend_inner(Size s, const T* Y) {
        Size i = 0;
        for (; i + 4 * WIDTH<T> <= np; i += 4 * WIDTH<T>) bend_strip<4>(s, Y, i);
        for (; i < np; i += WIDTH<T>) bend_strip<1>(s, Y, i);
    }

    template <int VECTORS> void bend_strip(Size s, const T* Y, Size from) {
        constexpr int W = WIDTH<T>;
        const T *slope = unit(s, INNER_SLOPE) + from, *curvature = unit(s, INNER_CURVATURE) + from;
        Vec<T> total[VECTORS], by[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) total[v] = Vec<T>{}, by[v] = load(slope + v * W);
        for (Size j = 0; j < k; j++)
            UNROLL
            for (int v = 0; v < VECTORS; v++) {
                Vec<T> entry = load(right + j * np + from + v * W);
                total[v] += entry * load(Y + j * np + from + v * W);
                store(left + j * np + from + v * W, entry * by[v]);
            }
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            T* to = h + from + v * W;
            store(to, load(to) * by[v] + load(curvature + v * W) * total[v]);
        }
    }
};

// W_bar of a member: the sum over its trajectories, in their order.
template <class T> void reduce(const ScanArgs& a, Size member) {
    Size n = a.n, np = pad(n);
    T* to = (T*)a.W_bar + member * n * n;
    const T* from = (const T*)a.W_items + member * a.batch * n * np;
    for (Size i = 0; i < n; i++) {
        memcpy(to + i * n, from + i * np, n * sizeof(T));
        for (Size b = 1; b < a.batch; b++)
            for (Size j = 0; j < n; j++) to[i * n + j] += from[(b * n + i) * np + j];
    }
}

}  // namespace
