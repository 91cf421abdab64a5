// What crosses the border between Python (ctypes) and the kernels, and between the instruction sets.
// Matrices are row-major and dense; void* is float* or double*; items = members * batch, trajectories fastest.
#pragma once
#include <cstdint>

struct ActivationArgs {
    int32_t value, shape;   // Value and Shape of activation.h
    double scale, area;     // of a surrogate's slope
    const void* sharpness;  // (members, n), or null
};

// h' = P(h) + c f(W g(h) + V x + b) with P(h) = phi(A h); or LIF neurons, whose spikes are g, with states (U, I)
// of N = 2 n numbers. Else N = n.
struct FormArgs {
    int64_t n, m, steps, members, batch;
    int32_t shared;          // whether all members have the same inputs: (steps, batch, m)
    int32_t train_coupling;  // whether the coupling's gradient will be wanted
    int32_t residual;        // Kind of residual.h; A (members, n), (members, n/2, 2, 2) or (members, n, n)
    int32_t neurons;         // LIF neurons: their Convention of lif.h; 0: a form
    ActivationArgs inner, outer, phi;
    const void *W, *V, *bias;     // (members, n, n), (members, n, m), (members, n) or null
    const void *A, *coupling;     // or null; (members, n)
    const void *alpha, *beta, *threshold;  // of neurons, (members, n)
    const void *inputs, *h0;               // (steps, items, m), (items, N)
    // gradients, null where not wanted
    void *W_bar, *V_bar, *bias_bar, *A_bar, *coupling_bar;
    void *inner_bar, *outer_bar, *phi_bar;  // of the sharpness, (members, n)
    void* inputs_bar;                       // (steps, items, m)
    void* h_bar;                            // (items, N); the scan reads that of the final state here
    void* tape;                             // what the adjoint needs; its size is lyap_*_tape
};

struct ScanArgs {
    FormArgs form;
    int64_t k, spans;
    int64_t cut;           // the state's cotangent stops at every multiple of it; 0: never
    int64_t keep;          // whether the tape is written
    const int64_t* cuts;   // (spans + 1) steps between which a span lies
    const uint8_t* twice;  // (spans) whether two Cholesky passes are wanted in any case
    const void* frame;     // (items, N, k)
    void* pivots;          // (spans, items, k) diagonals of R
    uint8_t* dead;         // (spans, items, k)
    void* longest;         // (spans, items) the longest living column before it is orthonormalised
    void *h, *Q;           // final state and frame, as h0 and frame
    int64_t* status;       // (items, 2): first span with tangents, first step with a state not finite; or -1
    const void *c, *log_r;  // (spans, items, k)
    void* frame_bar;        // (items, N, k)
};

struct UnrollArgs {
    FormArgs form;
    int64_t keep;
    int64_t first;           // only the states from this step on have cotangents
    void* states;            // (steps, items, N)
    const void* states_bar;  // (steps - first, items, N)
};

using Task = void (*)(const void* args, int64_t unit, void* work);

struct Precision {
    int64_t (*scan_work)(const ScanArgs&), (*scan_tape)(const ScanArgs&);  // bytes: scratch of a thread, tape
    Task scan_forward, scan_adjoint;                                       // a unit is an item
    int64_t (*unroll_work)(const UnrollArgs&), (*unroll_tape)(const UnrollArgs&);
    int64_t (*unroll_units)(const UnrollArgs&);
    Task unroll_forward, unroll_adjoint;
    Task scan_reduce, unroll_reduce;  // a unit is a member
    double (*peak)(int64_t rounds);   // multiplies and adds without memory; returns their number
};

struct InstructionSet {
    const char* name;
    Precision form[2], lif[2];  // of float and double
};
