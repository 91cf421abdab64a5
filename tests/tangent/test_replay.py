"""A small step is recorded once and replayed: the same numbers to the last bit, or not at all."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.tangent import replay
from lyaptorch.tangent.replay import Replay, record
from lyaptorch.testing import lorenz

pytestmark = pytest.mark.usefixtures("double")


def flow_of(f, dt=0.01):
    return lt.Flow(f, dt=dt)


class Gated(nn.Module):
    """Branches by `where`, literals, indexing, matrices, an in-place operation and a power."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, x, h):
        y = torch.zeros_like(h)
        y += torch.where(h > 0, h, 0.1 * h) @ self.W.mT + self.shift
        c = torch.tensor(2.0)
        c += 1
        return (
            torch.stack([y[..., 0] ** 2, y[..., 1].abs() * c, torch.sin(y[..., 2]) + x[..., 0]], -1) - 2 * h
        )


def written(x, h):
    """A write whose own result nobody reads."""
    y = 1.5 * h
    y[..., 0] *= 0.5
    return torch.tanh(y + 0.1 * x)


STEPS = {
    "written": lt.as_cell(written),
    "lorenz": flow_of(lorenz),
    "gated": None,
    "map": lt.as_cell(lambda x, h: torch.tanh(1.5 * h.flip(-1)) + 0.1 * x),
}


def made(name):
    return flow_of(Gated()) if name == "gated" else STEPS[name]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("settings", [{}, {"interval": 3, "k": 1, "checkpoint": 7}])
def test_spectra_and_gradients_are_the_same_to_the_last_bit(name, settings, monkeypatch):
    cell, x, h0 = made(name), torch.randn(24, 2, 1), torch.randn(2, 3)
    found = []
    for least in (replay.LEAST, 10**9):
        monkeypatch.setattr(replay, "LEAST", least)
        spec = lt.lyapunov_spectrum(cell, x, h0=h0, **settings)
        leaves = cell.leaves(x[0], h0)
        gradients = torch.autograd.grad(spec.exponents.square().sum(), leaves) if leaves else ()
        found.append((spec.exponents.detach(), spec.final_state.detach(), *gradients))
    for ours, direct in zip(*found, strict=True):
        assert ours.equal(direct)


def arguments(b=1, k=3):
    return torch.randn(b, 1), torch.randn(b, 3), torch.randn(b, 3, k)


def test_it_is_a_fifth_of_the_operations_and_python_numbers_are_no_longer_there():
    cell, calls = flow_of(lorenz), []

    def watched(x, h):
        calls.append(1)
        return lorenz(x, h)

    quick = Replay(lt.Flow(watched, dt=0.01).pushforward, 1000)
    for _ in range(12):
        given = arguments()
        with torch.no_grad():
            got, expected = quick(*given), cell.pushforward(*given)
        assert all(a.equal(b) for a, b in zip(got, expected, strict=True))
    # 4 stages of the recording, and of each call that was compared
    assert len(calls) == 4 * (1 + 1 + replay.TRIALS)


@pytest.mark.parametrize(
    "look",
    [
        lambda x, h: h * (2.0 if h.sum() > 0 else 0.5),
        lambda x, h: h * float(x.detach()[0, 0]),
        lambda x, h: h * x.detach().numpy()[0, 0],
        lambda x, h: h * x.tolist()[0][0],
        lambda x, h: h * x.max().item(),
        lambda x, h: h * (1 + 0 * torch.nonzero(h.detach() > 0).sum()),
        lambda x, h: h + torch.rand(()),
    ],
    ids=["if", "float", "numpy", "tolist", "item", "nonzero", "random"],
)
def test_a_step_that_looks_at_numbers_is_not_recorded(look):
    x, h = torch.ones(1, 1), torch.ones(1, 3)
    assert record(lambda x, h, Q: (look(x, h), Q), x, h, torch.eye(3)[None]) is None


def test_a_branch_that_turns_late_is_followed():
    """Slope 2 below 1, slope 1/4 above, by an `if` of Python."""
    step = lambda x, h: 2 * h if bool((h < 1).all()) else h / 4  # noqa: E731
    spec = lt.lyapunov_spectrum(step, torch.zeros(60, 1, 1), h0=torch.full((1, 1), 0.01))
    logs = spec.growth.log_r.flatten().exp()
    assert set(logs.round(decimals=6).tolist()) == {2.0, 0.25}


def test_weights_are_held_and_not_copied():
    net = Gated()
    quick = Replay(flow_of(net).pushforward, 100)
    x, h, Q = arguments()
    with torch.no_grad():
        for _ in range(4):
            quick(x, h, Q)
        net.W.mul_(-2)
        net.shift.add_(1)
        got, expected = quick(x, h, Q), flow_of(net).pushforward(x, h, Q)
    assert not quick.given_up
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_other_layouts_get_recordings_of_their_own():
    quick = Replay(flow_of(Gated()).pushforward, 100)
    with torch.no_grad():
        for _ in range(5):
            for k in (1, 3):
                x, h, Q = arguments(2, k)
                for frame in (Q, Q.mT.contiguous().mT):
                    got, expected = quick(x, h, frame), quick.pushforward(x, h, frame)
                    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))
    assert 3 <= len(quick.scripts) <= 4
    assert not quick.given_up


def test_a_recording_that_differs_is_given_up(monkeypatch):
    monkeypatch.setattr(replay, "record", lambda f, *_: lambda x, h, Q: (h + 1e-9, Q))
    quick = Replay(flow_of(lorenz).pushforward, 100)
    x, h, Q = arguments()
    with torch.no_grad():
        for _ in range(6):
            assert quick(x, h, Q)[0].equal(quick.pushforward(x, h, Q)[0])
    assert quick.given_up


def test_with_a_gradient_it_is_called_as_ever():
    quick = Replay(flow_of(lorenz).pushforward, 100)
    x, h, Q = arguments()
    after, _ = quick(x, h.requires_grad_(), Q)
    assert after.requires_grad
    assert not quick.scripts


def test_a_small_flow_costs_at_most_25_plain_loops_in_numpy_and_gives_the_same_numbers():
    path = Path(__file__).parents[2] / "benchmarks" / "flow.py"
    compare = runpy.run_path(str(path))["compare"]
    # the least of three in turn: what else the machine does hits both
    (plain, ours), (least_plain, least_ours) = compare(300, 3)
    assert ours == pytest.approx(plain, abs=1e-9)
    assert least_ours < 25 * least_plain
