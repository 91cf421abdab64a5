"""The oracles agree with the library, and `check_cell` finds what is wrong with a cell."""

import math

import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt
from cases import CASES, M, N, every, setup
from lyaptorch import testing
from lyaptorch.testing import check_cell, divergence_rate

pytestmark = pytest.mark.usefixtures("double")


class TestSystems:
    def test_a_linear_system_has_its_rates(self):
        rates = [0.2, -0.1, -0.3, -0.9]
        inputs, h0 = torch.zeros(250, 2, 1), torch.randn(2, 4)
        spec = lt.lyapunov_spectrum(testing.linear(rates), inputs, h0=h0, tangent_transient=200)
        torch.testing.assert_close(spec.exponents, torch.tensor(rates).expand(2, 4), rtol=0, atol=1e-12)

    def test_uncoupled_units_have_one_exponent_each(self):
        step, rates = testing.uncoupled([0.3, 0.45, 0.8])
        spec = lt.lyapunov_spectrum(
            step, torch.zeros(300, 48, 1), h0=torch.rand(48, 3), frame=torch.eye(3), transient=50
        )
        mean, error = spec.exponents.mean(0), spec.exponents.std(0) / 48**0.5
        assert ((mean - torch.tensor(rates)).abs() < 4 * error).all()
        assert (error < 0.01).all()

    def test_the_lorenz_field_has_its_divergence_everywhere(self):
        h = 10 * torch.randn(5, 3)
        D = torch.func.vmap(torch.func.jacrev(lambda y: testing.lorenz(torch.zeros(1), y)))(h)
        traces = D.diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(traces, torch.full((5,), testing.LORENZ_SUM), rtol=1e-14, atol=0)
        assert sum(testing.LORENZ_EXPONENTS) == pytest.approx(testing.LORENZ_SUM, abs=1e-3)
        # its fixed points
        side = math.sqrt(8 / 3 * 27)
        for point in ([0.0, 0.0, 0.0], [side, side, 27.0], [-side, -side, 27.0]):
            field = testing.lorenz(torch.zeros(1), torch.tensor(point))
            torch.testing.assert_close(field, torch.zeros(3), rtol=0, atol=1e-13)


def has_surrogate(cell):
    return any(getattr(module, "surrogate", False) is not False for module in cell.modules())


class TestTwoTrajectories:
    @every(ensembles=False)
    def test_they_part_at_the_first_exponent(self, case, ensemble):
        s = setup(case, t=100)
        if has_surrogate(s.cell):
            pytest.skip("the tangent of a surrogate is not that of the step")
        wait = {"transient": 10, "tangent_transient": 30, "h0": s.h0}
        rate = divergence_rate(s.cell, s.inputs, **wait)
        assert rate.shape == (2,)
        exponents = lt.lyapunov_spectrum(s.cell, s.inputs, k=case.rank, **wait).exponents.detach()
        # in the long run the first direction of any frame grows like any perturbation; here up to turning
        torch.testing.assert_close(rate, exponents[:, 0], rtol=0, atol=0.05)

    def test_exactly_where_the_direction_is_settled(self):
        inputs, h0 = torch.zeros(300, 4, 1), 0.1 * torch.rand(4, 2)
        wait = {"transient": 50, "tangent_transient": 50, "h0": h0}
        rate = divergence_rate(testing.henon, inputs, **wait)
        first = lt.lyapunov_spectrum(testing.henon, inputs, k=1, **wait).exponents[:, 0]
        torch.testing.assert_close(rate, first, rtol=0, atol=1e-6)
        # the error is that of the distance
        for distance, worst in ((1e-5, 1e-3), (1e-2, 1.0)):
            off = (divergence_rate(testing.henon, inputs, distance=distance, **wait) - first).abs().max()
            assert 1e-3 * distance < off < worst

    def test_per_unit_of_time_for_a_flow(self):
        flow = lt.Flow(lambda x, h: -2.0 * h, dt=0.1)
        for dt, rate in ((None, -2.0), (1.0, -0.2)):
            found = divergence_rate(flow, torch.zeros(20, 1, 1), h0=torch.ones(1, 2), dt=dt)
            assert found.item() == pytest.approx(rate, abs=1e-3 * abs(rate))

    def test_at_rest_at_zero(self):
        cell = lt.RateCell(1, 4, weights="orthogonal", gain=0.7, bias=False)
        rate = divergence_rate(cell, torch.zeros(20, 1, 1))
        assert rate.item() == pytest.approx(math.log(0.7), abs=1e-6)

    def test_an_ensemble_and_a_state_that_forgets_at_once(self):
        cell = lt.RateCell(M, N, ensemble=(3,))
        assert divergence_rate(cell, torch.randn(20, 2, M)).shape == (3, 2)
        assert (
            divergence_rate(lambda x, h: 0 * h + x, torch.ones(5, 1, 1), h0=torch.ones(1, 2)).item()
            == -math.inf
        )

    def test_bad_arguments_are_refused_in_words(self, unchecked):
        inputs = torch.zeros(10, 1, M)
        with pytest.raises(ValueError, match=r"transient must be an integer in 0\.\.9, got 10"):
            divergence_rate(lt.RateCell(M, N), inputs, transient=10)
        with pytest.raises(ValueError, match=r"tangent_transient must be an integer in 0\.\.5, got 6"):
            divergence_rate(lt.RateCell(M, N), inputs, transient=4, tangent_transient=6)
        with pytest.raises(ValueError, match=r"distance must be a finite number above 0, got 0\.0"):
            divergence_rate(lt.RateCell(M, N), inputs, distance=0.0)
        with pytest.raises(FloatingPointError, match=r"not finite"):
            divergence_rate(lambda x, h: 1e9 * h, torch.zeros(60, 1, 1), h0=torch.ones(1, 2))


class Good(lt.Cell):
    """A correct cell with a written pushforward; each test breaks one thing."""

    def __init__(self, ensemble=(3,)):
        super().__init__(M, N, ensemble)
        self.W = nn.Parameter(torch.randn(*ensemble, N, N) / N**0.5)
        self.gain = nn.Parameter(torch.ones(N))

    def value(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h @ self.W.mT + x.sum(-1, keepdim=True)) * self.gain

    def step(self, x, h):
        return self.value(x, h)

    def slope(self, x, h):
        return 1 - torch.tanh(h @ self.W.mT + x.sum(-1, keepdim=True)) ** 2

    def pushforward(self, x, h, Q):
        D = (self.slope(x, h) * self.gain).unsqueeze(-1) * self.W.unsqueeze(-3)
        return self.step(x, h), D @ Q


class WrongSlope(Good):
    def slope(self, x, h):
        return 1 - torch.tanh(h @ self.W.mT + x.sum(-1, keepdim=True)) ** 2.01


class Transposed(Good):
    def pushforward(self, x, h, Q):
        after, _ = super().pushforward(x, h, Q)
        return after, (self.slope(x, h) * self.gain).unsqueeze(-1) * (self.W.mT.unsqueeze(-3) @ Q)


class WrongState(Good):
    def pushforward(self, x, h, Q):
        after, pushed = super().pushforward(x, h, Q)
        return after + 1e-9, pushed


class WrongShape(Good):
    def pushforward(self, x, h, Q):
        after, pushed = super().pushforward(x, h, Q)
        return after, pushed.mT


class Random(Good):
    def step(self, x, h):
        return self.value(x, h) + 1e-3 * torch.rand_like(h)


class Mixing(Good):
    def step(self, x, h):
        return self.value(x, h) + 0.1 * h.mean(-2, keepdim=True)


class MixingTangents(Good):
    def pushforward(self, x, h, Q):
        after, pushed = super().pushforward(x, h, Q)
        return after, pushed + 0.1 * (Q - Q.mean(-3, keepdim=True))


class SharedState(Good):
    def step(self, x, h):
        return self.value(x, h) + 0.1 * h.mean(0, keepdim=True)

    pushforward = lt.Cell.pushforward


class SharedWeights(Good):
    def value(self, x, h):
        return torch.tanh(h @ self.W.roll(1, 0).mT + h @ self.W.mT) * self.gain

    pushforward = lt.Cell.pushforward


class Detached(Good):
    """Right forwards, and no gradient by W through the tangent."""

    def pushforward(self, x, h, Q):
        D = (self.slope(x, h) * self.gain).unsqueeze(-1) * self.W.detach().unsqueeze(-3)
        return self.step(x, h), D @ Q


class DetachedState(Good):
    """Right forwards, and no gradient by h through the slope."""

    def pushforward(self, x, h, Q):
        D = (self.slope(x, h.detach()) * self.gain).unsqueeze(-1) * self.W.unsqueeze(-3)
        return self.step(x, h), D @ Q


class InPlace(Good):
    def step(self, x, h):
        return h.copy_(self.value(x, h))

    pushforward = lt.Cell.pushforward


class WithInput(Good):
    """Its tangent leaves out what comes by way of the input."""

    def pushforward_with_input(self, x, h, X, Q):
        return self.pushforward(x, h, Q)


class WrongLast(Good):
    def last(self, inputs, h):
        return super().last(inputs[1:], h)


class WrongForm(Good):
    def form(self):
        V = torch.ones(*self.ensemble, N, M)
        return lt.cells.Form(self.W, V, (), None, lt.cells.ACTIVATIONS["relu"]())


class LosesOrder(Good):
    def pack(self, state):
        return state.flip(-1)


class TooManyParts(Good):
    def parts(self):
        return {"h": slice(0, N), "c": slice(N, 2 * N)}


class OpenGate(Good):
    def gate_values(self, x, h):
        return {"forget": h.exp()}


class TestCheckCell:
    @pytest.mark.parametrize(
        ("case", "ensemble"),
        [(c, ()) for c in CASES] + [(c, (3,)) for c in CASES if c.name in ("rate-tanh", "function")],
        ids=str,
    )
    def test_every_cell_of_the_catalogue_passes(self, case, ensemble):
        s = setup(case, ensemble, t=3)
        before = [p.detach().clone() for p in s.cell.parameters()]
        report = check_cell(s.cell, s.inputs, s.h0)
        assert all(torch.equal(p, old) for p, old in zip(s.cell.parameters(), before, strict=True))
        kinds = ["state of pushforward", "pushforward", "unroll", "trajectory alone"]
        assert all(report.errors[kind] < 1e-12 for kind in kinds)
        gradients = [name for name in report.errors if name.startswith("gradient by")]
        assert {"gradient by inputs", "gradient by h0"} <= set(gradients)
        assert len(gradients) == 2 + len(s.cell.leaves(s.inputs[0], s.h0))
        assert max(report.errors[name] for name in gradients) < 1e-5
        assert any("members" in note for note in report.notes) == bool(s.cell.ensemble)
        assert any("surrogate" in note for note in report.notes) == has_surrogate(s.cell)

    def test_a_correct_cell_passes_with_inputs_of_its_own(self):
        for ensemble in ((), (3,), (2, 2)):
            report = check_cell(Good(ensemble))
            assert {"gradient by W", "gradient by gain"} <= report.errors.keys()
        assert "pushforward " in str(report)
        assert "members of the ensemble (2, 2) are independent" in str(report)

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (WrongSlope, r"pushforward must return D Q with the derivative D of step.*difference of"),
            (Transposed, r"pushforward must return D Q with the derivative D of step"),
            (WrongState, r"pushforward must return step\(x, h\), got a relative difference of"),
            (WrongShape, r"pushforward must return D Q of shape \(3, 3, 4, 3\), got \(3, 3, 3, 4\)"),
            (Random, r"must give the same answer twice"),
            (Mixing, r"must treat trajectories independently"),
            (MixingTangents, r"pushforward must return D Q"),
            (SharedState, r"members must be independent, got one that depends on the state of another"),
            (SharedWeights, r"members must be independent, got one that depends on the W of another"),
            (Detached, r"the gradient of the exponents by W must be that of central differences, .* got"),
            (DetachedState, r"the gradient of the exponents by inputs must be that of central differences"),
            (InPlace, r"must leave its state as it is, got one that it changed in place"),
            (WithInput, r"pushforward_with_input must return dh'/dx X \+ D Q with the derivatives of step"),
            (WrongLast, r"last must return the last state of step, got a relative difference"),
            (WrongForm, r"unroll must return the states of step, which a form must describe"),
            (LosesOrder, r"pack must undo unpack, got another state from it: \(3, 3, 4\) for"),
            (TooManyParts, r"parts must be slices of the state of size 4, got slice\(4, 8, None\) for 'c'"),
            (
                OpenGate,
                r"gate_values must be \(\*e, b, units\) = .* within 0..1, got \(3, 3, 4\) from .* 'forget'",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, kind, message):
        with pytest.raises(ValueError, match=message):
            check_cell(kind())

    def test_reverse_mode_is_noted(self):
        class Old(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                ctx.save_for_backward(a)
                return torch.tanh(a)

            @staticmethod
            def backward(ctx, bar):
                (a,) = ctx.saved_tensors
                return bar * (1 - torch.tanh(a) ** 2)

        report = check_cell(lambda x, h: Old.apply(h + x), torch.zeros(4, 2, 1), torch.randn(2, 3))
        assert any("using reverse mode" in note for note in report.notes)
        assert report.errors["pushforward"] < 1e-12

    def test_a_written_pushforward_keeps_its_mode(self):
        cell = Good()
        check_cell(cell)
        assert cell.reverse_mode is False

    def test_single_precision_checks_all_but_gradients(self):
        report = check_cell(lt.RateCell(M, N).float())
        assert report.errors["pushforward"] < 1e-5
        assert not any(name.startswith("gradient") for name in report.errors)
        assert any("call .double()" in note for note in report.notes)

    def test_a_function_needs_inputs_and_a_state(self, unchecked):
        with pytest.raises(ValueError, match=r"inputs and h0 must be given for a function or module"):
            check_cell(lambda x, h: h)

    def test_a_large_state_is_checked_without_its_jacobian(self):
        largest = 0

        def step(x, h):
            nonlocal largest
            largest = max(largest, h.numel())
            return 0.9 * torch.tanh(h.roll(1, -1) + h)

        check_cell(step, torch.zeros(3, 1, 1), torch.randn(1, 5000))
        assert largest <= 4 * 5000
