"""An LSTM whose forget gate is refined and starts uniform."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Input, State
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.gated import Gains, GateWeights, PairCell, over_columns, two_sided


class URLSTMCell(PairCell):
    """An LSTM with uniform gate initialisation and a refine gate (UR-LSTM), its state (h, c).

        f, r, o = sigmoid(a_f), sigmoid(a_r), sigmoid(a_o);  g = 2 r f + (1 - 2 r) f^2;  u = tanh(a_u)
        c' = g c + (1 - g) u;  h' = o tanh(c');  a = V x + b_ih + W h + b_hh

    The refined gate g lies between f^2 and 1 - (1 - f)^2, and is f where r = 1/2. Initially the bias of f
    is such that f is uniform in [1/n, 1 - 1/n] over units: their memories last from one step to n; the bias
    of r is its negative. It has as many parameters as an LSTM.

    Args: as `LSTMCell`; the gates are "forget", "refine", "cell", "output".

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
        least = 1 / max(n, 2)
        forget = (least + (1 - 2 * least) * drawn).logit()
        assert self.bias_ih is not None
        assert self.bias_hh is not None
        with torch.no_grad():
            self.bias_ih[..., :n], self.bias_ih[..., n : 2 * n] = forget, -forget
            self.bias_hh[..., : 2 * n] = 0

    def step(self, x: Input, h: State) -> State:
        """The next (h, c)."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        c = torch.lerp(torch.tanh(a_u), c, _refined(torch.sigmoid(a_f), torch.sigmoid(a_r)))
        return torch.cat([torch.sigmoid(a_o) * torch.tanh(c), c], -1)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With A the tangents of a: C' = g C + (c - u) (g_f f' A_f + g_r r' A_r) + (1 - g) u' A_u."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        A_f, A_r, A_u, A_o = (moved if driven is None else moved + driven).chunk(4, -1)
        (f, no_f), (r, no_r), (o, no_o), u = *map(two_sided, (a_f, a_r, a_o)), torch.tanh(a_u)
        # g = f (f + 2 r (1 - f)), and all below, without a difference of numbers that are nearly equal
        g, no_g = f * (f + 2 * r * no_f), no_f * (no_f + 2 * no_r * f)
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


def _refined(f: Tensor, r: Tensor) -> Tensor:
    return 2 * r * f + (1 - 2 * r) * f.square()
