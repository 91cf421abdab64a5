"""Metrics of networks in training, each a pure function of members and a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import aside
from lyaptorch._padded import mean_of, real
from lyaptorch.analysis import (
    effective_rank,
    gradient_overlap,
    gradient_singular_values,
    hessian_spectrum,
)
from lyaptorch.cells import fit, unroll
from lyaptorch.cells.form import Form, linear
from lyaptorch.tangent import lyapunov_spectrum, mean_over_trajectories
from lyaptorch.tangent.growth import untold
from lyaptorch.tasks.batch import Batch, Draw, Task, first_counted
from lyaptorch.training.ensemble import Ensemble
from lyaptorch.training.model import Model

STEPS, TRANSIENT = 155, 16
"""Steps over which exponents are measured, and of the transient before."""
SAMPLE, LANCZOS = 16, 10
"""Most test trajectories whose curvature is measured, and steps of the iteration that finds it."""


def initial_gradient_norm(model: Model, batch: Batch) -> Tensor:
    """|dL/dh0| `(*e)`: how much of the error reaches the beginning of a trial.

    Source: Gradient Flossing, Fig 8.
    """
    _, h0 = fit(model.cell, batch.inputs, model.initial_state(batch.inputs.shape[-2]))
    h0 = h0.detach().requires_grad_()
    loss, _ = model.loss(batch, h0)
    (gradient,) = torch.autograd.grad(loss.sum(), h0)
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=(-2, -1))
    return norm


def recurrent_singular_values(model: Model, batch: Batch) -> Tensor:
    """Singular values `(*e, n)` of dL/dW, the rank of what one step teaches.

    Raises:
        ValueError: for a cell without recurrent weights of that name.

    Source: Gradient Flossing, Fig 10.
    """
    weight = getattr(model.cell, "weight_hh", None)
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"singular values of dL/dW need a cell with weight_hh, got {type(model.cell).__name__}"
        )
    loss, _ = model.loss(batch)
    return gradient_singular_values(loss, weight)


def covariant_overlap(model: Model, batch: Batch) -> Tensor:
    """Mean |cos| `(*e)` between the first covariant vector after a third of a trial and dL/dh there.

    L is the loss of the last step alone: its gradient has no shorter path than the one through all steps. The
    mean is over trajectories of which a step counts from there on.

    Source: Gradient Flossing, appendix D and eq 18.
    """
    at = len(batch.inputs) // 3
    # in float64: over two thirds of a trial a gradient may fall below what float32 holds
    model = copy.deepcopy(model).double()
    inputs = batch.inputs.double()
    last = _last(batch)[at:]
    rest = Batch(inputs[at:], batch.targets[at:].double(), last)
    h0 = model.initial_state(inputs.shape[-2])
    overlap = gradient_overlap(model.cell, inputs, lambda h: model.loss(rest, h)[0], at=at, h0=h0)
    return mean_of(overlap.squeeze(-1), last.any(0), (-1,))


def _last(batch: Batch) -> Tensor:
    """Of the steps that count `(t, *e, b)`, the last one of each trajectory."""
    counts = batch.counts.expand(batch.targets.shape[:-1])
    # the last is the one from which on none counts any more
    later = counts.flip(0).cumsum(0).flip(0)
    return counts & (later == 1)


def saturated_share(model: Model, batch: Batch) -> Tensor:
    """Share `(*e)` of units and steps whose slope, as it stands in the Jacobian, is below 0.1.

    Raises:
        ValueError: for a cell without a Form.
    """
    form = model.cell.form()
    if not isinstance(form, Form):
        raise ValueError(
            f"the share of saturated units needs a cell with a Form, got {type(model.cell).__name__}"
        )
    inputs, h0 = fit(model.cell, batch.inputs, model.initial_state(batch.inputs.shape[-2]))
    with torch.no_grad():
        # the slope of step s is taken at the state before it, or at the potential W g(h) + V x + b
        before = torch.cat([h0.unsqueeze(0), unroll(model.cell, inputs, h0)[:-1]])
        if form.inner is not None:
            slopes = form.inner.slope(before)
        elif form.outer is not None:
            slopes = form.outer.slope(linear(before, form.weight_hh) + form.drive(inputs))
        else:
            slopes = torch.ones_like(before)
    flat = (slopes < 0.1).to(before.dtype).mean(-1)
    if batch.lengths is None:
        return flat.mean((0, -1))
    return mean_of(flat, real(batch.lengths, flat.shape), (0, -1))


def leading_curvature(networks: Ensemble, task: Task, seed: int, *, sample: int, steps: int) -> Tensor:
    """Eigenvalue of largest magnitude `(*e)` of the Hessian with respect to W, on test trajectories.

    In float64, because the gradients of supercritical networks grow exponentially.

    Raises:
        ValueError: for a cell without recurrent weights of that name.

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    model = copy.deepcopy(networks.model).double()
    batch = networks.batch(task, Draw(seed, steps, sample, stream="test", dtype=torch.float64))
    found = hessian_spectrum(
        model.cell,
        batch.inputs,
        lambda states: model.score(batch, states)[0],
        k=1,
        steps=LANCZOS,
        h0=model.initial_state(sample),
    )
    return found.eigenvalues[..., 0]


def measured_exponents(networks: Ensemble, task: Task, seed: int, k: int | None = None) -> Tensor:
    """The first k exponents `(*e, k)` on inputs of the task, in nats per step."""
    model = networks.model
    d = Draw(seed, STEPS, epoch=networks.epoch, stream="measure", dtype=networks.dtype)
    with untold(), torch.no_grad():
        spectrum = lyapunov_spectrum(
            model.cell,
            networks.inputs(task, d),
            k=k,
            h0=model.initial_state(1),
            tangent_transient=TRANSIENT,
            dt=1.0,
        )
    return mean_over_trajectories(spectrum.exponents)


@torch.no_grad()
def answerable(batch: object, model: Model) -> Batch:
    """Return what a task drew, if this model can be asked it, or raise. Cost: reads targets and mask."""
    if not isinstance(batch, Batch):
        raise ValueError(
            f"a task must draw a Batch, got {type(batch).__name__}; return lt.Batch(inputs, targets, mask)"
        )
    if not _checks.can_look() or batch.targets.is_meta:
        return batch
    targets = batch.targets[batch.first :]
    _checks.finite("targets", targets, do="where the mask is False any number will do, but no NaN")
    first_counted(batch.counts)
    low, high = targets.aminmax()
    if model.loss_name == "binary_cross_entropy" and not 0 <= low <= high <= 1:
        raise ValueError(
            f"binary_cross_entropy needs targets in 0..1, got {low:g} to {high:g}; of -1 and 1 pass "
            '(1 + targets) / 2, of other numbers make it a Model(..., loss="mean_squared_error")'
        )
    return batch


@torch.no_grad()
def test_scores(model: Model, draw: Callable[[int], Batch], batches: int) -> tuple[Tensor, Tensor]:
    """Loss and accuracy `(*e,)`, averaged over the first `batches` batches of `draw(0), draw(1), ...`."""
    pairs = [model.loss(draw(i) if i else answerable(draw(i), model)) for i in range(batches)]
    loss, accuracy = (torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
    return loss, accuracy


METRICS: tuple[str, ...] = (
    "initial_gradient_norm",
    "singular_values",
    "effective_rank",
    "saturated",
    "spectrum",
    "test",
    "covariant_overlap",
    "curvature",
)
"""Names for `train(metrics=...)`."""


def measure(
    networks: Ensemble, batch: Batch, names: tuple[str, ...], task: Task, seed: int, test_batches: int
) -> dict[str, Tensor]:
    """The named metrics of every member, in `eval()`; of "test" `test_loss` and `test_accuracy`."""
    model, steps, size = networks.model, len(batch.inputs), batch.inputs.shape[-2]
    # one gradient and one decomposition serve both who ask for them
    singular = cache(lambda: recurrent_singular_values(model, batch))
    known: dict[str, Callable[[], Tensor]] = {
        "singular_values": singular,
        "effective_rank": lambda: effective_rank(singular()),
        "initial_gradient_norm": lambda: initial_gradient_norm(model, batch),
        "covariant_overlap": lambda: covariant_overlap(model, batch),
        "saturated": lambda: saturated_share(model, batch),
        "spectrum": lambda: measured_exponents(networks, task, seed),
        "curvature": lambda: leading_curvature(networks, task, seed, sample=min(size, SAMPLE), steps=steps),
    }
    # a network in train() is measured as `evaluate` measures it, and its running means stay
    with aside((model,), grad=True, evaluate=True):
        values = {name: known[name]() for name in names if name != "test"}
        if "test" in names:
            d = Draw(seed, steps, size, stream="test", dtype=networks.dtype)
            values["test_loss"], values["test_accuracy"] = test_scores(
                model, lambda i: networks.batch(task, replace(d, epoch=i)), test_batches
            )
    return values


def fit_flops(batch: Batch, n: int, o: int) -> int:
    """Floating-point operations of one task step of one network: forwards once, backwards twice."""
    steps, *_, rows, m = batch.inputs.shape
    # 2 operations for each weight: n (n + m) of a step, n o of a step that is read out; three times, because
    # the backward pass multiplies by the weights and makes their gradients
    return 3 * 2 * rows * n * (steps * (n + m) + (steps - batch.first) * o)


def floss_flops(n: int, k: int, steps: int, interval: Any = 1) -> Any:
    """Floating-point operations of one flossing step of one network and trajectory.

    Forwards 2 n^2 k + 2 n^2 a step and 2 n k^2 + k^3/3 a reorthonormalisation; backwards 4 n^2 k + 4 n^2 and
    3 n k^2. Where `interval` is a tensor, so is what comes of it.
    """
    # an n x n times an n x k matrix is 2 n^2 k: once forwards (D Q), twice backwards (the cotangents of D and
    # of Q). Half of a Gram matrix and a triangular solve are n k^2 each, its Cholesky factor k^3 / 3
    tangent = steps * (6 * n * n * k + 6 * n * n)
    factoring = -(-steps // interval) * (5 * n * k * k + k**3 // 3)
    return tangent + factoring
