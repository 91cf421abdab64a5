import pytest
import torch

import cases
import lyaptorch as lt
from lyaptorch import Activation
from lyaptorch.cells.activation import ACTIVATIONS, activation, sech2

pytestmark = pytest.mark.usefixtures("double")

SMOOTH = {
    **ACTIVATIONS,
    "softplus": cases.softplus,
    "steep_tanh": cases.steep_tanh,
}
# off the kink of relu
X = torch.tensor([-3.1, -0.7, 0.2, 1.9], dtype=torch.float64)


def derivative(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((function(x) + 0 * x).sum(), x)[0]


@pytest.mark.parametrize("name", SMOOTH)
def test_slope_and_curvature_are_the_derivatives(name):
    f = SMOOTH[name]()
    torch.testing.assert_close(f.slope(X), derivative(f, X), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(f.curvature(X), derivative(f.slope, X), rtol=1e-12, atol=1e-15)
    # of a tensor whose elements share memory, too; how an element is rounded depends on the vector it lies in
    for of in (f.slope, f.curvature):
        torch.testing.assert_close(of(X.expand(3, 4)), of(X).expand(3, 4), rtol=1e-14, atol=0)


@pytest.mark.parametrize("make", [cases.steep_tanh, cases.soft_sign])
def test_the_slope_of_a_trainable_activation_backpropagates_to_its_parameters(make):
    f = make()
    x = X.expand(3, 4)
    for p, (dvalue, dslope) in zip(f.arguments, f.parameter_derivatives(x), strict=True):
        weights = torch.randn(3, 4)
        (expected,) = torch.autograd.grad((weights * f.slope(x)).sum(), p, retain_graph=True)
        torch.testing.assert_close((weights * dslope).sum_to_size(p.shape), expected, rtol=1e-12, atol=1e-14)
        value = torch.autograd.grad((weights * f(x)).sum(), p, allow_unused=True, materialize_grads=True)[0]
        torch.testing.assert_close((weights * dvalue).sum_to_size(p.shape), value, rtol=1e-12, atol=1e-14)


def test_a_wrong_slope_is_refused_unless_it_is_declared_a_surrogate():
    with pytest.raises(
        ValueError, match=r"slope of 'off' must be the derivative .* mend it, or pass surrogate"
    ):
        Activation(torch.tanh, lambda x: 1.001 * sech2(x), name="off")
    with pytest.raises(ValueError, match=r"slope of 'off' must be the derivative"):
        Activation(
            lambda x, a: torch.tanh(a * x),
            lambda x, a: sech2(a * x),
            parameters={"a": 2.0},
            name="off",
        )
    f = Activation(torch.tanh, lambda x: 1.001 * sech2(x), surrogate=True)
    torch.testing.assert_close(derivative(f, X), 1.001 * sech2(X), rtol=1e-14, atol=0)


@pytest.mark.parametrize("surrogate", [True, False])
@pytest.mark.parametrize("what", ["value", "slope", "curvature"])
def test_a_function_that_does_not_take_the_parameters_is_refused(what, surrogate):
    functions = dict.fromkeys(("value", "slope", "curvature"), lambda x, g: torch.exp(x) * g**0)
    settings = {"parameters": {"g": torch.ones(2, 1, 3)}, "surrogate": surrogate, "name": "mine"}
    Activation(**functions, **settings)
    expected = rf"the {what} of 'mine' must be a function of \(x, g\), got .*; wrap it as lambda x, g: \.\.\."
    with pytest.raises(ValueError, match=expected):
        Activation(**(functions | {what: torch.sign}), **settings)


@pytest.mark.usefixtures("unchecked")
def test_parameters_have_names():
    with pytest.raises(ValueError, match=r"parameters must be a dict .* got tuple; write parameters={"):
        Activation(lambda x, g: g * x, parameters=(1.0,))


def test_a_surrogate_needs_a_slope():
    with pytest.raises(ValueError, match=r"surrogate activation 'step' needs a slope, got none; pass slope="):
        Activation(torch.sign, surrogate=True, name="step")


def test_activations_by_name_and_as_they_are():
    f = cases.soft_sign()
    assert activation(f) is f
    assert torch.equal(activation("linear")(X), X)
    with pytest.raises(ValueError, match=r"unknown activation 'rleu', did you mean 'relu'\?"):
        activation("rleu")


def test_parameters_are_trained_and_follow_the_dtype_of_the_cell():
    cell = lt.RateCell(2, 4, activation=cases.steep_tanh())
    assert {"activation.a", "activation.c"} <= {name for name, _ in cell.named_parameters()}
    cell = lt.RateCell(2, 4, activation=Activation(lambda x, a: a * x, parameters={"a": 0.5})).float()
    assert cell.activation.arguments[0].dtype == torch.float32
    assert cell(torch.zeros(1, 2).float(), torch.zeros(1, 4).float()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sech2_keeps_its_relative_precision_and_never_overflows(dtype):
    x = torch.linspace(-40, 40, 401, dtype=dtype)
    exact = 1 / torch.cosh(x.double()) ** 2
    # cosh at 40 amplifies the rounding of x by 40, the square by 2
    torch.testing.assert_close(sech2(x).double(), exact, rtol=200 * torch.finfo(dtype).eps, atol=0)
    assert (sech2(x) > 0).all()
    huge = torch.tensor([0.0, 9.5, 44.0, 89.0, 1e3, 1e10, 1e30], dtype=dtype)
    huge = torch.cat([huge, -huge]).requires_grad_()
    y = sech2(huge)
    (grad,) = torch.autograd.grad(y.sum(), huge)
    assert torch.isfinite(y).all()
    assert torch.isfinite(grad).all()
    assert (y[torch.tensor([6, 13])] < 1e-37).all()
    torch.testing.assert_close(y[:7], y[7:], rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_sech2_keeps_its_relative_precision(dtype):
    x = torch.linspace(-20, 20, 201, dtype=dtype)
    exact = -2 * torch.tanh(x.double()) / torch.cosh(x.double()) ** 2
    torch.testing.assert_close(
        derivative(sech2, x).double(), exact, rtol=200 * torch.finfo(dtype).eps, atol=1e-30
    )
    curvature = activation("tanh").curvature(x).double()
    torch.testing.assert_close(curvature, exact, rtol=200 * torch.finfo(dtype).eps, atol=1e-30)


class TestSurrogate:
    """A value that jumps, with a slope that does not: one slope in every mode of autodiff."""

    f = staticmethod(lambda x: cases.soft_sign()(x))
    slope = staticmethod(lambda x: sech2(0.8 * x))
    curvature = staticmethod(lambda x: -1.6 * torch.tanh(0.8 * x) * sech2(0.8 * x))

    def test_the_value_is_the_sign(self):
        assert torch.equal(self.f(X), torch.sign(X))
        assert torch.equal(self.f(torch.zeros(2)), torch.zeros(2))

    def test_grad_and_its_grad(self):
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad(self.f(x).sum(), x, create_graph=True)
        torch.testing.assert_close(first, self.slope(X), rtol=1e-14, atol=0)
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(second, self.curvature(X), rtol=1e-12, atol=0)

    def test_vjp_and_jvp(self):
        v = torch.randn(4)
        value, pull = torch.func.vjp(self.f, X)
        torch.testing.assert_close(pull(v)[0], v * self.slope(X), rtol=1e-14, atol=0)
        value, pushed = torch.func.jvp(self.f, (X,), (v,))
        assert torch.equal(value, torch.sign(X))
        torch.testing.assert_close(pushed, v * self.slope(X), rtol=1e-14, atol=0)

    def test_vmap_over_grad_and_over_jvp(self):
        x = torch.randn(5, 4)
        grads = torch.vmap(torch.func.grad(lambda y: self.f(y).sum()))(x)
        torch.testing.assert_close(grads, self.slope(x), rtol=1e-14, atol=0)
        v = torch.randn(5, 4)
        pushed = torch.vmap(lambda y, u: torch.func.jvp(self.f, (y,), (u,))[1])(x, v)
        torch.testing.assert_close(pushed, v * self.slope(x), rtol=1e-14, atol=0)

    def test_forward_over_reverse(self):
        gradient = torch.func.grad(lambda y: self.f(y).sum())
        _, is_nonlinear = torch.func.jvp(gradient, (X,), (torch.ones_like(X),))
        torch.testing.assert_close(is_nonlinear, self.curvature(X), rtol=1e-12, atol=0)

    def test_the_sharpness_learns_through_the_slope_only(self):
        f = cases.soft_sign()
        x = X.clone().requires_grad_()
        value = f(x).sum()
        assert torch.autograd.grad(value, f.g, allow_unused=True, retain_graph=True)[0] is None
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (got,) = torch.autograd.grad(slope.sum(), f.g)
        g = torch.tensor(0.8, requires_grad=True)
        (expected,) = torch.autograd.grad(sech2(g * X).sum(), g)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
