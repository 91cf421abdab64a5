"""Activation: a value, its slope, and the slope's derivatives, in one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from lyaptorch import _checks

Elementwise: TypeAlias = Callable[..., Tensor]


class Activation(nn.Module):
    """An elementwise non-linearity f(x; p) together with every derivative that flossing needs.

    `slope` is what stands in Jacobians and what backpropagation multiplies with; `curvature` is its
    derivative. What is not given is derived by forward-mode autodiff. A surrogate is an activation
    whose slope is not the derivative of its value: it says so with `surrogate=True`, and its value
    then backpropagates through `slope`.

    Args:
        value: f, a function of `(x, *parameters)` acting on each element.
        slope: f', the same signature; derived from `value` when missing.
        curvature: f'', the same signature; derived from `slope` when missing.
        parameters: numbers, tensors or `nn.Parameter`s that broadcast against states `(*e, b, n)`,
            passed to the three functions in this order.
        surrogate: whether `slope` is meant to differ from the derivative of `value`.
        name: how the activation is shown.

    Attributes:
        known: the name by which kernels know an activation of this library, whatever it is shown as; None
            for anybody else's.

    Raises:
        ValueError: if `slope` is not the derivative of `value` although `surrogate` is false, if
            `surrogate` is true and no slope is given, or if a function does not take the parameters.

    Example:
        >>> softplus = Activation(torch.nn.functional.softplus, name="softplus")
        >>> softplus.slope(torch.zeros(1, dtype=torch.float64))
        tensor([0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        value: Elementwise,
        slope: Elementwise | None = None,
        curvature: Elementwise | None = None,
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        surrogate: bool = False,
        name: str = "custom",
    ) -> None:
        super().__init__()
        if surrogate and slope is None:
            raise ValueError(f"the surrogate activation {name!r} needs a slope, got none; pass slope=")
        if not isinstance(parameters, Mapping | None):
            raise ValueError(
                f"parameters must be a dict of names and numbers, got {type(parameters).__name__}; "
                "write parameters={'sharpness': 2.0}"
            )
        self.name, self.surrogate = name, surrogate
        self.known: str | None = None
        self._value, self._given_slope, self._given_curvature = value, slope, curvature
        self._names = tuple(parameters or ())
        for key, number in (parameters or {}).items():
            if isinstance(number, nn.Parameter):
                self.register_parameter(key, number)
            else:
                self.register_buffer(key, torch.as_tensor(number, dtype=torch.get_default_dtype()))
        if type(self) is Activation:
            self._check_calls()
        if slope is not None and not surrogate:
            self._check_slope()

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The parameters, in the order in which `value`, `slope` and `curvature` take them."""
        return tuple(getattr(self, key) for key in self._names)

    def forward(self, x: Tensor) -> Tensor:
        """f(x); under autodiff its derivative is `slope(x)`."""
        if self.surrogate:
            # torch.compile does not trace a function with a forward mode of its own
            function = _Surrogate if torch.compiler.is_compiling() else _SurrogateBothWays
            out: Tensor = function.apply(self, x, *self.arguments)  # type: ignore[no-untyped-call]
            return out
        return self._value(x, *self.arguments)

    def slope(self, x: Tensor) -> Tensor:
        """f'(x); under autodiff its derivative is `curvature(x)`."""
        return self._slope(x, *self.arguments)

    def curvature(self, x: Tensor) -> Tensor:
        """f''(x), the derivative of the slope."""
        if self._given_curvature is not None:
            return self._given_curvature(x, *self.arguments)
        return _derivative(self.slope, x)

    def parameter_derivatives(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """For each parameter p the pair (df/dp, df'/dp) at every element of `x`.

        To backpropagation the value of a surrogate does not depend on its sharpness, unless that surrogate
        says otherwise: df/dp is zero.
        """
        p = self.arguments

        def along(function: Elementwise, i: int) -> Tensor:
            return _derivative(lambda q: function(x, *p[:i], q, *p[i + 1 :]), p[i]).expand_as(x)

        if self.surrogate:
            values = [torch.zeros_like(x) if d is None else d for d in self._backward_of_parameters(x, *p)]
        else:
            values = [along(self._value, i) for i in range(len(p))]
        return tuple((dvalue, along(self._slope, i)) for i, dvalue in enumerate(values))

    def extra_repr(self) -> str:
        """The name shown by `print(cell)`."""
        return self.name

    def _backward_of_parameters(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor | None, ...]:
        """What backpropagation takes for the df/dp of a surrogate; None for nothing."""
        return tuple(None for _ in parameters)

    def _slope(self, x: Tensor, *parameters: Tensor) -> Tensor:
        if self._given_slope is not None:
            return self._given_slope(x, *parameters)
        return _derivative(lambda y: self._value(y, *parameters), x)

    def _check_calls(self) -> None:
        """All three functions take x and every parameter."""
        signature, x = ", ".join(("x", *self._names)), torch.full((1,), 0.37, device="cpu")
        parameters = [p.detach().cpu() for p in self.arguments]
        functions = {"value": self._value, "slope": self._given_slope, "curvature": self._given_curvature}
        for what, function in functions.items():
            try:
                _ = None if function is None else function(x, *parameters)
            except TypeError as error:
                raise ValueError(
                    f"the {what} of {self.name!r} must be a function of ({signature}), got one that says: "
                    f"{error}; wrap it as lambda {signature}: ..."
                ) from error

    def _check_slope(self) -> None:
        """Off the grid of round numbers, where kinks stand, slope and derivative must agree."""
        if any(p.numel() > 1 for p in self.arguments):
            return
        x = torch.linspace(-2.03, 2.07, 9, dtype=torch.float64, device="cpu")
        parameters = tuple(p.detach().double().reshape(()) for p in self.arguments)
        # backwards, because torch's forward mode is not safe among threads
        with torch.inference_mode(False), torch.enable_grad():
            value = self._value(x.requires_grad_(), *parameters)
            # elementwise, so the gradient of the sum is the derivative at each x
            (derivative,) = torch.autograd.grad(value.sum(), x, allow_unused=True, materialize_grads=True)
        given = self._slope(x.detach(), *parameters).detach()
        if not torch.allclose(derivative, given, rtol=1e-5, atol=1e-8):
            worst = (derivative - given).abs().argmax()
            raise ValueError(
                f"the slope of {self.name!r} must be the derivative of its value, got {given[worst]:.6g} "
                f"instead of {derivative[worst]:.6g} at x = {x[worst]:.3g}; mend it, or pass surrogate=True"
            )


class _Surrogate(torch.autograd.Function):
    """The value forwards, the slope backwards."""

    generate_vmap_rule = True

    @staticmethod
    def forward(activation: Activation, x: Tensor, *parameters: Tensor) -> Tensor:
        return activation._value(x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.activation = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        # a parameter is broadcast to x: its gradient is summed over what it was broadcast to
        by_parameter = ctx.activation._backward_of_parameters(x, *parameters)
        bars = (
            None if d is None else (grad * d).sum_to_size(p.shape)
            for d, p in zip(by_parameter, parameters, strict=True)
        )
        return None, grad * ctx.activation._slope(x, *parameters), *bars


class _SurrogateBothWays(_Surrogate):
    """The slope in forward mode too."""

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor | None, *others: Tensor | None) -> Tensor:
        x, *parameters = ctx.saved_tensors
        pushed = torch.zeros_like(x)
        if tangent is not None:
            pushed = ctx.activation._slope(x, *parameters) * tangent
        by_parameter = ctx.activation._backward_of_parameters(x, *parameters)
        for d, other in zip(by_parameter, others, strict=True):
            if d is not None and other is not None:
                pushed = pushed + d * other
        return pushed


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise function, by one forward-mode product."""
    # forward mode writes beside each element of x, which an expanded tensor has not
    x = x.contiguous()
    tangent: Tensor = torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]
    return tangent


def sech2(x: Tensor) -> Tensor:
    """sech(x)^2 to full relative precision: 1 - tanh^2 is 0 from |x| = 9.5 on in float32.

    Below the least normal number, from |x| = 44 on in float32 and 354 in float64, it and its slope are 0.
    """
    # a little beyond, so that cosh^2 does not overflow and NaN does not arise
    limit = 0.5 * math.log(torch.finfo(x.dtype).max) + 0.25
    return flushed(torch.cosh(x.clamp(-limit, limit)).pow(-2))


def flushed(slope: Tensor) -> Tensor:
    """A slope >= 0, with 0 where it is below the least normal number: there is no digit to trust.

    A floor in its place would be a finite exponent that means nothing; of an exact zero a column dies.
    """
    return functional.threshold(slope, torch.finfo(slope.dtype).tiny, 0.0)


def tanh() -> Activation:
    """The hyperbolic tangent."""
    return _Builtin("tanh", torch.tanh, sech2, lambda x: -2.0 * torch.tanh(x) * sech2(x))


def relu() -> Activation:
    """max(x, 0), with slope 0 at x = 0."""
    return _Builtin("relu", torch.relu, lambda x: (x > 0).to(x.dtype), torch.zeros_like)


def linear() -> Activation:
    """The identity."""
    return _Builtin("linear", lambda x: x, torch.ones_like, torch.zeros_like)


class _Builtin(Activation):
    """Its slope is checked by tests; within an operator of torch.library there is no autodiff to check it."""

    def __init__(self, name: str, *functions: Elementwise) -> None:
        super().__init__(*functions, name=name)
        self.known = name

    def _check_slope(self) -> None:
        pass


ACTIVATIONS: dict[str, Callable[[], Activation]] = {"tanh": tanh, "relu": relu, "linear": linear}
"""What `activation` may be, by name."""


def activation(spec: str | Activation) -> Activation:
    """The activation called `spec`, or `spec` itself.

    Raises:
        ValueError: for an unknown name (the nearest one is named).
    """
    if isinstance(spec, Activation):
        return spec
    return ACTIVATIONS[_checks.choice("activation", spec, ACTIVATIONS)]()
