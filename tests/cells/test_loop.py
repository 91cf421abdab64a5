"""Loops around a cell: closed by a readout, forced by a teacher, against their definitions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells import Stacked, unroll
from lyaptorch.cells.form import Residual
from lyaptorch.testing import check_cell

pytestmark = pytest.mark.usefixtures("double")
N, M = 6, 3


def rate(**kw):
    return lt.RateCell(M, N, gain=1.2, **kw)


class Leaky(lt.cells.FormCell):
    """h' = A h + c (W tanh(h) + V x + b): something passes W by, and there is no f outside."""

    def __init__(self, ensemble=(), member_ids=None):
        super().__init__(M, N, ensemble)
        self.rate = lt.RateCell(M, N, ensemble=ensemble, member_ids=member_ids)
        self.leak = nn.Parameter(torch.linspace(0.3, 0.9, N).expand(*ensemble, N).clone())

    def form(self):
        bypass = Residual(1 - self.leak, "diagonal")
        return replace(self.rate.form(), residual=bypass, coupling=self.leak)


def function(**kw):
    return lt.as_cell(lambda x, h: torch.tanh(1.5 * h.roll(1, -1) + x.sum(-1, keepdim=True)))


CELLS = {
    "rate": rate,
    "elman": lambda **kw: lt.ElmanCell(M, N, weights="orthogonal", gain=1.4, **kw),
    "leaky": Leaky,
    "kind A": lambda **kw: lt.ResidualCell(M, N, kind="A", coupling=0.5, **kw),
    "gru": lambda **kw: lt.GRUCell(M, N, **kw),
    "lstm": lambda **kw: lt.LSTMCell(M, N // 2, **kw),
    "stack": lambda **kw: Stacked([lt.ElmanCell(M, 2, **kw), lt.GRUCell(2, N - 2, **kw)]),
    "function": function,
}
FORMS = {"rate", "elman", "leaky", "kind A"}
every_cell = pytest.mark.parametrize("name", CELLS)


def squashed(cell):
    """A readout that is not affine."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(cell.output_size or N, 2), nn.Tanh())


def affine(cell, **kw):
    return lt.Readout(cell.output_size or N, 2, scale=0.3, offset=0.2, **kw)


def noise(seed, *shape):
    return 0.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestClosed:
    @every_cell
    @pytest.mark.parametrize("make", [affine, squashed])
    def test_it_is_the_step_with_its_readout_in_front(self, name, make):
        cell = CELLS[name]()
        readout = make(cell)
        loop = lt.closed_loop(cell, readout)
        x, h0 = noise(1, 8, 2, 1), noise(2, 2, N)

        def step(x, h):
            return cell.step(torch.cat([readout(h[..., cell.readable]), x], -1), h)

        assert (loop.form() is not None) == (name in FORMS and make is affine)
        assert loop.input_size == (0 if name == "function" else 1)
        found = lt.lyapunov_spectrum(loop, x, h0=h0)
        expected = lt.lyapunov_spectrum(step, x, h0=h0, backend="autograd")
        torch.testing.assert_close(found.final_state, expected.final_state, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.exponents, expected.exponents, rtol=0, atol=1e-11)

    @pytest.mark.parametrize(
        ("name", "make"), [("leaky", affine), ("elman", affine), ("lstm", affine), ("gru", squashed)]
    )
    def test_products_and_gradients(self, name, make):
        cell = CELLS[name]()
        report = check_cell(lt.closed_loop(cell, make(cell)), noise(1, 3, 1, 1), noise(2, 1, N))
        names = ("readout.weight", "readout.bias") if make is affine else ("readout.0.weight",)
        assert {f"gradient by {path}" for path in names} <= report.errors.keys()

    def test_without_external_inputs_and_in_the_kernels(self):
        cell = lt.ElmanCell(2, N, gain=1.5)
        readout = lt.Readout(N, 2, scale=0.3)
        loop, x = lt.closed_loop(cell, readout), torch.zeros(30, 2, 0)
        by_hand = []
        for backend in (None, "torch", "autograd"):
            spec = lt.lyapunov_spectrum(loop, x, k=3, h0=noise(2, 2, N), backend=backend)
            by_hand.append([spec.exponents, *torch.autograd.grad(spec.exponents.square().sum(), [
                cell.weight_hh, cell.weight_ih, readout.weight, readout.bias])])  # fmt: skip
        for found in by_hand[:2]:
            for one, other in zip(found, by_hand[2], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)

    def test_a_driven_network_goes_on_by_itself(self):
        # x' = -x: the readout of the driven state is the next input, so that the loop repeats the drive
        cell = lt.ElmanCell(1, 1, activation="linear", bias=False)
        with torch.no_grad():
            cell.weight_hh.fill_(0.0), cell.weight_ih.fill_(1.0)
        readout = nn.Linear(1, 1, bias=False)
        nn.init.constant_(readout.weight, -1.0)
        drive = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).reshape(5, 1, 1)
        with pytest.warns(UserWarning, match="every tangent vector has died"):
            driven = lt.lyapunov_spectrum(cell, drive)
        assert driven.exponents.item() == -math.inf
        loop = lt.closed_loop(cell, readout)
        states = unroll(loop, torch.zeros(4, 1, 0), driven.final_state)
        assert states.flatten().tolist() == [-1.0, 1.0, -1.0, 1.0]
        assert lt.lyapunov_spectrum(loop, torch.zeros(4, 1, 0), h0=driven.final_state).exponents.item() == 0.0

    @pytest.mark.parametrize("name", ["elman", "leaky", "lstm"])
    def test_a_member_is_the_same_alone(self, name):
        ids = torch.arange(3)
        cell = CELLS[name](ensemble=(3,), member_ids=ids)
        loop = lt.closed_loop(cell, affine(cell, ensemble=(3,), member_ids=ids))
        x, h0 = noise(1, 6, 3, 2, 1), noise(2, 3, 2, N)
        every = lt.lyapunov_spectrum(loop, x, k=3, h0=h0).exponents
        alone = CELLS[name](member_ids=1)
        alone = lt.closed_loop(alone, affine(alone, member_ids=1))
        one = lt.lyapunov_spectrum(alone, x[:, 1], k=3, h0=h0[1]).exponents
        torch.testing.assert_close(every[1], one, rtol=0, atol=1e-12)
        if name == "leaky":
            check_cell(loop, x[:2], h0)

    def test_all_else_is_the_cells(self):
        lstm = lt.LSTMCell(M, 3)
        loop = lt.closed_loop(lstm, lt.Readout(3, 2))
        assert loop.parts() == lstm.parts()
        assert (loop.state_size, loop.output_size) == (6, 3)
        h, x = noise(1, 2, 6), noise(2, 2, 1)
        gates = lstm.gate_values(torch.cat([loop.readout(h[..., :3]), x], -1), h)
        assert torch.equal(loop.gate_values(x, h)["forget"], gates["forget"])
        states = loop.unpack(h)
        assert isinstance(states, tuple)
        spec = lt.lyapunov_spectrum(loop, noise(3, 5, 2, 1), h0=states)
        assert torch.isfinite(spec.exponents).all()
        assert torch.equal(loop.rest(x), torch.zeros(2, 6))
        flow = lt.Flow(lambda x, h: x - h, dt=0.1)
        loop = lt.closed_loop(flow, lambda h: -2.0 * h)
        spec = lt.lyapunov_spectrum(loop, torch.zeros(10, 1, 0), h0=torch.ones(1, 2))
        # what is fed back is held over a step: h' = e^-dt h + (1 - e^-dt) (-2 h)
        assert spec.dt == 0.1
        rate = math.log(3 * math.exp(-0.1) - 2) / 0.1
        torch.testing.assert_close(spec.exponents, torch.full((1, 2), rate), rtol=0, atol=1e-5)

    def test_hooks_count(self):
        cell, readout = lt.ElmanCell(2, 4), nn.Linear(4, 2)
        readout.register_forward_hook(lambda module, given, y: 2 * y)
        loop, h, Q = lt.closed_loop(cell, readout), noise(1, 1, 4), torch.eye(4)[None]
        assert loop.form() is None

        def step(h):
            return cell.step(2 * nn.functional.linear(h, readout.weight, readout.bias), h)

        after, pushed = loop.pushforward(torch.zeros(1, 0), h, Q)
        torch.testing.assert_close(after, step(h))
        torch.testing.assert_close(pushed[0], torch.func.jacrev(step)(h)[0, :, 0])

    def test_flossing_and_diagnosis(self):
        cell = lt.ElmanCell(2, 8)
        loop = lt.closed_loop(cell, lt.Readout(8, 1, scale=0.1))
        x, h0 = noise(1, 55, 1, 1), noise(2, 1, 8)
        before = lt.lyapunov_spectrum(loop, x, k=2, h0=h0).exponents.abs().max()
        lt.floss(loop, x, k=2, epochs=20, lr=1e-2, h0=h0)
        assert lt.lyapunov_spectrum(loop, x, k=2, h0=h0).exponents.abs().max() < 0.5 * before
        assert "λ₁" in str(lt.diagnose(loop, x, h0=h0))

    def test_what_does_not_fit_is_refused_in_words(self, unchecked):
        cell = lt.ElmanCell(M, N)
        with pytest.raises(ValueError, match=r"map the 6 numbers .* at most its 3 inputs, got 5 to 3"):
            lt.closed_loop(cell, lt.Readout(5, 3))
        with pytest.raises(ValueError, match=r"got 6 to 4; make it Readout\(6, 3\), or fewer outputs"):
            lt.closed_loop(cell, lambda h: h[..., :4])
        with pytest.raises(ValueError, match=r"ensemble \(2,\) of the cell, got \(3,\)"):
            lt.closed_loop(lt.ElmanCell(M, N, ensemble=(2,)), lt.Readout(N, 1, ensemble=(3,)))
        with pytest.raises(ValueError, match=r"the readout failed on a state \(2, 6\)"):
            lt.closed_loop(cell, nn.Sequential(nn.Linear(5, 3)))
        with pytest.raises(ValueError, match=r"got \(3,\) torch.float64; one that reads a whole sequence"):
            lt.closed_loop(cell, lambda h: h.sum(0)[:3])
        with pytest.raises(ValueError, match=r"readout must be a module or a function of the state"):
            lt.closed_loop(cell, 3)
        loop = lt.closed_loop(cell, lt.Readout(N, 2))
        with pytest.raises(
            ValueError, match=r"1 channels for this cell, got 3; those beside what is fed back"
        ):
            lt.lyapunov_spectrum(loop, torch.zeros(5, 1, 3))
        loop = lt.closed_loop(lambda x, h: torch.tanh(h + x), lambda h: h.sum())
        with pytest.raises(ValueError, match=r"must map the state before a step, \(1, 2\) torch.float64, to"):
            lt.lyapunov_spectrum(loop, torch.zeros(5, 1, 0), h0=torch.ones(1, 2))


class TestForced:
    @every_cell
    def test_its_own_orbit_shifts_all_exponents(self, name):
        cell, x, h0 = CELLS[name](), noise(1, 25, 2, M), noise(2, 2, N)
        z = torch.cat([h0[None], unroll(cell, x, h0)[:-1]]).detach()
        own = lt.lyapunov_spectrum(cell, x, h0=h0)
        loop = lt.forced(cell, 0.3)
        assert (loop.form() is not None) == (name == "elman")
        assert loop.input_size == (0 if name == "function" else M + N)
        spec = lt.lyapunov_spectrum(loop, torch.cat([x, z], -1), h0=h0)
        shift = spec.exponents - own.exponents
        torch.testing.assert_close(shift, torch.full_like(shift, math.log(0.7)), rtol=0, atol=1e-10)
        torch.testing.assert_close(spec.final_state, own.final_state, rtol=0, atol=1e-12)
        if name == "rate":
            # one step late, z is no orbit of the cell
            late = lt.lyapunov_spectrum(loop, torch.cat([x, z.roll(1, 0)], -1), h0=h0).exponents
            assert (late - own.exponents - math.log(0.7)).abs().max() > 1e-2

    @pytest.mark.parametrize("name", ["elman", "lstm"])
    def test_products_and_gradients(self, name):
        check_cell(lt.forced(CELLS[name](), 0.3), noise(1, 3, 1, M + N), noise(2, 1, N))

    def test_the_orbit_is_found_again_where_the_shifted_exponent_is_negative(self):
        cell, x, h0 = lt.RateCell(1, 60, gain=3.0), noise(1, 400, 1, 1), noise(2, 1, 60)
        z = torch.cat([h0[None], unroll(cell, x, h0)[:-1]]).detach()
        first = lt.lyapunov_spectrum(cell, x, k=1, h0=h0).exponents.item()
        assert first > 0.1
        for alpha, found in ((0.5 * (1 - math.exp(-first)), False), (1 - 0.8 * math.exp(-first), True)):
            last = unroll(lt.forced(cell, alpha), torch.cat([x, z], -1), h0 + 0.1)[-2]
            assert ((last - z[-1]).abs().max() < 1e-8) == found

    def test_members_have_each_their_alpha(self):
        alphas = torch.tensor([0.1, 0.4, 0.8])
        for make in (lt.ElmanCell, lt.GRUCell):
            cell, x = make(M, N, ensemble=(3,)), noise(1, 4, 3, 1, M + N)
            spec = lt.lyapunov_spectrum(lt.forced(cell, alphas), x, k=3)
            alone = make(M, N, member_ids=1)
            one = lt.lyapunov_spectrum(lt.forced(alone, alphas[1]), x[:, 1], k=3)
            torch.testing.assert_close(spec.exponents[1], one.exponents, rtol=0, atol=1e-12)
            report = check_cell(lt.forced(cell, nn.Parameter(alphas.clone())), x[:2])
            assert report.errors["gradient by alpha"] < 1e-6

    def test_all_of_the_teacher_leaves_nothing_of_the_past(self):
        cell = lt.ElmanCell(M, N)
        with pytest.warns(UserWarning, match="every tangent vector has died"):
            spec = lt.lyapunov_spectrum(lt.forced(cell, 1.0), noise(1, 5, 1, M + N))
        assert (spec.exponents == -math.inf).all()

    def test_what_does_not_fit_is_refused_in_words(self, unchecked):
        cell = lt.ElmanCell(M, N)
        with pytest.raises(ValueError, match=r"alpha must be a share in 0\.\.1, got 1\.5"):
            lt.forced(cell, 1.5)
        with pytest.raises(
            ValueError, match=r"alpha must be a number or have the ensemble's shape \(\), got"
        ):
            lt.forced(cell, torch.tensor([0.1, 0.2]))
        with pytest.raises(ValueError, match=r"9 channels .* got 3; the cell's own, and behind them"):
            lt.lyapunov_spectrum(lt.forced(cell, 0.2), torch.zeros(5, 1, M))
        with pytest.raises(ValueError, match=r"behind them the teacher's state of 4 numbers, got 2 channels"):
            lt.lyapunov_spectrum(lt.forced(lambda x, h: h, 0.2), torch.zeros(5, 1, 2), h0=torch.ones(1, 4))
