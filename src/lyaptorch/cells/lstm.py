"""Cells whose state is a pair (h, c), LSTM and UR-LSTM: all of it packed, and their pushforwards by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Input, Inputs, State
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.gate_form import GateForm, lstm
from lyaptorch.cells.gates import Gains, GatedCell, GateWeights, over_columns, slope, two_sided


class PairCell(GatedCell):
    """A gated cell whose state is a pair (h, c), packed into one tensor `(*e, b, 2n)`."""

    candidate: ClassVar[str] = "cell"
    holding: ClassVar[tuple[str, ...]] = ("forget",)
    states: ClassVar[int] = 2

    def parts(self) -> dict[str, slice]:
        """The slices of h and c."""
        return {"h": slice(0, self.hidden_size), "c": slice(self.hidden_size, 2 * self.hidden_size)}

    def pack(self, state: Any) -> Tensor:
        """(h, c), each `(*e, b, n)`, as one tensor."""
        pair = isinstance(state, tuple | list) and len(state) == 2
        return super().pack(torch.cat(list(state), -1) if pair else state)

    def unpack(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c)."""
        y, c = h.chunk(2, -1)
        return y, c


class LSTMCell(PairCell):
    """A long short-term memory network with its full state (h, c), packed into one tensor `(*e, b, 2n)`.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o);  g = tanh(a_g);  a = V x + b_ih + W h + b_hh
        c' = f c + i g;  h' = o tanh(c')

    Exponents, frames and flossing see all 2n state variables; a readout sees h (`readable`). Parameters
    have torch's names and layout (gates in the order i, f, g, o), so that `load_state_dict` takes those of
    a `torch.nn.LSTMCell`. All is initially drawn from U(-1/sqrt n, 1/sqrt n), as torch does.
    A step costs O(b n (n + m)), four times that of `ElmanCell`.

    Args:
        input_size: m.
        hidden_size: n, half the size of the state.
        gain: scale of the initial recurrent weights, a number or a tensor of shape `*e`; or a mapping from
            the gates "input", "forget", "cell", "output" to such gains (1 for those left out).
        weights: ensemble of the initial recurrent weights, "uniform" (torch's), "gaussian", "orthogonal",
            "identity", "shifted_mean", "mixing" or a function; or a mapping from gates to these. "mixing" is
            for the candidate ("cell", of a GRU "new") and sets the gates' biases, too, as
            `lt.weights.mixing_` does.
        bias: whether there are biases.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = LSTMCell(3, 8, weights="gaussian", gain={"forget": 0.5, "cell": 2.0})
        >>> cell(torch.zeros(5, 3), torch.zeros(5, 16)).shape
        torch.Size([5, 16])
        >>> _ = cell.load_state_dict(torch.nn.LSTMCell(3, 8).state_dict())

    Source: Gradient Flossing, appendix B, eq 12-17; torch.nn.LSTMCell.
    """

    gates: ClassVar[tuple[str, ...]] = ("input", "forget", "cell", "output")
    passing: ClassVar[tuple[str, ...]] = ("input", "output")

    def step(self, x: Input, h: State) -> State:
        """The next (h, c)."""
        return lstm(self._drive(x), self._recur(h[..., : self.hidden_size]), h)

    def gate_form(self) -> GateForm | None:
        """The step as data, unless a subclass has another one."""
        return self._as_data("lstm", LSTMCell)

    def last(self, inputs: Inputs, h: State) -> State:
        """The state after all inputs; without gradient by torch's function of whole sequences."""
        if not len(inputs) or (weights := self._weights(h)) is None:
            return super().last(inputs, h)
        pair = [z.contiguous() for z in h[None].chunk(2, -1)]
        _, y, c = torch.lstm(inputs, pair, weights, self.bias_ih is not None, 1, 0.0, False, False, False)
        return torch.cat([y[0], c[0]], -1)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With A the tangents of a: C' = f C + c f' A_f + g i' A_i + i g' A_g, H' likewise."""
        n = self.hidden_size
        y, c = h.chunk(2, -1)
        a = self._drive(x) + self._recur(y)
        moved = moved if driven is None else moved + driven
        a_i, a_f, a_g, a_o = a.chunk(4, -1)
        (i, i1), (f, f1), (o, o1) = slope(a_i), slope(a_f), slope(a_o)
        g = torch.tanh(a_g)
        # c' = f c + i g and h' = o z, z = tanh(c'); the product rule, with A_q the tangent of gate q's drive:
        #   C' = f C + c f' A_f + g i' A_i + i g' A_g,  H' = z o' A_o + o sech^2(c') C'
        after = f * c + i * g
        z = torch.tanh(after)
        A_i, A_f, A_g, A_o = moved.chunk(4, -1)
        C = over_columns(f) * Q.mT[..., n:]
        for factor, A in ((g * i1, A_i), (c * f1, A_f), (i * sech2(a_g), A_g)):
            C = torch.addcmul(C, over_columns(factor), A)
        H = torch.addcmul(over_columns(z * o1) * A_o, over_columns(o * sech2(after)), C)
        return torch.cat([o * z, after], -1), torch.cat([H, C], -1).mT


class URLSTMCell(PairCell):
    """An LSTM with uniform gate initialisation and a refine gate (UR-LSTM), its state (h, c).

        f, r, o = sigmoid(a_f), sigmoid(a_r), sigmoid(a_o);  g = 2 r f + (1 - 2 r) f^2;  u = tanh(a_u)
        c' = g c + (1 - g) u;  h' = o tanh(c');  a = V x + b_ih + W h + b_hh

    The refined gate g lies between f^2 and 1 - (1 - f)^2, and is f where r = 1/2. Initially the bias of f
    is such that f is uniform in [1/n, 1 - 1/n] over units: their memories last from one step to n; the bias
    of r is its negative. It has as many parameters as an LSTM.
    A step costs O(b n (n + m)), as that of `LSTMCell`.

    Args: as `LSTMCell`, always with biases; the gates are "forget", "refine", "cell", "output".

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = URLSTMCell(3, 8)
        >>> cell(torch.zeros(5, 3), torch.zeros(5, 16)).shape
        torch.Size([5, 16])

    Source: Gu, Gulcehre, Paine, Hoffman & Pascanu (2020), Improving the gating mechanism of recurrent
    neural networks.
    """

    gates: ClassVar[tuple[str, ...]] = ("forget", "refine", "cell", "output")
    passing: ClassVar[tuple[str, ...]] = ("output",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: Gains = 1.0,
        weights: GateWeights = "uniform",
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        # before the weights take theirs from the generator
        seed = seed_from(generator)
        super().__init__(
            input_size,
            hidden_size,
            gain=gain,
            weights=weights,
            ensemble=ensemble,
            member_ids=member_ids,
            generator=generator,
        )
        n = hidden_size
        drawn = Stream(seed, "forget").uniform((n,), member_ids=ids_of(self.ensemble, member_ids))
        # sigmoid(logit(p)) = p: at zero drive f itself is uniform, a memory of 1 / (1 - f) steps
        least = 1 / max(n, 2)
        forget = (least + (1 - 2 * least) * drawn).logit()
        assert self.bias_ih is not None
        assert self.bias_hh is not None
        with torch.no_grad():
            self.bias_ih[..., :n], self.bias_ih[..., n : 2 * n] = forget, -forget
            self.bias_hh[..., : 2 * n] = 0
        if "mixing" in (weights, weights.get("cell") if isinstance(weights, Mapping) else None):
            self.let_through()

    def step(self, x: Input, h: State) -> State:
        """The next (h, c)."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        f, r = torch.sigmoid(a_f), torch.sigmoid(a_r)
        c = torch.lerp(torch.tanh(a_u), c, 2 * r * f + (1 - 2 * r) * f.square())
        return torch.cat([torch.sigmoid(a_o) * torch.tanh(c), c], -1)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With A the tangents of a: C' = g C + (c - u) (g_f f' A_f + g_r r' A_r) + (1 - g) u' A_u."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        A_f, A_r, A_u, A_o = (moved if driven is None else moved + driven).chunk(4, -1)
        (f, no_f), (r, no_r), (o, no_o), u = *map(two_sided, (a_f, a_r, a_o)), torch.tanh(a_u)
        # g = 2 r f + (1 - 2 r) f^2 = f (f + 2 r (1 - f)), 1 - g = (1 - f) (1 - f + 2 (1 - r) f); dg/df is
        # 2 (r (1 - f) + (1 - r) f), dg/dr is 2 f (1 - f), f' = f (1 - f), r' = r (1 - r). All without a
        # difference of numbers that are nearly equal.
        g, no_g = f * (f + 2 * r * no_f), no_f * (no_f + 2 * no_r * f)
        # c' = u + g (c - u): by c, g and u it moves by g, c - u and 1 - g
        after = torch.lerp(u, c, g)
        C = over_columns(g) * Q.mT[..., self.hidden_size :]
        for factor, A in (
            ((c - u) * 2 * (r * no_f + no_r * f) * f * no_f, A_f),
            ((c - u) * 2 * f * no_f * r * no_r, A_r),
            (no_g * sech2(a_u), A_u),
        ):
            C = C + over_columns(factor) * A
        z = torch.tanh(after)
        H = over_columns(z * o * no_o) * A_o + over_columns(o * sech2(after)) * C
        return torch.cat([o * z, after], -1), torch.cat([H, C], -1).mT
