"""Products with a curvature matrix by curvlinops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lyaptorch._types import Inputs, State, States
from lyaptorch.cells import Cell, unroll


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
