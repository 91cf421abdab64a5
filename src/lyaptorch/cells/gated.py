"""LSTM and GRU: the full state, torch's parameters, and their pushforwards by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Frame, Input, InputFrame, Number, State
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import rows
from lyaptorch.cells.initial import Draws, checked_sizes
from lyaptorch.cells.weights import Weights

T = TypeVar("T")
Gains: TypeAlias = Number | Mapping[str, Number]
"""One gain for all gates, or one for each gate by name (1 for those left out)."""
GateWeights: TypeAlias = str | Weights | Mapping[str, str | Weights]
"""One weight ensemble for all gates, or one for each gate by name ("uniform" for those left out)."""


class GatedCell(Cell):
    """What LSTM and GRU share: the weights of all gates, stacked as torch stacks them.

    Attributes:
        gates: their names, in torch's order.
        hidden_size: units.
        weight_ih: `(*e, gates * n, m)`.
        weight_hh: `(*e, gates * n, n)`.
        bias_ih: `(*e, gates * n)`, or None.
        bias_hh: `(*e, gates * n)`, or None.
    """

    gates: ClassVar[tuple[str, ...]]
    states: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: Gains = 1.0,
        weights: GateWeights = "uniform",
        bias: bool = True,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        m, n = checked_sizes(ensemble, input_size=input_size, hidden_size=hidden_size)
        super().__init__(m, self.states * n, tuple(ensemble))
        self.hidden_size, self.readable = n, slice(0, n)
        draw, bound, size = Draws(self.ensemble, member_ids, generator), n**-0.5, len(self.gates) * n
        gains: dict[str, Number] = self._by_gate("gain", gain, 1.0)
        kinds: dict[str, str | Weights] = self._by_gate("weights", weights, "uniform")

        def recurrent(gate: str) -> Tensor:
            _checks.per_member(f"gain of the {gate} gate", gains[gate], self.ensemble)
            return draw.recurrent(f"weight_hh {gate}", n, kinds[gate], gains[gate])

        self.weight_ih = draw.bounded("weight_ih", bound, size, m)
        self.weight_hh = nn.Parameter(torch.cat([recurrent(gate) for gate in self.gates], -2))
        self.bias_ih = draw.bounded("bias_ih", bound, size) if bias else None
        self.bias_hh = draw.bounded("bias_hh", bound, size) if bias else None

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q. Cost O(b n^2 k)."""
        return self._push(x, h, rows(Q.mT[..., : self.hidden_size], self.weight_hh.mT), Q)

    def pushforward_with_input(self, x: Input, h: State, X: InputFrame, Q: Frame) -> tuple[State, Frame]:
        """The next state and dh'/dx X + D Q. Cost O(b n (n + m) k)."""
        moved = rows(Q.mT[..., : self.hidden_size], self.weight_hh.mT)
        return self._push(x, h, moved, Q, rows(X.mT, self.weight_ih.mT))

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """What the sigmoid gates let through, `(*e, b, n)` each; not the candidates (cell, new)."""
        a = self._drive(x) + self._recur(h[..., : self.hidden_size])
        named = zip(self.gates, a.chunk(len(self.gates), -1), strict=True)
        return {gate: torch.sigmoid(part) for gate, part in named if gate not in ("cell", "new")}

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next state and its tangents from those of W h, `moved`, and of V x, `driven`."""
        raise NotImplementedError

    def _drive(self, x: Tensor) -> Tensor:
        """V x + b_ih `(*e, b, gates * n)`."""
        drive = x @ self.weight_ih.mT
        return drive if self.bias_ih is None else drive + self.bias_ih.unsqueeze(-2)

    def _recur(self, y: Tensor) -> Tensor:
        """W y + b_hh `(*e, b, gates * n)`."""
        u = y @ self.weight_hh.mT
        return u if self.bias_hh is None else u + self.bias_hh.unsqueeze(-2)

    def _by_gate(self, name: str, given: T | Mapping[str, T], default: T) -> dict[str, T]:
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.gates, given)
        for gate in given:
            _checks.choice(f"gate in {name}", gate, self.gates)
        return {gate: given.get(gate, default) for gate in self.gates}


class PairCell(GatedCell):
    """A gated cell whose state is a pair (h, c), packed into one tensor `(*e, b, 2n)`."""

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

    Args:
        input_size: m.
        hidden_size: n, half the size of the state.
        gain: scale of the initial recurrent weights, a number or a tensor of shape `*e`; or a mapping from
            the gates "input", "forget", "cell", "output" to such gains (1 for those left out).
        weights: ensemble of the initial recurrent weights, "uniform" (torch's), "gaussian", "orthogonal",
            "identity", "shifted_mean" or a function; or a mapping from gates to these.
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

    def step(self, x: Input, h: State) -> State:
        """The next (h, c)."""
        y, c = h.chunk(2, -1)
        i, f, g, o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With A the tangents of a: C' = f C + c f' A_f + g i' A_i + i g' A_g, H' likewise."""
        n = self.hidden_size
        y, c = h.chunk(2, -1)
        a = self._drive(x) + self._recur(y)
        moved = moved if driven is None else moved + driven
        a_i, a_f, a_g, a_o = a.chunk(4, -1)
        (i, i1), (f, f1), (o, o1) = _slope(a_i), _slope(a_f), _slope(a_o)
        g = torch.tanh(a_g)
        after = f * c + i * g
        z = torch.tanh(after)
        A_i, A_f, A_g, A_o = moved.chunk(4, -1)
        C = over_columns(f) * Q.mT[..., n:]
        for factor, A in ((g * i1, A_i), (c * f1, A_f), (i * sech2(a_g), A_g)):
            C = torch.addcmul(C, over_columns(factor), A)
        H = torch.addcmul(over_columns(z * o1) * A_o, over_columns(o * sech2(after)), C)
        return torch.cat([o * z, after], -1), torch.cat([H, C], -1).mT


class GRUCell(GatedCell):
    """A gated recurrent network as torch defines it.

        r, z = sigmoid(a_r), sigmoid(a_z);  s = tanh(a_s + r u_s);  h' = (1 - z) s + z h
        u = W h + b_hh;  a_r, a_z = V x + b_ih + u;  a_s = V x + b_ih

    Parameters have torch's names and layout (gates in the order r, z, s), so that `load_state_dict` takes
    those of a `torch.nn.GRUCell`.

    Args: as `LSTMCell`; the gates are "reset", "update", "new".

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = GRUCell(3, 8, ensemble=(5,))
        >>> cell(torch.zeros(2, 3), torch.zeros(5, 2, 8)).shape
        torch.Size([5, 2, 8])
        >>> _ = GRUCell(3, 8).load_state_dict(torch.nn.GRUCell(3, 8).state_dict())

    Source: torch.nn.GRUCell.
    """

    gates: ClassVar[tuple[str, ...]] = ("reset", "update", "new")
    states: ClassVar[int] = 1

    def step(self, x: Input, h: State) -> State:
        """The next state."""
        (a_r, a_z, a_s), (u_r, u_z, u_s) = self._drive(x).chunk(3, -1), self._recur(h).chunk(3, -1)
        z = torch.sigmoid(a_z + u_z)
        return torch.lerp(torch.tanh(a_s + torch.sigmoid(a_r + u_r) * u_s), h, z)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With U the tangents of u: H' = z H + (h - s) z' U_z + (1 - z) s' (r U_s + u_s r' U_r)."""
        (a_r, a_z, a_s), (u_r, u_z, u_s) = self._drive(x).chunk(3, -1), self._recur(h).chunk(3, -1)
        (r, r1), (z, z1) = _slope(a_r + u_r), _slope(a_z + u_z)
        b_s = a_s + r * u_s
        s, s1 = torch.tanh(b_s), torch.sigmoid(-a_z - u_z) * sech2(b_s)
        gate, U_s = moved[..., : 2 * self.hidden_size], moved[..., 2 * self.hidden_size :]
        H = over_columns(z) * Q.mT
        if driven is not None:
            X_gate, X_s = driven[..., : 2 * self.hidden_size], driven[..., 2 * self.hidden_size :]
            gate, H = gate + X_gate, torch.addcmul(H, over_columns(s1), X_s)
        U_r, U_z = gate.chunk(2, -1)
        for factor, U in ((s1 * u_s * r1, U_r), ((h - s) * z1, U_z), (s1 * r, U_s)):
            H = torch.addcmul(H, over_columns(factor), U)
        return torch.lerp(s, h, z), H.mT


def over_columns(v: Tensor) -> Tensor:
    """`(*e, b, n)` shaped to scale the rows `(*e, b, k, n)`."""
    return v.unsqueeze(-2)


def _slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """The sigmoid and its slope."""
    s, rest = two_sided(a)
    return s, s * rest


def two_sided(a: Tensor) -> tuple[Tensor, Tensor]:
    """The sigmoid s and 1 - s, which would be lost to round-off where s is near 1."""
    return torch.sigmoid(a), torch.sigmoid(-a)
