"""Stepper: steps by hand give the spectrum, its last state and its last frame."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch.tangent import Stepper


def oscillating(x, h):
    return torch.sin(1.3 * h.roll(1, -1)) + 0.2 * h + x.sum(-1, keepdim=True)


CELLS = {
    "rate": lambda e: lt.RateCell(2, 6, gain=1.5, ensemble=e),
    "residual": lambda e: lt.ResidualCell(2, 6, ensemble=e),
    "lstm": lambda e: lt.LSTMCell(2, 3, gain=2.0, ensemble=e),
    "lif": lambda e: lt.LIFCell(2, 3, threshold=3.0, ensemble=e),
    "function": lambda e: oscillating,
}


@pytest.mark.parametrize("ensemble", [(), (3,)], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_twenty_steps_by_hand_are_the_spectrum(name, ensemble):
    torch.manual_seed(1)
    cell = CELLS[name](ensemble)
    cell = cell.double() if isinstance(cell, lt.Cell) else cell
    x = torch.randn(20, *ensemble, 2, 2, dtype=torch.float64)
    h0 = 0.3 * torch.randn(*ensemble, 2, 6, dtype=torch.float64)
    stepper = Stepper(cell, h0, k=4)
    logs = torch.stack([stepper.step(now) for now in x])
    spec = lt.lyapunov_spectrum(cell, x, k=4, h0=h0)
    assert stepper.steps == 20
    # round-off of 20 steps, and of another number of Cholesky passes
    torch.testing.assert_close(logs, spec.growth.log_r.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(logs.mean(0), torch.as_tensor(spec.exponents.detach()), rtol=0, atol=1e-11)
    torch.testing.assert_close(stepper.h, spec.final_state.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(stepper.Q, spec.final_frame, rtol=0, atol=1e-9)


def test_a_column_that_dies_stays_dead():
    cell = lt.RateCell(1, 4, activation="relu", weights="orthogonal").double()
    with torch.no_grad():
        cell.bias.copy_(torch.tensor([3.0, 3.0, 3.0, -30.0]))
    x, h0 = torch.zeros(20, 1, 1, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    stepper = Stepper(cell, h0)
    logs = torch.stack([stepper.step(now) for now in x])
    spec = lt.lyapunov_spectrum(cell, x, h0=h0)
    assert not spec.growth.healthy[-1].all()
    torch.testing.assert_close(logs, spec.growth.log_r.detach(), rtol=0, atol=1e-10)


def test_the_callers_state_is_left_alone():
    cell, h0 = lt.GRUCell(1, 4).train(), torch.zeros(1, 4)
    frame = torch.eye(4)[:, :2]
    with torch.inference_mode():
        stepper = Stepper(cell, h0, k=2, frame=frame)
        stepper.step(torch.ones(1, 1))
    after = Stepper(cell, h0, k=2, frame=frame)
    log_r = after.step(torch.ones(1, 1))
    assert cell.training
    assert not log_r.requires_grad
    assert torch.equal(h0, torch.zeros(1, 4))
    assert torch.equal(frame, torch.eye(4)[:, :2])
    assert torch.equal(stepper.h, after.h)


def test_wrong_arguments_are_named():
    cell, h0 = lt.RateCell(1, 4), torch.zeros(1, 4)
    with pytest.raises(ValueError, match="k must be"):
        Stepper(cell, h0, k=5)
    with pytest.raises(ValueError, match="orthonormal"):
        Stepper(cell, h0, k=2, frame=torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"h0 must have shape \(\*e, b, n\)"):
        Stepper(cell, torch.zeros(4))
    with pytest.raises(ValueError, match="1 channels"):
        Stepper(cell, h0).step(torch.zeros(1, 3))


def test_an_overflow_is_named_and_changes_nothing():
    stepper = Stepper(lambda x, h: 1e30 * h, torch.ones(1, 2), k=1)
    stepper.step(torch.zeros(1, 1))
    before = stepper.h.clone()
    with pytest.raises(FloatingPointError, match="after step 2"):
        stepper.step(torch.zeros(1, 1))
    assert torch.equal(stepper.h, before)
    assert stepper.steps == 1


def test_results_are_the_callers_own_and_no_memory_of_later_calls():
    cell, x, h0 = lt.RateCell(1, 8), torch.zeros(50, 1, 1), torch.zeros(1, 8)
    frame = torch.linalg.qr(torch.randn(8, 3))[0]
    given, before = frame.clone(), lt.lyapunov_spectrum(cell, x, k=3)
    expected = before.exponents.detach().clone()
    before.growth.steps.mul_(2)
    before.final_frame.detach().zero_()
    Stepper(cell, h0, k=3).Q.zero_()
    Stepper(cell, h0, frame=frame, k=3).Q.zero_()
    assert torch.equal(lt.lyapunov_spectrum(cell, x, k=3).exponents, expected)
    assert torch.equal(frame, given)
