"""GateForm: what an LSTM or a GRU computes over a whole sequence, as plain data that kernels can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import linear


@dataclass(frozen=True)
class GateForm:
    """One step of a network with gates, as torch defines it.

    Attributes:
        kind: "gru", its state h `(*e, b, n)`, or "lstm", (h, c) `(*e, b, 2n)`.
        weight_hh: of all gates, `(*e, gates * n, n)`, as torch stacks them.
        weight_ih: likewise `(*e, gates * n, m)`.
        bias_ih: added to the products with inputs, `(*e, gates * n)`, or None.
        bias_hh: added to those with h, or None.
    """

    kind: Literal["gru", "lstm"]
    weight_hh: Tensor
    weight_ih: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    @property
    def gates(self) -> int:
        """How many are stacked."""
        return 3 if self.kind == "gru" else 4

    @property
    def parts(self) -> int:
        """Of n numbers in a state."""
        return 1 if self.kind == "gru" else 2

    def operands(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: z for name, z in found.items() if isinstance(z, Tensor)}

    def weights(self) -> list[Tensor]:
        """The same without names."""
        return list(self.operands().values())

    def activations(self) -> list[Activation]:
        """None whose kind can be chosen."""
        return []

    def trained(self) -> list[Tensor]:
        """Those of `weights` that require a gradient, each once; they may be computed ones."""
        return list({id(z): z for z in self.weights() if z.requires_grad}.values())

    def on(self, tensors: Mapping[int, Tensor]) -> GateForm:
        """The same with other tensors, by the `id` of those whose place they take."""
        own: dict[str, Any] = {name: tensors.get(id(z), z) for name, z in self.operands().items()}
        return replace(self, **own)

    def states(self, inputs: Tensor, h: Tensor) -> Tensor:
        """Those after each step, by plain autograd."""
        drive, rule, steps = linear(inputs, self.weight_ih), RULES[self.kind], []
        if self.bias_ih is not None:
            drive = drive + self.bias_ih.unsqueeze(-2)
        for a in drive:
            u = h[..., : self.weight_hh.shape[-1]] @ self.weight_hh.mT
            h = rule(a, u if self.bias_hh is None else u + self.bias_hh.unsqueeze(-2), h)
            steps.append(h)
        return torch.stack(steps)


def gru(a: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """h' from a = V x + b_ih, u = W h + b_hh and h."""
    (a_r, a_z, a_s), (u_r, u_z, u_s) = a.chunk(3, -1), u.chunk(3, -1)
    z = torch.sigmoid(a_z + u_z)
    return torch.lerp(torch.tanh(a_s + torch.sigmoid(a_r + u_r) * u_s), h, z)


def lstm(a: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """(h', c') likewise, h being (h, c)."""
    i, f, g, o = (a + u).chunk(4, -1)
    c = torch.sigmoid(f) * h.chunk(2, -1)[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)


RULES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"gru": gru, "lstm": lstm}


def differentiable(
    form: GateForm,
    leaves: Sequence[Tensor],
    sources: Sequence[Tensor],
    of: Callable[[GateForm, Sequence[Tensor]], Tensor],
    bar: Tensor,
) -> list[Tensor | None]:
    """Gradients that have gradients themselves, by plain autograd: None of what requires none.

    Args:
        form: what evolves.
        leaves: tensors of it, the last of `sources` in this order.
        sources: by which is differentiated.
        of: what is, from a form and sources that take the place of the given ones.
        bar: the cotangent of what it returns.
    """
    # each for itself: one may have been computed from another
    own = [z.view_as(z) for z in sources]
    pairs = zip(leaves, own[len(own) - len(leaves) :], strict=True)
    with torch.enable_grad():
        result = of(form.on({id(leaf): z for leaf, z in pairs}), own)
        wanted = [z for z in own if z.requires_grad]
        found = iter(torch.autograd.grad(result, wanted, bar, create_graph=True, allow_unused=True))
    return [next(found) if z.requires_grad else None for z in own]
