"""Networks of rate units that are wholly a `Form`: rate, binary, Elman, weakly coupled residual."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.activation import activation as activation_of
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Form, Residual
from lyaptorch.cells.initial import Draws
from lyaptorch.cells.matrices import Weights
from lyaptorch.cells.residuals import Recipe, decay, spread
from lyaptorch.cells.surrogates import sech2

KINDS = ("linear", "A", "B")


class RateCell(FormCell):
    """A rate network, h' = W phi(h) + V x + b; its Jacobian W diag(phi'(h)) scales COLUMNS.

    Initially W is drawn from `weights`, V ~ N(0, 1), b ~ U(0, 0.1) (the published setting).
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args:
        input_size: m.
        hidden_size: n.
        gain: scale g of the initial recurrent weights only; a number or a tensor of shape `*e`.
        activation: phi, by name or as an `Activation`.
        weights: "gaussian", "uniform", "orthogonal", "identity", "shifted_mean", or a function.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = RateCell(1, 80, gain=1.2, ensemble=(20,))
        >>> cell(torch.zeros(5, 1), torch.zeros(20, 5, 80)).shape
        torch.Size([20, 5, 80])

    Source: Gradient Flossing, eq 9.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: Number = 1.0,
        activation: str | Activation = "tanh",
        weights: str | Weights = "gaussian",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, gain, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, n, ensemble)
        self.activation = activation_of(activation)
        self.weight_hh = nn.Parameter(draw.recurrent("weight_hh", n, weights, gain))
        self.weight_ih = draw.normal("weight_ih", n, m)
        self.bias = nn.Parameter(0.1 * draw.uniform("bias", n)) if bias else None

    def form(self) -> Form:
        """W g(h) + V x + b with g = phi."""
        biases = () if self.bias is None else (self.bias,)
        return Form(self.weight_hh, self.weight_ih, biases, self.activation, None)


class BinaryCell(RateCell):
    """A network of signs, h' = W sgn(h) + V x + b; its surrogate Jacobian is W diag(sech^2(g h)).

    A `RateCell` whose activation is a surrogate; another surrogate is given there, as
    `RateCell(m, n, activation=lt.surrogates.arctan(g))`.
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args:
        input_size: m.
        hidden_size: n.
        sharpness: g > 0, a number, a tensor of shape `*e`, or an `nn.Parameter` of shape `()`, one for all
            members, or `(*e, 1, 1)`, which flossing trains.
        upper: whether sgn(0) is +1; else it is 0.
        gain: scale of the initial recurrent weights; this and what follows as of a `RateCell`.
        weights: ensemble of the initial recurrent weights.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for a sharpness that is not above 0, and as `RateCell`.

    Example:
        >>> cell = BinaryCell(1, 80, sharpness=torch.tensor([0.5, 2.0]), ensemble=(2,))
        >>> cell.activation.sharpness.shape
        torch.Size([2, 1, 1])

    Source: Surrogate Gradient Flossing, eq 1 and 5.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        sharpness: Number = 1.0,
        upper: bool = False,
        gain: Number = 1.0,
        weights: str | Weights = "gaussian",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        number = not isinstance(sharpness, Tensor) or sharpness.dim() == 0
        if number and not isinstance(sharpness, nn.Parameter):
            # one for each member, which an action may change
            sharpness = torch.as_tensor(sharpness, dtype=torch.get_default_dtype()).expand(ensemble).clone()
        super().__init__(
            input_size,
            hidden_size,
            gain=gain,
            activation=sech2(sharpness, value="upper_sign" if upper else "sign"),
            weights=weights,
            bias=bias,
            ensemble=ensemble,
            member_ids=member_ids,
            generator=generator,
        )


class ElmanCell(FormCell):
    """An Elman network, h' = phi(W h + V x + b); its Jacobian diag(phi'(a)) W scales ROWS.

    Parameters have torch's names and layout (`weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`), so that
    `load_state_dict` takes those of a `torch.nn.RNNCell`. Initially W is drawn from `weights`, all else
    from U(-1/sqrt n, 1/sqrt n), as torch does; `weights="uniform"` (the default) draws W so too.
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args: as `RateCell`; `gain` scales the initial recurrent weights only.

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = ElmanCell(3, 8)
        >>> _ = cell.load_state_dict(torch.nn.RNNCell(3, 8).state_dict())

    Source: torch.nn.RNNCell; Fading memory as inductive bias in residual recurrent networks, eq 19
    (kind B is one).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: Number = 1.0,
        activation: str | Activation = "tanh",
        weights: str | Weights = "uniform",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, gain, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, n, ensemble)
        bound = n**-0.5
        self.activation = activation_of(activation)
        self.weight_ih = draw.bounded("weight_ih", bound, n, m)
        self.weight_hh = nn.Parameter(draw.recurrent("weight_hh", n, weights, gain))
        self.bias_ih = draw.bounded("bias_ih", bound, n) if bias else None
        self.bias_hh = draw.bounded("bias_hh", bound, n) if bias else None

    def form(self) -> Form:
        """f(W h + V x + b_ih + b_hh) with f = phi."""
        biases = tuple(b for b in (self.bias_ih, self.bias_hh) if b is not None)
        return Form(self.weight_hh, self.weight_ih, biases, None, self.activation)


class ResidualCell(FormCell):
    """A residual network with weak coupling eps, whose exponents are close to log |eig A|.

    With the drive a = W h + V x + b the state becomes

        A h + eps phi(a)         kind "linear",
        phi(A h) + eps phi(a)    kind "A",
        phi(A h + eps a)         kind "B".

    A is fixed; W, V, b are trained and start at U(-1/sqrt(fan-in), 1/sqrt(fan-in)), with b as a part of the
    affine map of the input. Kinds A and B follow log |eig A| only while the state stays near zero and
    max |eig A| < 1. Kind B is an Elman network with recurrent weights A + eps W.
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

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
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, n, ensemble)
        self.kind = _checks.choice("kind", kind, KINDS)
        self.activation = activation_of(activation)
        made = (residual or decay(1.0))(n, draw.ids)
        self.structure: Literal["diagonal", "blocks", "dense"] = made.kind
        self.residual: Tensor
        self.register_buffer("residual", made.matrix.clone())
        self.coupling: Tensor
        if isinstance(coupling, nn.Parameter):
            if tuple(coupling.shape) not in (self.ensemble, (*self.ensemble, n)):
                raise ValueError(
                    f"a trained coupling must have shape *e = {self.ensemble} or (*e, n) = "
                    f"{(*self.ensemble, n)}, got {tuple(coupling.shape)}"
                )
            self.coupling = coupling
        else:
            self.register_buffer("coupling", spread("coupling", coupling, n, draw.ids).clone())
        self.weight_hh = draw.fan_in("weight_hh", n, n, n)
        self.weight_ih = draw.fan_in("weight_ih", m, n, m)
        self.bias = draw.fan_in("bias", m, n) if bias else None

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
        # phi(A h + eps (W h + V x + b)): eps scales rows of W, V and b
        eps = self.eps.unsqueeze(-1)
        return Form(self.bypass.dense() + eps * W, eps * V, tuple(self.eps * b for b in biases), None, phi)

    def extra_repr(self) -> str:
        """Sizes, kind and structure."""
        return f'{super().extra_repr()}, kind="{self.kind}", residual={self.structure}'
