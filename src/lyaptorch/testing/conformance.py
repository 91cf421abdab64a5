"""`check_cell`: the contract of a cell that the library builds on, checked along a short trajectory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells import Cell, Network, as_cell, fit, unroll
from lyaptorch.cells.probe import probe, pull
from lyaptorch.cells.products import by_forward_mode
from lyaptorch.tangent import lyapunov_spectrum

STEPS, TRAJECTORIES, COLUMNS = 6, 3, 3
ROUND_OFF = 2e4
"""Relative differences up to this many eps are round-off."""
DIFFERENCES = 1e-5
"""Relative error allowed between a gradient and central differences in float64."""


@dataclass(frozen=True)
class CellReport:
    """What `check_cell` measured: a relative error by the name of each check, and what it could not check.

    Attributes:
        errors: by check.
        notes: what was done in another way, or left out, and why.
    """

    errors: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [f"{name:<40}{error:.1e}" for name, error in self.errors.items()]
        return "\n".join([*rows, *self.notes])


def check_cell(cell: Network, inputs: Tensor | None = None, h0: Any = None) -> CellReport:
    """Check a cell of your own, best in float64: everything that the library takes for granted.

    Along a short trajectory: the step is finite, deterministic, leaves input and state as they are and treats
    trajectories and members independently; forward and reverse mode agree; `pushforward`, and that with the
    input's share, return the states of `step` and its derivatives by autodiff; `last` and the form, where
    there is one, lead where `step` does; `pack` undoes `unpack`, `parts` lie in the state, gates in 0..1;
    a trajectory has the same exponents alone; no member's weights reach another; the gradient of the
    exponents is that of central differences (of plain autograd where the slope is a surrogate).

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`; 6 steps and 3 trajectories of noise when missing (a function needs them).
        h0: `(*e, b, n)`; noise when missing (a function needs it).

    Returns:
        A `CellReport`; print it. Cost: some 50 short spectra of 3 exponents; D is never formed.

    Raises:
        ValueError: naming the first thing that is wrong, and by how much.

    Example:
        >>> import lyaptorch as lt
        >>> report = check_cell(lt.RateCell(1, 8).double())
        >>> report.errors["pushforward"] < 1e-12
        True
    """
    cell = as_cell(cell)
    inputs, h = _trial(cell, inputs, h0)
    report = CellReport()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _check_in_place(cell, inputs, h)
        inputs, h = fit(cell, inputs, h)
        _check_structure(cell, inputs[0], h)
        states = [h]
        for s, x in enumerate(inputs):
            probe(cell, x, states[-1])
            if s == 0 and cell.ensemble:
                _check_members(cell, x, states[-1])
            _check_products(cell, x, states[-1], report)
            with torch.no_grad():
                states.append(cell.step(x, states[-1]))
    report.notes.extend(sorted({str(warning.message) for warning in caught}))
    rule = "unroll must return the states of step, which a form must describe"
    _compare(report, "unroll", unroll(cell, inputs, h)[-1], states[-1], rule)
    with torch.no_grad():
        _compare(report, "last", cell.last(inputs, h), states[-1], "last must return the last state of step")
    _check_spectrum(cell, inputs, h, report)
    if cell.ensemble:
        report.notes.append(f"members of the ensemble {cell.ensemble} are independent")
    _check_gradients(cell, inputs, h, report)
    return report


def _trial(cell: Cell, inputs: Tensor | None, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs and a state to try the cell on."""
    if cell.state_size == 0 and (inputs is None or h0 is None):
        raise ValueError(
            "inputs and h0 must be given for a function or module, whose sizes come from them, got None"
        )
    like = next((p for p in (*cell.tensors(), h0, inputs) if p is not None), torch.zeros((), device="cpu"))
    b = TRAJECTORIES if inputs is None else inputs.shape[-2]
    if inputs is None:
        inputs = 0.5 * _noise(like, 0, (STEPS, *cell.ensemble, b, cell.input_size))
    if h0 is None:
        h0 = 0.5 * _noise(like, 1, (*cell.ensemble, b, cell.state_size))
    return inputs, h0


def _noise(like: Tensor, number: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """Noise of a shape, or of that of `like`; another `number`, other noise."""
    stream, shape = Stream(DEFAULT_SEED, "check_cell"), tuple(like.shape) if shape is None else shape
    return stream.normal(shape, member_ids=number, dtype=like.dtype, device=like.device)


def _check_in_place(cell: Cell, inputs: Tensor, h: Any) -> None:
    """A step is not to write into what it is given; whatever else is wrong with it is found later."""
    given = inputs[0].detach(), cell.pack(h).detach()
    copies = [z.clone() for z in given]
    with torch.no_grad(), suppress(Exception):
        cell.step(*copies)
    for name, before, after in zip(("input", "state"), given, copies, strict=True):
        if not torch.equal(before.nan_to_num(), after.nan_to_num()):
            raise ValueError(
                f"step(x, h) must leave its {name} as it is, got one that it changed in place; compute a new "
                "tensor"
            )


def _check_structure(cell: Cell, x: Tensor, h: Tensor) -> None:
    """What the cell says of its state: packed and unpacked, by parts, through gates."""
    if not torch.equal(packed := cell.pack(cell.unpack(h)), h):
        raise ValueError(
            f"pack must undo unpack, got another state from it: {tuple(packed.shape)} for {tuple(h.shape)}"
        )
    n = h.shape[-1]
    for name, part in cell.parts().items():
        if not len(range(n)[part]) or (part.stop or 0) > n:
            raise ValueError(f"parts must be slices of the state of size {n}, got {part} for {name!r}")
    with torch.no_grad():
        for name, gate in cell.gate_values(x, h).items():
            if gate.shape[:-1] != h.shape[:-1] or not ((gate >= 0) & (gate <= 1)).all():
                raise ValueError(
                    f"gate_values must be (*e, b, units) = {(*h.shape[:-1], '...')} within 0..1, got "
                    f"{tuple(gate.shape)} from {gate.min():.3g} to {gate.max():.3g} for {name!r}"
                )


def _check_products(cell: Cell, x: Tensor, h: Tensor, report: CellReport) -> None:
    """`pushforward` against `step` and against reverse mode, after a probe."""
    # reverse mode is the repair of the default pushforward; one of the user's own is judged as it is
    forward_works = not cell.reverse_mode
    if type(cell).pushforward is not Cell.pushforward:
        cell.reverse_mode = False
    Q, V = (_noise(h, number, (*h.shape, min(COLUMNS, h.shape[-1]))) for number in (2, 3))
    # D Q is compared with D^T V without ever forming D: V^T (D Q) = (D^T V)^T Q for random Q and V
    y, u = h.detach().requires_grad_(), x.detach().requires_grad_()
    with torch.enable_grad():
        stepped = cell.step(u, y)
    pulled, from_input = (torch.stack([pull(stepped, z, v) for v in V.unbind(-1)], -1) for z in (y, u))
    with torch.no_grad():
        after, pushed = cell.pushforward(x, h, Q)
        _compare(report, "state of pushforward", after, cell.step(x, h), "pushforward must return step(x, h)")
        if pushed.shape != Q.shape:
            raise ValueError(
                f"pushforward must return D Q of shape {tuple(Q.shape)}, got {tuple(pushed.shape)}"
            )
        both = "pushforward must return D Q with the derivative D of step by autodiff"
        _compare(report, "pushforward", V.mT @ pushed, pulled.mT @ Q, both)
        if type(cell).pushforward_with_input is not Cell.pushforward_with_input:
            X = _noise(x, 5, (*x.shape, Q.shape[-1]))
            _, pushed = cell.pushforward_with_input(x, h, X, Q)
            both = (
                "pushforward_with_input must return dh'/dx X + D Q with the derivatives of step by autodiff"
            )
            _compare(report, "pushforward_with_input", V.mT @ pushed, from_input.mT @ X + pulled.mT @ Q, both)
        if forward_works:
            _, forward = by_forward_mode(cell.step, x, h, Q)
            both = "forward and reverse mode must agree"
            _compare(report, "forward against reverse", V.mT @ forward, pulled.mT @ Q, both)


def _check_spectrum(cell: Cell, inputs: Tensor, h: Tensor, report: CellReport) -> None:
    """The growth twice, and of one trajectory alone."""
    k = min(COLUMNS, h.shape[-1])
    with torch.no_grad():
        both, again = (lyapunov_spectrum(cell, inputs, k=k, h0=h) for _ in range(2))
        if not torch.equal(both.growth.log_r, again.growth.log_r):
            # a random step, such as dropout in train(), or a state that the cell keeps between calls
            raise ValueError("the exponents must be the same twice, got two different ones")
        alone = lyapunov_spectrum(cell, inputs[..., :1, :], k=k, h0=h[..., :1, :])
    rule = "a trajectory must have the same growth alone and in a batch"
    _compare(report, "trajectory alone", alone.growth.log_r, both.growth.log_r[..., :1, :], rule)


def _check_members(cell: Cell, x: Tensor, h: Tensor) -> None:
    """Nothing of the first member reaches another: neither its state nor its weights."""
    first = (0,) * len(cell.ensemble)
    # one backward pass of the first member's states: whatever of others has a gradient was used
    others = torch.ones(cell.ensemble, dtype=torch.bool, device="cpu")
    others[first] = False
    y = h.detach().requires_grad_()
    leaves = [p for p in cell.leaves(x, h) if p.shape[: len(cell.ensemble)] == cell.ensemble]
    with torch.enable_grad():
        after = cell.step(x, y)[first].sum()
    bars = torch.autograd.grad(after, [y, *leaves], allow_unused=True, materialize_grads=True)
    for name, bar in zip(["state", *(_name(cell, p) for p in leaves)], bars, strict=True):
        if bar[others].count_nonzero():
            raise ValueError(f"members must be independent, got one that depends on the {name} of another")


def _check_gradients(cell: Cell, inputs: Tensor, h: Tensor, report: CellReport) -> None:
    """The gradient of the exponents by inputs, h0 and every leaf, along one random direction each."""
    if h.dtype != torch.float64:
        report.notes.append("gradients not checked: differences need float64; call .double()")
        return
    inputs, h = inputs.detach().clone().requires_grad_(), h.detach().clone().requires_grad_()
    leaves = [inputs, h, *cell.leaves(inputs[0], h)]
    # different weights: the plain sum, that of a volume, hides an error that moves growth between columns
    weights = torch.linspace(1.0, 2.0, min(COLUMNS, h.shape[-1]), dtype=h.dtype, device=h.device)

    def loss(backend: str | None = None) -> Tensor:
        spectrum = lyapunov_spectrum(cell, inputs, k=len(weights), h0=h, backend=backend)
        return (torch.where(spectrum.growth.healthy[-1], spectrum.exponents, 0.0) * weights).sum()

    gradients = torch.autograd.grad(loss(), leaves, allow_unused=True, materialize_grads=True)
    surrogate = _is_surrogate(cell, inputs[0].detach(), h.detach())
    if surrogate:
        report.notes.append(
            "the slope is not that of the step (a surrogate): gradients against plain autograd"
        )
        expected = torch.autograd.grad(loss("autograd"), leaves, allow_unused=True, materialize_grads=True)
    for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        name = {0: "inputs", 1: "h0"}.get(i) or _name(cell, leaf)
        if leaf.numel() == 0:  # inputs of no channels
            continue
        u = _noise(leaf, 10 + i)
        along = (gradient * u).sum()
        want = (expected[i] * u).sum() if surrogate else _difference(loss, leaf, u)
        # where both are below 1e-3 differences have no digits left, and the error counts as absolute
        error = ((along - want).abs() / (1e-3 + torch.maximum(along.abs(), want.abs()))).item()
        if not error <= DIFFERENCES:
            raise ValueError(
                f"the gradient of the exponents by {name} must be that of "
                f"{'plain autograd' if surrogate else 'central differences'}, {want:.6g} along a random "
                f"direction, got {along:.6g}"
            )
        report.errors[f"gradient by {name}"] = error


def _difference(loss: Callable[[], Tensor], leaf: Tensor, u: Tensor) -> Tensor:
    """Central difference of the loss along u, of fourth order: chaotic steps bend the loss much."""
    size, before = 1e-6 * (1 + leaf.detach().abs().max()) / u.abs().max(), leaf.detach().clone()
    total = torch.zeros_like(size)
    with torch.no_grad():
        try:
            # f' = (8 f(s) - 8 f(-s) - f(2s) + f(-2s)) / 12 s + O(s^4): third derivatives cancel
            for multiple, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                leaf.copy_(before + multiple * size * u)
                total += weight * loss()
        finally:
            leaf.copy_(before)
    return total / (12 * size)


@torch.no_grad()
def _is_surrogate(cell: Cell, x: Tensor, h: Tensor) -> bool:
    """Whether D differs from central differences of the step."""
    u = _noise(h, 4)
    pushed = cell.pushforward(x, h, u.unsqueeze(-1))[1].squeeze(-1)
    difference = (cell.step(x, h + 1e-6 * u) - cell.step(x, h - 1e-6 * u)) / 2e-6
    return bool((pushed - difference).abs().max() > 1e-3 * (1 + pushed.abs().max()))


def _compare(report: CellReport, name: str, got: Tensor, expected: Tensor, rule: str) -> None:
    """Note the relative error, or raise where it is more than round-off; both may be -inf at a place."""
    if got.shape != expected.shape:
        raise ValueError(f"{rule}: shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    fine = torch.isfinite(expected)
    same = torch.equal(fine, torch.isfinite(got))
    got, expected = torch.where(fine, got, 0.0), torch.where(fine, expected, 0.0)
    error = ((got - expected).abs().max() / (1 + expected.abs().max())).item() if same else float("inf")
    if not error <= ROUND_OFF * torch.finfo(got.dtype).eps:
        raise ValueError(f"{rule}, got a relative difference of {error:.2g}")
    # products are compared at every step: the worst counts
    report.errors[name] = max(error, report.errors.get(name, 0.0))


def _name(cell: Cell, leaf: Tensor) -> str:
    names = (name for name, p in cell.named_parameters() if p is leaf)
    return next(names, f"a closed-over tensor of shape {tuple(leaf.shape)}")
