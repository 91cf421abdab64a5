"""Readout: an affine map of the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch.cells.form import linear


class Readout(nn.Module):
    """An affine map of the state, one for each member: `h -> R h + o`.

    Initially R ~ N(0, scale^2) and o = `offset` (the published setting has scale 1, WITHOUT 1/sqrt n).
    Cost O(b o n).

    Args:
        state_size: how many numbers it reads: n, `cell.output_size` where not all of the state can be read.
        output_size: o.
        scale: standard deviation of the weights.
        offset: initial bias.
        ensemble: leading dimensions `*e`.
        member_ids: ids of shape `*e`; equal ids get equal numbers.
        generator: seeds the weights; None is a fixed seed.

    Example:
        >>> readout = Readout(8, 2, ensemble=(3,))
        >>> readout(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        state_size: int,
        output_size: int,
        *,
        scale: float = 1.0,
        offset: float = 1e-3,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ensemble = tuple(ensemble)
        ids, stream = ids_of(ensemble, member_ids), Stream(seed_from(generator), "readout")
        self.weight = nn.Parameter(scale * stream.normal((output_size, state_size), member_ids=ids))
        self.bias = nn.Parameter(torch.full((*ensemble, output_size), offset))

    def forward(self, h: Tensor) -> Tensor:
        """`(..., *e, b, n)` to `(..., *e, b, o)`."""
        return linear(h, self.weight) + self.bias.unsqueeze(-2)
