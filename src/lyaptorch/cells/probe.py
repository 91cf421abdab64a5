"""Inputs, state and step, checked before a trajectory is run."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import Run, aside, ordinary, untouched
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells.adapt.function import LAYERED, SWAPPED, instead_of, misread
from lyaptorch.cells.adapt.skeleton import StateError, describe
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.products import graph_leaves


def probe(cell: Cell, x: Tensor, h: Tensor) -> None:
    """Check a step that the library did not write, and choose how to differentiate it.

    It must return one tensor like the state, give the same answer twice, treat trajectories
    independently and stay finite. Then `<v, D q>` from forward mode is compared with `<D^T v, q>` from
    reverse mode, and so are the gradients of both, which flossing follows; where forward mode is missing or
    differs, `cell.reverse_mode` is set, with a warning. The caller's modes make no difference; buffers and
    the global generators are left as they were.

    Raises:
        ValueError: naming what does not hold.
    """
    with aside((cell, x), grad=False, evaluate=False), untouched(cell, h.device) as run:
        _probe(cell, ordinary(x.detach()), ordinary(h.detach()), run)
    cell.ran = cell.ran | {(module, module.training) for module in run.modules}
    cell.unproven = False


def _probe(cell: Cell, x: Tensor, h: Tensor, run: Run) -> None:
    if not torch.isfinite(_first(cell, x, h)).all():
        raise ValueError(
            "step(x, h) must be finite at h0, got NaN or inf; choose another h0 or lower the gain"
        )
    # at rest, where h0 often is, dropout and factors of zero do not show: the rest is asked beside it
    beside = _moved(cell, h, 3)
    h = beside if torch.isfinite(_call(cell, x, beside)).all() else h
    if not torch.equal(_call(cell, x, h), _call(cell, x, h)):
        raise ValueError(
            "step(x, h) must give the same answer twice, got two different ones; a random or stateful step "
            "has no Jacobian product: draw noise beforehand, pass it as inputs, and call .eval() on dropout"
        )
    _check_batch(cell, x, h)
    if moved := run.moved():
        raise ValueError(
            f"step(x, h) must change nothing but the state that it returns, got changes of {moved[0]}; "
            "call .eval() on its module, or make it a part of the state"
        )
    if not cell.reverse_mode:
        _choose_mode(cell, x, h)


def _first(cell: Cell, x: Tensor, h: Tensor) -> Tensor:
    """The first answer of a step, which is handed copies from now on if it writes into what it gets."""
    for copies in (False, True):
        if not cell.guard(copies) and copies:
            break
        given = x.clone(), h.clone()
        before = [z._version for z in given]
        after = _call(cell, *given)
        if not (written := [name for name, z, v in zip("xh", given, before, strict=True) if z._version != v]):
            return after
    raise ValueError(
        f"step(x, h) must return another state, got one that writes into {' and '.join(written)}; write "
        "h = a * h in place of h *= a, and leave out inplace=True"
    )


def _call(cell: Cell, x: Tensor, h: Tensor) -> Tensor:
    """step(x, h), and an error that tells a swapped signature from a broken step."""
    # names tell what shapes cannot, where input and state have one size
    if (why := misread(getattr(cell, "function", cell.step), timed=getattr(cell, "time", False))) is not None:
        raise ValueError(why)
    try:
        after = cell.step(x, h)
    except StateError:
        raise
    except Exception as error:
        function = getattr(cell, "function", cell)
        if not isinstance(function, Cell) and (advice := instead_of(function, failed=True)):
            raise ValueError(f"{advice}; it says: {error}") from error
        if _fits(cell, h, x, h):
            raise ValueError(SWAPPED) from error
        raise ValueError(
            f"step(x, h) failed for x {tuple(x.shape)} and h {_told(cell, h)}: {error}; "
            "it must map inputs (*e, b, m) and states (*e, b, n) to states"
        ) from error
    if not isinstance(after, Tensor) or after.shape != h.shape or after.dtype != h.dtype:
        if _fits(cell, h, x, h):
            raise ValueError(SWAPPED)
        raise ValueError(
            f"step(x, h) must return one tensor like the state, {describe(h)}, got {describe(after)}"
        )
    return after.detach()


def _told(cell: Cell, h: Tensor) -> str:
    """A state in the shapes that its owner knows."""
    state = cell.unpack(h)
    return str(tuple(state.shape)) if isinstance(state, Tensor) else describe(state)


def _noise(like: Tensor, draw: int, *columns: int) -> Tensor:
    stream, shape = Stream(DEFAULT_SEED, "probe"), (*like.shape, *columns)
    return stream.normal(shape, member_ids=draw, dtype=like.dtype, device=like.device)


def _moved(cell: Cell, h: Tensor, draw: int) -> Tensor:
    noise = 1e-2 * (1 + h.abs()) * _noise(h, draw)
    # positions and flags are what they are
    noise[..., h.shape[-1] - cell.travelling :] = 0
    return h + noise


def _fits(cell: Cell, first: Tensor, second: Tensor, h: Tensor) -> bool:
    if first.shape == second.shape:
        return False
    try:
        after = cell.step(first, second)
    except Exception:
        return False
    return isinstance(after, Tensor) and after.shape == h.shape


def _check_batch(cell: Cell, x: Tensor, h: Tensor) -> None:
    """Move a second trajectory: the first one must not notice."""
    one, two = h[..., :1, :], _moved(cell, h[..., :1, :], 0)
    pair = torch.cat([x[..., :1, :]] * 2, -2)
    try:
        same, moved = cell.step(pair, torch.cat([one, one], -2)), cell.step(pair, torch.cat([one, two], -2))
    except Exception as error:
        raise ValueError(
            f"step(x, h) must take any number of trajectories, got an error for 2 of them: {error}; the k "
            "tangent vectors travel as extra trajectories"
        ) from error
    # another number of rows may be summed in another order: some round-off is no dependence
    off = (same[..., 0, :] - moved[..., 0, :]).abs().max()
    if not off <= 100 * torch.finfo(h.dtype).eps * (1 + same.abs().max()):
        raise ValueError(
            f"step(x, h) must treat trajectories independently, got a change of {off.item():.2g} in one when "
            "another moved; call .eval() on batch normalisation"
        )


def _choose_mode(cell: Cell, x: Tensor, h: Tensor) -> None:
    q, v = _noise(h, 1, 1), _noise(h, 2, 1)
    q[..., h.shape[-1] - cell.travelling :, :] = 0
    # <v, D q> of forward mode and <D^T v, q> of reverse mode are one number; so are their gradients, which
    # flossing follows and which torch may have wrong in one of the two
    y = h.clone().requires_grad_()
    try:
        wanted = [y, *graph_leaves(cell.step, x, h)]
        with torch.enable_grad():
            after = cell.step(x, y)
    except Exception as error:
        raise ValueError(
            f"step(x, h) must run where gradients are recorded, as in training, got {error}"
        ) from error
    with torch.enable_grad():
        reverse = (pull(after, y, v.squeeze(-1)) * q.squeeze(-1)).sum(-1)
    try:
        expected = _gradient(reverse, wanted)
    except Exception:  # second derivatives may be missing in any way
        expected = None

    def trouble() -> str | None:
        """What is wrong with forward mode."""
        try:
            with torch.enable_grad():
                forward = (Cell.pushforward(cell, x, y, q)[1] * v).sum((-2, -1))
        except Exception as error:  # forward mode may be missing in any way
            return f"forward mode is missing ({str(error).splitlines()[0]})"
        scale = 1 + reverse.abs().max() + forward.abs().max()
        if not (forward - reverse).abs().max() <= 1e3 * torch.finfo(h.dtype).eps * scale:
            return (
                "forward and reverse mode disagree (a torch.no_grad or detach inside, or an old-style "
                "autograd.Function)"
            )
        if expected is None or not torch.isfinite(expected).all():
            return None  # reverse mode would do no better
        try:
            found = _gradient(forward, wanted)
        except Exception as error:
            return f"forward mode has no second derivatives ({str(error).splitlines()[0]})"
        scale = 1 + expected.abs().max()
        if not (found - expected).abs().max() <= torch.finfo(h.dtype).eps ** 0.5 * scale:
            return "second derivatives through forward mode are wrong (torch's linalg.solve, for example)"
        return None

    cause = trouble()
    if cause is None:
        return
    # torch's fused kernels may lack forward mode, or second derivatives that flossing needs, or have wrong
    # ones: switched off, they give the same numbers
    cell.unfused = True
    if trouble() is None:
        return
    cell.reverse_mode = True
    warnings.warn(f"{cause}; using reverse mode for this step, at n vector products a step", stacklevel=6)


def pull(after: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """D^T v."""
    if not after.requires_grad:
        return torch.zeros_like(y)
    try:
        (bar,) = torch.autograd.grad(after, y, v, None, True, allow_unused=True, materialize_grads=True)
        return bar
    except Exception as error:
        raise ValueError(
            f"step(x, h) must have a gradient, got an error from its backward pass: {error}; inside "
            "torch.utils.checkpoint pass use_reentrant=False"
        ) from error


@torch.enable_grad()
def _gradient(total: Tensor, wanted: list[Tensor]) -> Tensor:
    """The gradient of a sum, as one row."""
    if not total.requires_grad:
        return total.new_zeros(sum(one.numel() for one in wanted))
    found = torch.autograd.grad(total.sum(), wanted, None, True, allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


def fit(cell: Cell, inputs: Tensor, h0: Any) -> tuple[Tensor, Tensor]:
    """Inputs `(t, *e, b, m)` and state `(*e, b, n)` in full shape, checked against the cell.

    h0 may come in parts, as `cell.pack` takes them. A step that the library did not write is probed, once,
    and again where modules that it calls were put from `eval()` into `train()` since, or back.
    Warns where inputs look as if they came batch first.

    Raises:
        ValueError: for wrong shapes, dtypes, devices, NaN or inf in inputs, h0 or weights, a missing h0
            where the state size comes from it, or a step that breaks the contract of `probe`.
    """
    inputs = cell.embedded(inputs)
    _checks.inputs(inputs)
    h0 = cell.packed(h0, tuple(inputs.shape[1:-1]))
    foreign = cell.state_size == 0
    if foreign and h0 is None and inputs.dim() == 3:
        h0 = cell.rest(inputs[0])
    ensemble = tuple(h0.shape[:-2]) if foreign and h0 is not None else cell.ensemble
    letters = "(t, b, m)" if not ensemble else "(t, *e, b, m)"
    if cell.ensemble and ensemble != cell.ensemble:
        raise ValueError(
            f"h0 must have shape (*e, b, n) with *e = {cell.ensemble} as the networks, got {tuple(h0.shape)}"
        )
    if inputs.dim() not in (3, len(ensemble) + 3) or inputs.shape[1:-2] not in ((), ensemble):
        raise ValueError(
            f"inputs must have shape {letters} with *e = {ensemble}, got {tuple(inputs.shape)}; time comes "
            "first, then the ensemble (or nothing), then trajectories and channels"
        )
    t, b, m = inputs.shape[0], *inputs.shape[-2:]
    if t < 1 or b < 1:
        raise ValueError(
            f"inputs must hold at least 1 step and 1 trajectory, got shape {tuple(inputs.shape)}"
        )
    if cell.batch_first and t < b:
        warnings.warn(
            f"inputs {tuple(inputs.shape)} are read time first, as {t} steps of {b} trajectories, but the "
            "network has batch_first=True; of a batch as it takes it pass x.transpose(0, 1)",
            stacklevel=3,
        )
    if not foreign and m != cell.input_size:
        raise ValueError(
            f"inputs must have {cell.input_size} channels for this cell, got {m}; {cell.channels}"
        )
    named = [*cell.named_parameters(), *cell.named_buffers()]
    for name, value in named:
        _checks.weight(name, value)
    tensors = [value for _, value in named if value.is_floating_point()]
    if h0 is None:
        h0 = cell.rest(inputs[0])
    elif not foreign:
        wanted = (*ensemble, b, cell.state_size)
        layered = LAYERED if isinstance(h0, torch.Tensor) and h0.dim() == len(wanted) + 1 else ""
        _checks.shape("h0", _checks.tensor("h0", h0), wanted, "(*e, b, n)", do=layered)
    elif _checks.tensor("h0", h0).dim() < 2 or h0.shape[-2] != b:
        raise ValueError(
            f"h0 must have shape (*e, b, n) with b = {b} as in inputs, got {tuple(h0.shape)}; it has a "
            f"row for each trajectory: if they all begin alike, .expand({b}, -1)"
        )
    if h0.shape[-1] < 1:
        raise ValueError(f"h0 must hold at least one unit, got shape {tuple(h0.shape)}; there is no state")
    reference = ("the weights", tensors[0]) if tensors else ("inputs", inputs)
    for name, value in (("inputs", inputs), ("h0", h0)):
        _checks.finite(name, _checks.alike(name, value, *reference))
    inputs = inputs.reshape(t, *[1] * (len(ensemble) + 3 - inputs.dim()), *inputs.shape[1:])
    inputs = inputs.expand(t, *ensemble, b, m)
    if cell.unproven or any((module, module.training) not in cell.ran for module, _ in cell.ran):
        probe(cell, inputs[0], h0)
    return inputs, h0
