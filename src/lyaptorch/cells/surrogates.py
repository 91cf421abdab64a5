"""Surrogate slopes for signs and steps: one object for backpropagation and for Jacobians.

The value jumps; the slope is `scale * s(g x)`, s a bump of height 1 and g its sharpness. With norm="peak"
the scale is 1; with norm="area" the area under the slope is the height of the jump, 2 for a sign and 1 for
a step, as if the value were a smooth function that goes from one side of the jump to the other.

Flossing trains a sharpness that is an `nn.Parameter`, because exponents are made of slopes. A task loss is
made of values, which do not depend on g: its gradient is zero. With through="surrogate" backpropagation
takes the value for scale/g * integral of s from 0 to g x, also where it asks for the derivative by g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.cells.activation import Activation, flushed
from lyaptorch.cells.activation import sech2 as sech_squared

__all__ = [
    "SURROGATES",
    "Surrogate",
    "arctan",
    "erfc",
    "fast_sigmoid",
    "gaussian",
    "sech2",
    "sigmoid",
    "triangular",
]

VALUES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "sign": (torch.sign, 2),
    "upper_sign": (lambda x: torch.where(x < 0, -1.0, 1.0).to(x.dtype), 2),
    "step": (lambda x: (x > 0).to(x.dtype), 1),
}
"""What jumps, and how high: sign(0) is 0, upper_sign(0) is +1, step(0) is 0."""

NORMS = ("peak", "area")
THROUGH = ("slope", "surrogate")


@dataclass(frozen=True)
class Bump:
    """A bump s(y) of height 1 at 0; called with a sharpness it becomes a surrogate.

    Attributes:
        name: its name.
        height: s.
        slope: s'.
        integral: of s, from 0 to y.
        area: under all of s.

    Example:
        >>> sign = fast_sigmoid(10.0)
        >>> sign(torch.tensor([-0.1, 0.0, 0.1])), sign.slope(torch.tensor([-0.1, 0.0, 0.1]))
        (tensor([-1.,  0.,  1.]), tensor([0.2500, 1.0000, 0.2500]))
    """

    name: str
    height: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    integral: Callable[[Tensor], Tensor]
    area: float

    def __call__(
        self, sharpness: Number = 1.0, *, norm: str = "peak", value: str = "sign", through: str = "slope"
    ) -> Surrogate:
        """The surrogate with this sharpness; see `Surrogate`."""
        return Surrogate(self, sharpness, norm, value, through)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bump:
        return self  # the same functions; a copy of a cell keeps what the library knows it by


class Surrogate(Activation):
    """An activation that jumps at 0, with the slope of a `Bump` in its place.

    Args:
        bump: s.
        sharpness: g > 0: a number, a tensor of shape `*e`, one for each member, or an `nn.Parameter` of
            shape `()` or `(*e, 1, 1)`.
        norm: "peak" or "area".
        value: "sign", "upper_sign" or "step".
        through: "slope", or "surrogate" to train g by a task loss too.

    Attributes:
        sharpness: g, as a parameter or a buffer; of shape `(*e, 1, 1)` where members differ.

    Raises:
        ValueError: for unknown names, a sharpness that is not above 0, or a Parameter of another shape.

    Example:
        >>> f = sech2(2.0, value="sign")
        >>> f(torch.tensor([-0.1, 0.3])), f.slope(torch.zeros(1))
        (tensor([-1.,  1.]), tensor([1.]))
    """

    def __init__(self, bump: Bump, sharpness: Number, norm: str, value: str, through: str) -> None:
        _checks.positive("sharpness", _checks.numbers(sharpness).detach())
        if isinstance(sharpness, nn.Parameter):
            if sharpness.dim() and sharpness.shape[-2:] != (1, 1):
                raise ValueError(
                    "a trained sharpness must have shape () or (*e, 1, 1), to stand beside states "
                    f"(*e, b, n), got {tuple(sharpness.shape)}; write nn.Parameter(g[..., None, None])"
                )
        elif isinstance(sharpness, Tensor) and sharpness.dim() and sharpness.shape[-2:] != (1, 1):
            sharpness = sharpness[..., None, None]
        self.bump, self.norm = bump, _checks.choice("norm", norm, NORMS)
        self.value = _checks.choice("value", value, VALUES)
        self.through = _checks.choice("through", through, THROUGH)
        jump, height = VALUES[value]

        # the area under scale * s(g x) is scale * area / g, which is to be the height of the jump
        def scale(g: Tensor) -> Tensor | float:
            return g * (height / bump.area) if norm == "area" else 1.0

        def slope(x: Tensor, g: Tensor) -> Tensor:
            wide, g = _wide(x, g)
            return (scale(g) * flushed(bump.height(g * wide))).to(x.dtype)

        def curvature(x: Tensor, g: Tensor) -> Tensor:
            wide, g = _wide(x, g)
            return (scale(g) * g * bump.slope(g * wide)).to(x.dtype)

        super().__init__(
            lambda x, g: jump(x),
            slope,
            curvature,
            parameters={"sharpness": sharpness},
            surrogate=True,
            name=bump.name,
        )
        # by what it is, not by its name: kernels have their own code for these bumps, and for no other
        if type(self) is Surrogate and any(bump is own for own in OWN):
            self.known = bump.name

    def of(self, value: str) -> Surrogate:
        """The same slope, with the same sharpness, for another jump; itself where it has that value.

        The area of a slope follows the height of the jump where it is normalised by it.
        """
        if value == self.value:
            return self
        return Surrogate(self.bump, self.arguments[0], self.norm, value, self.through)

    def extra_repr(self) -> str:
        """Name, sharpness (where it is one number) and what is not the default."""
        g = self.arguments[0]
        shown = [f"{g.item():g}"] if g.numel() == 1 else [f"sharpness of shape {tuple(g.shape)}"]
        shown += [f"value={self.value!r}"] if self.value != "sign" else []
        shown += [f"norm={self.norm!r}"] if self.norm != "peak" else []
        shown += [f"through={self.through!r}"] if self.through != "slope" else []
        return f"{self.name}({', '.join(shown)})"

    def _backward_of_parameters(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor | None, ...]:
        """d/dg of scale/g * integral of s, where backpropagation goes through the surrogate."""
        if self.through == "slope":
            return (None,)
        wide, g = _wide(x, parameters[0])
        # with I the integral of s: d/dg [I(g x) / g] = x s(g x) / g - I(g x) / g^2 where the scale is 1;
        # where it is g height / area, d/dg [height / area I(g x)] = height / area x s(g x)
        y = g * wide
        # with S the integral of s: d/dg of S(g x) is x s(g x), and of S(g x) / g it is (x s(g x) - S / g) / g
        if self.norm == "area":
            slope = VALUES[self.value][1] / self.bump.area * wide * self.bump.height(y)
        else:
            slope = (wide * self.bump.height(y) - self.bump.integral(y) / g) / g
        return (slope.to(x.dtype),)


def _wide(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype, where g x does not overflow and s keeps its precision: float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide, g.to(wide.dtype)


sech2 = Bump("sech2", sech_squared, lambda y: -2 * torch.tanh(y) * sech_squared(y), torch.tanh, 2.0)
"""s(y) = sech(y)^2, the slope of tanh (Surrogate Gradient Flossing, eq 5)."""

fast_sigmoid = Bump(
    "fast_sigmoid",
    lambda y: (1 + y.abs()).reciprocal().square(),
    lambda y: -2 * torch.sign(y) * (1 + y.abs()).reciprocal().pow(3),
    lambda y: y / (1 + y.abs()),
    2.0,
)
"""s(y) = 1 / (1 + |y|)^2 (Surrogate Gradient Flossing, appendix E; Zenke & Ganguli 2018, SuperSpike)."""

arctan = Bump(
    "arctan",
    lambda y: (1 + y.square()).reciprocal(),
    lambda y: -2 * y * (1 + y.square()).reciprocal().square(),
    torch.atan,
    math.pi,
)
"""s(y) = 1 / (1 + y^2)."""

sigmoid = Bump(
    "sigmoid",
    lambda y: sech_squared(y / 2),
    lambda y: -torch.tanh(y / 2) * sech_squared(y / 2),
    lambda y: 2 * torch.tanh(y / 2),
    4.0,
)
"""s(y) = 4 sigma(y) (1 - sigma(y)), sigma the logistic function."""

triangular = Bump(
    "triangular",
    # not clamp_min, whose derivative at the kink is 1
    lambda y: torch.relu(1 - y.abs()),
    lambda y: -torch.sign(y) * (y.abs() < 1),
    lambda y: y.clamp(-1, 1) * (1 - y.clamp(-1, 1).abs() / 2),
    1.0,
)
"""s(y) = max(1 - |y|, 0): it does not reach beyond 1/g."""

gaussian = Bump(
    "gaussian",
    lambda y: torch.exp(-y.square() / 2),
    lambda y: -y * torch.exp(-y.square() / 2),
    lambda y: math.sqrt(math.pi / 2) * torch.erf(y / math.sqrt(2)),
    math.sqrt(2 * math.pi),
)
"""s(y) = exp(-y^2 / 2): the standard deviation of the slope is 1/g."""

erfc = Bump(
    "erfc",
    lambda y: torch.exp(-y.square()),
    lambda y: -2 * y * torch.exp(-y.square()),
    lambda y: math.sqrt(math.pi) / 2 * torch.erf(y),
    math.sqrt(math.pi),
)
"""s(y) = exp(-y^2), the slope of the error function."""

OWN = (sech2, fast_sigmoid, arctan, sigmoid, triangular, gaussian, erfc)
"""Those of this library."""

SURROGATES: dict[str, Bump] = {bump.name: bump for bump in OWN}
"""All, by name."""
