"""Leaky rate networks: continuous-time ones, as everybody integrates them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._types import Number
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import Form, Residual
from lyaptorch.cells.matrices import Weights
from lyaptorch.cells.rate import RateCell
from lyaptorch.cells.residuals import spread


class LeakyRateCell(RateCell):
    """A leaky rate network, h' = (1 - leak) h + leak (W phi(h) + V x + b).

    A step takes a time `leak`, in units of the time constant, so that exponents are reported per unit of
    time; `dt=1.0` in `lyapunov_spectrum` gives them per step, in which flossing targets and triggers always
    are. A leak of each unit or member, or a trained one, is no common clock: there they are per step. At
    leak 1 it is a `RateCell`. A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args:
        input_size: m.
        hidden_size: n.
        leak: share of the state that is replaced at each step, above 0 and up to 1: dt / tau. A number, or a
            tensor `*e`, `(n,)` or `(*e, n)`. An `nn.Parameter` of shape `*e` or `(*e, n)` is trained.
        gain: scale of the initial recurrent weights; this and what follows as of a `RateCell`.
        activation: phi.
        weights: ensemble of the initial recurrent weights.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for a leak outside (0, 1] or of another shape, and as `RateCell`.

    Example:
        >>> import lyaptorch as lt
        >>> cell = LeakyRateCell(1, 50, leak=0.2, gain=1.5)
        >>> lt.lyapunov_spectrum(cell, torch.zeros(100, 1, 1), k=2).dt
        0.2

    Source: Sompolinsky, Crisanti & Sommers (1988), integrated by Euler's method; `theory.leaky_mean_field`.
    """

    leak: float | Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        leak: Number,
        gain: Number = 1.0,
        activation: str | Activation = "tanh",
        weights: str | Weights = "gaussian",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            gain=gain,
            activation=activation,
            weights=weights,
            bias=bias,
            ensemble=ensemble,
            member_ids=member_ids,
            generator=generator,
        )
        given = torch.as_tensor(leak)
        if not (given > 0).all() or not (given <= 1).all():
            raise ValueError(f"leak must be above 0 and at most 1, got {leak}; it is dt / tau")
        if isinstance(leak, nn.Parameter):
            if tuple(leak.shape) not in (self.ensemble, (*self.ensemble, hidden_size)):
                raise ValueError(
                    f"a trained leak must have shape *e = {self.ensemble} or (*e, n) = "
                    f"{(*self.ensemble, hidden_size)}, got {tuple(leak.shape)}"
                )
            self.leak = leak
        elif given.dim():
            members = torch.zeros(self.ensemble, dtype=torch.int64, device=self.weight_ih.device)
            self.per_member = ("leak",)
            self.register_buffer("leak", spread("leak", given, hidden_size, members).clone())
        else:
            self.leak = self.time_step = float(leak)
            self.kept: Tensor
            self.share: Tensor
            # made once: a form of the same tensors need not be prepared again
            self.per_member = ("kept",)
            shape = self.weight_hh.shape[:-1]
            self.register_buffer("kept", self.weight_hh.new_full(shape, 1 - self.leak), persistent=False)
            self.register_buffer("share", self.weight_hh.new_tensor(self.leak), persistent=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "leak" and "kept" in self.__dict__.get("_buffers", {}):
            raise AttributeError(
                f"leak is fixed when the cell is made, here {self.leak:g}, got {value!r}; make another cell "
                "and load this one's state_dict, or give leak as a tensor, which can be written into"
            )
        super().__setattr__(name, value)

    def form(self) -> Form:
        """P(h) + leak (W phi(h) + V x + b) with P = 1 - leak."""
        plain, leak = super().form(), self.leak
        if not isinstance(leak, Tensor):
            return replace(plain, coupling=self.share, residual=Residual(self.kept, "diagonal"))
        # of each member `(*e, 1)`, of each unit `(*e, n)`
        leak = leak.unsqueeze(-1) if leak.dim() <= len(self.ensemble) else leak
        kept = (1 - leak).expand(plain.weight_hh.shape[:-1])
        return replace(plain, coupling=leak, residual=Residual(kept, "diagonal"))

    def extra_repr(self) -> str:
        """Sizes and the leak, as `print(cell)` shows them."""
        shown = f"{self.leak:g}" if isinstance(self.leak, float) else f"{tuple(self.leak.shape)}"
        return f"{super().extra_repr()}, leak={shown}"
