"""When tangent vectors died, and that it is said once."""

import math
import warnings

import pytest
import torch

import lyaptorch as lt

pytestmark = pytest.mark.usefixtures("double")


def tent(x, h):
    return 1 - 2 * h.abs()


def test_a_kink_that_is_met_is_said_with_its_step():
    # .5 -> 0 -> 1: torch's slope of |h| at 0 is 0
    with pytest.warns(UserWarning, match=r"every tangent vector has died after step 2,.* a unit at a kink"):
        spec = lt.lyapunov_spectrum(tent, torch.zeros(20, 1, 1), h0=torch.full((1, 1), 0.5))
    assert spec.exponents.item() == -math.inf
    assert spec.died_at.tolist() == [[2]]
    off = lt.lyapunov_spectrum(tent, torch.zeros(20, 1, 1), h0=torch.full((1, 1), 0.501))
    assert off.died_at is None
    assert off.exponents.item() == pytest.approx(math.log(2), abs=1e-12)


def test_a_first_jacobian_without_rank_is_said_with_the_transients_counted():
    step = lambda x, h: torch.where(x > 0, 0 * h, 0.5 * h)  # noqa: E731
    x = torch.zeros(30, 1, 1)
    x[11] = 1.0
    with pytest.warns(UserWarning, match="died after step 12, transients counted"):
        spec = lt.lyapunov_spectrum(step, x, h0=torch.ones(1, 1), transient=5, tangent_transient=3)
    assert spec.died_at.tolist() == [[12]]


def test_some_that_live_are_no_reason_to_warn():
    scale = torch.tensor([0.5, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = lt.lyapunov_spectrum(
            lambda x, h: scale * h, torch.zeros(9, 1, 1), h0=torch.ones(1, 2), frame=torch.eye(2)
        )
    assert spec.died_at.tolist() == [[0, 1]]


def test_flossing_tells_in_its_own_words_alone():
    cell = lt.RateCell(1, 3, activation="relu", bias=False)
    with pytest.warns(UserWarning, match="every tangent vector of member") as seen:
        lt.floss(cell, torch.zeros(12, 1, 1), k=2, epochs=3, steps=12, tangent_transient=2)
    told = {str(w.message) for w in seen}
    assert all("every tangent vector of member" in text for text in told)


def contracting(scale, dtype):
    cell = lt.RateCell(1, 4, activation="linear", weights="orthogonal", gain=scale).to(dtype)
    spec = lt.lyapunov_spectrum(cell, torch.zeros(36, 1, 1, dtype=dtype), interval=12)
    return torch.autograd.grad(spec.exponents.square().mean(), cell.weight_hh)[0]


def test_a_gradient_lost_to_contraction_is_not_blamed_on_chaos():
    with pytest.warns(
        UserWarning,
        match=r"not finite: no chaos, but strong contraction: columns 1, 2, 3, 4.*float32.*float64",
    ):
        assert not torch.isfinite(contracting(6e-4, torch.float32)).all()
    assert torch.isfinite(contracting(6e-4, torch.float64)).all()


def test_a_gradient_that_the_step_spoils_is_blamed_on_neither():
    rate = torch.tensor(0.5, requires_grad=True)
    # the second derivative of sqrt at 0
    step = lambda x, h: rate * h + torch.where(h > 1e9, (h - h).sqrt(), 0.0)  # noqa: E731
    cell = lt.as_cell(step)
    cell.unproven = False
    spec = lt.lyapunov_spectrum(cell, torch.zeros(8, 1, 1), h0=torch.ones(1, 1))
    with pytest.warns(UserWarning, match="neither chaos nor round-off explains it"):
        torch.autograd.grad(spec.exponents.sum() * torch.nan, rate)
