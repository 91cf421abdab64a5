// Activations by number: value, slope, the slope's derivative, and that with respect to the sharpness.
#pragma once
#include "abi.h"
#include "vector.h"

namespace {

enum Value { IDENTITY, TANH, RELU, SIGN, SIGN_UP, STEP };
enum Shape { EXACT, SECH2, FAST, ARCTAN, TRIANGLE, GAUSS };

template <class T> struct Jet { Vec<T> value, slope, curvature, sharpening; };

// U vectors, one operation of all before the next of any: alone, each would wait for its own last result.
template <class T, int U> struct Many {
    Vec<T> at[U];
    template <class F> static INLINE Many each(F f) {
        Many all;
        UNROLL
        for (int u = 0; u < U; u++) all.at[u] = f(u);
        return all;
    }
};

// e^y = 2^n (1 + p) for -LOG_MAX <= y <= 0, with y = n ln 2 + r and p = e^r - 1 by its series.
template <class T, int U = 1> struct Power {
    using All = Many<T, U>;
    All four, p;  // 2^(n+2), so that nothing is denormal
    explicit INLINE Power(const All& y) {
        using L = Lanes<T>;
        All shifted = All::each([&](int u) { return y.at[u] * splat<T>((T)1.4426950408889634074) + L::MAGIC; });
        All r = All::each([&](int u) { return y.at[u] - (shifted.at[u] - L::MAGIC) * L::LN2_HIGH; });
        r = All::each([&](int u) { return r.at[u] - (shifted.at[u] - L::MAGIC) * L::LN2_LOW; });
        T factorial = 1;
        UNROLL
        for (int i = 2; i <= L::DEGREE; i++) factorial *= (T)i;
        p = All::each([&](int) { return splat<T>(1 / factorial); });
        UNROLL
        for (int i = L::DEGREE; i > 2; i--) {
            factorial /= (T)i;
            p = All::each([&](int u) { return p.at[u] * r.at[u] + 1 / factorial; });
        }
        p = All::each([&](int u) { return r.at[u] + (r.at[u] * r.at[u]) * p.at[u]; });
        // the low bits of `shifted` are n
        four = All::each([&](int u) {
            typename L::ints bits = (typename L::ints)shifted.at[u] << L::MANTISSA;
            return (Vec<T>)(bits + ((typename L::ints){} + ((decltype(bits[0] + 0))(L::BIAS + 2) << L::MANTISSA)));
        });
    }
};

// |x|, and |x| with the sign of y, by their bits
template <class T> INLINE typename Lanes<T>::ints sign_bits() { return (typename Lanes<T>::ints)splat<T>((T)-0.0); }
template <class T> INLINE Vec<T> size_of(Vec<T> x) { return (Vec<T>)((typename Lanes<T>::ints)x & ~sign_bits<T>()); }
template <class T> INLINE Vec<T> signed_as(Vec<T> size, Vec<T> y) {
    using Bits = typename Lanes<T>::ints;
    return (Vec<T>)((Bits)size | ((Bits)y & sign_bits<T>()));
}
template <class T> INLINE Vec<T> least(Vec<T> x, T most) { return x > splat<T>(most) ? splat<T>(most) : x; }

// e^-y for 0 <= y <= LOG_MAX
template <class T> INLINE Vec<T> exp_of_minus(Vec<T> y) {
    Power<T> q(Many<T, 1>{{-y}});
    return (T)0.25 * (q.four.at[0] + q.four.at[0] * q.p.at[0]);
}

// tanh and sech^2 from q = e^{-2|x|} and d = q - 1: |tanh| = -d / (2 + d) by one corrected division and
// sech^2 = 1 - tanh^2 where |x| is small, else |tanh| = 1 - w and sech^2 = w (2 - w) with w = 2q / (1 + q).
// NaN goes through all of it.
template <class T, int U> INLINE void tanh_of(const Many<T, U>& x, Many<T, U>& value, Many<T, U>& slope) {
    using All = Many<T, U>;
    // beyond it sech^2 is below the least normal number, and 0
    All unbound = All::each([&](int u) { return 2 * size_of<T>(x.at[u]); });
    All twice = All::each([&](int u) { return least<T>(unbound.at[u], Lanes<T>::LOG_MAX); });
    Power<T, U> power(All::each([&](int u) { return -twice.at[u]; }));
    const All &four = power.four, &p = power.p;
    All d = All::each([&](int u) {
        Vec<T> scale = four.at[u] * (T)0.25;
        return (scale - 1) + scale * p.at[u];
    });
    All bottom = All::each([&](int u) { return d.at[u] + 2; });
    All over = All::each([&](int u) { return 1 / bottom.at[u]; });
    All near = All::each([&](int u) { return -d.at[u] * over.at[u]; });
    near = All::each([&](int u) {
        Vec<T> missed = near.at[u] * (d.at[u] - (bottom.at[u] - 2));
        return near.at[u] + over.at[u] * ((-d.at[u] - near.at[u] * bottom.at[u]) - missed);
    });
    All w = All::each([&](int u) { return (T)0.5 * (four.at[u] + four.at[u] * p.at[u]) * over.at[u]; });
    slope = All::each([&](int u) {
        Vec<T> far = unbound.at[u] > splat<T>(Lanes<T>::LOG_MAX) ? Vec<T>{} : w.at[u] * (2 - w.at[u]);
        return twice.at[u] < (T)1.1 ? 1 - near.at[u] * near.at[u] : far;
    });
    value = All::each([&](int u) {
        return signed_as<T>(twice.at[u] < (T)1.1 ? near.at[u] : 1 - w.at[u], x.at[u]);
    });
}

template <class T> INLINE Jet<T> tanh_jet(Vec<T> x) {
    Many<T, 1> value, slope;
    tanh_of<T, 1>(Many<T, 1>{{x}}, value, slope);
    return {value.at[0], slope.at[0], -2 * value.at[0] * slope.at[0], Vec<T>{}};
}

// tanh of `count` numbers, whole vectors, which may be in place, and sech^2, which may be streamed.
template <class T> void tanh_of_all(Size count, const T* x, T* values, T* slopes, bool streamed) {
    // the series is one chain of multiply-adds, each of which waits some 4 cycles for the last, and two start in a
    // cycle: 8 vectors at once fill the time, and 4 are as many as 16 registers hold
    constexpr int U = REGISTERS == 32 ? 8 : 4, W = WIDTH<T>;
    Size i = 0;
    for (; i + U * W <= count; i += U * W) {
        Many<T, U> value, slope;
        tanh_of<T, U>(Many<T, U>::each([&](int u) { return load(x + i + u * W); }), value, slope);
        UNROLL
        for (int u = 0; u < U; u++) store(values + i + u * W, value.at[u]);
        UNROLL
        for (int u = 0; u < U; u++)
            streamed ? stream(slopes + i + u * W, slope.at[u]) : store(slopes + i + u * W, slope.at[u]);
    }
    for (; i < count; i += W) {
        Jet<T> f = tanh_jet<T>(load(x + i));
        store(values + i, f.value), store(slopes + i, f.slope);
    }
}

// A peak of height 1 at 0 and its derivative.
template <class T> INLINE void bump(int shape, Vec<T> y, Vec<T>& height, Vec<T>& slope) {
    Vec<T> size = size_of<T>(y), none = Vec<T>{}, one = splat<T>(1);
    Vec<T> side = y > none ? one : y < none ? -one : none;
    if (shape == SECH2) {
        Jet<T> f = tanh_jet<T>(y);
        height = f.slope, slope = f.curvature;
    } else if (shape == FAST) {
        Vec<T> over = 1 / (1 + size);
        height = over * over, slope = -2 * side * height * over;
    } else if (shape == ARCTAN) {
        height = 1 / (1 + size * size), slope = -2 * side * size * height * height;
    } else if (shape == TRIANGLE) {
        height = size < one ? 1 - size : none, slope = size < one ? -side : none;
    } else {
        Vec<T> whole = exp_of_minus<T>(least<T>(size * size, Lanes<T>::LOG_MAX));
        height = size * size < splat<T>(Lanes<T>::LOG_MAX) ? whole : none;
        slope = -2 * side * size * height;
    }
}

// An activation of one member. The slope of a surrogate is s(scale g x), times area g if area is not 0.
template <class T> struct Activation {
    int value, shape;
    T scale, area;
    T* sharpness;  // (n16)

    static Size count(const ActivationArgs& f, Size np) { return f.sharpness ? np : 0; }

    Activation(const ActivationArgs& f, Size member, Size n, T*& memory)
        : value(f.value), shape(f.shape), scale((T)f.scale), area((T)f.area), sharpness(nullptr) {
        if (!f.sharpness) return;
        sharpness = memory, memory += pad(n);
        copy_in(sharpness, (const T*)f.sharpness + member * n, n);
    }

    bool any() const { return value != IDENTITY; }
    bool surrogate() const { return shape != EXACT; }

    // at numbers i, i + 1, ... of a row
    INLINE Jet<T> operator()(Vec<T> x, Size i) const {
        Vec<T> none = Vec<T>{}, one = splat<T>(1);
        if (value == TANH) return tanh_jet<T>(x);
        if (value == RELU) return {x < none ? none : x, x > none ? one : none, none, none};
        if (value == IDENTITY) return {x, one, none, none};
        Vec<T> below = value == STEP ? none : -one, between = value == SIGN_UP ? one : none;
        Jet<T> f;
        f.value = x > none ? one : x < none ? below : x == x ? between : x;
        Vec<T> g = load(sharpness + i), slope;
        bump<T>(shape, scale * g * x, f.slope, slope);
        f.slope = f.slope < splat<T>(Lanes<T>::TINY) ? none : f.slope;
        f.curvature = scale * g * slope, f.sharpening = scale * x * slope;
        if (area != 0) {
            f.sharpening = area * (f.slope + g * f.sharpening);
            f.slope *= area * g, f.curvature *= area * g;
        }
        return f;
    }
};

}  // namespace
