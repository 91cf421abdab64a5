"""Arguments of the kernels: a form, its inputs and its gradients as they are handed over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import AnyForm, Form, LIFForm, Residual
from lyaptorch.cells.surrogates import VALUES as JUMPS
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.library import ActivationArgs, FormArgs, fill, members_of

VALUES: dict[str | None, int] = {"linear": 0, "tanh": 1, "relu": 2, "sign": 3, "upper_sign": 4, "step": 5}
"""What activations compute, as the kernels number it."""
BUMPS: dict[str | None, tuple[int, float]] = {
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
NEURONS = 1
CONVENTIONS = {"subtract": 2, "full": 4, "ignore": 8, "simultaneous": 16}
"""Bits of the kernels' `Convention`: of neurons, and of what is not the default of theirs."""


class KernelArguments:
    """The arguments of a form, and the tensors that must live as long as they are used.

    Args:
        form: what evolves.
        inputs: `(t, *e, b, m)`.
        h: a state `(*e, b, N)`.
    """

    def __init__(self, form: AnyForm, inputs: Tensor, h: Tensor) -> None:
        (*e, b, _), t, n, m = h.shape, len(inputs), form.weight_hh.shape[-1], inputs.shape[-1]
        self.form, self.e, self.h, self.inputs, self.args = form, tuple(e), h, inputs, FormArgs()
        self.shared = members_of(e) > 1 and not any(inputs.stride()[1:-2])
        if not self.shared:
            inputs = inputs.expand(t, *e, b, m)
        elif inputs.dim() > 3:
            inputs = inputs.flatten(1, -3)[:, 0]
        self._alive: list[Tensor] = []
        fill(self.args, n=n, m=m, steps=t, members=members_of(e), batch=b, shared=int(self.shared))
        self.give("W", form.weight_hh, *e, n, n)
        self.give("V", form.weight_ih, *e, n, m)
        if form.biases:
            # the first and only one is not copied
            self.give("bias", sum(form.biases[1:], form.biases[0]), *e, n)
        self.give("inputs", inputs)
        self.give("h0", h)
        if isinstance(form, LIFForm):
            self._neurons(form, *e, n)
        else:
            self._beside(form, *e, n)
        for name, f in _activations(form).items():
            self._activation(getattr(self.args, name), f, n)

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
        form, e, (n, m) = self.form, self.e, (self.args.n, self.args.m)
        uses = [(form.weight_hh, "W", (*e, n, n)), (form.weight_ih, "V", (*e, n, m))]
        uses += [(bias, "bias", (*e, n)) for bias in form.biases]
        if isinstance(form, Form) and form.coupling is not None:
            uses.append((form.coupling, "coupling", (*e, n)))
        if isinstance(form, Form) and form.residual is not None:
            uses.append((form.residual.matrix, "A", (*e, *_matrix_shape(form.residual, n))))
        for name, f in _activations(form).items():
            if isinstance(f, Surrogate):
                uses.append((f.arguments[0], name, (*e, 1, n)))
        return uses

    def _neurons(self, form: LIFForm, *shape: int) -> None:
        for name, z in (("alpha", form.alpha), ("beta", form.beta), ("threshold", form.threshold)):
            self.give(name, z, *shape)
        names = (form.reset, form.reset_grad, form.order)
        self.args.neurons = NEURONS + sum(CONVENTIONS.get(name, 0) for name in names)

    def _beside(self, form: Form, *shape: int) -> None:
        """Coupling and residual."""
        if form.coupling is not None:
            self.give("coupling", form.coupling, *shape)
            self.args.train_coupling = int(form.coupling.requires_grad)
        if form.residual is not None:
            self.give("A", form.residual.matrix, *shape[:-1], *_matrix_shape(form.residual, shape[-1]))
            self.args.residual = KINDS[form.residual.kind]

    def _activation(self, args: ActivationArgs, f: Activation | None, n: int) -> None:
        if not isinstance(f, Surrogate):
            args.value = 0 if f is None else VALUES[f.known]
            return
        sharpness = f.arguments[0].detach().to(self.h.dtype)
        sharpness = sharpness.expand(*self.e, 1, n).contiguous()
        self._alive.append(sharpness)
        args.value, (args.shape, args.scale) = VALUES[f.value], BUMPS[f.known]
        args.area = JUMPS[f.value][1] / f.bump.area if f.norm == "area" else 0.0
        args.sharpness = sharpness.data_ptr()


def _activations(form: AnyForm) -> dict[str, Activation | None]:
    """By the names that the kernels know."""
    if isinstance(form, LIFForm):
        return {"inner": form.spike}
    phi = None if form.residual is None else form.residual.activation
    return {"inner": form.inner, "outer": form.outer, "phi": phi}


def _matrix_shape(residual: Residual, n: int) -> tuple[int, ...]:
    return {"diagonal": (n,), "blocks": (n // 2, 2, 2), "dense": (n, n)}[residual.kind]
