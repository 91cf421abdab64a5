"""Rate and Elman networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Frame, Input, InputFrame, Number, State
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.activation import activation as activation_of
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Form, linear, rows
from lyaptorch.cells.surrogates import sech2
from lyaptorch.cells.weights import Weights
from lyaptorch.cells.weights import weights as weights_of


class RateCell(FormCell):
    """A rate network, h' = W phi(h) + V x + b; its Jacobian W diag(phi'(h)) scales COLUMNS.

    Initially W is drawn from `weights`, V ~ N(0, 1), b ~ U(0, 0.1) (the published setting).

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
        m, n = _checks.integer("input_size", input_size, 1), _checks.integer("hidden_size", hidden_size, 1)
        super().__init__(m, n, check_ensemble(ensemble, gain))
        ids, seed = ids_of(self.ensemble, member_ids), seed_from(generator)
        self.activation = activation_of(activation)
        self.weight_hh = nn.Parameter(weights_of(weights, gain)(n, Stream(seed, "weight_hh"), ids))
        self.weight_ih = nn.Parameter(Stream(seed, "weight_ih").normal((n, m), member_ids=ids))
        self.bias = nn.Parameter(0.1 * Stream(seed, "bias").uniform((n,), member_ids=ids)) if bias else None

    def form(self) -> Form:
        """W g(h) + V x + b with g = phi."""
        biases = () if self.bias is None else (self.bias,)
        return Form(self.weight_hh, self.weight_ih, biases, self.activation, None)


class BinaryCell(RateCell):
    """A network of signs, h' = W sgn(h) + V x + b; its surrogate Jacobian is W diag(sech^2(g h)).

    A `RateCell` whose activation is a surrogate; another surrogate is given there, as
    `RateCell(m, n, activation=lt.surrogates.arctan(g))`.

    Args:
        input_size: m.
        hidden_size: n.
        sharpness: g > 0, a number, a tensor of shape `*e`, or an `nn.Parameter` `(*e, 1, 1)`, which flossing
            trains.
        upper: whether sgn(0) is +1; else it is 0.
        settings: `gain`, `weights`, `bias`, `ensemble`, `members` and `generator` of a `RateCell`.

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
        **settings: Any,
    ) -> None:
        ensemble = settings.get("ensemble", ())
        if not isinstance(sharpness, Tensor) or sharpness.dim() == 0:
            # one for each member, which an action may change
            sharpness = torch.as_tensor(sharpness, dtype=torch.get_default_dtype()).expand(ensemble).clone()
        f = sech2(sharpness, value="upper_sign" if upper else "sign")
        super().__init__(input_size, hidden_size, activation=f, **settings)


class ElmanCell(FormCell):
    """An Elman network, h' = phi(W h + V x + b); its Jacobian diag(phi'(a)) W scales ROWS.

    Parameters have torch's names and layout (`weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`), so that
    `load_state_dict` takes those of a `torch.nn.RNNCell`. Initially W is drawn from `weights`, all else
    from U(-1/sqrt n, 1/sqrt n), as torch does; `weights="uniform"` (the default) draws W so too.

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
        m, n = _checks.integer("input_size", input_size, 1), _checks.integer("hidden_size", hidden_size, 1)
        super().__init__(m, n, check_ensemble(ensemble, gain))
        ids, seed, bound = ids_of(self.ensemble, member_ids), seed_from(generator), n**-0.5
        self.activation = activation_of(activation)

        def draw(name: str, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * Stream(seed, name).uniform(shape, member_ids=ids) - 1) * bound)

        self.weight_ih = draw("weight_ih", n, m)
        self.weight_hh = nn.Parameter(weights_of(weights, gain)(n, Stream(seed, "weight_hh"), ids))
        self.bias_ih = draw("bias_ih", n) if bias else None
        self.bias_hh = draw("bias_hh", n) if bias else None

    def form(self) -> Form:
        """f(W h + V x + b_ih + b_hh) with f = phi."""
        biases = tuple(b for b in (self.bias_ih, self.bias_hh) if b is not None)
        return Form(self.weight_hh, self.weight_ih, biases, None, self.activation)

    def pushforward_with_input(self, x: Input, h: State, X: InputFrame, Q: Frame) -> tuple[State, Frame]:
        """The next state and f'(a) (V X + W Q). Cost O(b n (n + m) k)."""
        a = linear(h, self.weight_hh) + self._described().drive(x)
        Y = rows(Q.mT, self.weight_hh.mT) + rows(X.mT, self.weight_ih.mT)
        return self.activation(a), (Y * self.activation.slope(a).unsqueeze(-2)).mT


def check_ensemble(ensemble: tuple[int, ...], gain: Number) -> tuple[int, ...]:
    """Return `ensemble` if its sizes are above 0 and the gain fits it, or raise."""
    for size in ensemble:
        _checks.integer("each entry of ensemble", size, 1)
    if isinstance(gain, Tensor) and gain.dim() and tuple(gain.shape) != tuple(ensemble):
        raise ValueError(
            f"gain must be a number or have the shape of ensemble, {tuple(ensemble)}, got {tuple(gain.shape)}"
        )
    return tuple(ensemble)
