"""The compiled C library, memory that is used again for its results, and the measured peak of a core.

The structures mirror `cpu/abi.h`, field by field. ctypes releases the interpreter lock during a call.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VERSION = 8
FILE = "liblyaptorch_cpu.so"


def _fields(numbers: str, ids: str, pointers: str, reals: str = "") -> list[tuple[str, type]]:
    return [
        *((name, c_int64) for name in numbers.split()),
        *((name, c_int32) for name in ids.split()),
        *((name, c_double) for name in reals.split()),
        *((name, c_void_p) for name in pointers.split()),
    ]


class ActivationArgs(ctypes.Structure):
    """An activation of all members."""

    _fields_ = _fields("", "value shape", "sharpness", "scale area")


class FormArgs(ctypes.Structure):
    """A form of either kind, its inputs, and where its gradients go."""

    _fields_ = (
        *_fields("n m steps members batch", "shared train_coupling residual neurons", ""),
        *((name, ActivationArgs) for name in ("inner", "outer", "phi")),
        *_fields("", "", "W V bias A coupling alpha beta threshold inputs h0"),
        *_fields("", "", "W_bar V_bar bias_bar A_bar coupling_bar inner_bar outer_bar phi_bar"),
        *_fields("", "", "inputs_bar h_bar tape recurrent_bias recurrent_bias_bar"),
    )


class ScanArgs(ctypes.Structure):
    """The arguments of the scan and its adjoint."""

    _fields_ = (
        ("form", FormArgs),
        *_fields(
            "k spans cut keep apart one_frame",
            "",
            "cuts twice frame pivots dead longest h Q status c log_r frame_bar",
        ),
    )


class UnrollArgs(ctypes.Structure):
    """The arguments of the unrolling and its adjoint."""

    _fields_ = (("form", FormArgs), *_fields("keep first", "", "states states_bar"))


class FitArgs(ctypes.Structure):
    """The arguments of a training step."""

    _fields_ = (
        ("unroll", UnrollArgs),
        *_fields("outputs target_step target_member target_row target_column", "", ""),
        *_fields("count_step count_member count_row", "loss leaky", "", "alpha beta"),
        *_fields("", "", "R offset targets counts sums loss_of right_of R_bar offset_bar"),
    )


class DescentArgs(ctypes.Structure):
    """The arguments of a step of an optimiser."""

    _fields_ = (
        *_fields("tensors members", "rule together", "", "beta1 beta2 epsilon limit"),
        *_fields("", "", "sizes parameters gradients first second limits lr count lengths fine"),
    )


class DrawArgs(ctypes.Structure):
    """The arguments of a draw from a stream."""

    _fields_ = _fields("key members outer row epoch", "kind unused", "ids epochs out")


Args: TypeAlias = ScanArgs | UnrollArgs | FitArgs | DescentArgs | DrawArgs


@cache
def load(folders: tuple[str, ...]) -> ctypes.CDLL:
    """The library from the first of `folders` that has it.

    Raises:
        OSError: if there is none, or it is another version's or machine's, or it does not load; says why.
    """
    paths = [path for folder in folders if (path := Path(folder) / FILE).is_file()]
    if not paths:
        raise OSError(
            f"{FILE} is not installed; install lyaptorch where a C++ compiler and CMake are found to build it"
        )
    library = ctypes.CDLL(str(paths[0]))
    library.lyap_version.restype = c_int32
    if (version := library.lyap_version()) != VERSION:
        raise OSError(f"{FILE} has version {version}, and {VERSION} is needed; install lyaptorch again")
    library.lyap_instruction_set.restype = c_char_p
    if library.lyap_instruction_set() is None:
        why = (
            f"{FILE} was compiled for another machine, with instructions that this one lacks; install "
            "lyaptorch again here, or for all machines with pip's -C cmake.define.EVERY_INSTRUCTION_SET=ON"
        )
        # on a cluster of mixed processors the same runs would be many times slower on some, without a word
        warnings.warn(f"slow, because there are no kernels: {why}", RuntimeWarning, stacklevel=2)
        raise OSError(why)
    library.lyap_use.argtypes, library.lyap_use.restype = [c_char_p], c_int32
    library.lyap_large_pages.argtypes, library.lyap_large_pages.restype = [c_void_p, c_int64], None
    library.lyap_peak.argtypes, library.lyap_peak.restype = [c_int32, c_int64], c_double
    kinds = {"scan": ScanArgs, "unroll": UnrollArgs, "fit": FitArgs, "descend": DescentArgs, "draw": DrawArgs}
    for name, args in kinds.items():
        twofold = name in ("scan", "unroll")
        for call_of in (f"{name}_forward", f"{name}_adjoint") if twofold else (name,):
            function = getattr(library, f"lyap_{call_of}")
            function.argtypes, function.restype = [POINTER(args), c_int32, c_int32], c_int32
        if name in ("scan", "unroll", "fit"):
            function = getattr(library, f"lyap_{name}_tape")
            function.argtypes, function.restype = [POINTER(args), c_int32], c_int64
    return library


@cache
def open_library() -> ctypes.CDLL:
    """The library that lies beside this package, or where the distribution was installed."""
    # the two differ in an editable install, whose sources stand apart from what was built
    folders = [str(Path(__file__).parent)]
    with contextlib.suppress(metadata.PackageNotFoundError):
        folders.append(str(metadata.distribution("lyaptorch").locate_file("lyaptorch/kernels")))
    return load(tuple(folders))


def call(name: str, args: Args, dtype: torch.dtype) -> None:
    """Call `lyap_<name>` with as many threads as torch uses."""
    function = getattr(open_library(), f"lyap_{name}")
    if not function(ctypes.byref(args), int(dtype == torch.float64), torch.get_num_threads()):
        raise MemoryError(f"there is no memory for the scratch space of {name}")


def tape_size(name: str, args: Args, dtype: torch.dtype) -> int:
    """How many bytes the tape of `lyap_<name>` takes."""
    size = getattr(open_library(), f"lyap_{name}_tape")
    return int(size(ctypes.byref(args), int(dtype == torch.float64)))


def fill(args: FormArgs | Args, **values: int | Tensor | None) -> None:
    """Set fields of `args`; of a tensor, its address. Whoever calls keeps the tensors alive."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            if not value.is_contiguous():
                raise AssertionError(f"{name} must be contiguous")
            value = value.data_ptr()
        setattr(args, name, value)


SMALL, LARGEST, BLOCKS = 1 << 16, 1 << 28, 4
"""Bytes of tensors that are not worth the trouble, bytes of the largest block that is kept, how many are."""

_spare: dict[int, NDArray[np.uint8]] = {}
"""By address; each change is one operation, because threads and the garbage collector meet here.

Arrays, not tensors: the collector comes at any time, also while somebody watches every function of torch.
"""


def reuse_buffer(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of any numbers, whose memory is lent again when the tensor and all its views are gone."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return torch.empty(shape, dtype=dtype, device="cpu")
    block = _block(size)
    lent = memoryview(block)  # type: ignore[arg-type]
    # atexit=False: at the end of the process there is nobody to lend to
    weakref.finalize(lent, _give_back, block).atexit = False
    return torch.frombuffer(lent, dtype=dtype, count=math.prod(shape)).view(shape)


def _block(size: int) -> NDArray[np.uint8]:
    """A spare block, neither too small nor much too large, or a fresh one."""
    for address in reversed(list(_spare)):
        kept = _spare.pop(address, None)
        if kept is not None and size <= kept.nbytes <= 2 * size + SMALL:
            return kept
        if kept is not None:
            _give_back(kept)
    block: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, device="cpu").numpy()
    # not yet touched: in pages that are quick to touch, where the system can give them
    open_library().lyap_large_pages(block.ctypes.data, block.nbytes)
    return block


def _give_back(block: NDArray[np.uint8]) -> None:
    if block.nbytes <= LARGEST:
        _spare[block.ctypes.data] = block
        for address in list(_spare)[:-BLOCKS]:
            _spare.pop(address, None)


ROUNDS = 1_000_000


def peak(dtype: torch.dtype, threads: int = 1) -> float:
    """Floating-point operations a second in registers, summed over `threads` that run at once.

    Independent chains of fused multiplications and additions, with the instruction set that the kernels use;
    no memory is read. Takes a few milliseconds.

    Raises:
        OSError: if there are no compiled kernels.

    Example:
        >>> from lyaptorch.kernels import available
        >>> not available()["cpu"].available or peak(torch.float32) > 1e8
        True
    """
    library = open_library()

    def rate(_: int) -> float:
        start = time.perf_counter()
        done: float = library.lyap_peak(int(dtype == torch.float64), ROUNDS)
        return done / (time.perf_counter() - start)

    # a ctypes call lets go of the interpreter's lock, so that threads of Python do run at once
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, range(threads)))
