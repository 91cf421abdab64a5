"""Surrogates: every bump, norm, value and mode of autodiff."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells.surrogates import SURROGATES, VALUES

every_bump = pytest.mark.parametrize("bump", SURROGATES.values(), ids=SURROGATES)
# off the kinks of the triangle
X = torch.tensor([-1.3, -0.31, -0.02, 0.07, 0.45, 2.2], dtype=torch.float64)
FORMULAS = {
    "sech2": lambda y: 1 / torch.cosh(y) ** 2,
    "fast_sigmoid": lambda y: 1 / (1 + y.abs()) ** 2,
    "arctan": lambda y: 1 / (1 + y**2),
    "sigmoid": lambda y: 4 * torch.sigmoid(y) * torch.sigmoid(-y),
    "triangular": lambda y: torch.relu(1 - y.abs()),
    "gaussian": lambda y: torch.exp(-(y**2) / 2),
    "erfc": lambda y: torch.exp(-(y**2)),
}


def test_every_surrogate_has_its_public_name():
    assert SURROGATES.keys() == FORMULAS.keys()
    assert all(getattr(lt.surrogates, name) is bump for name, bump in SURROGATES.items())


@every_bump
def test_the_slope_is_the_formula(double, bump):
    f = bump(2.5)
    torch.testing.assert_close(f.slope(X), FORMULAS[bump.name](2.5 * X), rtol=1e-14, atol=0)
    assert f.slope(torch.zeros(1)) == 1


@every_bump
@pytest.mark.parametrize(("value", "jump"), [("sign", 2), ("upper_sign", 2), ("step", 1)])
def test_an_area_is_the_height_of_the_jump(double, bump, value, jump):
    f = bump(2.5, norm="area", value=value)
    # x = sinh(u): tails like 1/x^2 are cut off at 1e-9
    u = torch.linspace(-21, 21, 42001)
    area = torch.trapezoid(f.slope(torch.sinh(u)) * torch.cosh(u), u)
    torch.testing.assert_close(area, torch.tensor(float(jump)), rtol=2e-6, atol=0)
    torch.testing.assert_close(f.slope(X) / f.slope(torch.zeros(1)), bump(2.5).slope(X), rtol=1e-13, atol=0)


@every_bump
def test_curvature_and_integral_belong_to_the_slope(double, bump):
    x = X.clone().requires_grad_()
    f = bump(2.5, norm="area")
    (bend,) = torch.autograd.grad(f.slope(x).sum(), x)
    torch.testing.assert_close(f.curvature(X), bend, rtol=1e-12, atol=1e-14)
    (height,) = torch.autograd.grad(bump.integral(x).sum(), x)
    torch.testing.assert_close(height, bump.height(X), rtol=1e-12, atol=1e-14)
    assert bump.integral(torch.zeros(1)) == 0
    assert 2 * bump.integral(torch.tensor(1e30)).item() == pytest.approx(bump.area, rel=1e-12)


@pytest.mark.parametrize(("value", "at_zero"), [("sign", 0.0), ("upper_sign", 1.0), ("step", 0.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_and_what_they_are_at_zero(value, at_zero, dtype):
    f = lt.surrogates.sech2(3.0, value=value)
    low = 0.0 if value == "step" else -1.0
    expected = torch.tensor([low, at_zero, 1.0], dtype=dtype)
    assert torch.equal(f(torch.tensor([-0.1, 0.0, 0.1], dtype=dtype)), expected)


def test_another_value_keeps_bump_norm_and_sharpness():
    g = nn.Parameter(torch.tensor(4.0))
    f = lt.surrogates.arctan(g, norm="area", through="surrogate")
    step = f.of("step")
    assert (step.name, step.norm, step.through, step.value) == ("arctan", "area", "surrogate", "step")
    assert step.sharpness is g
    assert f.of("sign") is f
    torch.testing.assert_close(2 * step.slope(X), f.slope(X))


@every_bump
@pytest.mark.parametrize("norm", ["peak", "area"])
class TestModesOfAutodiff:
    def test_grad_vjp_and_jvp_see_one_slope(self, double, bump, norm):
        f, v = bump(2.5, norm=norm), torch.randn(6)
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        torch.testing.assert_close(first, f.slope(X), rtol=1e-14, atol=0)
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(second, f.curvature(X), rtol=1e-12, atol=1e-14)
        assert torch.equal(torch.func.vjp(f, X)[1](v)[0], v * f.slope(X))
        assert torch.equal(torch.func.jvp(f, (X,), (v,))[1], v * f.slope(X))

    def test_vmap_of_both(self, double, bump, norm):
        f, x, v = bump(2.5, norm=norm), torch.randn(5, 4), torch.randn(5, 4)
        grads = torch.vmap(torch.func.grad(lambda y: f(y).sum()))(x)
        torch.testing.assert_close(grads, f.slope(x), rtol=1e-14, atol=0)
        pushed = torch.vmap(lambda y, u: torch.func.jvp(f, (y,), (u,))[1])(x, v)
        torch.testing.assert_close(pushed, v * f.slope(x), rtol=1e-14, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_no_dtype_overflows(self, bump, norm, dtype):
        x = torch.tensor([0.0, 1e-30, 9.5, 44.0, 89.0, 1e3, 6e4, 1e10, 1e20, 1e30], dtype=torch.float64)
        x = x[x <= torch.finfo(dtype).max].to(dtype)
        x = torch.cat([x, -x]).requires_grad_()
        for sharp in (1.0, 10.0):  # the curvature's own derivative is of the size of its cube
            g = nn.Parameter(torch.tensor(sharp, dtype=dtype))
            f = bump(g, norm=norm, through="surrogate")
            slope, by_g = torch.autograd.grad(f(x / sharp).sum(), (x, g), create_graph=True)
            bends = torch.autograd.grad((slope + f.slope(x) + f.curvature(x)).sum(), (x, g))
            for y in (slope, by_g, f.slope(x), f.curvature(x), *bends):
                assert torch.isfinite(y).all()
                assert y.dtype == dtype

    def test_low_precision_is_that_of_its_dtype(self, bump, norm):
        x = torch.linspace(-0.9, 0.9, 37, dtype=torch.bfloat16)
        f = bump(0.7, norm=norm)
        exact = f.slope(x.double())
        torch.testing.assert_close(f.slope(x).double(), exact, rtol=torch.finfo(torch.bfloat16).eps, atol=0)


COMPILED = """
import torch, lyaptorch as lt
torch.set_default_dtype(torch.float64)
g = torch.nn.Parameter(torch.tensor(2.5))
f = lt.surrogates.sech2(g, through="surrogate")
x = torch.tensor([-1.3, 0.07, 0.45], requires_grad=True)
compiled = torch.compile(lambda y: 2 * f(y), fullgraph=True, backend="aot_eager")
for own in (compiled, lambda y: 2 * f(y)):
    y = own(x)
    print(y.tolist(), *(z.tolist() for z in torch.autograd.grad(y.sum(), (x, g))))
"""


def test_a_compiled_function_has_the_same_value_and_slope():
    # a process of its own: torch.compile does not trace the checks of the tests
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=120, check=True
    )
    compiled, plain = done.stdout.splitlines()
    assert compiled == plain
    assert compiled.startswith("[-2.0, 2.0, 2.0]")


@every_bump
@pytest.mark.parametrize("norm", ["peak", "area"])
def test_through_the_surrogate_the_sharpness_sees_the_smooth_function(double, bump, norm):
    g = nn.Parameter(torch.tensor(2.5))
    scale = 2 / bump.area * g if norm == "area" else 1.0
    (expected,) = torch.autograd.grad((scale / g * bump.integral(g * X)).square().sum(), g)
    f = bump(g, norm=norm, through="surrogate")
    weights = 2 * scale / g * bump.integral(g * X)
    (got,) = torch.autograd.grad((weights.detach() * f(X)).sum(), g)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    (dvalue, dslope) = f.parameter_derivatives(X)[0]
    torch.testing.assert_close((weights * dvalue).sum(), expected, rtol=1e-12, atol=0)
    h = 1e-6
    numeric = (bump(2.5 + h, norm=norm).slope(X) - bump(2.5 - h, norm=norm).slope(X)) / (2 * h)
    torch.testing.assert_close(dslope, numeric, rtol=1e-7, atol=1e-9)


def test_through_the_slope_the_sharpness_has_no_gradient_from_values(double):
    g = nn.Parameter(torch.tensor(2.5))
    f = lt.surrogates.sech2(g)
    x = X.clone().requires_grad_()
    assert torch.autograd.grad(f(x).sum(), g, allow_unused=True)[0] is None
    assert not f.parameter_derivatives(X)[0][0].any()


def test_forward_mode_through_the_surrogate(double):
    x, g = X, torch.tensor(2.5)

    def value(q):
        return lt.cells.activation._SurrogateBothWays.apply(f, x, q)

    f = lt.surrogates.erfc(nn.Parameter(g), through="surrogate")
    pushed = torch.func.jvp(value, (g,), (torch.ones(()),))[1]
    torch.testing.assert_close(pushed, f.parameter_derivatives(x)[0][0], rtol=1e-14, atol=0)


def test_members_have_their_own_sharpness(double):
    g = torch.tensor([0.5, 3.0])
    f, x = lt.surrogates.sech2(g), torch.randn(2, 3, 4)
    assert f.sharpness.shape == (2, 1, 1)
    for i in range(2):
        torch.testing.assert_close(f.slope(x)[i], lt.surrogates.sech2(g[i]).slope(x[i]), rtol=1e-14, atol=0)
    cell = lt.RateCell(1, 4, activation=f, ensemble=(2,))
    spectrum = lt.lyapunov_spectrum(cell, torch.zeros(20, 1, 1), k=2).exponents
    alone = lt.RateCell(1, 4, activation=lt.surrogates.sech2(3.0), member_ids=torch.tensor(1))
    torch.testing.assert_close(spectrum[1], lt.lyapunov_spectrum(alone, torch.zeros(20, 1, 1), k=2).exponents)


def test_a_trained_sharpness_learns_from_the_flossing_loss(double):
    g = nn.Parameter(torch.tensor([[[0.7]], [[1.5]]]))
    cell = lt.RateCell(1, 6, activation=lt.surrogates.sech2(g), ensemble=(2,))

    def loss():
        return lt.flossing_loss(lt.lyapunov_spectrum(cell, torch.ones(15, 2, 1, 1), k=3).exponents)

    (got,) = torch.autograd.grad(loss(), g)
    h = 1e-6
    with torch.no_grad():
        g[0] += h
        up = loss()
        g[0] -= 2 * h
        down = loss()
    torch.testing.assert_close(got[0, 0, 0], (up - down) / (2 * h), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((0.0,), {}, r"sharpness must be a finite number above 0"),
        ((math.nan,), {}, r"sharpness must be a finite number above 0"),
        ((torch.tensor([1.0, -1.0]),), {}, r"sharpness must be a finite number above 0"),
        ((nn.Parameter(torch.ones(3)),), {}, r"shape \(\) or \(\*e, 1, 1\).* got \(3,\); write nn.Parameter"),
        ((), {"norm": "are"}, r"unknown norm 'are', did you mean 'area'\?"),
        ((), {"value": "stop"}, r"unknown value 'stop', did you mean 'step'\?"),
        ((), {"through": "slop"}, r"unknown through 'slop', did you mean 'slope'\?"),
    ],
)
def test_bad_arguments(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        lt.surrogates.sech2(*arguments, **settings)


def test_repr_says_which():
    assert "sech2(2.5, value='step', norm='area')" in repr(
        lt.surrogates.sech2(2.5, value="step", norm="area")
    )
    assert "erfc(1, through='surrogate')" in repr(lt.surrogates.erfc(1.0, through="surrogate"))
    assert "sharpness of shape (2, 1, 1)" in repr(lt.surrogates.sech2(torch.ones(2)))
    assert set(VALUES) == {"sign", "upper_sign", "step"}


def test_the_foot_of_the_triangle_is_flat_in_the_sharpness_as_in_the_argument():
    f = SURROGATES["triangular"](nn.Parameter(torch.tensor(0.5)))
    foot = torch.tensor([-2.0, 2.0])
    ((_, bar),) = f.parameter_derivatives(foot)
    assert torch.equal(bar, torch.zeros(2))
    assert torch.equal(f.curvature(foot), torch.zeros(2))
