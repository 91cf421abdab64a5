"""How a Form, its inputs and its gradients are handed to the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import Form
from lyaptorch.cells.surrogates import VALUES as JUMPS
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.library import ActivationArgs, FormArgs, fill, members_of

VALUES = {"linear": 0, "tanh": 1, "relu": 2, "sign": 3, "upper_sign": 4, "step": 5}
"""What activations compute, as the kernels number it."""
BUMPS = {
    "sech2": (1, 1.0),
    "sigmoid": (1, 0.5),
    "fast_sigmoid": (2, 1.0),
    "arctan": (3, 1.0),
    "triangular": (4, 1.0),
    "erfc": (5, 1.0),
    "gaussian": (5, 0.5**0.5),
}
"""Slopes of surrogates: the kernels' number of a bump s and the factor a in s(a g x)."""
KINDS = {"diagonal": 1, "blocks": 2, "dense": 3}


class Handed:
    """The arguments of a form, and the tensors that must live as long as they are used.

    Args:
        form: what evolves.
        inputs: `(t, *e, b, m)`.
        h: a state `(*e, b, n)`.
    """

    def __init__(self, form: Form, inputs: Tensor, h: Tensor) -> None:
        (*e, b, n), t, m = h.shape, len(inputs), inputs.shape[-1]
        self.form, self.e, self.h, self.inputs, self.args = form, tuple(e), h, inputs, FormArgs()
        self.shared = members_of(e) > 1 and not any(inputs.stride()[1:-2])
        inputs = inputs.flatten(1, -3)[:, 0] if self.shared else inputs.expand(t, *e, b, m)
        self._alive: list[Tensor] = []
        fill(self.args, n=n, m=m, steps=t, members=members_of(e), batch=b, shared=int(self.shared))
        self.give("W", form.weight_hh, *e, n, n)
        self.give("V", form.weight_ih, *e, n, m)
        if form.biases:
            # the first and only one is not copied
            self.give("bias", sum(form.biases[1:], form.biases[0]), *e, n)
        self.give("inputs", inputs)
        self.give("h0", h)
        if form.coupling is not None:
            self.give("coupling", form.coupling, *e, n)
            self.args.train_coupling = int(form.coupling.requires_grad)
        phi = None
        if form.residual is not None:
            phi = form.residual.activation
            self.give("A", form.residual.matrix, *e, *_matrix_shape(form, n))
            self.args.residual = KINDS[form.residual.kind]
        for name, f in (("inner", form.inner), ("outer", form.outer), ("phi", phi)):
            self._activation(getattr(self.args, name), f, h)

    def give(self, name: str, tensor: Tensor, *shape: int) -> None:
        """Hand over a tensor, expanded to `shape` if one is given."""
        tensor = (tensor.expand(shape) if shape else tensor).detach().contiguous()
        self._alive.append(tensor)
        fill(self.args, **{name: tensor})

    def gradients(self, leaves: Sequence[Tensor]) -> None:
        """Make room for the gradients of the inputs, if they want one, of h0 and of `leaves`."""
        self._bars: dict[str, Tensor] = {}
        for tensor, name, shape in self._uses():
            if name not in self._bars and any(leaf is tensor for leaf in leaves):
                self._bars[name] = self.h.new_empty(shape)
        if self.inputs.requires_grad:
            self._bars["inputs"] = self.h.new_empty(self.inputs.shape)
        fill(self.args, **{f"{name}_bar": bar for name, bar in self._bars.items()})

    def found(self, leaves: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the inputs and of `leaves`, once the kernel has run."""
        bars: list[Tensor | None] = [self._bars.get("inputs")]
        for leaf in leaves:
            # of all its uses: weights may be tied
            uses = [
                self._bars[name].sum_to_size(leaf.shape) for tensor, name, _ in self._uses() if tensor is leaf
            ]
            bars.append(sum(uses[1:], uses[0]) if uses else torch.zeros_like(leaf))
        return bars

    def _uses(self) -> list[tuple[Tensor, str, tuple[int, ...]]]:
        """Every tensor of the form, what the kernels call its gradient, and of which shape that is."""
        form, e, (n, m) = self.form, self.e, (self.h.shape[-1], self.inputs.shape[-1])
        uses = [(form.weight_hh, "W", (*e, n, n)), (form.weight_ih, "V", (*e, n, m))]
        uses += [(bias, "bias", (*e, n)) for bias in form.biases]
        if form.coupling is not None:
            uses.append((form.coupling, "coupling", (*e, n)))
        phi = None
        if form.residual is not None:
            phi = form.residual.activation
            uses.append((form.residual.matrix, "A", (*e, *_matrix_shape(form, n))))
        for name, f in (("inner", form.inner), ("outer", form.outer), ("phi", phi)):
            if isinstance(f, Surrogate):
                uses.append((f.arguments[0], name, (*e, 1, n)))
        return uses

    def _activation(self, args: ActivationArgs, f: Activation | None, h: Tensor) -> None:
        if not isinstance(f, Surrogate):
            args.value = 0 if f is None else VALUES[f.name]
            return
        n, sharpness = h.shape[-1], f.arguments[0].detach().to(h.dtype)
        sharpness = sharpness.expand(*self.e, 1, n).contiguous()
        self._alive.append(sharpness)
        args.value, (args.shape, args.scale) = VALUES[f.value], BUMPS[f.name]
        args.area = JUMPS[f.value][1] / f.bump.area if f.norm == "area" else 0.0
        args.sharpness = sharpness.data_ptr()


def _matrix_shape(form: Form, n: int) -> tuple[int, ...]:
    assert form.residual is not None
    shapes = {"diagonal": (n,), "blocks": (n // 2, 2, 2), "dense": (n, n)}
    return shapes[form.residual.kind]
