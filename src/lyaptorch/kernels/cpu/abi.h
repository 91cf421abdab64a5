// What crosses the border between Python (ctypes) and the kernels, and between the instruction sets.
// Matrices are row-major and dense; void* is float* or double*; items = members * batch, trajectories fastest.
#pragma once
#include <cstdint>

struct ScanArgs {
    int64_t n, k, steps, spans, members, batch;
    int64_t cut;                // the state's cotangent stops at every multiple of it; 0: never
    int32_t inner, outer;       // activation ids: 0 identity, 1 tanh, 2 relu
    int32_t keep, reserved;     // whether the tape is written
    const int64_t* cuts;        // (spans + 1) steps between which a span lies
    const uint8_t* twice;       // (spans) whether two Cholesky passes are wanted in any case
    const void *W, *drive;      // (members, n, n), (steps, items, n)
    const void *h0, *frame;     // (items, n), (items, n, k)
    void* pivots;               // (spans, items, k) diagonals of R
    uint8_t* dead;              // (spans, items, k)
    void *h, *Q;                // final state and frame, as h0 and frame
    int64_t* status;            // (items, 2): first span with tangents, first step with a state not finite; or -1
    void* units;                // tape (items, steps, 5, n16): g, g', g'', f', f''; n16 is n rounded up to 16
    void* frames;               // tape (items, spans + 1, k, n16): Q^T before each span, and at the end
    void *factors, *inverses;   // tape (items, spans, k16, k16) R; (items, spans, k16, 16) its diagonal blocks^-1
    const void *c, *log_r;      // (spans, items, k)
    void *h_bar, *frame_bar;    // (items, n), in and out; (items, n, k)
    void *W_items, *W_bar;      // scratch (items, n, n16); (members, n, n)
    void* a_bars;               // (steps, items, n)
};

struct UnrollArgs {
    int64_t n, steps, members, batch;
    int32_t inner, outer;
    const void *W, *drive, *h0;  // as above
    void *states, *slopes;       // (steps, items, n); f' (steps, items, n16), written if not null
    const void* states_bar;      // (steps, items, n)
    void *a_bars, *h_bar, *W_bar;
};

using Task = void (*)(const void* args, int64_t unit, void* work);

struct Precision {
    int64_t (*scan_work)(const ScanArgs&);  // bytes of scratch a thread needs
    Task scan_forward, scan_adjoint;        // a unit is an item
    Task scan_reduce;                       // a unit is a member
    int64_t (*unroll_work)(const UnrollArgs&);
    int64_t (*unroll_units)(const UnrollArgs&), (*weight_units)(const UnrollArgs&);
    Task unroll_forward, unroll_adjoint, unroll_weight;
    double (*peak)(int64_t rounds);  // multiplies and adds without memory; returns their number
};

struct InstructionSet {
    const char* name;
    Precision single, dual;
};
