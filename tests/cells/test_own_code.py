"""What the library takes for its own: objects, not names. A step of one's own has its own products."""

import copy
from dataclasses import replace

import pytest
import torch

import lyaptorch as lt
import reference
from lyaptorch import surrogates
from lyaptorch.cells.surrogates import Bump, Surrogate
from lyaptorch.compile.operators import flatten

pytestmark = pytest.mark.usefixtures("double")
tent = surrogates.triangular


def spectrum(f, backend=None):
    cell = lt.RateCell(2, 6, activation=f, gain=0.5)
    inputs = torch.randn(30, 1, 2, generator=torch.Generator().manual_seed(1))
    return lt.lyapunov_spectrum(cell, inputs, k=2, backend=backend).exponents


class Doubled(Surrogate):
    def slope(self, x):
        return 2 * super().slope(x)


@pytest.mark.parametrize("name", ["sech2", "mine"])
def test_a_bump_of_anybody_is_what_it_computes_under_any_name(name):
    mine = Bump(name, tent.height, tent.slope, tent.integral, tent.area)
    assert mine(0.5).known is None
    assert flatten(lt.RateCell(2, 6, activation=mine(0.5)).form()) is None
    assert torch.equal(spectrum(mine(0.5)), spectrum(tent(0.5), "torch"))
    assert not torch.allclose(spectrum(mine(0.5)), spectrum(surrogates.sech2(0.5)))


def test_what_is_made_of_a_surrogate_of_the_library_is_no_longer_it():
    assert replace(tent, name="tent")(0.5).known is None
    assert Doubled(tent, 0.5, "peak", "sign", "slope").known is None
    assert lt.Activation(torch.tanh, name="tanh").known is None


def test_an_activation_of_the_library_is_known_when_it_is_copied_or_shown_by_another_name():
    f = copy.deepcopy(tent(0.5))
    f.name = "sech2"
    assert f.known == "triangular"
    assert f.of("step").known == "triangular"
    torch.testing.assert_close(spectrum(f), spectrum(tent(0.5), "torch"), rtol=0, atol=1e-12)


class Halved:
    def step(self, x, h):
        return 0.5 * super().step(x, h)


KINDS = [
    lt.RateCell,
    lt.ElmanCell,
    lt.LSTMCell,
    lt.GRUCell,
    lt.cells.URLSTMCell,
    lt.cells.CoRNNCell,
    lt.ResidualCell,
    lt.LIFCell,
]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_ones_own_has_its_own_products(kind, mixed):
    made = type("Mixed", (Halved, kind), {}) if mixed else type("Own", (kind,), {"step": halved(kind)})
    cell = made(2, 4)
    x = torch.randn(12, 1, 2)
    h, frame = 0.3 * torch.rand(1, cell.state_size), torch.eye(cell.state_size)[:, :2]
    assert cell.form() is None
    spec = lt.lyapunov_spectrum(cell, x, h0=h, k=2, frame=frame)
    expected = reference.scan(cell, x, h, frame)
    torch.testing.assert_close(spec.exponents, expected.exponents, rtol=0, atol=1e-12)
    lt.flossing_loss(spec.exponents).backward()
    assert cell.weight_hh.grad.abs().max() > 0


def halved(kind):
    return lambda self, x, h: 0.5 * kind.step(self, x, h)


def test_a_pushforward_of_ones_own_is_the_one_that_is_used():
    class Straight(lt.RateCell):
        """The straight-through estimator: the slope of the activation counts as 1."""

        def pushforward(self, x, h, Q):
            return self.step(x, h), self.weight_hh @ Q

    cell = Straight(1, 5)
    spec = lt.lyapunov_spectrum(cell, torch.randn(9, 1, 1))
    # whatever the states are, D = W
    total = torch.linalg.slogdet(cell.weight_hh).logabsdet
    torch.testing.assert_close(spec.exponents.sum(-1)[0], total, rtol=0, atol=1e-12)


def test_a_drive_of_ones_own_is_part_of_the_step():
    class Squared(lt.LIFCell):
        def drive(self, x):
            return super().drive(x) ** 2

    cell, h = Squared(2, 3), torch.zeros(1, 6)
    inputs = torch.randn(12, 1, 2)
    spec = lt.lyapunov_spectrum(cell, inputs)
    for x in inputs:
        h = cell.step(x, h)
    torch.testing.assert_close(spec.final_state, h, rtol=0, atol=1e-14)


def test_a_cell_that_defines_forward_in_the_place_of_step_is_refused():
    with pytest.raises(TypeError, match=r"defines forward\(x, h\), .* define step\(x, h\)"):
        type("Net", (lt.RateCell,), {"forward": lambda self, x, h: h})


@pytest.mark.parametrize("gates", [(18.0, 0.5, 0.125, 18.0), (0.5, 18.0, 0.125, 18.0)])
def test_the_refined_lstm_keeps_its_slopes_where_gates_are_open(gates):
    cell = lt.cells.URLSTMCell(2, 3).float()
    with torch.no_grad():
        cell.bias_hh.zero_()
        cell.bias_ih.copy_(torch.tensor(gates).repeat_interleave(3))
    # at x = h = 0 the gates' arguments are exact in float32, and 1 - sigmoid(18) is 0 to round-off
    x, h = torch.zeros(1, 2), torch.tensor([[0.0, 0.0, 0.0, 0.5, -1.0, 0.25]])
    D = cell.pushforward(x.float(), h.float(), torch.eye(6)[None].float())[1].double()
    expected = reference.jacobian(cell.double(), x, h)
    # of six rows and columns those of c alone are diagonal
    assert torch.count_nonzero(expected) == 24
    torch.testing.assert_close(D, expected, rtol=1e-6, atol=0)


def test_the_refined_lstm_takes_and_gives_its_state_as_a_pair():
    cell = lt.cells.URLSTMCell(1, 3)
    h, c = torch.zeros(2, 3), torch.ones(2, 3)
    spec = lt.lyapunov_spectrum(cell, torch.zeros(5, 2, 1), h0=(h, c))
    assert [part.shape for part in cell.unpack(spec.final_state)] == [(2, 3), (2, 3)]
    assert cell.parts() == {"h": slice(0, 3), "c": slice(3, 6)}


def test_layers_made_without_a_generator_have_weights_of_their_own():
    first = lt.RateCell(8, 8)
    weights = first.weight_hh.detach().clone()
    stack = lt.cells.Stacked([first, lt.RateCell(8, 8), lt.RateCell(8, 8), lt.BinaryCell(8, 8)])
    assert torch.equal(stack.layers[0].weight_hh, weights)
    assert torch.equal(stack.layers[0].weight_hh, lt.RateCell(8, 8).weight_hh)
    for name in ("weight_hh", "weight_ih", "bias"):
        drawn = [getattr(layer, name).flatten() for layer in stack.layers]
        assert all(not torch.isclose(a, b).any() for i, a in enumerate(drawn) for b in drawn[:i])
    again = lt.cells.Stacked([lt.RateCell(8, 8), lt.RateCell(8, 8)])
    assert torch.equal(again.layers[1].weight_hh, stack.layers[1].weight_hh)


def test_a_stack_leaves_alone_what_somebody_chose():
    changed, seeded = lt.RateCell(8, 8), lt.RateCell(8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        changed.weight_hh[0, 0] = 1.0
    tied = lt.RateCell(8, 8)
    layers = [lt.RateCell(8, 8), changed, seeded, tied, tied]
    before = [layer.weight_hh.detach().clone() for layer in (changed, seeded)]
    stack = lt.cells.Stacked(layers)
    assert torch.equal(changed.weight_hh, before[0])
    assert torch.equal(seeded.weight_hh, before[1])
    assert stack.layers[3] is stack.layers[4]
    assert not torch.equal(tied.weight_hh, layers[0].weight_hh)
    theirs = torch.nn.GRU(8, 8, num_layers=2).double()
    kept = theirs.weight_hh_l1.detach().clone()
    lt.as_cell(theirs)
    assert torch.equal(theirs.weight_hh_l1, kept)
