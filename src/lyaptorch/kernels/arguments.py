"""Arguments of the kernels and what comes back: a form, its inputs and gradients, settings and results."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import AnyForm, LIFForm, Residual
from lyaptorch.cells.gate_form import GateForm
from lyaptorch.cells.surrogates import VALUES as JUMPS
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.library import ActivationArgs, FormArgs, fill

VALUES: dict[str | None, int] = {"linear": 0, "tanh": 1, "relu": 2, "sign": 3, "upper_sign": 4, "step": 5}
"""What activations compute, as the kernels number it."""
BUMPS: dict[str | None, tuple[int, float]] = {
    "sech2": (1, 1.0),
    "sigmoid": (1, 0.5),
    "fast_sigmoid": (2, 1.0),
    "arctan": (3, 1.0),
    "triangular": (4, 1.0),
    "erfc": (5, 1.0),
    "gaussian": (5, 0.5**0.5),
}
"""Slopes of surrogates: the kernels' number of a bump s and the factor a in s(a g x)."""
KINDS = {"diagonal": 1, "blocks": 2, "dense": 3}
NEURONS = 1
GATED = {"gru": 32, "lstm": 64}
GATE_NAMES = {"weight_hh": "W", "weight_ih": "V", "bias_ih": "bias", "bias_hh": "recurrent_bias"}
CONVENTIONS = {"subtract": 2, "full": 4, "ignore": 8, "simultaneous": 16}
"""Bits of the kernels' `Convention`: of neurons, and of what is not the default of theirs."""


class KernelArguments:
    """The arguments of a form, and the tensors that must live as long as they are used.

    Args:
        form: what evolves.
        inputs: `(t, *e, b, m)`.
        h: a state `(*e, b, N)`.
    """

    def __init__(self, form: AnyForm | GateForm, inputs: Tensor, h: Tensor) -> None:
        (*e, b, _), t, n, m = h.shape, len(inputs), form.weight_hh.shape[-1], form.weight_ih.shape[-1]
        self.form, self.e, self.h, self.args = form, tuple(e), h, FormArgs()
        self._given: dict[str, tuple[Tensor, Tensor]] = {}
        fill(self.args, n=n, m=m, steps=t, members=prod(e), batch=b)
        self.hear(inputs)
        for tensor, name, shape in self._operands():
            self.give(name, tensor, *shape)
        if isinstance(form, GateForm):
            self.give("h0", h)
            self.args.neurons = GATED[form.kind]
            return
        if form.biases:
            # the first and only one is not copied
            self.give("bias", sum(form.biases[1:], form.biases[0]), *e, n)
        self.give("h0", h)
        if isinstance(form, LIFForm):
            names = (form.reset, form.reset_grad, form.order)
            self.args.neurons = NEURONS + sum(CONVENTIONS.get(name, 0) for name in names)
        else:
            coupling, residual = form.coupling, form.residual
            # whether f(a) is kept for it is decided on the way forward
            self.args.train_coupling = int(coupling is not None and coupling.requires_grad)
            self.args.residual = 0 if residual is None else KINDS[residual.kind]
        for name, f in _activations(form).items():
            self._activation(name, f, n)

    def give(self, name: str, tensor: Tensor, *shape: int) -> None:
        """Hand over a tensor, expanded to `shape` if one is given."""
        fill(self.args, **{name: self._hold(name, tensor.expand(shape) if shape else tensor)})

    def _hold(self, name: str, tensor: Tensor) -> Tensor:
        source = tensor.detach()
        self._given[name] = source, source.contiguous()
        return self._given[name][1]

    def hear(self, inputs: Tensor) -> None:
        """Hand over inputs, with the shape of the first ones.

        Raises:
            ValueError: if they have another shape or dtype: kernels would read, and write gradients, beyond.
        """
        shape, dtype = (self.args.steps, *self.h.shape[:-1], self.args.m), self.h.dtype
        if inputs.shape != shape or inputs.dtype != dtype:
            raise ValueError(
                f"kernels need inputs (t, *e, b, m) = {shape} in {dtype}, got {tuple(inputs.shape)} in "
                f"{inputs.dtype}; expand them to every member and trajectory"
            )
        self.inputs = inputs
        self.shared = self.args.members > 1 and not any(inputs.stride()[1:-2])
        # inputs that all members share are not copied for each: a stride of 0 says so
        if self.shared:
            inputs = inputs.flatten(1, -3)[:, 0]
        self.args.shared = int(self.shared)
        self.give("inputs", inputs)

    def renew(self, form: AnyForm | GateForm) -> None:
        """Take what changed since in tensors of which a copy was handed over, and the decays of `form`."""
        if isinstance(form, LIFForm):
            for name, decay in zip(("alpha", "beta"), form.constants(), strict=False):
                self.give(name, decay, *self.e, self.args.n)
        biases = () if isinstance(self.form, GateForm) else self.form.biases
        for name, (source, held) in self._given.items():
            if name == "bias" and len(biases) > 1:
                torch.add(biases[0].detach(), sum(biases[2:], biases[1]).detach(), out=held)
            elif source.data_ptr() != held.data_ptr():
                held.copy_(source)

    def gradients(self, leaves: Sequence[Tensor]) -> None:
        """Make room for the gradients of the inputs, if they want one, of h0 and of `leaves`."""
        self._bars: dict[str, Tensor] = {}
        for tensor, name, shape in self._uses():
            if name not in self._bars and any(leaf is tensor for leaf in leaves):
                self._bars[name] = self.h.new_empty(shape)
        if self.inputs.requires_grad:
            self._bars["inputs"] = self.h.new_empty(self.inputs.shape)
        fill(self.args, **{f"{name}_bar": bar for name, bar in self._bars.items()})

    def bars(self) -> list[Tensor]:
        """That room."""
        return list(self._bars.values())

    def found(self, leaves: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the inputs and of `leaves`, once the kernel has run."""
        bars: list[Tensor | None] = [self._bars.get("inputs")]
        every = self._uses()
        for leaf in leaves:
            # of all its uses: weights may be tied
            uses = [self._bars[name].sum_to_size(leaf.shape) for tensor, name, _ in every if tensor is leaf]
            bars.append(sum(uses[1:], uses[0]) if uses else torch.zeros_like(leaf))
        return bars

    def _operands(self) -> list[tuple[Tensor, str, tuple[int, ...]]]:
        """The tensors that are handed over one by one, what the kernels call them, and their shapes there."""
        form, e, (n, m) = self.form, self.e, (self.args.n, self.args.m)
        if isinstance(form, GateForm):
            sizes = {"weight_hh": (n,), "weight_ih": (m,)}
            named = form.operands().items()
            return [(z, GATE_NAMES[name], (*e, form.gates * n, *sizes.get(name, ()))) for name, z in named]
        operands = [(form.weight_hh, "W", (*e, n, n)), (form.weight_ih, "V", (*e, n, m))]
        if isinstance(form, LIFForm):
            names = ("alpha", "beta", "threshold")
            return operands + [(z, name, (*e, n)) for z, name in zip(form.constants(), names, strict=True)]
        if form.coupling is not None:
            operands.append((form.coupling, "coupling", (*e, n)))
        if form.residual is not None:
            operands.append((form.residual.matrix, "A", (*e, *matrix_shape(form.residual, n))))
        return operands

    def _uses(self) -> list[tuple[Tensor, str, tuple[int, ...]]]:
        """Every tensor of the form, what the kernels call its gradient, and of which shape that is."""
        if isinstance(self.form, GateForm):
            return self._operands()
        e, n, functions = self.e, self.args.n, _activations(self.form).items()
        # the kernels see one bias, the sum, whose gradient is that of each
        biases = [(bias, "bias", (*e, n)) for bias in self.form.biases]
        slopes = [(f.arguments[0], name, (*e, 1, n)) for name, f in functions if isinstance(f, Surrogate)]
        return [*self._operands(), *biases, *slopes]

    def _activation(self, name: str, f: Activation | None, n: int) -> None:
        args: ActivationArgs = getattr(self.args, name)
        args.value, args.shape, args.scale, args.area = numbers(f)
        if isinstance(f, Surrogate):
            sharpness = f.arguments[0].to(self.h.dtype).expand(*self.e, 1, n)
            args.sharpness = self._hold(name, sharpness).data_ptr()


def numbers(f: Activation | None) -> tuple[int, int, float, float]:
    """(value, bump, scale, area) of an activation as the kernels know it, None being the identity."""
    if not isinstance(f, Surrogate):
        return (0 if f is None else VALUES[f.known], 0, 1.0, 0.0)
    # the area under `area g s(g x)` is `area` times that under s: this makes it the height of the jump
    area = JUMPS[f.value][1] / f.bump.area if f.norm == "area" else 0.0
    return (VALUES[f.value], *BUMPS[f.known], area)


def _activations(form: AnyForm) -> dict[str, Activation | None]:
    """By the names that the kernels know."""
    if isinstance(form, LIFForm):
        return {"inner": form.spike}
    phi = None if form.residual is None else form.residual.activation
    return {"inner": form.inner, "outer": form.outer, "phi": phi}


def matrix_shape(residual: Residual, n: int) -> tuple[int, ...]:
    """Of A for one network of n units."""
    return {"diagonal": (n,), "blocks": (n // 2, 2, 2), "dense": (n, n)}[residual.kind]


def spread(log_r: Tensor) -> Tensor:
    """The largest difference between the living of log R_ii `(..., k)`; 0 where none lives."""
    finite = torch.isfinite(log_r)
    top = torch.where(finite, log_r, -torch.inf).amax(-1)
    bottom = torch.where(finite, log_r, torch.inf).amin(-1)
    return torch.where(finite.any(-1), top - bottom, 0.0)


class Settings(NamedTuple):
    """How to scan.

    Attributes:
        cuts: the steps between which the spans lie, s + 1 of them from 0 to t.
        twice: for each span whether it must be orthonormalised to round-off.
        cut: the state's cotangent stops at every multiple of it; None for never.
        backend: "cpu" or "triton".
    """

    cuts: tuple[int, ...]
    twice: tuple[bool, ...]
    cut: int | None = None
    backend: str = "cpu"


class Scanned(NamedTuple):
    """Diagonals of R and dead columns `(s, *e, b, k)`, final state and frame, what overflowed, the tape.

    `broken` is the first span after which tangent vectors are not finite, `overflow` the first step of
    those after which a final state that is not finite was not; None where all is well.
    `longest (s, *e, b)` is the length of the longest living column before each orthonormalisation, None where
    that is not told.
    """

    pivots: Tensor
    dead: Tensor
    h: Tensor
    Q: Tensor
    broken: int | None
    overflow: int | None
    tape: Any
    longest: Tensor | None = None


class Saved(NamedTuple):
    """What an adjoint reads of a scan: its inputs and first state, what it found, and its tape."""

    inputs: Tensor
    h0: Tensor
    log_r: Tensor
    healthy: Tensor
    Q: Tensor
    tape: Any
