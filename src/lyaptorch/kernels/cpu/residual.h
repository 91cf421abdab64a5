// The matrix A of a residual P(h) = phi(A h), acting on rows: dense, or a band of the diagonal and, in blocks
// of two, the other number of each pair. A band is never made a matrix.
#pragma once
#include "abi.h"
#include "product.h"

namespace {

enum Kind { NONE, DIAGONAL, BLOCKS, DENSE };

template <class T> T* take(T*& memory, Size count) {
    T* p = memory;
    memory += count;
    return p;
}

// (rows, columns) into zeros, rows `ld` apart, as many as are padded.
template <class T> void copy_rows(const T* from, Size rows, Size columns, T* to, Size ld) {
    for (Size i = 0; i < rows; i++) {
        memcpy(to + i * ld, from + i * columns, columns * sizeof(T));
        zero(to + i * ld + columns, ld - columns);
    }
    zero(to + rows * ld, (pad(rows) - rows) * ld);
}

template <class T> struct Residual {
    int kind;
    Size n, np;
    T *matrix = nullptr, *transposed = nullptr;  // dense, (n16, n16)
    // band, (n16): A_ii; A_ij and A_ji, with j the other of i's pair
    T *diagonal = nullptr, *other = nullptr, *swapped = nullptr;

    static Size count(const FormArgs& a) {
        Size np = pad(a.n);
        return a.residual == NONE ? 0 : a.residual == DENSE ? 2 * np * np : 3 * np;
    }
    static Size gradient_count(const FormArgs& a) {
        Size np = pad(a.n);
        return a.residual == NONE ? 0 : a.residual == DENSE ? a.n * np : 2 * np;
    }

    Residual(const FormArgs& a, Size member, T*& memory) : kind(a.residual), n(a.n), np(pad(n)) {
        if (kind == NONE) return;
        const T* A = (const T*)a.A;
        if (kind == DENSE) {
            matrix = take(memory, np * np), transposed = take(memory, np * np);
            copy_rows(A + member * n * n, n, n, matrix, np);
            transpose(np, np, matrix, np, transposed, np);
            return;
        }
        diagonal = take(memory, np), other = take(memory, np), swapped = take(memory, np);
        zero(diagonal, 3 * np);
        if (kind == DIAGONAL) {
            memcpy(diagonal, A + member * n, n * sizeof(T));
            return;
        }
        const T* block = A + member * n * 2;
        for (Size i = 0; i < n; i += 2, block += 4) {
            diagonal[i] = block[0], other[i] = block[1], other[i + 1] = block[2], diagonal[i + 1] = block[3];
            swapped[i] = block[2], swapped[i + 1] = block[1];
        }
    }

    bool any() const { return kind != NONE; }

    // numbers i, i + 1, ... of A y, of a band
    INLINE Vec<T> of(const T* y, Size i) const { return of(y, i, other); }

    // to = Y A^T, a row for each state or column
    void forward(Size rows, const T* Y, T* to) const {
        if (kind == DENSE) {
            product<T, SET>(rows, np, n, {Y, np, 1}, transposed, np, to, np);
            return;
        }
        band(rows, Y, other, to);
    }

    // to = N A; of a band also in place
    void backward(Size rows, const T* N, T* to) const {
        if (kind == DENSE) {
            product<T, SET>(rows, np, n, {N, np, 1}, matrix, np, to, np);
            return;
        }
        band(rows, N, swapped, to);
    }

    // A_bar += N^T Y
    void gradient(Size rows, const T* N, const T* Y, Size ld_Y, T* A_bar) const {
        if (kind == DENSE) {
            product<T, ADD>(n, np, rows, {N, 1, np}, Y, ld_Y, A_bar, np);
            return;
        }
        for (Size i = 0; i < np; i += WIDTH<T>) {
            // of 2x2 blocks nothing but A_ii and A_ij, j the other of the pair, is ever summed
            Vec<T> own = Vec<T>{}, pair = Vec<T>{};
            for (Size j = 0; j < rows; j++) {
                Vec<T> left = load(N + j * np + i), right = load(Y + j * ld_Y + i);
                own += left * right, pair += left * neighbours<T>(right);
            }
            store(A_bar + i, load(A_bar + i) + own);
            store(A_bar + np + i, load(A_bar + np + i) + pair);
        }
    }

    static void scatter(const FormArgs& a, Size member, const T* A_bar) {
        Size n = a.n, np = pad(n);
        T* to = (T*)a.A_bar;
        if (a.residual == DENSE)
            for (Size i = 0; i < n; i++) memcpy(to + (member * n + i) * n, A_bar + i * np, n * sizeof(T));
        if (a.residual == DIAGONAL) memcpy(to + member * n, A_bar, n * sizeof(T));
        if (a.residual != BLOCKS) return;
        T* block = to + member * n * 2;
        for (Size i = 0; i < n; i += 2, block += 4) {
            block[0] = A_bar[i], block[1] = A_bar[np + i];
            block[2] = A_bar[np + i + 1], block[3] = A_bar[i + 1];
        }
    }

  private:
    INLINE Vec<T> of(const T* y, Size i, const T* off) const {
        Vec<T> own = load(y + i), result = load(diagonal + i) * own;
        if (kind == BLOCKS) result += load(off + i) * neighbours<T>(own);
        return result;
    }
    void band(Size rows, const T* Y, const T* off, T* to) const {
        for (Size j = 0; j < rows * np; j += np)
            for (Size i = 0; i < np; i += WIDTH<T>) store(to + j + i, of(Y + j, i, off));
    }
};

}  // namespace
