"""Products with the Jacobian of any step, and the leaves it depends on, found by autodiff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The next state from an input and a state."""


def by_forward_mode(step: Step, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """h' and D Q by ONE forward-mode product, the k columns folded into the batch."""
    b, k = Q.shape[-3], Q.shape[-1]
    # trajectory i comes k times, its copy j with the tangent q_j: one product gives D q_j of all
    x, h, q = repeat_batch(x, k), repeat_batch(h, k), Q.mT.flatten(-3, -2)
    result: tuple[Tensor, Tensor] = torch.func.jvp(lambda y: step(x, y), (h,), (q,))  # type: ignore[assignment]
    after, pushed = (torch.unflatten(y, -2, (b, k)) for y in result)
    # copied, because a view would keep all k copies of the state alive
    return after[..., 0, :].clone(), pushed.mT


def by_reverse_mode(step: Step, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """h' and D Q where forward mode fails: D row by row, n copies of the batch and one reverse pass."""
    b, n = h.shape[-2:]
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        copies = repeat_batch(h if h.requires_grad else h.detach().requires_grad_(), n)
        after = step(repeat_batch(x, n), copies)
        # copy i with the cotangent e_i gives e_i^T D, row i; trajectories are independent, so none mixes in
        rows = torch.eye(n, dtype=h.dtype, device=h.device).expand(*h.shape[:-2], b, n, n).flatten(-3, -2)
        D = torch.zeros_like(rows)
        if after.requires_grad:  # else all of the step is under torch.no_grad
            (D,) = torch.autograd.grad(after, copies, rows, create_graph=keep, materialize_grads=True)
        after, D = torch.unflatten(after, -2, (b, n))[..., 0, :], torch.unflatten(D, -2, (b, n))
    return (after, D @ Q) if keep else (after.detach(), D.detach() @ Q)


def graph_leaves(step: Step, x: Tensor, h: Tensor) -> list[Tensor]:
    """Every leaf with `requires_grad` in the graph of one step."""
    # only the node that accumulates into a leaf has it
    found = [leaf for node in _graph(step, x, h) if (leaf := getattr(node, "variable", None)) is not None]
    return list({id(leaf): leaf for leaf in found}.values())


VIEWS = {
    *("AccumulateGrad", "T", "Transpose", "Permute", "View", "UnsafeView", "Reshape", "Slice", "Select"),
    *("Squeeze", "Unsqueeze", "Expand", "AsStrided", "Diagonal", "Split", "SplitWithSizes", "Unbind"),
    *("Unfold", "Alias", "ViewAsReal", "ViewAsComplex"),
}
"""What looks at a leaf itself, and sees each of its values."""


def refuse_stale(step: Step, x: Tensor, h: Tensor) -> None:
    """Raise if a step uses what was computed of a leaf before it: whoever moves the leaf does not move that.

    Cost of two steps.
    """
    first = _graph(step, x, h)
    kept = {node.name().rpartition("::")[2] for node in first & _graph(step, x, h)}
    stale = sorted(name for name in kept if name.rstrip("0123456789").removesuffix("Backward") not in VIEWS)
    if stale:
        raise ValueError(
            "a step must compute its weights from its parameters each time, got some that were computed "
            f"before ({', '.join(stale)}), which would stay as they are; compute them inside step(x, h)"
        )


def _graph(step: Step, x: Tensor, h: Tensor) -> set[Any]:
    """All nodes of the autograd graph of one step."""
    with torch.enable_grad():
        after = step(x.detach(), h.detach())
    seen: set[Any] = set()
    stack: list[Any] = [after.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
    return seen


def repeat_batch(x: Tensor, times: int) -> Tensor:
    """`(*e, b, m)` to `(*e, b * times, m)`: each row `times` times in a row."""
    # contiguous, because forward mode writes, and with b = 1 the rows would share their memory
    return x.unsqueeze(-2).expand(*x.shape[:-1], times, x.shape[-1]).flatten(-3, -2).contiguous()
