"""Weakly coupled residual networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Number
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.activation import activation as activation_of
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Form, Residual
from lyaptorch.cells.residuals import Recipe, decay, spread
from lyaptorch.cells.weights import fan_in

KINDS = ("linear", "A", "B")


class ResidualCell(FormCell):
    """A residual network with weak coupling eps, whose exponents are close to log |eig A|.

    With the drive a = W h + V x + b the state becomes

        A h + eps phi(a)         kind "linear",
        phi(A h) + eps phi(a)    kind "A",
        phi(A h + eps a)         kind "B".

    A is fixed; W, V, b are trained and start at U(-1/sqrt(fan-in), 1/sqrt(fan-in)), with b as a part of the
    affine map of the input. Kinds A and B follow log |eig A| only while the state stays near zero and
    max |eig A| < 1. Kind B is an Elman network with recurrent weights A + eps W.

    Args:
        input_size: m.
        hidden_size: n.
        residual: how to make A, from `lyaptorch.residuals`; the identity when missing.
        coupling: eps; a number, or a tensor `*e`, `(n,)` or `(*e, n)`. An `nn.Parameter` of shape `*e` or
            `(*e, n)` is trained.
        kind: "linear", "A" or "B".
        activation: phi, by name or as an `Activation`; "linear" leaves no non-linearity.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, unknown names, shapes that do not fit, or a rotation of an odd number
            of units.

    Example:
        >>> import math
        >>> from lyaptorch import residuals
        >>> turn = residuals.rotation(2 * math.pi / 28) @ residuals.decay(0.99)
        >>> cell = ResidualCell(1, 100, residual=turn, coupling=0.03, ensemble=(5,))
        >>> cell(torch.zeros(8, 1), torch.zeros(5, 8, 100)).shape
        torch.Size([5, 8, 100])

    Source: Fading memory as inductive bias in residual recurrent networks, eq 11, 18 and 19.
    """

    per_member = ("residual", "coupling")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        residual: Recipe | None = None,
        coupling: Number = 0.03,
        kind: str = "linear",
        activation: str | Activation = "tanh",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        m, n = _checks.integer("input_size", input_size, 1), _checks.integer("hidden_size", hidden_size, 1)
        super().__init__(m, n, ensemble)
        ids, seed = ids_of(self.ensemble, member_ids), seed_from(generator)
        self.kind = _checks.choice("kind", kind, KINDS)
        self.activation = activation_of(activation)
        made = (residual or decay(1.0))(n, ids)
        self.structure: Literal["diagonal", "blocks", "dense"] = made.kind
        self.residual: Tensor
        self.register_buffer("residual", made.matrix.clone())
        self.coupling: Tensor
        if isinstance(coupling, nn.Parameter):
            _check_coupling(coupling, self.ensemble, n)
            self.coupling = coupling
        else:
            self.register_buffer("coupling", spread("coupling", coupling, n, ids).clone())
        self.weight_hh = nn.Parameter(fan_in((n, n), n, Stream(seed, "weight_hh"), ids))
        self.weight_ih = nn.Parameter(fan_in((n, m), m, Stream(seed, "weight_ih"), ids))
        self.bias = nn.Parameter(fan_in((n,), m, Stream(seed, "bias"), ids)) if bias else None

    @property
    def bypass(self) -> Residual:
        """A."""
        return Residual(self.residual, self.structure)

    @property
    def eps(self) -> Tensor:
        """The coupling `(*e, n)`, or `(*e, 1)` where all units have the same."""
        return self.coupling if self.coupling.dim() > len(self.ensemble) else self.coupling.unsqueeze(-1)

    def form(self) -> Form:
        """P(h) + eps phi(W h + V x + b); of kind B phi((A + eps W) h + eps V x + eps b)."""
        W, V, phi = self.weight_hh, self.weight_ih, self.activation
        biases = () if self.bias is None else (self.bias,)
        if self.kind != "B":
            A = replace(self.bypass, activation=phi) if self.kind == "A" else self.bypass
            return Form(W, V, biases, None, phi, A, self.eps)
        eps = self.eps.unsqueeze(-1)
        return Form(self.bypass.dense() + eps * W, eps * V, tuple(self.eps * b for b in biases), None, phi)

    def extra_repr(self) -> str:
        """Sizes, kind and structure."""
        return f'{super().extra_repr()}, kind="{self.kind}", residual={self.structure}'


def _check_coupling(coupling: Tensor, ensemble: tuple[int, ...], n: int) -> None:
    if tuple(coupling.shape) not in (ensemble, (*ensemble, n)):
        raise ValueError(
            f"a trained coupling must have shape *e = {ensemble} or (*e, n) = {(*ensemble, n)}, "
            f"got {tuple(coupling.shape)}"
        )
