"""`lt.floss`: push the exponents of a cell to a target, in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._caller import flosses
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._random import ids_of, seed_from
from lyaptorch._shown import progress
from lyaptorch._types import Inputs, Number
from lyaptorch.cells import Cell, Network, as_cell, fit, owned
from lyaptorch.cells.ownership import named, refuse_unowned
from lyaptorch.cells.settings import settings_of
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase
from lyaptorch.schedules.loss import check_target
from lyaptorch.schedules.phases import plain, select
from lyaptorch.tangent.automatic import AUTO
from lyaptorch.tasks.batch import Draw, Source
from lyaptorch.training.choice import chosen
from lyaptorch.training.epochs import Epochs, Row, between_looks
from lyaptorch.training.flossing import Flossed, flossing_of, warn_of_death
from lyaptorch.training.history import History
from lyaptorch.training.optim import Adam, MemberOptimizer
from lyaptorch.training.steps import floss_step


@flosses
def floss(
    cell: Network,
    inputs: Inputs | PackedSequence | Source,
    *,
    k: int | Tensor | None = None,
    epochs: int = 500,
    lr: Number = 1e-3,
    steps: int = 55,
    tangent_transient: int = 16,
    interval: int | str = AUTO,
    target: Number = 0.0,
    clip: Number | None = None,
    reduction: str = "mean",
    frame: str = "redrawn",
    batch: int = 1,
    state_grad: str | int = "full",
    parameters: str | Sequence[str] | None = None,
    h0: Any = None,
    lengths: Lengths = None,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    show_progress: bool | None = None,
) -> Record:
    """Gradient flossing: minimise the mean of (lambda_i - target)^2 by Adam, changing the cell in place.

    Gradients are enabled whatever the caller's mode, and a network counts as in `eval()`.

    Args:
        cell: anything that `as_cell` takes; its parameters with `requires_grad` are trained.
        inputs: a task, which gives fresh inputs each epoch, or a tensor `(t, *e, b, m)`, t >= steps, whose
            first `steps` are used each time, or a PackedSequence.
        k: how many exponents, a number or one for each member; when missing as many as the target has, or
            75, or n where that is less; but of LSTM, GRU and stacks of them half of all there are (of an LSTM
            as many as it has units), where `parameters` is missing, too.
        epochs: flossing steps.
        lr: learning rate of Adam, a number or one for each member.
        steps: steps of each scan, the tangent transient included.
        tangent_transient: first steps of the scan, not counted.
        interval: steps between reorthonormalisations, or "auto", as in `FlossPhase`.
        target: what exponents are to reach, nats per step (also for a `Flow`: dt times that per unit of
            time), a number, a spectrum `(k,)`, or one for each member, `(*e, 1)` or `(*e, k)`.
            Below 0 it makes a network whose steps can be evaluated in parallel.
        clip: largest gradient norm of each tensor of each member; None for no limit.
        reduction: "mean" or "sum" over the exponents.
        frame: "redrawn" each epoch, or "fixed".
        batch: trajectories drawn from a task.
        state_grad: how far the gradient follows the trajectory, as in `lyapunov_spectrum`.
        parameters: names of what is changed, as the module's `named_parameters()` has them, or globs, such as
            `"*weight_hh*"` for recurrent weights alone; the rest stays to the bit. When missing all, but of
            LSTM, GRU and stacks of them the recurrent weights, where k is missing, too; `"*"` is for all.
        h0: initial state `(*e, b, n)`, or its parts as `as_cell` says; zeros when missing.
        lengths: steps of each trajectory of an inputs tensor, `(b,)` or `(*e, b)`, as in `lyapunov_spectrum`;
            those that end within `tangent_transient` are left out.
        member_ids: ids of shape `*e`; equal ids draw equal numbers.
        generator: seeds inputs and frames; None is a fixed seed.
        show_progress: None shows a bar on a terminal.

    Returns:
        A Record with `exponents (member, floss_epoch, index)`, nats per step (per unit of time for a `Flow`),
        averaged over trajectories, and `floss_loss (member, floss_epoch)`; epoch i is before step i. Its
        configuration names the parameters that were changed. Cost: `epochs` times that of
        `lyapunov_spectrum`, forwards and backwards.

    Raises:
        ValueError: as `FlossPhase` and `lyapunov_spectrum` do, and for names that match no parameter.
        FloatingPointError: if the dynamics or a gradient overflow, and names the epoch; or the weights.

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
        parameters=parameters,
    )
    h0 = cell.packed(h0, _front(inputs := cell.embedded(inputs), batch))
    ensemble = cell.ensemble if cell.state_size or h0 is None else tuple(h0.shape[:-2])
    like = next(iter(cell.tensors()), h0)
    dtype, device = (None, torch.device("cpu")) if like is None else (like.dtype, like.device)
    ids = ids_of(ensemble, member_ids, device)
    check_target(target, ensemble)
    source = _source(inputs, lengths, Draw(seed, steps, batch, member_ids=ids, stream="floss", dtype=dtype))
    epoch, allowed = (torch.zeros(ensemble, dtype=torch.int64, device=device) for _ in range(2))
    history, everybody = History(ensemble), torch.ones(ensemble, dtype=torch.bool, device="cpu")
    with owned(cell) as trained, progress("flossing", epochs, show_progress) as advance:
        checked, state = fit(trained, source(epoch).inputs, h0)
        phase = select(chosen(phase, trained), everybody, epoch.device)
        leaves = named(trained, phase.named, trained.leaves(checked[0], state))
        refuse_unowned(trained, leaves, ensemble, checked[0], state)
        optimizer = MemberOptimizer(leaves, ensemble, lr, Adam())
        if not optimizer.parameters:
            raise ValueError("there is nothing to floss: no parameter of the cell has requires_grad; set it")
        changed = _titles(trained, optimizer.parameters)
        flossing = flossing_of(phase, seed, epoch, allowed, optimizer.parameters)

        def value() -> Flossed:
            return flossing.value(trained, source(epoch), state)

        def step() -> Row:
            rows = floss_step(value, flossing, optimizer, ids)
            epoch.add_(1)
            return rows

        changing = [*optimizer.parameters, *optimizer.tensors(), optimizer.count, epoch, allowed]
        work, done = Epochs(step, changing, flossing.choose), 0
        # between two looks a GPU replays its graph; what is read comes in blocks of that size
        while done < epochs:
            until = min(between_looks(epoch.device), epochs - done)
            for rows in work.run(until if until == 1 else min(until, flossing.wait())):
                done += 1
                history.add(rows, everybody)
                warn_of_death(rows["exponents"], ids)
                advance(f"loss {rows['floss_loss'].mean().item():.2e}")
        # exponents are measured before each step: those of the last step's weights nobody has seen
        if not all(map(_checks.all_finite, optimizer.parameters)):
            raise FloatingPointError(f"the weights overflow in flossing; lower lr={lr}")
    config = {"phase": plain(phase), "parameters": changed, "seed": seed, "cell": type(cell).__name__}
    config |= {"settings": settings_of(cell), "member_ids": ids.tolist()}
    return Record("floss", config, history.variables(cell.time_step))


def _titles(cell: Cell, changed: Sequence[Tensor]) -> list[str]:
    """The names of parameters, as their owner calls them."""
    moved = {id(p) for p in changed}
    return sorted(title for title, p in cell.titled().items() if id(p) in moved)


def _front(inputs: Tensor | PackedSequence | Source, batch: int) -> tuple[int, ...]:
    """The dimensions `(*e, b)` of inputs; a task draws a batch."""
    if isinstance(inputs, PackedSequence):
        return (int(inputs.batch_sizes[0]),)
    return tuple(inputs.shape[1:-1]) if isinstance(inputs, Tensor) else (batch,)


def _source(
    inputs: Tensor | PackedSequence | Source, lengths: Lengths, d: Draw
) -> Callable[[Tensor], Padded]:
    """What drives each epoch: the first steps of given inputs, or what a task draws."""
    if isinstance(inputs, Tensor | PackedSequence):
        given, lengths = padded(inputs, lengths)
        _checks.inputs(given)
        if len(given) < d.steps:
            raise ValueError(f"inputs must hold steps={d.steps} steps, got {len(given)}; pass fewer steps")
        first = Padded(given[: d.steps], None if lengths is None else lengths.clamp_max(d.steps))
        return lambda epoch: first
    if not hasattr(inputs, "inputs"):
        raise ValueError(f"inputs must be a tensor or a task, got {type(inputs).__name__}")
    if lengths is not None:
        raise ValueError(
            f"lengths belong to a tensor of inputs, got a {type(inputs).__name__}; leave them out"
        )
    return lambda epoch: padded(inputs.inputs(replace(d, epoch=epoch)))
