// Vectors of the widest registers of one instruction set, and what is done to whole vectors.
// Everything is in an unnamed namespace and nothing comes from the standard library's templates: code for
// one instruction set must never be merged by the linker with that for another.
#pragma once
#include <stdint.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace {

using Size = int64_t;

// Sizes are padded to it, whatever the width of a vector: 16 numbers are the widest one of floats (64 bytes), so
// that no loop over a row has a rest, and tapes lie alike for all instruction sets.
constexpr int BLOCK = 16;

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef float loose __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr float EPS = 1.1920928955078125e-7f, TINY = 1.17549435e-38f, MAX = 3.40282347e38f,
                           LOG_MAX = 88.72283f;
    static constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    static constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    static constexpr int MANTISSA = 23, BIAS = 127, DEGREE = 7;
};
template <> struct Lanes<double> {
    typedef double vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef double loose __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef int64_t ints __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr double EPS = 2.220446049250313e-16, TINY = 2.2250738585072014e-308, MAX = 1.7976931348623157e308,
                            LOG_MAX = 709.782712893384;
    static constexpr double MAGIC = 6755399441055744.0;
    static constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
    static constexpr int MANTISSA = 52, BIAS = 1023, DEGREE = 13;
};

template <class T> using Vec = typename Lanes<T>::vec;
template <class T> constexpr int WIDTH = VECTOR_BYTES / sizeof(T);

template <class T> INLINE Vec<T> load(const T* p) { return (Vec<T>)*(const typename Lanes<T>::loose*)p; }
template <class T> INLINE void store(T* p, Vec<T> v) { *(typename Lanes<T>::loose*)p = (typename Lanes<T>::loose)v; }

// Past the caches, for what will not be read soon: then no line is fetched to be written. `to` is aligned to a
// vector, and `settle` comes before another thread reads.
template <class T> INLINE void stream(T* to, Vec<T> v) {
#if defined(__clang__)
    __builtin_nontemporal_store(v, (Vec<T>*)to);
#elif defined(__AVX512F__)
    __builtin_ia32_movntps512((float*)to, (Lanes<float>::vec)v);
#elif defined(__AVX__)
    __builtin_ia32_movntps256((float*)to, (Lanes<float>::vec)v);
#elif defined(__SSE__)
    __builtin_ia32_movntps((float*)to, (Lanes<float>::vec)v);
#else
    store(to, v);
#endif
}
INLINE void settle() {
#ifdef __SSE__
    __builtin_ia32_sfence();
#endif
}

template <class T> INLINE Vec<T> splat(T x) { return x - Vec<T>{}; }

INLINE Size pad(Size n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }
INLINE Size least(Size a, Size b) { return a < b ? a : b; }
INLINE float root(float x) { return __builtin_sqrtf(x); }
INLINE double root(double x) { return __builtin_sqrt(x); }
template <class T> INLINE bool finite(T x) { return x - x == 0; }

// 0, 1, 2, ...
template <class T> INLINE Vec<T> lanes() {
    Vec<T> v;
    for (int i = 0; i < WIDTH<T>; i++) v[i] = (T)i;
    return v;
}

template <class T> INLINE T sum(Vec<T> v) {
    T total = 0;
    for (int i = 0; i < WIDTH<T>; i++) total += v[i];
    return total;
}

// n numbers that do not overlap, without a call: the last vector may take some of the one before again.
template <class T> INLINE void copy_row(T* to, const T* from, Size n) {
    constexpr Size W = WIDTH<T>;
    if (n < W) {
        for (Size i = 0; i < n; i++) to[i] = from[i];
        return;
    }
    for (Size i = 0; i + W <= n; i += W) store(to + i, load(from + i));
    store(to + n - W, load(from + n - W));
}

// n numbers copied into a row padded with zeros.
template <class T> INLINE void copy_in(T* to, const T* from, Size n) {
    for (Size i = n / WIDTH<T> * WIDTH<T>; i < pad(n); i += WIDTH<T>) store(to + i, Vec<T>{});
    copy_row(to, from, n);
}

// Places of memory that will soon be read or written, fetched line by line while a product runs: the first cache
// waits for some 16 lines at once, and hundreds asked for together hold up everything else.
struct Ahead {
    struct Place { const char *at, *end; } places[8];
    int count = 0;

    template <class T> void add(const T* p, Size numbers) {
        if (numbers > 0) places[count++] = {(const char*)p, (const char*)(p + numbers)};
    }
    INLINE void next() {
        if (!count) return;
        Place& place = places[count - 1];
        __builtin_prefetch(place.at, 0, 2);
        if ((place.at += 64) >= place.end) count--;
    }
    void rest() {
        while (count) next();
    }
};
struct Nothing {
    INLINE void next() const {}
};
template <class T> void zero(T* p, Size count) { memset(p, 0, count * sizeof(T)); }

// `exchange`: one stage of transposing W x W numbers, the off-diagonal squares of size D change places.
// `neighbours`: numbers 2i and 2i + 1 change places.
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { using type = Indices<I...>; };
template <class T, int D, int... I> INLINE void exchange(Vec<T>& a, Vec<T>& b, Indices<I...>) {
    constexpr int W = WIDTH<T>;
    Vec<T> low = __builtin_shufflevector(a, b, ((I & D) ? W + I - D : I)...);
    b = __builtin_shufflevector(a, b, ((I & D) ? W + I : I + D)...);
    a = low;
}
template <class T, int D> INLINE void exchange(Vec<T>& a, Vec<T>& b) {
    exchange<T, D>(a, b, typename Count<WIDTH<T>>::type{});
}
template <class T, int... I> INLINE Vec<T> neighbours(Vec<T> a, Indices<I...>) {
    return __builtin_shufflevector(a, a, (I ^ 1)...);
}
template <class T> INLINE Vec<T> neighbours(Vec<T> a) {
    return neighbours<T>(a, typename Count<WIDTH<T>>::type{});
}
#else
template <class T> INLINE Vec<T> neighbours(Vec<T> a) {
    typename Lanes<T>::ints other;
    for (int i = 0; i < WIDTH<T>; i++) other[i] = i ^ 1;
    return __builtin_shuffle(a, other);
}
template <class T, int D> INLINE void exchange(Vec<T>& a, Vec<T>& b) {
    typename Lanes<T>::ints low, high;
    for (int i = 0; i < WIDTH<T>; i++) {
        low[i] = (i & D) ? WIDTH<T> + i - D : i;
        high[i] = (i & D) ? WIDTH<T> + i : i + D;
    }
    Vec<T> first = __builtin_shuffle(a, b, low);
    b = __builtin_shuffle(a, b, high);
    a = first;
}
#endif

template <class T, int D> struct Stage {
    static INLINE void run(Vec<T>* r) {
        UNROLL
        for (int i = 0; i < WIDTH<T>; i++)
            if (!(i & D)) exchange<T, D>(r[i], r[i + D]);
        Stage<T, D / 2>::run(r);
    }
};
template <class T> struct Stage<T, 0> {
    static INLINE void run(Vec<T>*) {}
};

// to = from^T; from has `rows` rows (zeros are read beyond them) and `columns`, a multiple of BLOCK.
template <class T> void transpose(Size rows, Size columns, const T* from, Size ld, T* to, Size ld_to) {
    constexpr int W = WIDTH<T>;
    for (Size i = 0; i < pad(rows); i += W)
        for (Size j = 0; j < columns; j += W) {
            Vec<T> r[W];
            UNROLL
            for (int a = 0; a < W; a++) r[a] = i + a < rows ? load(from + (i + a) * ld + j) : Vec<T>{};
            Stage<T, W / 2>::run(r);
            UNROLL
            for (int a = 0; a < W; a++) store(to + (j + a) * ld_to + i, r[a]);
        }
}

}  // namespace
