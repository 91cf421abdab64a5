// QR with a positive diagonal of frames stored transposed: row i of Y (k x n16) is column i of the frame, and
// Y = R^T Q^T. By Cholesky in one pass where the columns are well conditioned; from the first panel of BLOCK columns
// that is not, each panel in two passes, or column by column. The rules are those of tangent/qr.py, for each matrix
// and panel by itself.
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

// STRAIGHT: times 40^2 eps, how crooked what other panels are taken against may be.
constexpr double ONE_PASS = 40, DEAD = 16, CROOKED = 0.01, STRAIGHT = 10;

// Cholesky finds R_ii^2 as a difference of numbers as large as |a_i|^2: if that is at most so many times R_ii, three
// digits of it are left at least, and a second pass mends the rest.
template <class T> T mendable() { return 1 / root(1000 * Lanes<T>::EPS); }

template <class T> void copy_block(const T* from, Size ld, T* to, Size ld_to) {
    for (int i = 0; i < BLOCK; i++) memcpy(to + i * ld_to, from + i * ld, BLOCK * sizeof(T));
}

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

// Whether |a_i| <= times R_ii for the columns of a panel; where a squared length underflowed, the margin is missed.
template <class T> bool stands(const T* R, Size ld, const T* lengths, T times) {
    const T margin = times * root(Lanes<T>::TINY);
    int good = 1;
    for (int i = 0; i < BLOCK; i++) good &= lengths[i] - R[i * ld + i] * times <= -margin;
    return good;
}

// Upper R, row-major (k16 x k16), from the upper blocks of G, in place. Returns how many columns come before the first
// panel that does not stand.
template <class T> Size cholesky(Size kp, T* G, T* inverse, T* rows, const T* lengths, T times) {
    for (Size j = 0; j < kp; j += BLOCK) {
        T* diagonal = G + j * kp + j;
        // G_jl - sum_i R_ij^T R_il, for the whole block row at once: it is read and written only here
        if (j) product<T, SUBTRACT>(BLOCK, kp - j, j, {G + j, 1, kp}, G + j, kp, diagonal, kp);
        if (!cholesky_block(diagonal, kp, inverse + j * BLOCK) || !stands(diagonal, kp, lengths + j, times)) return j;
        Size rest = kp - j - BLOCK;
        if (!rest) break;
        for (int i = 0; i < BLOCK; i++)
            for (Size l = 0; l < rest; l += WIDTH<T>)
                store(rows + i * rest + l, load(diagonal + i * kp + BLOCK + l));
        // R_jl = R_jj^-T G_jl: a product with the inverse, because a division by each pivot in turn would
        // wait for the last
        product<T, SET>(BLOCK, rest, BLOCK, {inverse + j * BLOCK, 1, BLOCK}, rows, rest, diagonal + BLOCK, kp);
    }
    return kp;
}

// to = R^{-T} Y for the first k rows, block row by block row; `to` may be Y.
template <class T>
void solve_forwards(Size k, Size np, const T* R, Size kp, const T* inverse, const T* Y, T* to, T* rows) {
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

// Lengths from the Gram matrix of k rows; where a row is zero because it died, and in the padding, a pivot of 1 lets the
// factorisation, and every division by R, go on.
template <class T> void prop(Size k, Size kp, T* G, const uint8_t* dead, T* lengths) {
    for (Size i = k; i < kp; i++) zero(G + i * kp, kp), G[i * kp + i] = lengths[i] = 1;
    for (Size i = 0; i < k; i++) {
        if (dead[i]) G[i * kp + i] += 1;
        lengths[i] = root(G[i * kp + i]);
    }
}

// What `cholesky` does for Y Y^T, and the lengths of Y's rows (1 where dead, and in the padding).
template <class T>
Size cholesky_of(Size n, Size k, const T* Y, const uint8_t* dead, T* R, T* inverse, T* lengths, T times,
                 FactorScratch<T>& s) {
    Size kp = pad(k), np = pad(n);
    transpose(k, np, Y, np, s.transposed, kp);
    gram(n, k, np, Y, s.transposed, R);
    prop(k, kp, R, dead, lengths);
    return cholesky(kp, R, inverse, s.rows, lengths, times);
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

// Rows `first` to `end` by classical Gram-Schmidt, each orthogonalised twice, at unit scale; a column that depends on
// those before it to round-off dies: zero in Q, a unit row and column in R. False if one is not finite.
template <class T>
bool gram_schmidt(Size first, Size end, Size n, Size kp, const T* Y, T* Q, const Factor<T>& f, FactorScratch<T>& s) {
    Size np = pad(n);
    T *v = s.rows, *overlaps = s.lengths;
    for (Size j = 0; j < first + BLOCK; j++) zero(f.R + j * kp + first, BLOCK);
    for (Size i = first; i < end; i++) {
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
    for (Size i = end; i < first + BLOCK; i++) f.R[i * kp + i] = 1;
    T over[BLOCK], *inverse = f.inverse + first * BLOCK;
    for (Size j = 0; j < BLOCK; j++) over[j] = 1 / f.R[(first + j) * kp + first + j];
    invert_block(f.R + first * kp + first, kp, over, inverse);
    // where 1 / R overflows, nothing divided by R must stay nothing
    for (Size j = 0; j < BLOCK * BLOCK; j++)
        if (!finite(inverse[j])) inverse[j] = Lanes<T>::MAX;
    return true;
}

// The panel of rows from `first` on, taken against the rows of Q before it and made orthonormal by Cholesky, until
// nothing is left to be taken. False where digits were lost on the way.
template <class T>
bool panel(Size first, Size height, Size n, Size kp, const T* Y, T* Q, const Factor<T>& f, FactorScratch<T>& s) {
    Size np = pad(n);
    T *V = Q + first * np, *overlaps = s.inverse, *R = f.R + first * kp + first, *inverse = f.inverse + first * BLOCK;
    T G[BLOCK * BLOCK], over[BLOCK * BLOCK], before[BLOCK * BLOCK], lengths[BLOCK];
    memcpy(V, Y + first * np, height * np * sizeof(T));
    // the first pass makes the diagonal larger by more than round-off, so that columns may be as parallel as they
    // like: what it leaves is short, but straight enough for the next
    const T shift = 100 * Lanes<T>::EPS;
    for (int pass = 0, straight = 0; !straight; pass++) {
        if (pass == 4) return false;
        transpose(height, np, V, np, s.transposed, BLOCK);
        if (first) {
            product<T, SET>(first, BLOCK, n, {Q, np, 1}, s.transposed, BLOCK, overlaps, BLOCK);
            product<T, SUBTRACT>(height, np, first, {overlaps, 1, BLOCK}, Q, np, V, np);
            transpose(height, np, V, np, s.transposed, BLOCK);
        }
        product<T, SET>(height, BLOCK, n, {V, np, 1}, s.transposed, BLOCK, G, BLOCK);
        prop(height, BLOCK, G, f.dead + first, lengths);
        for (Size i = 0; i < height && !pass; i++)
            if (!f.dead[first + i]) G[i * (BLOCK + 1)] *= 1 + shift;
        if (!cholesky_block(G, BLOCK, over) || !stands(G, BLOCK, lengths, pass ? mendable<T>() : 2 / root(shift)))
            return false;
        straight = pass && stands(G, BLOCK, lengths, (T)2);
        memcpy(s.rows, V, height * np * sizeof(T));
        product<T, SET>(height, np, height, {over, 1, BLOCK}, s.rows, np, V, np);
        if (!pass) {
            for (Size j = 0; j < first; j++) memcpy(f.R + j * kp + first, overlaps + j * BLOCK, BLOCK * sizeof(T));
            copy_block(G, BLOCK, R, kp), copy_block(over, BLOCK, inverse, BLOCK);
            continue;
        }
        // Y = R'^T (R^T Q + S^T Q before) + S'^T Q before
        copy_block(R, kp, before, BLOCK);
        if (first) product<T, ADD>(first, BLOCK, BLOCK, {overlaps, BLOCK, 1}, before, BLOCK, f.R + first, kp);
        product<T, SET>(BLOCK, BLOCK, BLOCK, {G, BLOCK, 1}, before, BLOCK, R, kp);
        copy_block(inverse, BLOCK, before, BLOCK);
        product<T, SET>(BLOCK, BLOCK, BLOCK, {before, BLOCK, 1}, over, BLOCK, inverse, BLOCK);
    }
    // of what is much shorter than it was, digits are gone, and it may have died
    for (Size i = 0; i < height; i++)
        if (!(R[i * (kp + 1)] >= 100 * Lanes<T>::EPS * s.norms[first + i])) return false;
    return true;
}

// Rows from `first`, a multiple of BLOCK, on; those before it are done. False if Y is not finite.
template <class T>
bool panels(Size first, Size n, Size k, const T* Y, T* Q, const Factor<T>& f, FactorScratch<T>& s) {
    Size kp = pad(k);
    for (Size j = first; j < k; j += BLOCK) {
        Size height = least(BLOCK, k - j);
        if (!panel(j, height, n, kp, Y, Q, f, s) && !gram_schmidt(j, j + height, n, kp, Y, Q, f, s)) return false;
    }
    return true;
}

// Y (k x n16) = R^T Q; false if Y is not finite.
template <class T>
bool orthonormalise(Size n, Size k, const T* Y, T* Q, const Factor<T>& f, bool twice, FactorScratch<T>& s) {
    Size kp = pad(k), np = pad(n);
    Size done = cholesky_of(n, k, Y, f.dead, f.R, f.inverse, s.norms, twice ? mendable<T>() : (T)ONE_PASS, s);
    solve_forwards(least(done, k), np, f.R, kp, f.inverse, Y, Q, s.rows);
    auto straight = [&](Size columns, double most) {
        return f.dead[columns - 1] || crooked(columns, np, Q, s.lengths) < (T)most;
    };
    // Y = R^T Q holds, though Q is off orthogonal by up to 40^2 eps: in a product of factors that cancels
    if (!twice && done == kp && straight(k, CROOKED)) return true;
    if (!twice && done < kp) {
        while (done && !straight(done, STRAIGHT * ONE_PASS * ONE_PASS * Lanes<T>::EPS)) done -= BLOCK;
        return panels(done, n, k, Y, Q, f, s);
    }
    if (done < kp || cholesky_of(n, k, Q, f.dead, s.R, s.inverse, s.lengths, (T)2, s) < kp)
        return panels(0, n, k, Y, Q, f, s);
    solve_forwards(k, np, s.R, kp, s.inverse, Q, Q, s.rows);
    multiply(kp, s.R, s.inverse, f, s.R + kp * kp);
    return true;
}

}  // namespace
