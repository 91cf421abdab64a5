"""Scans of small frames do what `scan.sweep` does, and leave to it what they cannot."""

import pytest
import torch

from cases import CASES, setup
from lyaptorch import as_cell, lyapunov_spectrum
from lyaptorch._random import Stream
from lyaptorch.cells import Flow, RateCell, random_frame
from lyaptorch.tangent import scan, small
from lyaptorch.tangent.dynamics import bind
from lyaptorch.tangent.qr import in_doubt, surely_sound
from lyaptorch.tangent.scan import Tape, spans, stack_growth

pytestmark = pytest.mark.usefixtures("double")


def frame(h, k):
    return random_frame(h.shape[-1], k, Stream(1, "frame"), torch.tensor(0)).expand(*h.shape, k)


def swept(sweep, cell, inputs, h, k, over, dead=None):
    """What a sweep finds, with its tape and what it was watched to start from."""
    tape, seen = Tape(), []
    dynamics, Q = bind(cell, cell.form(), inputs, []), frame(h, k)
    Q = Q if dead is None else torch.where(dead.unsqueeze(-2), 0.0, Q)
    with torch.no_grad():
        end = sweep(dynamics, h, Q, dead, over, tape=tape, watch=lambda *given: seen.append(given))
    return end, tape, seen


def check(cell, inputs, h, k, interval=1, tangent_transient=0, dead=None):
    """Compare everything, and return the end."""
    over = spans(tangent_transient, len(inputs), interval)
    (one, tape, seen), (two, other, also) = (
        swept(sweep, cell, inputs, h, k, over, dead) for sweep in (scan.sweep, small.sweep)
    )
    (log_r, healthy), (also_log_r, also_healthy) = (stack_growth(z.pivots, z.deaths) for z in (one, two))
    assert torch.equal(healthy, also_healthy)
    # one pass of Cholesky errs by eps of a column's length, which may be many times what is left of it
    torch.testing.assert_close(also_log_r, log_r, rtol=1e-6, atol=1e-9)
    found = [(one.h, two.h), (one.Q, two.Q), (tape.states, other.states)]
    found += [(tape.frames, other.frames), (tape.factors, other.factors), (seen, also)]
    for a, b in found:
        torch.testing.assert_close(b, a, rtol=0, atol=1e-7)
    return two


@pytest.fixture
def stretches(monkeypatch):
    """The frames that were taken by stretches."""
    taken = []
    many = small._Chain._many
    monkeypatch.setattr(
        small._Chain,
        "_many",
        lambda self, D, spans, start: taken.append(len(spans)) or many(self, D, spans, start),
    )
    return taken


@pytest.mark.parametrize(("interval", "tangent_transient"), [(1, 0), (3, 5)])
@pytest.mark.parametrize("case", [c for c in CASES if c.rank == 4], ids=str)
def test_it_finds_what_the_careful_scan_finds(case, interval, tangent_transient, stretches):
    cell, inputs, h0 = setup(case, t=20)
    check(cell, inputs, h0, 4, interval, tangent_transient)
    assert stretches


@pytest.mark.parametrize("k", [1, 3])
def test_members_trajectories_and_part_of_the_frame(k, stretches):
    cell = RateCell(2, 5, ensemble=(2,), gain=1.3)
    inputs = torch.randn(40, 2, 3, 2, generator=torch.Generator().manual_seed(1))
    check(cell, inputs, torch.zeros(2, 3, 5), k)
    assert sum(stretches) == 40


def test_stretches_follow_each_other(monkeypatch, stretches):
    monkeypatch.setattr(small, "STRETCH", 7 * 25)
    cell = RateCell(2, 5)
    check(cell, torch.ones(30, 1, 2), torch.zeros(1, 5), 5, interval=2)
    # three spans of two steps fit into seven
    assert sum(stretches) == 15
    assert max(stretches) == 3


def test_columns_die_where_they_would(stretches):
    """A unit is shut from step 11 on, another from step 17: one column less each time."""
    W = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))

    def step(x, h):
        return torch.tanh(h @ W.mT) * x

    inputs = torch.ones(30, 2, 4)
    inputs[11:, :, 1] = 0
    inputs[17:, 1, 3] = 0
    cell, h = as_cell(step, state=torch.zeros(2, 4)), 0.1 * torch.ones(2, 4)
    assert check(cell, inputs, h, 4).dead.sum(-1).tolist() == [1, 2]
    assert len(stretches) > 2
    # and where one was dead from the beginning
    dead = torch.tensor([[False, True, False, False], [False, False, False, False]])
    assert check(RateCell(1, 4), torch.ones(12, 2, 1), h, 4, dead=dead).dead.sum() == 1


def test_a_step_that_looks_at_numbers_is_taken_alone(stretches):
    """Side by side it would decide for all steps at once."""

    def step(x, h):
        return torch.tanh(h) if x.sum() > 0 else 0.5 * h

    inputs = torch.ones(20, 1, 1)
    inputs[::3] = -1
    spec = lyapunov_spectrum(step, inputs, h0=torch.full((1, 3), 0.3))
    assert not stretches
    alone = lyapunov_spectrum(step, inputs, h0=torch.full((1, 3), 0.3), qr_method="cholesky2")
    torch.testing.assert_close(spec.exponents, alone.exponents)


@pytest.mark.parametrize("at", [3, 25])
def test_an_overflow_is_named_as_ever(at):
    def step(x, h):
        return h * x

    inputs = torch.ones(30, 1, 2)
    inputs[at] = 1e308
    inputs[at + 1] = 1e308
    with pytest.raises(FloatingPointError, match=f"not finite after step {at + 2} "):
        lyapunov_spectrum(step, inputs, h0=torch.ones(1, 2))


def test_gradients_are_those_of_plain_autograd(stretches):
    cell = RateCell(2, 6, gain=1.2)
    inputs = torch.randn(30, 2, 2, generator=torch.Generator().manual_seed(3))
    bars = []
    for backend in ("torch", "autograd"):
        loss = lyapunov_spectrum(cell, inputs, interval=2, backend=backend).exponents.square().mean()
        bars.append(torch.autograd.grad(loss, list(cell.parameters())))
    assert stretches
    torch.testing.assert_close(bars[0], bars[1], rtol=1e-6, atol=1e-9)


def test_error_bars_of_a_flow_see_the_same_moments(stretches):
    flow = Flow(lambda x, h: torch.stack([h[..., 1], -h[..., 0] - 0.3 * h[..., 1] + x[..., 0]], -1), dt=0.1)
    inputs, h0 = torch.sin(torch.arange(60.0))[:, None, None], torch.ones(1, 2)
    one = lyapunov_spectrum(flow, inputs, h0=h0)
    assert stretches
    two = lyapunov_spectrum(flow, inputs, h0=h0, qr_method="householder")
    torch.testing.assert_close(one.discretisation, two.discretisation)


def test_doubt():
    R = torch.eye(3).repeat(6, 1, 1)
    R[1, :2, 1] = torch.tensor([1.0, -2e-13])
    R[2, 0, 2] = 1e13
    R[3, 2, 2] = torch.nan
    R[4, 0, 0] = torch.inf
    R[5] *= 1e-140
    assert in_doubt(R).any(-1).tolist() == [False, True, True, True, True, True]
    # the question in fewer operations says of none that it is sound while a column is in doubt
    assert [surely_sound(one[None]) for one in R] == [True, False, False, False, False, False]
    assert not surely_sound(R)
