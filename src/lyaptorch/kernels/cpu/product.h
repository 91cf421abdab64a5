// C = A B, C += A B, C -= A B, blocked for registers. A may have any strides; B and C are row-major with a
// multiple of BLOCK columns. Each entry of C is summed in the order of the inner index, whatever the blocking.
#pragma once
#include "vector.h"

namespace {

enum Mode { SET, ADD, SUBTRACT };

template <class T> struct Strided {  // A(i, l) = at[i * row + l * column]
    const T* at;
    Size row, column;
};

template <class T, int ROWS, int VECTORS, Mode MODE, class Also = const Nothing>
INLINE void tile(Size K, const T* a, Size row, Size column, const T* b, Size ldb, T* c, Size ldc,
                 Also& also = Also()) {
    Vec<T> total[ROWS][VECTORS];
    UNROLL
    for (int i = 0; i < ROWS; i++)
        UNROLL
        for (int j = 0; j < VECTORS; j++) total[i][j] = Vec<T>{};
    for (Size l = 0; l < K; l++) {
        if (l & 1) also.next();
        Vec<T> right[VECTORS];
        UNROLL
        for (int j = 0; j < VECTORS; j++) right[j] = load(b + l * ldb + j * WIDTH<T>);
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            Vec<T> left = splat(a[i * row + l * column]);
            UNROLL
            for (int j = 0; j < VECTORS; j++) total[i][j] += left * right[j];
        }
    }
    UNROLL
    for (int i = 0; i < ROWS; i++)
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            T* p = c + i * ldc + j * WIDTH<T>;
            if (MODE == SET) store(p, total[i][j]);
            if (MODE == ADD) store(p, load(p) + total[i][j]);
            if (MODE == SUBTRACT) store(p, load(p) - total[i][j]);
        }
}

template <class T, int VECTORS, Mode MODE, class Also>
void strip(Size M, Size K, Strided<T> A, const T* b, Size ldb, T* c, Size ldc, Also& also) {
    // ROWS x VECTORS sums stay in registers, beside VECTORS of B and one of A: 24 of 32, or 12 of 16, so that
    // every number that is loaded serves as many products as can be
    constexpr int ROWS = REGISTERS == 32 ? (VECTORS == 3 ? 8 : VECTORS == 2 ? 12 : 16)
                                         : (VECTORS == 3 ? 4 : VECTORS == 2 ? 6 : 8);
    Size i = 0;
#define TILES(N)                                                                                       \
    for (; i + N <= M; i += N)                                                                         \
        tile<T, N, VECTORS, MODE>(K, A.at + i * A.row, A.row, A.column, b, ldb, c + i * ldc, ldc, also)
    TILES(ROWS);
    if (ROWS > 8) TILES(8);
    TILES(4);
    TILES(2);
    TILES(1);
#undef TILES
}

template <class T, Mode MODE, class Also>
void strips(Size M, Size N, Size K, Strided<T> A, const T* b, Size ldb, T* c, Size ldc, Also& also) {
    constexpr int W = WIDTH<T>;
    Size left = N / W;
    while (left > 0) {
        // no strip of a single vector at the end, if that can be helped
        int take = left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1;
        if (take == 3) strip<T, 3, MODE>(M, K, A, b, ldb, c, ldc, also);
        if (take == 2) strip<T, 2, MODE>(M, K, A, b, ldb, c, ldc, also);
        if (take == 1) strip<T, 1, MODE>(M, K, A, b, ldb, c, ldc, also);
        left -= take, b += take * W, c += take * W;
    }
}

// C (M x N) from A (M x K) and B (K x N); N is a multiple of BLOCK. `also`: what is fetched meanwhile.
template <class T, Mode MODE, class Also = const Nothing>
void product(Size M, Size N, Size K, Strided<T> A, const T* b, Size ldb, T* c, Size ldc, Also& also = Also()) {
    // 256 rows of a strip, three vectors of 64 bytes wide, are 48 KB: they stay in the first cache while all
    // rows of A pass
    constexpr Size DEPTH = 256;
    for (Size l = 0; l < K || l == 0; l += DEPTH) {
        Strided<T> part = {A.at + l * A.column, A.row, A.column};
        Size depth = least(DEPTH, K - l);
        if (MODE == SET && l > 0)
            strips<T, ADD>(M, N, depth, part, b + l * ldb, ldb, c, ldc, also);
        else
            strips<T, MODE>(M, N, depth, part, b + l * ldb, ldb, c, ldc, also);
    }
}

// y = x B or y += x B for one row x: wide strips, because only independent sums hide the latency of one.
template <class T, Mode MODE> void row_product(Size N, Size K, const T* x, const T* b, Size ldb, T* y) {
    constexpr int W = WIDTH<T>;
    Size j = 0;
#define STRIP(V)                                                                       \
    for (; j + V * W <= N; j += V * W) tile<T, 1, V, MODE>(K, x, 0, 1, b + j, ldb, y + j, N)
    STRIP(10);
    STRIP(5);
    STRIP(2);
    STRIP(1);
#undef STRIP
}

}  // namespace
