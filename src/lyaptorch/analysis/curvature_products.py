"""Products with a curvature matrix: differentiated twice, with the share of every step, or by curvlinops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lyaptorch._types import Inputs, State, States
from lyaptorch.cells import Cell, Substituted, unroll

Product: TypeAlias = Callable[[Tensor], Tensor]
"""M v for v `(*e, p)`, `(*e, p)` or the share of every step, `(t, *e, p)`."""


class _Stack(torch.autograd.Function):
    """`torch.stack`, whose gradient's gradient is one tensor; torch has one as large for every entry."""

    @staticmethod
    def forward(ctx: Any, *entries: Tensor) -> Tensor:
        """All entries along a new first dimension."""
        return torch.stack(entries)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Each its own."""
        return grad.unbind()


def differentiated(
    cell: Cell,
    inputs: Tensor,
    h: Tensor,
    loss: Callable[[Tensor], Tensor],
    weights: dict[str, Tensor],
    matrix: str,
    leading: int,
) -> Product:
    """M v as the share of every step: the loss, differentiated twice by copies of the weights, one a step."""
    every = {f"cell.{name}": w.detach().expand(len(inputs), *w.shape) for name, w in weights.items()}
    copies = {name: w.clone().requires_grad_() for name, w in every.items()}
    leaves, states, on = list(copies.values()), [], Substituted(cell).on
    with torch.enable_grad():
        # unbound at once: the gradient of a single copy[s] is as large as all of them
        for x, *own in zip(inputs, *(copy.unbind() for copy in leaves), strict=True):
            h = on(dict(zip(copies, own, strict=True)), "step", x, h)
            states.append(h)
        H = _Stack.apply(*states)  # type: ignore[no-untyped-call]
        # Gauss-Newton holds the states fixed while the loss is differentiated, the Hessian does not
        at = H if matrix == "hessian" else H.detach().requires_grad_()
        total = loss(at).sum()
        if not total.requires_grad:
            raise ValueError("loss must depend on the states it is given; do not detach them")
        if matrix == "hessian":
            gradients = torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True)
        else:
            (by_state,) = torch.autograd.grad(total, at, create_graph=True)
            dummy = torch.zeros_like(H, requires_grad=True)
            pulled = torch.autograd.grad(H, leaves, dummy, create_graph=True, materialize_grads=True)

    def flat(parts: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([part.flatten(leading + 1) for part in parts], -1).detach()

    # M v of the Hessian is d/dW <dL/dW, v>, the gradient of a number: with a copy W_s for each step it comes
    # as the shares of the steps, sum_s' (d^2 L / dW_s dW_s') v. Of J^T H J v, J v is had by differentiating
    # J^T u with respect to u (twice backwards is once forwards)
    def along(parts: tuple[Tensor, ...], v: Tensor) -> Tensor:
        """<sum of parts over steps, v>."""
        return (torch.cat([part.sum(0).flatten(leading) for part in parts], -1) * v).sum()

    def again(y: Tensor, of: list[Tensor], bar: Tensor | None = None) -> tuple[Tensor, ...]:
        if not y.requires_grad:
            return tuple(torch.zeros_like(z) for z in of)
        return torch.autograd.grad(y, of, bar, retain_graph=True, materialize_grads=True)

    def product(v: Tensor) -> Tensor:
        with torch.enable_grad():
            if matrix == "hessian":
                return flat(again(along(gradients, v), leaves))
            (pushed,) = again(along(pulled, v), [dummy])
            (curved,) = again(by_state, [at], pushed)
            return flat(again(H, leaves, curved))

    return product


class _Network(nn.Module):
    """All states of a cell from a fixed start, `(t, *e, b, n)`."""

    def __init__(self, cell: Cell, h: Tensor) -> None:
        super().__init__()
        self.cell, self.h = cell, h

    def forward(self, inputs: Inputs) -> States:
        return unroll(self.cell, inputs, self.h, plain=True)


class _Summed(nn.Module):
    """A loss of states, summed; there are no labels."""

    reduction = "sum"

    def __init__(self, loss: Callable[[States], Tensor]) -> None:
        super().__init__()
        self.of = loss

    def forward(self, states: States, label: Tensor) -> Tensor:
        return self.of(states).sum()


def operator_product(
    cell: Cell, inputs: Inputs, h: State, loss: Callable[[States], Tensor], weights: list[Tensor], matrix: str
) -> Callable[[Tensor], Tensor]:
    """M v `(*e, p)` for v `(*e, p)`; members do not mix, so one operator holds those of all.

    Raises:
        ValueError: if curvlinops is not installed.
    """
    try:
        from curvlinops import GGNLinearOperator, HessianLinearOperator
    except ImportError as error:
        raise ValueError(
            'backend="curvlinops" needs curvlinops-for-pytorch; install lyaptorch[hessian], or take "torch"'
        ) from error
    kind = HessianLinearOperator if matrix == "hessian" else GGNLinearOperator
    # one batch, whose size does not matter to a sum
    operator = kind(
        _Network(cell, h),
        _Summed(loss),
        weights,
        [(inputs, inputs.new_zeros(1))],
        check_deterministic=False,
        num_data=1,
    )
    leading = h.dim() - 2
    shapes = [w.shape for w in weights]

    def product(v: Tensor) -> Tensor:
        pieces = torch.split(v, [shape[leading:].numel() for shape in shapes], -1)
        columns = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return torch.cat([part.flatten(leading) for part in operator @ columns], -1).detach()

    return product
