"""What a step that the library did not write must hold, and what is done where forward mode fails."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import dropout

import lyaptorch as lt
import reference
from cases import M, N
from lyaptorch.cells import as_cell, fit

pytestmark = pytest.mark.usefixtures("double", "unchecked")

GENERATOR = torch.Generator().manual_seed(0)
W = torch.randn(N, N, generator=GENERATOR, dtype=torch.float64) / N**0.5
V = torch.randn(N, M, generator=GENERATOR, dtype=torch.float64)


def good(x, h):
    return torch.tanh(h @ W.mT + x @ V.mT)


def spectrum(step, *, t=6, b=2, k=2, h0=None, **settings):
    inputs = torch.randn(t, b, M, generator=torch.Generator().manual_seed(1))
    return lt.lyapunov_spectrum(
        step, inputs, k=k, h0=torch.full((b, N), 0.1) if h0 is None else h0, **settings
    )


def counting():
    count = iter(range(1000))
    return lambda x, h: good(x, h) + next(count)


def swapped_by_name(state, inputs):
    return torch.tanh(state @ W.mT)


def swapped_by_shape(first, second):
    return torch.tanh(first @ W.mT + second @ V.mT)


def broken(x, h):
    raise KeyError("gate")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda x, h: good(x, h) + h.mean(-2, keepdim=True),
            r"treat trajectories independently, got a change",
        ),
        (
            lambda x, h: nn.BatchNorm1d(N)(good(x, h)),
            r"independently.*call \.eval\(\) on batch normalisation",
        ),
        (lambda x, h: good(x, h) + 1e-3 * torch.randn_like(h), r"same answer twice.*pass it as inputs"),
        (lambda x, h: good(x, dropout(h, 0.5, True)), r"same answer twice.*call \.eval\(\) on dropout"),
        (counting(), r"same answer twice, got two different ones; a random or stateful step"),
        (broken, r"step\(x, h\) failed for x \(2, 2\) and h \(2, 4\): 'gate'; it must map inputs"),
        (
            lambda x, h: h @ V,
            r"one tensor like the state, \(2, 4\) torch.float64, got \(2, 2\) torch.float64",
        ),
        (
            lambda x, h: good(x, h).float(),
            r"like the state, \(2, 4\) torch.float64, got \(2, 4\) torch.float32",
        ),
        (lambda x, h: (good(x, h), h), r"must return one tensor like the state, .* got a tuple"),
        (lambda x, h: None, r"must return one tensor like the state, .* got a NoneType"),
        (lambda x, h: torch.log(h - 1), r"must be finite at h0, got NaN or inf; choose another h0"),
        (
            swapped_by_name,
            r"\(input, state\) in this order, got \(state, input\): wrap it as lambda x, h: step\(h, x\)",
        ),
        (swapped_by_shape, r"\(input, state\) in this order, got \(state, input\)"),
    ],
)
def test_a_step_with_bad_manners_is_refused(step, message):
    with pytest.raises(ValueError, match=message):
        spectrum(step)


def test_a_step_for_a_fixed_number_of_trajectories_is_refused():
    def fixed(x, h):
        return torch.tanh(h.reshape(3, N) @ W.mT)

    with pytest.raises(ValueError, match=r"any number of trajectories, got an error for 2 of them"):
        spectrum(fixed, b=3, h0=torch.zeros(3, N))


def test_dropout_of_a_state_at_rest_is_found():
    with pytest.raises(ValueError, match=r"same answer twice"):
        spectrum(lambda x, h: good(x, dropout(h, 0.5, True)), h0=torch.zeros(2, N))


def test_a_step_that_is_undefined_beside_its_first_state_is_not_called_random():
    h0 = torch.full((8, 1), 1e-9)
    spec = lt.lyapunov_spectrum(lambda x, h: torch.sqrt(h), torch.zeros(1, 8, 1), h0=h0)
    torch.testing.assert_close(spec.exponents, (0.5 * h0**-0.5).log(), rtol=1e-12, atol=0)


def test_a_square_system_swapped_by_name_is_found_though_every_shape_fits():
    with pytest.raises(ValueError, match=r"got \(state, input\)"):
        lt.lyapunov_spectrum(lambda hidden, x: torch.tanh(hidden), torch.zeros(5, 1, 3), h0=torch.zeros(1, 3))


class Old(torch.autograd.Function):
    """The hyperbolic tangent as an old-style Function, without forward mode."""

    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a.tanh())
        return a.tanh()

    @staticmethod
    def backward(ctx, bar):
        (y,) = ctx.saved_tensors
        return bar * (1 - y * y)


def old(x, h):
    return Old.apply(h @ W.mT + x @ V.mT)


def squared_without_grad(x, h):
    """At h = 0 both modes agree."""
    with torch.no_grad():
        square = h * h
    return good(x, h) + square


def partly_without_grad(x, h):
    with torch.no_grad():
        constant = 0.5 * torch.sin(h)
    return good(x, h) + constant


@pytest.mark.parametrize(
    ("step", "warning"),
    [
        (old, "forward mode is missing"),
        (squared_without_grad, "forward and reverse mode disagree"),
        (partly_without_grad, "forward and reverse mode disagree"),
    ],
)
@pytest.mark.parametrize("h0", [torch.zeros(2, N, dtype=torch.float64), torch.full((2, N), 0.3).double()])
def test_reverse_mode_serves_where_forward_mode_fails(step, warning, h0):
    frame = reference.random_frame(N, 2)
    with pytest.warns(UserWarning, match=warning):
        spec = spectrum(step, frame=frame, h0=h0)
    inputs = torch.randn(6, 2, M, generator=torch.Generator().manual_seed(1))
    expected = reference.scan(as_cell(step), inputs, h0, frame)
    torch.testing.assert_close(spec.growth.log_r, expected.log_r, rtol=0, atol=1e-12)


def test_a_detached_term_is_left_out_by_both_modes():
    def step(x, h):
        return good(x, h) + 0.5 * h.detach()

    frame, h0 = reference.random_frame(N, 2), torch.full((2, N), 0.1)
    inputs = torch.randn(6, 2, M, generator=torch.Generator().manual_seed(1))
    expected = reference.scan(as_cell(step), inputs, h0, frame)
    got = spectrum(step, frame=frame, h0=h0)
    torch.testing.assert_close(got.growth.log_r, expected.log_r, rtol=0, atol=1e-12)


def test_the_gradient_through_reverse_mode():
    weights = W.clone().requires_grad_()

    def step(x, h):
        return Old.apply(h @ weights.mT + x @ V.mT)

    frame = reference.random_frame(N, 2)
    inputs, h0 = torch.randn(6, 2, M, generator=torch.Generator().manual_seed(1)), torch.full((2, N), 0.1)
    with pytest.warns(UserWarning, match="using reverse mode"):
        spec = lt.lyapunov_spectrum(step, inputs, h0=h0, frame=frame, k=2)
    (got,) = torch.autograd.grad(spec.exponents.square().sum(), weights)
    expected = reference.scan(as_cell(step), inputs, h0, frame, create_graph=True)
    (expected,) = torch.autograd.grad(expected.exponents.square().sum(), weights)
    assert reference.relative_error(got, expected) < 1e-9  # n <= 20


SECOND = {
    "layer_norm": lambda a: functional.layer_norm(a, (N,)),
    "affine layer_norm": lambda a: functional.layer_norm(
        a.unflatten(-1, (2, 2)), (2, 2), W[:2, :2], V[:2]
    ).flatten(-2),
    "instance_norm": lambda a: functional.instance_norm(a.unflatten(-1, (2, 2))).flatten(-2),
    "group_norm": lambda a: functional.group_norm(a, 2),
    "rms_norm": lambda a: functional.rms_norm(a, (N,)),
    "glu": lambda a: functional.glu(torch.cat([a, a.flip(-1)], -1)),
    "attention": lambda a: functional.scaled_dot_product_attention(*[a.unflatten(-1, (1, 2, 2))] * 3).flatten(
        -3
    ),
}


@pytest.mark.parametrize("operation", SECOND)
@pytest.mark.parametrize("backend", ["torch", "autograd"])
def test_the_gradient_through_operations_of_torch_whose_second_derivatives_err(operation, backend):
    """Against finite differences: torch's own gradient through forward mode is wrong for some of them."""
    weights, direction = W.clone().requires_grad_(), V @ V.mT
    inputs, h0 = torch.randn(6, 2, M, generator=torch.Generator().manual_seed(1)), torch.full((2, N), 0.1)
    frame = reference.random_frame(N, 2)

    def loss(W):
        def step(x, h):
            return torch.tanh(SECOND[operation](h @ W.mT + x @ V.mT) @ W.mT)

        return (
            lt.lyapunov_spectrum(step, inputs, h0=h0, frame=frame, k=2, backend=backend).exponents[:, 0].sum()
        )

    (got,) = torch.autograd.grad(loss(weights), weights)
    after, before = (loss(W + sign * 1e-5 * direction).item() for sign in (1, -1))
    assert (got * direction).sum().item() == pytest.approx((after - before) / 2e-5, rel=1e-6)


def test_an_operation_with_wrong_second_derivatives_is_done_in_reverse_mode():
    weights = W.clone().requires_grad_()

    def step(x, h):
        return torch.tanh(torch.linalg.solve(2 * torch.eye(N) + 0.1 * weights, h.mT).mT + x @ V.mT)

    with pytest.warns(UserWarning, match="second derivatives through forward mode are wrong"):
        exponents = spectrum(step).exponents
    (got,) = torch.autograd.grad(exponents[:, 0].sum(), weights)
    found = []
    for sign in (1, -1):
        weights.data = W + sign * 1e-5 * W
        with pytest.warns(UserWarning, match="reverse mode"):
            found.append(spectrum(step).exponents[:, 0].sum())
    assert (got * W).sum().item() == pytest.approx((found[0] - found[1]).item() / 2e-5, rel=1e-6)


@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_a_step_wholly_without_grad_has_no_jacobian_to_backpropagation():
    @torch.no_grad()
    def step(x, h):
        return good(x, h)

    with pytest.warns(UserWarning, match="reverse mode"):
        spec = spectrum(step)
    assert (spec.exponents == -torch.inf).all()


def test_a_users_cell_is_probed_once_and_a_cell_with_its_own_product_never():
    class Counted(lt.Cell):
        calls = 0

        def step(self, x, h):
            self.calls += 1
            return good(x, h)

    cell, inputs = Counted(M, N), torch.zeros(5, 1, M)
    lt.lyapunov_spectrum(cell, inputs, k=1)
    first = cell.calls
    lt.lyapunov_spectrum(cell, inputs, k=1)
    # one call finds the tensors that it depends on, and five are the trajectory
    assert cell.calls - first == 6 < first
    assert not lt.RateCell(M, N).unproven


def test_dropout_of_a_module_in_training_mode_is_switched_off_and_that_of_a_closure_refused():
    module = nn.Sequential(nn.Linear(N, N), nn.Dropout(0.5), nn.Tanh())

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = module

        def forward(self, x, h):
            return self.inside(h)

    step = Step().train()
    measured = spectrum(step).exponents
    assert module[1].training
    with pytest.raises(ValueError, match="same answer twice"):
        spectrum(lambda x, h: step(x, h))
    assert torch.equal(measured, spectrum(step.eval()).exponents)


def test_fit_gives_inputs_and_state_their_full_shape():
    cell = lt.RateCell(M, N, ensemble=(2, 3))
    inputs, h0 = fit(cell, torch.zeros(5, 7, M), None)
    assert inputs.shape == (5, 2, 3, 7, M)
    assert h0.shape == (2, 3, 7, N)
    assert torch.count_nonzero(h0) == 0
