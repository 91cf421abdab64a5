"""Compile every Triton kernel for an H200 (sm_90), which needs no GPU, and print what each takes.

python tests/kernels/triton_compile.py: fails where a kernel does not compile or its memory does not fit.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lyaptorch.kernels import LARGEST_FRAME
from lyaptorch.kernels.triton import form_kernels, frame_kernels, lif_kernels

SHARED = 227 * 1024
"""Bytes of shared memory that a program can have."""
SIZES = ("t", "b", "n", "k", "spans", "a_size", "cut")
POINTERS = {"dead": "*u8", "status": "*i32", "cuts": "*i32", "twice": "*i32"}
NONE, TANH, SURROGATE = (0, 0, 1.0, 0.0), (1, 0, 1.0, 0.0), (5, 2, 1.0, 0.5)


def compiled(kernel, number, warps, **constants):
    """Its shared memory in bytes, for numbers of the type fp32 or fp64."""
    kinds = {
        "eps": number,
        **dict.fromkeys(SIZES, "i32"),
        **POINTERS,
        **dict.fromkeys(constants, "constexpr"),
    }
    signature = {name: kinds.get(name, f"*{number}") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    done = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    return done.metadata.shared


def launches():
    """Kernel, type, warps and constants: those of the benchmark, and what they leave out."""
    for n, number, warps in ((128, "fp32", 8), (32, "fp64", 4), (256, "fp32", 16)):
        precision = "tf32x3" if number == "fp32" else "ieee"
        tile = {"RESIDENT": n <= 128, "PRECISION": precision, "B": 16, "N": n}
        rate = {"G": TANH, "F": NONE, "PHI": NONE, "KIND": 0, "COUPLED": False, **tile}
        residual = {"G": NONE, "F": TANH, "PHI": SURROGATE, "KIND": 2, "COUPLED": True, **tile}
        dense = {**residual, "KIND": 3, "RESIDENT": n <= 64}
        for special in (rate, residual, dense):
            yield form_kernels.forward, number, warps, {**special, "KEEP": special is not rate}
            yield form_kernels.backward, number, warps, {**special, "OUTS": False, "P_BARS": special is dense}
        spiking = {"F": SURROGATE, "SUBTRACT": False, "SIMULTANEOUS": False, **tile}
        yield lif_kernels.forward, number, warps, spiking
        yield lif_kernels.backward, number, warps, {**spiking, "GRAD": 1}
        if n > LARGEST_FRAME:
            continue
        for is_nonlinear, kind in ((False, 0), (True, 2), (True, 3)):
            frame = {"G": True, "F": is_nonlinear, "PHI": is_nonlinear, "KIND": kind, "K": 32, "N": n}
            frame["PRECISION"] = precision
            yield frame_kernels.forward, number, min(warps, 8), {**frame, "KEEP": True}
            yield frame_kernels.backward, number, min(warps, 8), {**frame, "PAST": kind == 3}
        # of neurons half as many
        frame = {"SIMULTANEOUS": False, "PRECISION": precision, "K": 32, "N": n // 2, "WIDE": n}
        yield lif_kernels.forward_frame, number, min(warps, 8), {**frame, "KEEP": True}
        yield lif_kernels.backward_frame, number, min(warps, 8), frame


if __name__ == "__main__":
    for kernel, number, warps, constants in launches():
        shared = compiled(kernel, number, warps, **constants)
        name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"
        print(name, number, constants, shared, "bytes", flush=True)
        if shared > SHARED:
            sys.exit(f"{shared} bytes of shared memory are more than the {SHARED} that there are")
