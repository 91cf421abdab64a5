// Activations by number: value, slope, the slope's derivative, and that with respect to the sharpness.
#pragma once
#include "abi.h"
#include "vector.h"

namespace {

enum Value { IDENTITY, TANH, RELU, SIGN, SIGN_UP, STEP };
enum Shape { EXACT, SECH2, FAST, ARCTAN, TRIANGLE, GAUSS };

template <class T> struct Jet { Vec<T> value, slope, curvature, sharpening; };

// e^y = 2^n (1 + p) for -LOG_MAX <= y <= 0, with y = n ln 2 + r and p = e^r - 1 by its series.
template <class T> struct Power {
    Vec<T> four, p;  // 2^(n+2), so that nothing is denormal
    explicit INLINE Power(Vec<T> y) {
        using L = Lanes<T>;
        Vec<T> shifted = y * splat<T>((T)1.4426950408889634074) + L::MAGIC;
        Vec<T> whole = shifted - L::MAGIC;
        Vec<T> r = y - whole * L::LN2_HIGH;
        r = r - whole * L::LN2_LOW;
        T factorial = 1;
        UNROLL
        for (int i = 2; i <= L::DEGREE; i++) factorial *= (T)i;
        p = splat<T>(1 / factorial);
        UNROLL
        for (int i = L::DEGREE; i > 2; i--) {
            factorial /= (T)i;
            p = p * r + 1 / factorial;
        }
        p = r + (r * r) * p;
        // the low bits of `shifted` are n
        typename L::ints bits = ((typename L::ints)shifted << L::MANTISSA) +
                                ((typename L::ints){} + ((decltype(bits[0] + 0))(L::BIAS + 2) << L::MANTISSA));
        four = (Vec<T>)bits;
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

// tanh and sech^2 from q = e^{-2|x|} and d = q - 1: |tanh| = -d / (2 + d) by one corrected division and
// sech^2 = 1 - tanh^2 where |x| is small, else |tanh| = 1 - w and sech^2 = w (2 - w) with w = 2q / (1 + q).
// NaN goes through all of it.
template <class T> INLINE Jet<T> tanh_jet(Vec<T> x) {
    Vec<T> twice = least<T>(2 * size_of<T>(x), Lanes<T>::LOG_MAX);
    Power<T> power(-twice);
    Vec<T> scale = power.four * (T)0.25, d = (scale - 1) + scale * power.p, bottom = d + 2, over = 1 / bottom;
    Vec<T> near = -d * over;
    near += over * ((-d - near * bottom) - near * (d - (bottom - 2)));
    Vec<T> w = (T)0.5 * (power.four + power.four * power.p) * over;
    Vec<T> slope = twice < (T)1.1 ? 1 - near * near : w * (2 - w);
    Vec<T> value = signed_as<T>(twice < (T)1.1 ? near : 1 - w, x);
    return {value, slope, -2 * value * slope, Vec<T>{}};
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
        Power<T> q(-least<T>(size * size, Lanes<T>::LOG_MAX));
        height = size * size < splat<T>(Lanes<T>::LOG_MAX) ? (T)0.25 * (q.four + q.four * q.p) : none;
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
        Vec<T> below = value == STEP ? none : -one, at = value == SIGN_UP ? one : none;
        Jet<T> f;
        f.value = x > none ? one : x < none ? below : x == x ? at : x;
        Vec<T> g = load(sharpness + i), slope;
        bump<T>(shape, scale * g * x, f.slope, slope);
        f.curvature = scale * g * slope, f.sharpening = scale * x * slope;
        if (area != 0) {
            f.sharpening = area * (f.slope + g * f.sharpening);
            f.slope *= area * g, f.curvature *= area * g;
        }
        return f;
    }
};

}  // namespace
