"""Backends: which are available, and the reason why one cannot serve a form."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm, LIFForm
from lyaptorch.cells.gate_form import GateForm
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.library import open_library


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on this machine.

    Attributes:
        available: whether it can.
        detail: what it uses, or why it cannot be used.
    """

    available: bool
    detail: str


def available() -> dict[str, Availability]:
    """Every backend of `lyapunov_spectrum`, whether it can be used here, and why not.

    The environment variable LYAPTORCH_KERNELS=0 switches all kernels off; with LYAPTORCH_REQUIRE_KERNELS=1
    the absence of the compiled ones is an error. Triton's need a GPU, or TRITON_INTERPRET=1 from the start of
    the process: then an interpreter runs them on the CPU, slowly, to test them.

    Cost of a look at files and drivers.

    Raises:
        RuntimeError: if the kernels are required and missing.

    Example:
        >>> available()["torch"].available
        True
    """
    return {"torch": Availability(True, f"torch {torch.__version__}"), "cpu": _cpu(), "triton": _triton()}


LARGEST, LARGEST_FRAME = 1024, 128
"""Units of the largest network that Triton unrolls: a row of it must fit the registers; and of the largest
that it scans: beyond, its kernels take minutes to compile."""


def preferred(state: Tensor) -> str:
    """The backend that is taken by itself where a state lies."""
    return "triton" if state.is_cuda else "cpu"


def refusal(
    backend: str, form: AnyForm | GateForm | None, state: Tensor, *, frame: bool = False
) -> str | None:
    """Why "cpu" or "triton" cannot run `form` on states like `state`; None if it can.

    Args:
        backend: which.
        form: what evolves; None where a cell has none.
        state: `(*e, b, n)`.
        frame: whether tangent vectors are carried along.
    """
    if (reason := missing(backend)) is not None:
        return reason
    triton = backend == "triton"
    if state.device.type != ("cuda" if triton and not _interpreted() else "cpu"):
        return f"the state is on {state.device}"
    if form is None:
        return "the cell has no Form"
    if isinstance(form, GateForm) and (triton or frame):
        return "of networks with gates the CPU kernels run whole sequences, and no kernels tangent vectors"
    # of spiking neurons the frame is twice as long as W
    largest = LARGEST_FRAME // (2 if isinstance(form, LIFForm) else 1) if frame else LARGEST
    if triton and (n := form.weight_hh.shape[-1]) > largest:
        return f"its tiles hold up to {largest} units, and the network has {n}"
    return _refuses(form, state)


def _refuses(form: AnyForm | GateForm, state: Tensor) -> str | None:
    if state.dtype not in (torch.float32, torch.float64):
        return f"the dtype is {state.dtype}, and the kernels know float32 and float64"
    constants = form.constants() if isinstance(form, LIFForm) else []
    for w in (*form.weights(), *constants):
        if (w.dtype, w.device) != (state.dtype, state.device):
            return f"a weight is {w.dtype} on {w.device}, and the state {state.dtype} on {state.device}"
    # other shapes would broadcast in torch; the kernels index what they are given
    gates, parts = 1, 2 if isinstance(form, LIFForm) else 1
    if isinstance(form, GateForm):
        gates, parts = form.gates, form.parts
    W, n = form.weight_hh, state.shape[-1] // parts
    if tuple(W.shape) != (*state.shape[:-2], gates * n, n):
        return f"the recurrent weights have shape {tuple(W.shape)}, and the state {tuple(state.shape)}"
    if any(z.requires_grad for z in constants):
        return "the kernels train no time constants or thresholds of spiking neurons"
    for f in form.activations():
        if f.known is None:
            return f"the kernels know the activations of this library, not this {f}"
        if any(p.dim() > 1 and p.shape[-2] != 1 for p in f.arguments):
            return f"the parameters of {f} differ between trajectories"
        if isinstance(f, Surrogate) and f.through != "slope" and f.arguments[0].requires_grad:
            through = f"{f} is trained through {f.through!r}"
            return f'the kernels train a sharpness through "slope" only, and {through}'
    return None


def missing(name: str) -> str | None:
    """Why a backend cannot be used on this machine; None if it can."""
    if name == "cpu" and os.environ.get("LYAPTORCH_KERNELS") != "0" and _opens():
        return None
    here = _cpu() if name == "cpu" else _triton()
    return None if here.available else here.detail


# torch.compile cannot trace it, and need not: it does not change. This is all that
# torch.compiler.assume_constant_result does, which would import the whole compiler, a second
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _opens() -> bool:
    try:
        open_library()
    except OSError:
        return False
    return True


def _cpu() -> Availability:
    try:
        if os.environ.get("LYAPTORCH_KERNELS") == "0":
            raise OSError("switched off by LYAPTORCH_KERNELS=0")
        library = open_library()
    except OSError as error:
        if os.environ.get("LYAPTORCH_REQUIRE_KERNELS") == "1":
            raise RuntimeError(f"LYAPTORCH_REQUIRE_KERNELS=1, but {error}") from error
        return Availability(False, str(error))
    return Availability(True, f"instruction set {library.lyap_instruction_set().decode()}")


def _triton() -> Availability:
    if os.environ.get("LYAPTORCH_KERNELS") == "0":
        return Availability(False, "switched off by LYAPTORCH_KERNELS=0")
    if importlib.util.find_spec("triton") is None:
        return Availability(False, "triton is not installed; it comes with torch's builds for GPUs")
    if _interpreted():
        return Availability(True, "interpreted on the CPU (TRITON_INTERPRET=1), to test, not to use")
    if not torch.cuda.is_available():
        return Availability(False, "there is no GPU; TRITON_INTERPRET=1 interprets the kernels on the CPU")
    return Availability(True, f"on {torch.cuda.get_device_name()}")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
