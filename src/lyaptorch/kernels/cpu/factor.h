// QR with a positive diagonal of frames stored transposed: row i of Y (k x n16) is column i of the frame, and
// Y = R^T Q^T. By Cholesky in one pass or two where the columns are well conditioned, else by Gram-Schmidt.
// The rules are those of tangent/qr.py, for each matrix by itself.
#pragma once
#include "product.h"

namespace {

template <class T> struct Factor {
    T *R, *inverse;  // (k16, k16), upper; its diagonal blocks inverted, (k16, 16)
    uint8_t* dead;   // (k), in and out
};

template <class T> struct FactorScratch {
    T *transposed, *R, *inverse, *rows, *norms, *lengths;
    static Size count(Size n, Size k) {
        return n * k + 2 * k * k + k * BLOCK + BLOCK * (n > k ? n : k) + 3 * k;
    }
    FactorScratch(T* p, Size n, Size k) {  // padded sizes
        transposed = p, p += n * k;
        R = p, p += 2 * k * k;
        inverse = p, p += k * BLOCK;
        rows = p, p += BLOCK * (n > k ? n : k);
        norms = p, p += k;
        lengths = p;
    }
};

constexpr double ONE_PASS = 40, DEAD = 16, CROOKED = 0.01;

// The inverse of the upper triangle R (BLOCK x BLOCK), given the inverses of its diagonal. The terms of a row
// are taken from the last to the first, so that only the first must wait for the row below.
template <class T> void invert_block(const T* R, Size ld, const T* over, T* inverse) {
    constexpr int W = WIDTH<T>, V = BLOCK / W;
    Vec<T> x[BLOCK][V];
    UNROLL
    for (int j = BLOCK - 1; j >= 0; j--) {
        UNROLL
        for (int v = 0; v < V; v++) x[j][v] = Vec<T>{};
        x[j][j / W][j % W] = 1;
        UNROLL
        for (int l = BLOCK - 1; l > j; l--)
            UNROLL
            for (int v = 0; v < V; v++) x[j][v] -= R[j * ld + l] * x[l][v];
        UNROLL
        for (int v = 0; v < V; v++) {
            x[j][v] *= over[j];
            store(inverse + j * BLOCK + v * W, x[j][v]);
        }
    }
}

// R^T R = G of one diagonal block in place, and the inverse of R. False if a pivot is not positive.
// As L D L^T, whose chain of dependent operations holds one division and no root.
template <class T> bool cholesky_block(T* G, Size ld, T* inverse) {
    constexpr int W = WIDTH<T>, V = BLOCK / W;
    Vec<T> r[BLOCK][V];
    T pivots[BLOCK], over[BLOCK];
    UNROLL
    for (int i = 0; i < BLOCK; i++)
        UNROLL
        for (int v = 0; v < V; v++) r[i][v] = load(G + i * ld + v * W);
    UNROLL
    for (int j = 0; j < BLOCK; j++) {
        T pivot = pivots[j] = r[j][j / W][j % W];
        UNROLL
        for (int v = 0; v < V; v++) store(G + j * ld + v * W, r[j][v]);
        T inverted = 1 / pivot;
        Vec<T> scaled[V];
        UNROLL
        for (int v = 0; v < V; v++) scaled[v] = r[j][v] * inverted;
        UNROLL
        for (int i = j + 1; i < BLOCK; i++) {
            T left = G[j * ld + i];
            UNROLL
            for (int v = 0; v < V; v++) r[i][v] -= left * scaled[v];
        }
    }
    int good = 1;
    // two loops without a branch, so that all pivots are divided and looked at together
    for (int j = 0; j < BLOCK; j++) over[j] = 1 / root(pivots[j]);
    for (int j = 0; j < BLOCK; j++) good &= (pivots[j] > 0) & (pivots[j] <= Lanes<T>::MAX);
    UNROLL
    for (int j = 0; j < BLOCK; j++) {
        UNROLL
        for (int v = 0; v < V; v++) store(G + j * ld + v * W, r[j][v] * over[j]);
        for (int i = 0; i < j; i++) G[j * ld + i] = 0;
    }
    if (good) invert_block(G, ld, over, inverse);
    return good;
}

// Upper R, row-major (k16 x k16), from the upper blocks of G, in place.
template <class T> bool cholesky(Size kp, T* G, T* inverse, T* rows) {
    for (Size j = 0; j < kp; j += BLOCK) {
        T* diagonal = G + j * kp + j;
        // G_jl - sum_i R_ij^T R_il, for the whole block row at once: it is read and written only here
        if (j) product<T, SUBTRACT>(BLOCK, kp - j, j, {G + j, 1, kp}, G + j, kp, diagonal, kp);
        if (!cholesky_block(diagonal, kp, inverse + j * BLOCK)) return false;
        Size rest = kp - j - BLOCK;
        if (!rest) break;
        for (int i = 0; i < BLOCK; i++)
            for (Size l = 0; l < rest; l += WIDTH<T>)
                store(rows + i * rest + l, load(diagonal + i * kp + BLOCK + l));
        // R_jl = R_jj^-T G_jl: a product with the inverse, because a division by each pivot in turn would
        // wait for the last
        product<T, SET>(BLOCK, rest, BLOCK, {inverse + j * BLOCK, 1, BLOCK}, rows, rest, diagonal + BLOCK, kp);
    }
    return true;
}

// to = R^{-T} Y, block row by block row; `to` may be Y.
template <class T>
void solve_forwards(Size k, Size np, const T* R, const T* inverse, const T* Y, T* to, T* rows) {
    Size kp = pad(k);
    for (Size j = 0; j < k; j += BLOCK) {
        Size height = least(BLOCK, k - j);
        // Q_j = R_jj^-T (Y_j - sum_i R_ij^T Q_i); copied, because `to` may be Y
        memcpy(rows, Y + j * np, height * np * sizeof(T));
        if (j) product<T, SUBTRACT>(height, np, j, {R + j, 1, kp}, to, np, rows, np);
        product<T, SET>(height, np, height, {inverse + j * BLOCK, 1, BLOCK}, rows, np, to + j * np, np);
    }
}

// N = R^{-1} N in place, from the last block row to the first.
template <class T> void solve_backwards(Size k, Size np, const T* R, const T* inverse, T* N, T* rows) {
    Size kp = pad(k);
    for (Size j = (k - 1) / BLOCK * BLOCK; j >= 0; j -= BLOCK) {
        Size height = least(BLOCK, k - j), below = j + BLOCK;
        // N_j = R_jj^-1 (N_j - sum_l R_jl N_l), for the adjoint's X R^-T, transposed
        memcpy(rows, N + j * np, height * np * sizeof(T));
        if (below < k)
            product<T, SUBTRACT>(height, np, k - below, {R + j * kp + below, kp, 1}, N + below * np, np, rows, np);
        product<T, SET>(height, np, height, {inverse + j * BLOCK, BLOCK, 1}, rows, np, N + j * np, np);
    }
}

// Upper blocks of A B^T (k16 x k16) for A, B (k x n16), given B^T.
template <class T> void gram(Size n, Size k, Size np, const T* A, const T* transposed, T* G) {
    Size kp = pad(k);
    for (Size i = 0; i < k; i += BLOCK) {
        Size height = least(BLOCK, k - i);
        product<T, SET>(height, kp - i, n, {A + i * np, np, 1}, transposed + i, kp, G + i * kp + i, kp);
    }
}

// R of Y Y^T = R^T R and the lengths of Y's rows (1 where dead, and in the padding).
template <class T>
bool cholesky_of(Size n, Size k, const T* Y, const Factor<T>& f, T* R, T* inverse, T* norms, FactorScratch<T>& s) {
    Size kp = pad(k), np = pad(n);
    transpose(k, np, Y, np, s.transposed, kp);
    gram(n, k, np, Y, s.transposed, R);
    for (Size i = k; i < kp; i++) zero(R + i * kp, kp), R[i * kp + i] = 1;
    for (Size i = 0; i < k; i++) {
        // Y's row is zero: a pivot of 1 lets the factorisation, and every division by R, go on
        if (f.dead[i]) R[i * kp + i] += 1;
        norms[i] = root(R[i * kp + i]);
    }
    return cholesky(kp, R, inverse, s.rows);
}

// factor = second * factor, both upper, and the inverse of its diagonal blocks.
template <class T> void multiply(Size kp, T* second, T* second_inverse, const Factor<T>& f, T* scratch) {
    T block[BLOCK * BLOCK];
    for (Size i = BLOCK; i < kp; i++) zero(f.R + i * kp, i / BLOCK * BLOCK);
    for (Size i = 0; i < kp; i += BLOCK) {
        product<T, SET>(BLOCK, kp - i, kp - i, {second + i * kp + i, kp, 1}, f.R + i * kp + i, kp,
                        scratch + i * kp + i, kp);
        // (S R)_ii^-1 = R_ii^-1 S_ii^-1, since both are upper triangular
        memcpy(block, second_inverse + i * BLOCK, sizeof block);
        T first[BLOCK * BLOCK];
        memcpy(first, f.inverse + i * BLOCK, sizeof first);
        product<T, SET>(BLOCK, BLOCK, BLOCK, {first, BLOCK, 1}, block, BLOCK, f.inverse + i * BLOCK, BLOCK);
    }
    for (Size i = 0; i < kp; i++) {
        Size from = i / BLOCK * BLOCK;
        memcpy(f.R + i * kp + from, scratch + i * kp + from, (kp - from) * sizeof(T));
    }
}

template <class T> T dot(Size np, const T* a, const T* b) {
    Vec<T> total = Vec<T>{};
    for (Size i = 0; i < np; i += WIDTH<T>) total += load(a + i) * load(b + i);
    return sum<T>(total);
}

// to = Q v for rows of Q (k x n16), in whole vectors: `to` holds k numbers, padded.
template <class T> void overlaps_of(Size k, Size np, const T* Q, const T* v, T* to) {
    constexpr int W = WIDTH<T>;
    for (Size j = 0; j < pad(k); j += W) {
        Vec<T> r[W], total = Vec<T>{};
        UNROLL
        for (int a = 0; a < W; a++) {
            r[a] = Vec<T>{};
            for (Size i = 0; i < np && j + a < k; i += W) r[a] += load(Q + (j + a) * np + i) * load(v + i);
        }
        // W sums over the numbers of a vector at once
        Stage<T, W / 2>::run(r);
        UNROLL
        for (int a = 0; a < W; a++) total += r[a];
        store(to + j, total);
    }
}

// How far |Q^T q|^2 is from 1 for the last column q: what pivots do not tell, as `_crooked` of tangent/qr.py.
template <class T> T crooked(Size k, Size np, const T* Q, T* overlaps) {
    overlaps_of(k, np, Q, Q + (k - 1) * np, overlaps);
    T off = dot(pad(k), overlaps, overlaps) - 1;
    return off < 0 ? -off : off;
}

// Classical Gram-Schmidt, each column orthogonalised twice, at unit scale; a column that depends on those
// before it to round-off dies: zero in Q, a unit row and column in R. False if Y is not finite.
template <class T>
bool gram_schmidt(Size n, Size k, const T* Y, T* Q, const Factor<T>& f, FactorScratch<T>& s) {
    Size kp = pad(k), np = pad(n);
    T *v = s.rows, *overlaps = s.lengths;
    zero(f.R, kp * kp);
    for (Size i = 0; i < k; i++) {
        T scale = 0;
        for (Size l = 0; l < n; l++) {
            T size = Y[i * np + l] < 0 ? -Y[i * np + l] : Y[i * np + l];
            if (!finite(size)) return false;
            if (size > scale) scale = size;
        }
        if (scale < Lanes<T>::TINY) scale = Lanes<T>::TINY;
        for (Size l = 0; l < np; l++) v[l] = Y[i * np + l] / scale;
        T before = root(dot(np, v, v));
        // twice is enough: the second time takes out what round-off of the first left along those before
        for (int pass = 0; pass < 2; pass++) {
            // of a dead column Q has zeros
            overlaps_of(i, np, Q, v, overlaps);
            row_product<T, SUBTRACT>(np, i, overlaps, Q, np, v);
            for (Size j = 0; j < i; j++) f.R[j * kp + i] += overlaps[j] * scale;
        }
        T length = root(dot(np, v, v));
        // here a column is declared dead, as in `_gram_schmidt` of tangent/qr.py: what is left is not more than
        // round-off of what was taken out, and its direction is chance
        if (f.dead[i] || length <= (T)DEAD * Lanes<T>::EPS * before) {
            f.dead[i] = 1, f.R[i * kp + i] = 1;
            for (Size j = 0; j < i; j++) f.R[j * kp + i] = 0;
            zero(Q + i * np, np);
        } else {
            f.R[i * kp + i] = length * scale;
            for (Size l = 0; l < np; l++) Q[i * np + l] = v[l] / length;
        }
    }
    for (Size i = k; i < kp; i++) f.R[i * kp + i] = 1;
    for (Size i = 0; i < kp; i += BLOCK) {
        T over[BLOCK], *inverse = f.inverse + i * BLOCK;
        for (Size j = 0; j < BLOCK; j++) over[j] = 1 / f.R[(i + j) * kp + i + j];
        invert_block(f.R + i * kp + i, kp, over, inverse);
        // where 1 / R overflows, nothing divided by R must stay nothing
        for (Size j = 0; j < BLOCK * BLOCK; j++)
            if (!finite(inverse[j])) inverse[j] = Lanes<T>::MAX;
    }
    return true;
}

// Y (k x n16) = R^T Q; false if Y is not finite.
template <class T>
bool orthonormalise(Size n, Size k, const T* Y, T* Q, const Factor<T>& f, bool twice, FactorScratch<T>& s) {
    Size kp = pad(k), np = pad(n);
    if (!cholesky_of(n, k, Y, f, f.R, f.inverse, s.norms, s)) return gram_schmidt(n, k, Y, Q, f, s);
    solve_forwards(k, np, f.R, f.inverse, Y, Q, s.rows);
    // where a squared length underflowed, the margin is missed
    const T margin = (T)ONE_PASS * root(Lanes<T>::TINY), mendable = root(1000 * Lanes<T>::EPS);
    bool once = !twice, mended = true;
    for (Size i = 0; i < k; i++) {
        T pivot = f.R[i * kp + i];
        once = once && s.norms[i] - pivot * (T)ONE_PASS <= -margin;
        // Cholesky finds R_ii^2 as a difference of numbers as large as |y_i|^2: here three digits of it are
        // left at least
        mended = mended && pivot >= s.norms[i] * mendable;
    }
    // Y = R^T Q holds, though Q is off orthogonal by up to 40^2 eps: in a product of factors that cancels
    if (once && (f.dead[k - 1] || crooked(k, np, Q, s.lengths) < (T)CROOKED)) return true;
    if (!mended || !cholesky_of(n, k, Q, f, s.R, s.inverse, s.lengths, s))
        return gram_schmidt(n, k, Y, Q, f, s);
    for (Size i = 0; i < k; i++)
        if (!(s.R[i * kp + i] >= (T)0.5 * s.lengths[i])) return gram_schmidt(n, k, Y, Q, f, s);
    solve_forwards(k, np, s.R, s.inverse, Q, Q, s.rows);
    multiply(kp, s.R, s.inverse, f, s.R + kp * kp);
    return true;
}

}  // namespace
