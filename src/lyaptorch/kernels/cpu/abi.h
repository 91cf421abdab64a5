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
    int32_t neurons;         // LIF neurons: their Convention of lif.h; Gated of gates.h; 0: a form
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
    // of gated networks; W and V are those of all gates, and `bias` that of V
    const void* recurrent_bias;
    void* recurrent_bias_bar;
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

// A training step whose loss is the mean over the outputs that count of one of Loss of fit.h.
struct FitArgs {
    UnrollArgs unroll;  // states are not kept; no step before `first` counts; of `tape` lyap_fit_tape is wanted
    int64_t outputs;
    // from one to the next step, member, trajectory, output, in numbers
    int64_t target_step, target_member, target_row, target_column, count_step, count_member, count_row;
    int32_t loss, leaky;  // leaky: neurons that integrate spikes; else the state is read
    double alpha, beta;   // of leaky ones
    const void *R, *offset;  // (members, o, n), of neurons that are not leaky (members, o, 2 n); (members, o)
    const void* targets;       // from step `first` on; of classes: their numbers
    const uint8_t* counts;     // likewise, which count
    double* sums;              // (units, SUMS), written
    void *loss_of, *right_of;  // (members)
    void *R_bar, *offset_bar;  // or null
};

// A step of an optimiser; arrays of pointers have one for each tensor, all (members, size).
struct DescentArgs {
    int64_t tensors, members;
    int32_t rule;      // Descending of descent.h
    int32_t together;  // whether the limit is of the length of all tensors, or of each
    double beta1, beta2, epsilon, limit;  // momentum is beta1; infinity for no limit
    const int64_t* sizes;                 // numbers of a member, of each tensor
    void* const* parameters;
    const void* const* gradients;
    void *const *first, *const *second;  // moments
    const double* limits;                // (members), or null: `limit` for all
    const void* lr;                      // (members)
    int64_t* count;                      // (members) steps before
    void* lengths;                       // (tensors, members) of the gradients
    uint8_t* fine;                       // (members) whether all of them are finite; nothing moves unless of all
};

// Numbers (outer, members, row) of a stream.
struct DrawArgs {
    int64_t key, members, outer, row, epoch;
    int32_t kind, unused;  // Drawn of draw.h
    const int64_t *ids, *epochs;  // (members); null: `epoch` for all
    void* out;
};

using Task = void (*)(const void* args, int64_t unit, void* work);

struct Precision {
    int64_t (*scan_work)(const ScanArgs&), (*scan_tape)(const ScanArgs&);  // bytes: scratch of a thread, tape
    Task scan_forward, scan_adjoint;                                       // a unit is an item
    int64_t (*unroll_work)(const UnrollArgs&), (*unroll_tape)(const UnrollArgs&);
    int64_t (*unroll_units)(const UnrollArgs&);
    Task unroll_forward, unroll_adjoint;
    int64_t (*fit_work)(const FitArgs&), (*fit_tape)(const FitArgs&);
    Task fit;
    Task scan_reduce, unroll_reduce, fit_conclude;  // a unit is a member
    double (*peak)(int64_t rounds);   // multiplies and adds without memory; returns their number
};

// What is done with whatever model.
struct Common {
    Task measure, move;  // of a step; a unit is a member
    int64_t (*draw_units)(const DrawArgs&);
    Task draw;
};

struct InstructionSet {
    const char* name;
    Precision form[2], lif[2], gru[2], lstm[2];  // of float and double
    Common common[2];
};
