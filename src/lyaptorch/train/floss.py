"""`lt.floss`: push the exponents of a cell to a target, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, member_ids, seed_from
from lyaptorch._types import Inputs, Number
from lyaptorch.cells import Cell, as_cell, fit, random_frame
from lyaptorch.flossing import FlossPhase, flossing_loss
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Task
from lyaptorch.train.optim import MemberAdam, finite
from lyaptorch.train.optim import clip as clip_gradients
from lyaptorch.train.progress import progress

PUBLISHED_K = 75


def floss(
    cell: Cell | nn.Module | Callable[[Tensor, Tensor], Tensor],
    inputs: Inputs | Task,
    *,
    k: int | Tensor | None = None,
    epochs: int = 500,
    lr: Number = 1e-3,
    steps: int = 55,
    tangent_transient: int = 16,
    interval: int = 1,
    target: Number = 0.0,
    clip: Number | None = None,
    reduction: str = "mean",
    frame: str = "redrawn",
    batch: int = 1,
    state_grad: str | int = "full",
    h0: Tensor | None = None,
    members: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    show_progress: bool | None = None,
) -> Record:
    """Gradient flossing: minimise the mean of (lambda_i - target)^2 by Adam, changing the cell in place.

    Args:
        cell: anything that `as_cell` takes; its parameters with `requires_grad` are trained.
        inputs: a task, which gives fresh inputs each epoch, or a tensor `(t, *e, b, m)`, t >= steps, whose
            first `steps` are used each time.
        k: how many exponents, a number or one for each member; 75, or n where that is less, when missing.
        epochs: flossing steps.
        lr: learning rate of Adam, a number or one for each member.
        steps: steps of each scan, the tangent transient included.
        tangent_transient: first steps of the scan, not counted.
        interval: steps between reorthonormalisations.
        target: exponent to reach, nats per step, a number or one for each member.
        clip: largest gradient norm of each tensor of each member; None for no limit.
        reduction: "mean" or "sum" over the exponents.
        frame: "redrawn" each epoch, or "fixed".
        batch: trajectories drawn from a task.
        state_grad: how far the gradient follows the trajectory, as in `lyapunov_spectrum`.
        h0: initial state `(*e, b, n)`; zeros when missing.
        members: ids of shape `*e`; equal ids draw equal numbers.
        generator: seeds inputs and frames; None is a fixed seed.
        show_progress: None shows a bar on a terminal.

    Returns:
        A Record with `exponents (member, floss_epoch, index)`, nats per step, averaged over trajectories,
        and `floss_loss (member, floss_epoch)`; epoch i is before step i. Cost: `epochs` times that of
        `lyapunov_spectrum`, forwards and backwards.

    Raises:
        ValueError: as `FlossPhase` and `lyapunov_spectrum` do.
        FloatingPointError: if the dynamics or a gradient overflow; names the epoch.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 16, gain=0.5)
        >>> record = lt.floss(cell, lt.tasks.TemporalXOR(4), k=4, epochs=20, lr=1e-2)
        >>> bool(record["floss_loss"][0, -1] < record["floss_loss"][0, 0])
        True

    Source: Gradient Flossing, sections 3-4.
    """
    cell, seed = as_cell(cell), seed_from(generator)
    phase = FlossPhase(
        epochs,
        k=k,
        steps=steps,
        tangent_transient=tangent_transient,
        interval=interval,
        target=target,
        lr=lr,
        clip=clip,
        reduction=reduction,
        frame=frame,
        batch=batch,
        state_grad=state_grad,
    )
    ensemble = cell.ensemble if cell.state_size or h0 is None else tuple(h0.shape[:-2])
    ids = member_ids(ensemble, members)
    if isinstance(inputs, Tensor) and len(inputs) < steps:
        raise ValueError(f"inputs must hold steps={steps} steps, got {len(inputs)}; pass fewer steps")
    source = flossing_inputs(inputs, phase, seed, ids, cell)
    checked, state = fit(cell, source(0), h0)
    adam = MemberAdam(cell.leaves(checked[0], state), ensemble, lr)
    exponents, losses = floss_epochs(cell, source, phase, adam, seed, state, ids, show_progress=show_progress)
    config = {
        "phase": phase_config(phase),
        "seed": seed,
        "cell": type(cell).__name__,
        "members": ids.tolist(),
    }
    return Record("floss", config, flossing_variables(exponents, losses))


def floss_epochs(
    cell: Cell,
    source: Callable[[int], Tensor],
    phase: FlossPhase,
    adam: MemberAdam,
    seed: int,
    h0: Tensor,
    ids: Tensor,
    *,
    first_epoch: int = 0,
    show_progress: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a phase: exponents `(epochs, *e, k)` and losses `(epochs, *e)`, each before its step.

    Args:
        cell: changed in place, through the parameters that `adam` holds.
        source: the inputs of a flossing epoch.
        phase: what is minimised.
        adam: flossing's optimiser.
        seed: of the run.
        h0: initial state `(*e, b, n)`.
        ids: of the members `*e`, for messages.
        first_epoch: flossing epochs that went before.
        show_progress: None shows a bar on a terminal.
    """
    if not adam.parameters:
        raise ValueError("there is nothing to floss: no parameter of the cell has requires_grad; set it")
    n, ensemble = h0.shape[-1], h0.shape[:-2]
    k = min(PUBLISHED_K, n) if phase.k is None else int(torch.as_tensor(phase.k).max())
    _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")
    stream, nobody = Stream(seed, "floss_frame"), torch.zeros((), dtype=torch.int64, device=h0.device)
    exponents = torch.zeros(phase.epochs, *ensemble, k, dtype=h0.dtype, device=h0.device)
    losses = torch.zeros(phase.epochs, *ensemble, dtype=h0.dtype, device=h0.device)
    with progress("flossing", phase.epochs, show_progress) as advance:
        for i in range(phase.epochs):
            drawn = first_epoch + i if phase.frame == "redrawn" else 0
            try:
                lambdas = lyapunov_spectrum(
                    cell,
                    source(first_epoch + i),
                    k=k,
                    h0=h0,
                    tangent_transient=phase.tangent_transient,
                    interval=phase.interval,
                    frame=random_frame(n, k, stream, nobody, epoch=drawn, dtype=h0.dtype),
                    state_grad=phase.state_grad,
                ).exponents
            except FloatingPointError as error:
                raise FloatingPointError(f"at flossing epoch {first_epoch + i}: {error}") from error
            losses[i] = flossing_loss(lambdas, phase.target, "none", phase.k).detach()
            loss = flossing_loss(lambdas, phase.target, phase.reduction, phase.k)
            gradients = torch.autograd.grad(loss, adam.parameters, materialize_grads=True)
            fine = finite(gradients, tuple(ensemble))
            if not fine.all():
                raise FloatingPointError(
                    f"the gradient is not finite at flossing epoch {first_epoch + i} for member "
                    f'{ids[~fine].tolist()}; use fewer steps, state_grad="detach" or a truncation length'
                )
            if phase.clip is not None:
                gradients = clip_gradients(gradients, tuple(ensemble), phase.clip)
            adam.step(gradients)
            exponents[i] = lambdas.detach().mean(-2)
            advance(f"loss {losses[i].mean().item():.2e}")
    return exponents, losses


def flossing_inputs(
    given: Tensor | Task, phase: FlossPhase, seed: int, ids: Tensor, cell: Cell
) -> Callable[[int], Tensor]:
    """The inputs of an epoch: the first steps of a tensor, or a stream of its own of a task."""
    tensors = cell.tensors()

    def source(epoch: int) -> Tensor:
        if isinstance(given, Tensor):
            return given[: phase.steps]
        return given.inputs(
            seed,
            members=ids,
            epoch=epoch,
            batch=phase.batch,
            length=phase.steps,
            stream="floss",
            dtype=tensors[0].dtype if tensors else None,
        )

    return source


def flossing_variables(exponents: Tensor, losses: Tensor) -> dict[str, Any]:
    """The variables of a Record, members flattened into one dimension."""
    count, k = exponents.shape[0], exponents.shape[-1]
    lambdas = exponents.reshape(count, -1, k).movedim(0, 1)
    return {
        "exponents": (("member", "floss_epoch", "index"), lambdas, {"units": "nats per step"}),
        "floss_loss": (
            ("member", "floss_epoch"),
            losses.reshape(count, -1).mT,
            {"units": "(nats per step)^2"},
        ),
    }


def phase_config(phase: Any) -> dict[str, Any]:
    """A phase as JSON: its type and its fields, tensors as lists."""
    fields = {
        key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(phase).items()
    }
    return {"type": type(phase).__name__, **fields}
