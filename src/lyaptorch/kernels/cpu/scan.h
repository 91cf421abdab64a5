// The scan of a model with its frame, forwards, for one trajectory of one member. A model is a Trajectory with
//     step(s, Y, to)         one step of the state `h` and of a frame
//     push(s, Y, to)         that of the frame alone, once more
//     step_back(s, Y, bars)  its pullback
// Frames are stored transposed (k x n16), so that no product needs a transposed matrix.
#pragma once
#include "factor.h"
#include "network.h"

namespace {

// What a step leaves on the tape, rows of n16 numbers: (g(h), x, 1), which may be wider; h; and, with their
// derivatives, g' and g'', c f' and c f'', f and f', phi' and phi''; KEEP and BITE are of neurons. A_BAR is the adjoint's.
enum Row {
    INPUT, STATE, INNER_SLOPE, INNER_CURVATURE, INNER_SHARPENING, OUTER_SLOPE, OUTER_CURVATURE, OUTER_SHARPENING,
    PLAIN_VALUE, PLAIN_SLOPE, PHI_SLOPE, PHI_CURVATURE, PHI_SHARPENING, KEEP, BITE, A_BAR, ROWS
};

// Where everything lies on the tape of one trajectory, in numbers.
struct Layout {
    Size at[ROWS], step;  // of a row within a step, -1 if it is not kept; of a step
    Size frames, factors, inverses, gradients, total;
    bool every;  // whether the frame before every step is kept, else one a span

    // 64 MB of all trajectories: so much is worth a product of each step, which the adjoint else takes again
    static constexpr Size WORTH = Size(1) << 26;

    template <class Net> static Layout of(const ScanArgs& s) {
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
        row(KEEP, a.neurons), row(BITE, a.neurons), row(A_BAR, true);
        l.frames = steps * l.step;
        Size frame = s.k * Net::BLOCKS * np, items = a.members * a.batch;
        l.every = spans == steps || (s.keep && items * steps * frame * (Size)sizeof(typename Net::Number) <= WORTH);
        l.factors = l.frames + ((l.every ? steps : spans) + 1) * frame;
        l.inverses = l.factors + spans * kp * kp;
        l.gradients = l.inverses + spans * kp * BLOCK;
        l.total = l.gradients + (s.keep ? Gradients<typename Net::Number>::count(a) : 0);
        return l;
    }
};

template <class Net> struct Trajectory {
    using T = typename Net::Number;
    const ScanArgs& a;
    Size item, member, trajectory, items, n, k, np, kp, size;  // np: numbers in a state, padded; size: to the last
    Net net;
    Layout layout;
    T *tape, *h, *u, *bend, *share, *p_bar, *left, *right, *pushed, *residual, *products, *outer_products;
    FactorScratch<T> scratch;
    const int64_t* cuts;
    const uint8_t* twice;
    Size begin = 0, end;  // spans that are not empty

    static Size longest(const ScanArgs& a) {
        Size length = 1;
        for (Size j = 0; j < (a.apart ? a.form.members : 1); j++) {
            const int64_t* cuts = a.cuts + j * (a.spans + 1);
            for (Size i = 0; i < a.spans; i++)
                if (cuts[i + 1] - cuts[i] > length) length = cuts[i + 1] - cuts[i];
        }
        return length;
    }

    static Size tape_count(const ScanArgs& a) { return Layout::of<Net>(a).total; }
    static Size tape_size(const ScanArgs& a) {
        return a.form.members * a.form.batch * tape_count(a) * (Size)sizeof(T);
    }

    static Size work(const ScanArgs& a) {
        Size hp = pad(a.form.n), np = Net::BLOCKS * hp, kp = pad(a.k), frame = kp * np;
        // the adjoint keeps the products within an interval
        return (Net::count(a.form) + hp * hp + 5 * np + (4 + longest(a)) * frame + (a.keep ? 0 : tape_count(a)) +
                FactorScratch<T>::count(np, kp)) * (Size)sizeof(T);
    }

    Trajectory(const ScanArgs& args, Size which, T* p)
        : a(args), item(which), member(which / a.form.batch), trajectory(which % a.form.batch),
          items(a.form.members * a.form.batch), n(a.form.n), k(a.k), np(Net::BLOCKS * pad(n)), kp(pad(k)),
          size(np - pad(n) + n), net(a.form, member, p), layout(Layout::of<Net>(a)),
          tape(a.keep ? (T*)a.form.tape + item * layout.total : take(p, layout.total)), h(take(p, np)),
          u(take(p, np)), bend(take(p, np)), share(take(p, np)), p_bar(take(p, np)), left(take(p, kp * np)),
          right(take(p, kp * np)), pushed(take(p, kp * np)), residual(take(p, kp * np)),
          products(take(p, longest(a) * kp * np)), outer_products(take(p, pad(n) * pad(n))), scratch(p, np, kp),
          cuts(a.cuts + (a.apart ? member * (a.spans + 1) : 0)), twice(a.twice + (a.apart ? member * a.spans : 0)),
          end(a.spans) {
        while (cuts[begin] == cuts[begin + 1]) begin++;
        while (cuts[end] == cuts[end - 1]) end--;
    }

    T* row(Size s, Row which) const { return tape + (a.keep ? s : 0) * layout.step + layout.at[which]; }
    // without a tape two frames by turns: the one that is read, the one that is written
    T* frame(Size i) const {
        return tape + layout.frames + (!a.keep ? i % 2 : layout.every ? cuts[i] : i) * k * np;
    }
    // where the tape has the frame before a step within a span, not orthonormal
    T* within(Size s) const { return tape + layout.frames + s * k * np; }
    Factor<T> factor(Size i, uint8_t* dead) const {
        Size slot = a.keep ? i : 0;
        return {tape + layout.factors + slot * kp * kp, tape + layout.inverses + slot * kp * BLOCK, dead};
    }

    bool all_finite(const T* v) const {
        Vec<T> bad = Vec<T>{};
        // x - x is 0 or NaN, without a branch
        for (Size i = 0; i < np; i += WIDTH<T>) bad += load(v + i) - load(v + i);
        return sum<T>(bad) == 0;
    }

    // Where number i of a state lies in its padded row.
    Size place(Size i) const { return Net::BLOCKS == 1 ? i : i / n * pad(n) + i % n; }

    void take_frame(const T* from, T* Y) const {
        from += (a.one_frame ? 0 : item) * Net::BLOCKS * n * k;
        T* rows = scratch.transposed;
        zero(rows, np * kp);
        for (Size i = 0; i < Net::BLOCKS * n; i++) copy_row(rows + place(i) * kp, from + i * k, k);
        // a square of which Y has the first rows
        transpose(np, kp, rows, kp, right, np);
        memcpy(Y, right, k * np * sizeof(T));
    }

    void put_frame(const T* Y, T* to) const {
        if (!to) return;
        to += item * Net::BLOCKS * n * k;
        T* rows = scratch.transposed;
        transpose(k, np, Y, np, rows, kp);
        for (Size i = 0; i < Net::BLOCKS * n; i++) copy_row(to + i * k, rows + place(i) * kp, k);
    }

    void take_state(const void* from) const {
        const T* at = (const T*)from + item * Net::BLOCKS * n;
        for (Size i = 0; i < Net::BLOCKS; i++) copy_in(h + i * pad(n), at + i * n, n);
    }

    void put_state(void* to) const {
        T* at = (T*)to + item * Net::BLOCKS * n;
        for (Size i = 0; i < Net::BLOCKS; i++) memcpy(at + i * n, h + i * pad(n), n * sizeof(T));
    }

    void scale_columns(const T* Y, const T* by, T* to) const {
        for (Size j = 0; j < k; j++)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j * np + i, load(Y + j * np + i) * load(by + i));
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

    // The same, and what scale_columns(A, by, scaled) does, while A is at hand.
    void scale_and_sum(const T* A, const T* B, const T* by, T* scaled, T* to) const {
        constexpr int V = BLOCK / WIDTH<T>;
        for (Size i = 0; i < np; i += BLOCK) {
            Vec<T> total[V], scale[V];
            UNROLL
            for (int v = 0; v < V; v++) total[v] = Vec<T>{}, scale[v] = load(by + i + v * WIDTH<T>);
            for (Size j = i; j < k * np; j += np)
                UNROLL
                for (int v = 0; v < V; v++) {
                    Vec<T> a = load(A + j + v * WIDTH<T>);
                    total[v] += a * load(B + j + v * WIDTH<T>);
                    store(scaled + j + v * WIDTH<T>, a * scale[v]);
                }
            UNROLL
            for (int v = 0; v < V; v++) store(to + i + v * WIDTH<T>, total[v]);
        }
    }

    void add_products(const T* x, const T* y, T* to) const {
        for (Size i = 0; i < np; i += WIDTH<T>) store(to + i, load(to + i) + load(x + i) * load(y + i));
    }
};

template <class Model> struct Scan : Model {
    using T = typename Model::T;
    using Model::a, Model::item, Model::items, Model::k, Model::kp, Model::size, Model::h, Model::right;
    using Model::products, Model::scratch, Model::frame, Model::factor, Model::cuts, Model::begin, Model::end;
    using Model::Model;

    void forward() {
        this->take_state(a.form.h0);
        this->take_frame((const T*)a.frame, frame(begin));
        int64_t *broken = a.status + 2 * item, *overflow = broken + 1;
        *broken = *overflow = -1;
        uint8_t* before = nullptr;
        for (Size i = 0; i < a.spans; i++) {
            uint8_t* dead = a.dead + (i * items + item) * k;
            if (before) memcpy(dead, before, k); else memset(dead, 0, k);
            before = dead;
            T *pivots = (T*)a.pivots + (i * items + item) * k, longest = 0;
            if (i < begin || i >= end) {
                for (Size j = 0; j < k; j++) pivots[j] = 1;
                ((T*)a.longest)[i * items + item] = 1;
                continue;
            }
            const T* Y = frame(i);
            for (Size s = cuts[i]; s < cuts[i + 1]; s++) {
                // else two places by turns: the frame is still read while the next is written, and the first
                // stays as it is
                bool kept = a.keep && this->layout.every && s + 1 < cuts[i + 1];
                T* to = kept ? this->within(s + 1) : Y == right ? products : right;
                this->step(s, Y, to);
                Y = to;
                if (*overflow < 0 && !this->all_finite(h)) *overflow = s;
            }
            Factor<T> f = factor(i, dead);
            if (!orthonormalise(size, k, Y, frame(i + 1), f, this->twice[i] != 0, scratch)) {
                *broken = i;
                return;
            }
            for (Size j = 0; j < k; j++) {
                pivots[j] = f.R[j * kp + j];
                longest = !dead[j] && scratch.norms[j] > longest ? scratch.norms[j] : longest;
            }
            ((T*)a.longest)[i * items + item] = longest;
        }
        // a state that overflowed and came back, through a saturating f, is none that is reported
        if (this->all_finite(h)) *overflow = -1;
        this->put_state(a.h);
        this->put_frame(frame(end), (T*)a.Q);
    }
};

}  // namespace
