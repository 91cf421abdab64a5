"""Teacher forcing: a cell whose state is pulled towards that of a teacher before each step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Frame, Input, Number, State
from lyaptorch.cells.adapt import Network, as_cell
from lyaptorch.cells.adapt.skeleton import StateError
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import Form
from lyaptorch.cells.loop import Loop


class Forced(Loop):
    """What `forced` makes."""

    per_member = ("alpha",)
    channels = "the cell's own, and behind them the teacher's state"

    def __init__(self, cell: Cell, alpha: Number) -> None:
        _checks.per_member("alpha", _checks.share("alpha", alpha), cell.ensemble)
        super().__init__(cell, cell.input_size + cell.state_size)
        self.alpha: Number
        if isinstance(alpha, Tensor) and not isinstance(alpha, nn.Parameter):
            self.register_buffer("alpha", alpha.to(next(iter(cell.tensors()), alpha)))
        else:
            # a number is exact in every dtype
            self.alpha = alpha

    def inside(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The cell's own input, and the state on its way to the teacher's."""
        own = x.shape[-1] - h.shape[-1]
        if own < 0:
            raise StateError(
                f"inputs of a forced cell must be {self.channels} of {h.shape[-1]} numbers, got "
                f"{x.shape[-1]} channels; append the states before each step, torch.cat([inputs, z], -1)"
            )
        alpha = self._alpha()
        return x[..., :own], (1 - alpha) * h + alpha * x[..., own:]

    def _alpha(self) -> Number:
        """Against states, and against weights `(*e, n, n)`."""
        alpha = self.alpha
        return alpha[..., None, None] if isinstance(alpha, Tensor) and alpha.dim() else alpha

    def extra_repr(self) -> str:
        """Sizes, and how strongly it is forced."""
        return f"{super().extra_repr()}, alpha={self.alpha}"

    def form(self) -> Form | None:
        """The cell's form, where the teacher enters it as an input does."""
        form, alpha = self.cell.form(), self._alpha()
        if not isinstance(form, Form) or form.inner is not None or form.residual is not None:
            return None
        # W ((1 - alpha) h + alpha z) + V x
        W = form.weight_hh
        V = torch.cat([form.weight_ih, alpha * W], -1)
        return replace(form, weight_hh=(1 - alpha) * W, weight_ih=V)


class PushedForced(Forced):
    """The same of a cell with products of its own."""

    form = Forced.form

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q = (1 - alpha) dF/dh Q, at the cost of the cell's own."""
        if self.unfused or self.reverse_mode:
            return super().pushforward(x, h, Q)
        alpha = self._alpha()
        if isinstance(alpha, Tensor) and alpha.dim():
            alpha = alpha.unsqueeze(-1)
        return self.cell.pushforward(*self.inside(x, h), (1 - alpha) * Q)


def forced(cell: Network, alpha: Number) -> Cell:
    """A cell under teacher forcing, `h' = step(x, (1 - alpha) h + alpha z)`.

    The inputs are the cell's own and, behind them, the teacher's states z, packed as `cell.pack` does, z_s
    the one BEFORE step s. Every Jacobian is that of the cell at the mixed state times 1 - alpha. So along the
    cell's own orbit (z its states under the same inputs, h0 = z_0) all exponents shift by log(1 - alpha), and
    where `lambda_1 + log(1 - alpha) < 0` that orbit is found again from other h0.

    A step costs one of the cell, and O(n).

    Args:
        cell: anything that `as_cell` takes.
        alpha: how strongly it is forced, 0..1: a number, or a tensor of shape `*e`; an `nn.Parameter` is
            trained. At 1 nothing of the past is left, and all exponents are -inf.

    Returns:
        A cell of m + n inputs, with the state, parts, structure and unit of time of the one inside, `cell`.

    Raises:
        ValueError: for an alpha that is no share, or does not fit the ensemble.

    Example:
        >>> import math, lyaptorch as lt
        >>> cell, x, h0 = lt.RateCell(1, 8), torch.randn(200, 1, 1), torch.ones(1, 8)
        >>> cell, x, h0 = cell.double(), x.double(), h0.double()
        >>> z = torch.cat([h0[None], lt.cells.unroll(cell, x, h0)[:-1]])
        >>> own = lt.lyapunov_spectrum(cell, x, h0=h0).exponents
        >>> spec = lt.lyapunov_spectrum(lt.forced(cell, 0.25), torch.cat([x, z], -1), h0=h0)
        >>> bool((spec.exponents - own - math.log(0.75)).abs().max() < 1e-10)
        True

    Source: Hess et al. (2023), Generalized teacher forcing for learning chaotic dynamics.
    """
    cell = as_cell(cell)
    return (Forced if type(cell).pushforward is Cell.pushforward else PushedForced)(cell, alpha)
