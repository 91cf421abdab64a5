// The states of h' = f(W g(h) + drive) and backpropagation through time. A unit of work is a few trajectories of
// one member, or a few rows of the gradient of one W: always the same ones, whatever the number of threads.
#pragma once
#include "abi.h"
#include "product.h"

namespace {

constexpr Size CHUNK = 8, STRIP_ROWS = 48, DEPTH_ROWS = 256;

INLINE Size ceil_div(Size a, Size b) { return (a + b - 1) / b; }

template <class T> struct Unroll {
    const UnrollArgs& a;
    Size n, np, items;

    explicit Unroll(const UnrollArgs& args) : a(args), n(args.n), np(pad(n)), items(args.members * args.batch) {}

    static Size units(const UnrollArgs& a) { return a.members * ceil_div(a.batch, CHUNK); }
    static Size weight_units(const UnrollArgs& a) { return a.members * ceil_div(a.n, STRIP_ROWS); }
    static Size work(const UnrollArgs& a) {
        Size np = pad(a.n), walk = 2 * np * np + 4 * CHUNK * np;
        Size weight = DEPTH_ROWS * (np + STRIP_ROWS) + STRIP_ROWS * np;
        return (walk > weight ? walk : weight) * (Size)sizeof(T);
    }

    void forward(Size unit, T* work) const {
        Size member, first, rows;
        locate(unit, member, first, rows);
        T *W = work, *spare = W + np * np, *h = spare + np * np, *u = h + CHUNK * np, *drive = u + CHUNK * np;
        weights(member, spare);
        transpose(np, np, spare, np, W, np);
        rows_in((const T*)a.h0, 0, first, rows, h);
        for (Size s = 0; s < a.steps; s++) {
            for (Size i = 0; i < rows * np; i += WIDTH<T>) store(u + i, jet<T>(a.inner, load(h + i)).value);
            rows_in((const T*)a.drive, s, first, rows, drive);
            product<T, ADD>(rows, np, n, {u, np, 1}, W, np, drive, np);
            T* slopes = a.slopes ? (T*)a.slopes + (s * items + first) * np : nullptr;
            for (Size i = 0; i < rows * np; i += WIDTH<T>) {
                Jet<T> f = jet<T>(a.outer, load(drive + i));
                store(h + i, f.value);
                if (slopes) store(slopes + i, f.slope);
            }
            rows_out(h, s, first, rows, (T*)a.states);
        }
    }

    void adjoint(Size unit, T* work) const {
        Size member, first, rows;
        locate(unit, member, first, rows);
        T *W = work, *h_bar = W + np * np, *a_bar = h_bar + CHUNK * np, *before = a_bar + CHUNK * np;
        weights(member, W);
        zero(h_bar, rows * np);
        for (Size s = a.steps - 1; s >= 0; s--) {
            rows_in((const T*)a.states_bar, s, first, rows, a_bar);
            const T* slopes = a.outer ? (const T*)a.slopes + (s * items + first) * np : nullptr;
            for (Size i = 0; i < rows * np; i += WIDTH<T>) {
                Vec<T> bar = load(a_bar + i) + load(h_bar + i);
                store(a_bar + i, slopes ? bar * load(slopes + i) : bar);
            }
            rows_out(a_bar, s, first, rows, (T*)a.a_bars);
            product<T, SET>(rows, np, n, {a_bar, np, 1}, W, np, h_bar, np);
            if (!a.inner) continue;
            rows_in(s ? (const T*)a.states : (const T*)a.h0, s ? s - 1 : 0, first, rows, before);
            for (Size i = 0; i < rows * np; i += WIDTH<T>)
                store(h_bar + i, load(h_bar + i) * jet<T>(a.inner, load(before + i)).slope);
        }
        rows_out(h_bar, 0, first, rows, (T*)a.h_bar);
    }

    // Rows of W_bar = sum over steps and trajectories of a_bar g(h)^T, DEPTH_ROWS terms at a time.
    void weight(Size unit, T* work) const {
        Size strips = ceil_div(n, STRIP_ROWS), member = unit / strips, top = unit % strips * STRIP_ROWS;
        Size height = least(STRIP_ROWS, n - top), filled = 0;
        T *values = work, *a_bars = values + DEPTH_ROWS * np, *W_bar = a_bars + DEPTH_ROWS * STRIP_ROWS;
        zero(W_bar, STRIP_ROWS * np);
        for (Size s = 0; s < a.steps; s++)
            for (Size b = 0; b < a.batch; b++) {
                Size item = member * a.batch + b;
                T* value = values + filled * np;
                rows_in(s ? (const T*)a.states : (const T*)a.h0, s ? s - 1 : 0, item, 1, value);
                if (a.inner)
                    for (Size i = 0; i < np; i += WIDTH<T>)
                        store(value + i, jet<T>(a.inner, load(value + i)).value);
                memcpy(a_bars + filled * STRIP_ROWS, (const T*)a.a_bars + (s * items + item) * n + top,
                       height * sizeof(T));
                filled++;
                if (filled == DEPTH_ROWS || (s + 1 == a.steps && b + 1 == a.batch)) {
                    product<T, ADD>(height, np, filled, {a_bars, 1, STRIP_ROWS}, values, np, W_bar, np);
                    filled = 0;
                }
            }
        for (Size i = 0; i < height; i++)
            memcpy((T*)a.W_bar + (member * n + top + i) * n, W_bar + i * np, n * sizeof(T));
    }

  private:
    void locate(Size unit, Size& member, Size& first, Size& rows) const {
        Size chunks = ceil_div(a.batch, CHUNK), start = unit % chunks * CHUNK;
        member = unit / chunks;
        rows = least(CHUNK, a.batch - start);
        first = member * a.batch + start;
    }

    void weights(Size member, T* to) const {
        zero(to, np * np);
        for (Size i = 0; i < n; i++) copy_in(to + i * np, (const T*)a.W + (member * n + i) * n, n);
    }

    void rows_in(const T* from, Size s, Size first, Size rows, T* to) const {
        for (Size i = 0; i < rows; i++) copy_in(to + i * np, from + (s * items + first + i) * n, n);
    }

    void rows_out(const T* from, Size s, Size first, Size rows, T* to) const {
        for (Size i = 0; i < rows; i++) memcpy(to + (s * items + first + i) * n, from + i * np, n * sizeof(T));
    }
};

}  // namespace
