"""`Stepper`: one step of state and frame at a time, for loops written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import aside, measures
from lyaptorch._types import Exponents, Input
from lyaptorch.cells import Network, as_cell, fit
from lyaptorch.tangent.qr import orthonormalise
from lyaptorch.tangent.start import first_frame


class Stepper:
    """A state and an orthonormal frame that are carried along an input, one step at a time.

    A step takes h to step(x, h) and factors `D Q = Q' R`, with R_ii > 0. The mean of `log R_ii` over steps is
    what `lyapunov_spectrum` says of the same inputs, to round-off; that is faster, and differentiable, which
    this is not. The caller's modes change nothing, as there. A step costs O(b (n^2 k + n k^2)) for a dense W.

    Args:
        cell: anything that `as_cell` takes.
        h0: the state before the first step `(*e, b, n)`, or its parts as `as_cell` says.
        k: how many tangent vectors, 1..n; all n when missing.
        frame: orthonormal `(n, k)` or `(*e, b, n, k)`; random when missing, the same for all members.
        generator: seeds the random frame.

    Attributes:
        h: the state now, `(*e, b, n)`.
        Q: the frame now, `(*e, b, n, k)`; the column of what died is zero.
        steps: how many were taken.

    Raises:
        ValueError: for a state that is no tensor `(*e, b, n)`, k out of range, or a frame that is not
            orthonormal.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 32, gain=1.0)
        >>> stepper, total = lt.tangent.Stepper(cell, torch.zeros(1, 32), k=4), 0.0
        >>> for x in torch.zeros(200, 1, 1):
        ...     total = total + stepper.step(x)
        >>> (total / stepper.steps).shape
        torch.Size([1, 4])

    Source: Benettin et al. (1980); Gradient Flossing, eq 7.
    """

    @measures
    def __init__(
        self,
        cell: Network,
        h0: Any,
        *,
        k: int | None = None,
        frame: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.cell, self.steps = as_cell(cell), 0
        self.h = _checks.tensor("h0", self.cell.pack(h0)).detach()
        if self.h.dim() < 2 or self.h.shape[-1] < 1:
            raise ValueError(f"h0 must have shape (*e, b, n), got {tuple(self.h.shape)}")
        # the frame is kept for later calls, or the caller's own, and this one may be written into
        self.Q = first_frame(frame, k, self.h, generator, self.cell).detach().clone()
        self._dead: Tensor | None = None

    def step(self, x: Input) -> Exponents:
        """Take one step and return `log R_ii (*e, b, k)`, -inf of what died. Cost O(b n^2 k).

        Args:
            x: the input `(*e, b, m)`; a missing `*e` broadcasts.

        Raises:
            ValueError: for wrong shapes, dtypes or devices, NaN or inf, or a step that breaks its contract.
            FloatingPointError: if the dynamics overflow; state and frame are then as they were.
        """
        with aside((self.cell, x), grad=False, evaluate=True), torch.no_grad():
            inputs, h = fit(self.cell, _checks.tensor("x", x).unsqueeze(0), self.h)
            h, pushed = self.cell.pushforward(inputs[0], h, self.Q)
            if not _checks.all_finite(h) or not _checks.all_finite(pushed):
                raise FloatingPointError(
                    f"state or tangent vectors are not finite after step {self.steps + 1}: {self.cell.advice}"
                )
            # two passes: the error of one cancels in the next factor only, and any frame may be the last
            Q, R, dead = orthonormalise(pushed, self._dead, "cholesky2")
            log_r = R.diagonal(dim1=-2, dim2=-1).log()
        self.h, self.Q, self._dead, self.steps = h, Q, dead, self.steps + 1
        return log_r if dead is None else torch.where(dead, -torch.inf, log_r)
