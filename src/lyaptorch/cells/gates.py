"""Shared part of gated cells, with torch's parameters, and the GRU, its pushforward by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Frame, Input, InputFrame, Inputs, Number, State
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import rows
from lyaptorch.cells.gate_form import GateForm, gru
from lyaptorch.cells.initial import Draws
from lyaptorch.cells.matrices import Weights

T = TypeVar("T")
THROUGH = 3.0
"""Bias of a gate that is open at nearly all inputs, and can still learn."""
Gains: TypeAlias = Number | Mapping[str, Number]
"""One gain for all gates, or one for each gate by name (1 for those left out)."""
GateWeights: TypeAlias = str | Weights | Mapping[str, str | Weights]
"""One weight ensemble for all gates, or one for each gate by name ("uniform" for those left out)."""


class GatedCell(Cell):
    """What LSTM and GRU share: the weights of all gates, stacked as torch stacks them.

    Attributes:
        gates: their names, in torch's order.
        candidate: that of what is written into the state, which is no sigmoid.
        holding: those that keep the state as it is where they stand at 1.
        passing: those that let the candidate through where they stand at 1.
        hidden_size: units.
        weight_ih: `(*e, gates * n, m)`.
        weight_hh: `(*e, gates * n, n)`.
        bias_ih: `(*e, gates * n)`, or None.
        bias_hh: `(*e, gates * n)`, or None.
    """

    gates: ClassVar[tuple[str, ...]]
    candidate: ClassVar[str]
    holding: ClassVar[tuple[str, ...]]
    passing: ClassVar[tuple[str, ...]]
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
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, self.states * n, tuple(ensemble))
        self.hidden_size, self.readable = n, slice(0, n)
        bound, size = n**-0.5, len(self.gates) * n
        gains: dict[str, Number] = self._by_gate("gain", gain, 1.0)
        kinds: dict[str, str | Weights] = self._by_gate(
            "weights", {self.candidate: weights} if weights == "mixing" else weights, "uniform"
        )
        mixing = kinds[self.candidate] == "mixing"

        def recurrent(gate: str) -> Tensor:
            gain = _checks.per_member(f"gain of the {gate} gate", gains[gate], self.ensemble)
            # 1 / sigmoid(bias): a direction then neither grows nor shrinks at rest
            factor = 1 + math.exp(-THROUGH if bias else 0) if mixing and gate == self.candidate else 1
            return draw.recurrent(f"weight_hh {gate}", n, kinds[gate], gain * factor)

        self.weight_ih = draw.bounded("weight_ih", bound, size, m)
        self.weight_hh = nn.Parameter(torch.cat([recurrent(gate) for gate in self.gates], -2))
        self.bias_ih = draw.bounded("bias_ih", bound, size) if bias else None
        self.bias_hh = draw.bounded("bias_hh", bound, size) if bias else None
        if mixing:
            self.let_through()

    def rows_of(self, gate: str) -> slice:
        """Those of all parameters that a gate has."""
        first = self.hidden_size * self.gates.index(gate)
        return slice(first, first + self.hidden_size)

    @torch.no_grad()
    def let_through(self, strength: float = THROUGH) -> dict[str, float]:
        """Set biases so that the state is written anew at each step; what was set, by gate."""
        if self.bias_ih is None or self.bias_hh is None:
            return {}
        biases = {**dict.fromkeys(self.holding, -strength), **dict.fromkeys(self.passing, strength)}
        for gate, bias in {**biases, self.candidate: 0.0}.items():
            rows = self.rows_of(gate)
            self.bias_ih[..., rows], self.bias_hh[..., rows] = bias, 0
        return biases

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q. Cost O(b n^2 k)."""
        return self._push(x, h, rows(Q.mT[..., : self.hidden_size], self.weight_hh.mT), Q)

    def pushforward_with_input(self, x: Input, h: State, X: InputFrame, Q: Frame) -> tuple[State, Frame]:
        """The next state and dh'/dx X + D Q. Cost O(b n (n + m) k)."""
        moved = rows(Q.mT[..., : self.hidden_size], self.weight_hh.mT)
        return self._push(x, h, moved, Q, rows(X.mT, self.weight_ih.mT))

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """What the sigmoid gates let through, `(*e, b, n)` each; not the candidate."""
        a = self._drive(x) + self._recur(h[..., : self.hidden_size])
        named = zip(self.gates, a.chunk(len(self.gates), -1), strict=True)
        return {gate: torch.sigmoid(part) for gate, part in named if gate != self.candidate}

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next state and its tangents from those of W h, `moved`, and of V x, `driven`."""
        raise NotImplementedError

    def _as_data(self, kind: Literal["gru", "lstm"], cls: type[GatedCell]) -> GateForm | None:
        """Where the step is that of `cls`."""
        if any(getattr(type(self), name) is not getattr(cls, name) for name in ("step", "_drive", "_recur")):
            return None
        return GateForm(kind, self.weight_hh, self.weight_ih, self.bias_ih, self.bias_hh)

    def _drive(self, x: Tensor) -> Tensor:
        """V x + b_ih `(*e, b, gates * n)`."""
        drive = x @ self.weight_ih.mT
        return drive if self.bias_ih is None else drive + self.bias_ih.unsqueeze(-2)

    def _recur(self, y: Tensor) -> Tensor:
        """W y + b_hh `(*e, b, gates * n)`."""
        u = y @ self.weight_hh.mT
        return u if self.bias_hh is None else u + self.bias_hh.unsqueeze(-2)

    def _weights(self, h: Tensor) -> list[Tensor] | None:
        """Those that torch's function of whole sequences takes; None where it does not serve."""
        given = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        # of the second derivatives, and of several networks, it knows nothing; a GPU wants its weights packed
        alone = h.dim() == 2 and not h.is_cuda and not torch.is_grad_enabled()
        return [w for w in given if w is not None] if alone else None

    def _by_gate(self, name: str, given: T | Mapping[str, T], default: T) -> dict[str, T]:
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.gates, given)
        for gate in given:
            _checks.choice(f"gate in {name}", gate, self.gates)
        return {gate: given.get(gate, default) for gate in self.gates}


class GRUCell(GatedCell):
    """A gated recurrent network as torch defines it.

        r, z = sigmoid(a_r), sigmoid(a_z);  s = tanh(a_s + r u_s);  h' = (1 - z) s + z h
        u = W h + b_hh;  a_r, a_z = V x + b_ih + u;  a_s = V x + b_ih

    Parameters have torch's names and layout (gates in the order r, z, s), so that `load_state_dict` takes
    those of a `torch.nn.GRUCell`. A step costs O(b n (n + m)), three times that of `ElmanCell`.

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
    candidate: ClassVar[str] = "new"
    holding: ClassVar[tuple[str, ...]] = ("update",)
    passing: ClassVar[tuple[str, ...]] = ("reset",)
    states: ClassVar[int] = 1

    def step(self, x: Input, h: State) -> State:
        """The next state."""
        return gru(self._drive(x), self._recur(h), h)

    def gate_form(self) -> GateForm | None:
        """The step as data, unless a subclass has another one."""
        return self._as_data("gru", GRUCell)

    def last(self, inputs: Inputs, h: State) -> State:
        """The state after all inputs; without gradient by torch's function of whole sequences."""
        if not len(inputs) or (weights := self._weights(h)) is None:
            return super().last(inputs, h)
        return torch.gru(inputs, h[None], weights, self.bias_ih is not None, 1, 0.0, False, False, False)[1][
            0
        ]

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With U the tangents of u: H' = z H + (h - s) z' U_z + (1 - z) s' (r U_s + u_s r' U_r)."""
        (a_r, a_z, a_s), (u_r, u_z, u_s) = self._drive(x).chunk(3, -1), self._recur(h).chunk(3, -1)
        (r, r1), (z, z1) = slope(a_r + u_r), slope(a_z + u_z)
        # h' = s + z (h - s) moves by z, h - s and 1 - z with h, z and s; s moves by s' with b_s = a_s + r u_s
        b_s = a_s + r * u_s
        s, s1 = torch.tanh(b_s), torch.sigmoid(-a_z - u_z) * sech2(b_s)
        # s1 = (1 - z) s', where 1 - z is sigmoid(-a): a difference would lose its digits near z = 1
        gate, U_s = moved[..., : 2 * self.hidden_size], moved[..., 2 * self.hidden_size :]
        H = over_columns(z) * Q.mT
        if driven is not None:
            X_gate, X_s = driven[..., : 2 * self.hidden_size], driven[..., 2 * self.hidden_size :]
            # a_r and a_z take V x as they take u, but to b_s it comes without r
            gate, H = gate + X_gate, torch.addcmul(H, over_columns(s1), X_s)
        U_r, U_z = gate.chunk(2, -1)
        for factor, U in ((s1 * u_s * r1, U_r), ((h - s) * z1, U_z), (s1 * r, U_s)):
            H = torch.addcmul(H, over_columns(factor), U)
        return torch.lerp(s, h, z), H.mT


def over_columns(v: Tensor) -> Tensor:
    """`(*e, b, n)` shaped to scale the rows `(*e, b, k, n)`."""
    return v.unsqueeze(-2)


def slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """The sigmoid and its slope."""
    s, rest = two_sided(a)
    return s, s * rest


def two_sided(a: Tensor) -> tuple[Tensor, Tensor]:
    """The sigmoid s and 1 - s, which would be lost to round-off where s is near 1."""
    return torch.sigmoid(a), torch.sigmoid(-a)
