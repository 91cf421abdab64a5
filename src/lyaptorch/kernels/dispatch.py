"""Which backends there are, and whether one can serve a form; if not, why not."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import Form
from lyaptorch.kernels.library import open_library

IDS = {"linear": 0, "tanh": 1, "relu": 2}
"""Activations as the kernels number them."""


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

    The environment variable LYAPTORCH_KERNELS=0 switches the compiled kernels off; with
    LYAPTORCH_REQUIRE_KERNELS=1 their absence is an error.

    Raises:
        RuntimeError: if the kernels are required and missing.

    Example:
        >>> available()["torch"].available
        True
    """
    return {"torch": Availability(True, f"torch {torch.__version__}"), "cpu": _cpu()}


def cpu_refuses(form: Form | None, state: Tensor) -> str | None:
    """Why the CPU kernels cannot run `form` on states like `state`; None if they can."""
    cpu = _cpu()
    if not cpu.available:
        return cpu.detail
    if form is None:
        return "the cell has no Form"
    if state.device.type != "cpu":
        return f"the state is on {state.device}"
    if state.dtype not in (torch.float32, torch.float64):
        return f"the dtype is {state.dtype}, and the kernels know float32 and float64"
    if form.residual is not None or form.coupling is not None:
        return "the kernels know no residual connections yet"
    W, expected = form.weight_hh, (*state.shape[:-2], state.shape[-1], state.shape[-1])
    if (W.dtype, W.device, tuple(W.shape)) != (state.dtype, state.device, expected):
        return (
            f"the weights are {W.dtype} {tuple(W.shape)} and the state is {state.dtype} {tuple(state.shape)}"
        )
    for f in (form.inner, form.outer):
        if activation_id(f) is None:
            return f"the kernels know the activations {', '.join(IDS)} of this library, not this {f}"
    return None


def activation_id(f: Activation | None) -> int | None:
    """The kernels' number of an activation of this library; None of any other."""
    if f is None:
        return 0
    return IDS.get(f.name) if f.builtin else None


def _cpu() -> Availability:
    try:
        if os.environ.get("LYAPTORCH_KERNELS") == "0":
            raise OSError("switched off by LYAPTORCH_KERNELS=0")
        name = open_library().lyap_instruction_set().decode()
    except OSError as error:
        if os.environ.get("LYAPTORCH_REQUIRE_KERNELS") == "1":
            raise RuntimeError(f"LYAPTORCH_REQUIRE_KERNELS=1, but {error}") from error
        return Availability(False, str(error))
    return Availability(True, f"instruction set {name}")
