"""A readout of spiking cells, whose neurons integrate and do not spike."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch.cells.form import linear
from lyaptorch.cells.spiking import SpikingCell


class LeakyReadout(nn.Module):
    """Neurons that integrate the spikes of a spiking cell and do not spike: `I' = alpha I + R S + o`.

    Their potentials, U' = beta U + (1 - beta) I', are the outputs; both start from 0. A step costs O(b o n).

    Args:
        cell: whose spikes are read.
        output_size: o.
        tau_mem: membrane time constant in seconds.
        tau_syn: synaptic time constant in seconds.
        scale: standard deviation of the initial weights R; the bias is 0 at first.
        member_ids: ids of shape `*e`; equal ids get equal numbers.
        generator: seeds the weights; None is a fixed seed.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.LIFCell(2, 64, ensemble=(5,))
        >>> LeakyReadout(cell, 3)(torch.zeros(10, 5, 4, 128)).shape
        torch.Size([10, 5, 4, 3])

    Source: Surrogate Gradient Flossing, appendix D and E.
    """

    def __init__(
        self,
        cell: SpikingCell,
        output_size: int,
        *,
        tau_mem: float = 10e-3,
        tau_syn: float = 5e-3,
        scale: float = 1.0,
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        # a method, not the cell: its parameters are not the readout's
        self._spikes, self.ensemble = cell.spikes, cell.ensemble
        self.decays = [
            math.exp(-cell.dt / _checks.positive("a time constant", tau)) for tau in (tau_syn, tau_mem)
        ]
        ids, stream = ids_of(cell.ensemble, member_ids), Stream(seed_from(generator), "readout")
        o = _checks.integer("output_size", output_size, 1)
        self.weight = nn.Parameter(scale * stream.normal((o, cell.hidden_size), member_ids=ids))
        self.bias = nn.Parameter(torch.zeros(*cell.ensemble, o))

    def reads(self, cell: object) -> bool:
        """Whether it is this cell whose spikes it reads."""
        return self._spikes == getattr(cell, "spikes", None)

    def forward(self, states: Tensor) -> Tensor:
        """States `(t, *e, b, N)` of the cell to potentials `(t, *e, b, o)`. Cost O(t b (n + t) o)."""
        alpha, beta = self.decays
        current = linear(self._spikes(states), self.weight) + self.bias.unsqueeze(-2)
        return (1 - beta) * _leak(beta, _leak(alpha, current))


def _leak(decay: float, x: Tensor) -> Tensor:
    """y_s = decay y_{s-1} + x_s along the first dimension, as one product with the powers of the decay."""
    # y_s = sum_j decay^(s - j) x_j over j <= s; for j > s the powers would overflow before tril drops them
    steps = torch.arange(len(x), dtype=x.dtype, device=x.device)
    # y_s = sum of decay^(s - r) x_r over r <= s; above the diagonal powers could overflow, and are clamped
    powers = torch.tril(decay ** (steps.unsqueeze(1) - steps).clamp_min(0))
    return (powers @ x.flatten(1)).view_as(x)
