// One step of an optimiser, member by member, in two passes: gradients are looked at and measured first, and only
// where all are sound does anything move.
#pragma once
#include "abi.h"
#include "vector.h"

namespace {

enum Descending { ADAM = 0, MOMENTUM = 1, NESTEROV = 2 };

template <class T> struct Descent {
    const DescentArgs& a;
    Size member;

    // Whether all gradients of the member are finite, and the length of each.
    void measure() const {
        bool fine = true;
        for (Size i = 0; i < a.tensors; i++) {
            const T* g = (const T*)a.gradients[i] + member * a.sizes[i];
            // sums of squares in double neither overflow nor depend on the instruction set
            double squares[BLOCK] = {}, whole = 0;
            T odd[BLOCK] = {}, any = 0;
            Size j = 0;
            for (; j + BLOCK <= a.sizes[i]; j += BLOCK) {
                UNROLL
                for (int l = 0; l < BLOCK; l++) {
                    squares[l] += (double)g[j + l] * (double)g[j + l];
                    // 0, and NaN for what is not finite
                    odd[l] += g[j + l] - g[j + l];
                }
            }
            for (; j < a.sizes[i]; j++) {
                squares[j % BLOCK] += (double)g[j] * (double)g[j];
                odd[j % BLOCK] += g[j] - g[j];
            }
            for (int l = 0; l < BLOCK; l++) whole += squares[l], any += odd[l];
            fine = fine && any == 0;
            length(i) = (T)root(whole);
        }
        a.fine[member] = fine;
    }

    void move() const {
        const double steps = (double)++a.count[member], limit = a.limits ? a.limits[member] : a.limit;
        const T lr = ((const T*)a.lr)[member];
        // in double, because 1 - .999^t of the first steps loses digits in float
        const T first = (T)(1 / (1 - __builtin_pow(a.beta1, steps)));
        const T second = (T)(1 / root(1 - __builtin_pow(a.beta2, steps)));
        double all = 0;
        // rounded once, whatever a compiler makes of the loop for one member
        for (Size i = 0; i < a.tensors; i++) all = __builtin_fma((double)length(i), (double)length(i), all);
        for (Size i = 0; i < a.tensors; i++) {
            const double size = a.together ? root(all) : (double)length(i);
            const T factor = size > limit ? (T)(limit / size) : (T)1;
            if (a.rule == ADAM)
                adam(i, factor, lr, first, second);
            else
                descend(i, factor, lr);
        }
    }

  private:
    T& length(Size i) const { return ((T*)a.lengths)[i * a.members + member]; }

    // A vector of a tensor of the member, of which fewer numbers may be left: what is computed of a number does not
    // depend on how many others there are.
    struct Piece {
        static constexpr Size W = WIDTH<T>;
        T *at, rest[W] = {};
        Size left;
        Piece(void* const tensor, Size from, Size n) : at((T*)tensor + from), left(least(n, W)) {
            if (left < W) copy_row(rest, at, left);
        }
        Vec<T> now() const { return load(left < W ? rest : at); }
        void put(Vec<T> v) {
            store(left < W ? rest : at, v);
            if (left < W) copy_row(at, rest, left);
        }
    };

    // m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2, p <- p - lr m first / (sqrt(v) second + epsilon)
    void adam(Size tensor, T factor, T lr, T first, T second) const {
        const T one = (T)(1 - a.beta1), kept = (T)a.beta2, two = (T)(1 - a.beta2), epsilon = (T)a.epsilon;
        const Size n = a.sizes[tensor];
        for (Size i = 0; i < n; i += WIDTH<T>) {
            const Size from = member * n + i;
            Piece p(a.parameters[tensor], from, n - i), m(a.first[tensor], from, n - i);
            Piece v(a.second[tensor], from, n - i), g((void*)a.gradients[tensor], from, n - i);
            const Vec<T> x = factor * g.now(), mean = m.now() + one * (x - m.now());
            const Vec<T> square = kept * v.now() + two * (x * x);
            m.put(mean), v.put(square);
            p.put(p.now() - lr * (mean * first / (roots(square) * second + epsilon)));
        }
    }

    // v <- momentum v + g; p <- p - lr v, or p - lr (g + momentum v) for Nesterov
    void descend(Size tensor, T factor, T lr) const {
        const T momentum = (T)a.beta1, own = (T)(a.rule == NESTEROV), past = a.rule == NESTEROV ? momentum : (T)1;
        const Size n = a.sizes[tensor];
        for (Size i = 0; i < n; i += WIDTH<T>) {
            const Size from = member * n + i;
            Piece p(a.parameters[tensor], from, n - i), v(a.first[tensor], from, n - i);
            Piece g((void*)a.gradients[tensor], from, n - i);
            const Vec<T> x = factor * g.now(), sum = momentum * v.now() + x;
            v.put(sum);
            p.put(p.now() - lr * (own * x + past * sum));
        }
    }

    static INLINE Vec<T> roots(Vec<T> v) {
        T each[WIDTH<T>];
        store(each, v);
        for (int l = 0; l < WIDTH<T>; l++) each[l] = root(each[l]);
        return load(each);
    }
};

}  // namespace
