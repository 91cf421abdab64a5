"""The probe of a step that the library did not write: one state back, no chance in it, rows apart."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lyaptorch._caller import Run, aside, ordinary, untouched
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells.adapt.function import instead_of
from lyaptorch.cells.adapt.stateful import StateError
from lyaptorch.cells.cell import Cell, graph_leaves

STATE_NAMES = {
    *("h", "hx", "h0", "h_t", "ht", "h_prev", "prev_h", "prev", "previous", "last", "carry", "memory", "mem"),
    *("state", "states", "prev_state", "state_prev", "hidden", "hidden_state", "hid"),
}
INPUT_NAMES = {
    "input",
    "inputs",
    "input_",
    "inp",
    "x_t",
    "xt",
    "obs",
    "observation",
    "drive",
    "stimulus",
    "token",
}
"""Names that mean nothing else; x and u are not among them, which in control theory are state and input."""


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
    after = _call(cell, x, h)
    if not torch.isfinite(after).all():
        raise ValueError(
            "step(x, h) must be finite at h0, got NaN or inf; choose another h0 or lower the gain"
        )
    h = _beside(cell, x, h)
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


def _call(cell: Cell, x: Tensor, h: Tensor) -> Tensor:
    """step(x, h), and an error that tells a swapped signature from a broken step."""
    swapped = (
        "step must take (input, state) in this order, got (state, input): wrap it as lambda x, h: step(h, x)"
    )
    first, second, *_ = (*_parameter_names(cell), "", "")
    if (first in STATE_NAMES and second not in STATE_NAMES | {""}) or (
        second in INPUT_NAMES and first not in {*INPUT_NAMES, "x", "u"}
    ):
        raise ValueError(f"{swapped}, or rename its arguments {first}, {second} if that is their order")
    try:
        after = cell.step(x, h)
    except StateError:
        raise
    except Exception as error:
        function = getattr(cell, "function", None)
        if (
            function is not None
            and not isinstance(function, Cell)
            and (advice := instead_of(function, failed=True))
        ):
            raise ValueError(f"{advice}; it says: {error}") from error
        if _fits(cell, h, x, h):
            raise ValueError(swapped) from error
        raise ValueError(
            f"step(x, h) failed for x {tuple(x.shape)} and h {tuple(h.shape)}: {error}; "
            "it must map inputs (*e, b, m) and states (*e, b, n) to states"
        ) from error
    if not isinstance(after, Tensor) or after.shape != h.shape or after.dtype != h.dtype:
        if _fits(cell, h, x, h):
            raise ValueError(swapped)
        got = (
            f"{tuple(after.shape)} {after.dtype}"
            if isinstance(after, Tensor)
            else f"a {type(after).__name__}"
        )
        raise ValueError(
            f"step(x, h) must return one tensor like the state, {tuple(h.shape)} {h.dtype}, got {got}"
        )
    return after.detach()


def _beside(cell: Cell, x: Tensor, h: Tensor) -> Tensor:
    """A state beside h: at rest, where h0 often is, dropout and factors of zero do not show."""
    noise = Stream(DEFAULT_SEED, "probe").normal(tuple(h.shape), member_ids=3, dtype=h.dtype)
    beside = h + 1e-2 * (1 + h.abs()) * noise.to(h.device)
    return beside if torch.isfinite(_call(cell, x, beside)).all() else h


def _fits(cell: Cell, first: Tensor, second: Tensor, h: Tensor) -> bool:
    if first.shape == second.shape:
        return False
    try:
        after = cell.step(first, second)
    except Exception:
        return False
    return isinstance(after, Tensor) and after.shape == h.shape


def _parameter_names(cell: Cell) -> list[str]:
    function: Callable[..., object] = getattr(cell, "function", cell.step)
    if isinstance(function, torch.nn.Module):
        function = function.forward
    try:
        return [name.lower() for name in inspect.signature(function).parameters]
    except (TypeError, ValueError):
        return []


def _check_batch(cell: Cell, x: Tensor, h: Tensor) -> None:
    """Move a second trajectory: the first one must not notice."""
    noise = Stream(DEFAULT_SEED, "probe").normal(tuple(h[..., :1, :].shape), member_ids=0, dtype=h.dtype)
    one, two = h[..., :1, :], h[..., :1, :] + 1e-2 * (1 + h[..., :1, :].abs()) * noise.to(h.device)
    pair = torch.cat([x[..., :1, :]] * 2, -2)
    try:
        same, moved = cell.step(pair, torch.cat([one, one], -2)), cell.step(pair, torch.cat([one, two], -2))
    except Exception as error:
        raise ValueError(
            f"step(x, h) must take any number of trajectories, got an error for 2 of them: {error}; the k "
            "tangent vectors travel as extra trajectories"
        ) from error
    off = (same[..., 0, :] - moved[..., 0, :]).abs().max()
    if not off <= 100 * torch.finfo(h.dtype).eps * (1 + same.abs().max()):
        raise ValueError(
            f"step(x, h) must treat trajectories independently, got a change of {off.item():.2g} in one when "
            "another moved; call .eval() on batch normalisation"
        )


def _choose_mode(cell: Cell, x: Tensor, h: Tensor) -> None:
    stream = Stream(DEFAULT_SEED, "probe")
    q = stream.normal((*h.shape, 1), member_ids=1, dtype=h.dtype).to(h.device)
    v = stream.normal((*h.shape, 1), member_ids=2, dtype=h.dtype).to(h.device)
    y = h.clone().requires_grad_()
    wanted = [y, *graph_leaves(cell, x, h)]
    with torch.enable_grad():
        after = cell.step(x, y)
        pulled = torch.zeros_like(y)
        if after.requires_grad:
            pulled = _pulled(after, y, v.squeeze(-1))
        reverse = (pulled * q.squeeze(-1)).sum(-1)
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


def _pulled(after: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """D^T v."""
    try:
        (pulled,) = torch.autograd.grad(
            after, y, v, create_graph=True, allow_unused=True, materialize_grads=True
        )
    except Exception as error:
        raise ValueError(
            f"step(x, h) must have a gradient, got an error from its backward pass: {error}; inside "
            "torch.utils.checkpoint pass use_reentrant=False"
        ) from error
    return pulled


@torch.enable_grad()
def _gradient(total: Tensor, wanted: list[Tensor]) -> Tensor:
    """The gradient of a sum, as one row."""
    if not total.requires_grad:
        return total.new_zeros(sum(one.numel() for one in wanted))
    found = torch.autograd.grad(
        total.sum(), wanted, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([one.flatten() for one in found])
