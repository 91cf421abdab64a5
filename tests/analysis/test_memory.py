import math

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import lyaptorch as lt
from cases import every, setup
from lyaptorch import residuals
from lyaptorch.analysis import fading_memory, memory_capacity, time_scales
from lyaptorch.analysis.memory import recall
from lyaptorch.cells import fit
from reference import jacobian

pytestmark = pytest.mark.usefixtures("double")


def test_a_time_scale_is_where_a_memory_has_faded_by_e():
    scales = time_scales(torch.tensor([0.2, 0.0, -0.01, -math.inf]))
    assert scales.tolist() == [math.inf, math.inf, 100.0, 0.0]


@every(ensembles=False)
def test_the_curve_is_the_norm_of_the_product_of_jacobians(case, ensemble):
    cell, inputs, h = setup(case, ensemble)
    curve = fading_memory(cell, inputs, h0=h)
    J = torch.eye(h.shape[-1])
    expected = [torch.ones(2)]
    for x in inputs:
        J, h = jacobian(cell, x, h) @ J, cell.step(x, h)
        expected.append(torch.linalg.matrix_norm(J).detach() / h.shape[-1] ** 0.5)
    torch.testing.assert_close(curve, torch.stack(expected), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("r", [0.5, 1.0, 1.5])
def test_one_exponent_for_all_directions_makes_an_exponential(r):
    recipe = residuals.rotation(0.3) @ residuals.decay(r)
    cell = lt.ResidualCell(1, 6, residual=recipe, coupling=0.0)
    curve = fading_memory(cell, torch.zeros(1000, 1, 1), transient=100)[:, 0]
    torch.testing.assert_close(curve.log(), torch.arange(901.0) * math.log(r), rtol=1e-12, atol=1e-12)


def test_a_dead_network_forgets_at_once():
    cell = lt.RateCell(1, 4, gain=0.0)
    assert fading_memory(cell, torch.ones(3, 1, 1))[:, 0].tolist() == [1, 0, 0, 0]


def delay_line(n: int) -> lt.Cell:
    cell = lt.ElmanCell(1, n, activation="linear", bias=False)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.diag(torch.ones(n - 1), -1))
        cell.weight_ih.copy_(torch.eye(n)[:, :1])
    return cell


def test_a_delay_line_remembers_n_steps_exactly_and_no_more():
    capacity = memory_capacity(delay_line(6), lags=12, steps=4000)
    torch.testing.assert_close(capacity[:6], torch.ones(6), rtol=0, atol=1e-12)
    assert capacity[6:].max() < 0.01


def test_what_is_not_remembered_scatters_about_zero_and_the_sum_about_n():
    """The readout is scored where it was not fitted: there, what it learned from noise is worth nothing."""
    drawn = [torch.Generator().manual_seed(seed) for seed in range(40)]
    found = torch.stack([memory_capacity(delay_line(6), lags=12, steps=1000, generator=g) for g in drawn])
    total = found.sum(-1)
    assert abs(total.mean() - 6) < 3 * total.std() / 40**0.5
    # as often below as above, which a floor at 0 would not allow
    assert 0.3 < (total > 6).double().mean() < 0.7
    nothing = found[:, 6:].std().item()
    assert nothing == pytest.approx(4 * 7**0.5 / 1000, rel=0.3)
    assert (total - 6).abs().max() < 3 * nothing * 6


def test_a_readout_of_many_weights_is_not_paid_for_what_it_learned_by_heart():
    """31 numbers fitted to 200 steps explain 16% of noise; on other steps they explain less than nothing."""
    drawn = [torch.Generator().manual_seed(seed) for seed in range(10)]
    found = torch.stack([memory_capacity(delay_line(30), lags=60, steps=400, generator=g) for g in drawn])
    torch.testing.assert_close(found[:, :30], torch.ones(10, 30), rtol=0, atol=1e-12)
    assert -0.05 < found[:, 30:].mean() < 0.05


def linear_capacity(A: Tensor, v: Tensor, lags: int) -> Tensor:
    """v^T A^T^l C^-1 A^l v, C = sum_l A^l v v^T A^T^l: the exact capacity of h' = A h + v u."""
    columns = [v]
    for _ in range(3000):
        columns.append(A @ columns[-1])
    K = torch.stack(columns, -1)
    return (K * torch.linalg.solve(K @ K.mT, K)).sum(0)[:lags]


def test_a_linear_network_has_the_capacity_of_its_formula():
    n, lags = 6, 25
    recipe = residuals.rotation(torch.tensor([0.4, 1.1, 2.0])) @ residuals.decay(0.9)
    cell = lt.ResidualCell(1, n, residual=recipe, coupling=0.1, activation="linear", ensemble=(2,))
    capacity = memory_capacity(cell, lags, steps=20000)
    assert capacity.shape == (lags, 2)
    for member in range(2):
        A = (cell.bypass.dense() + 0.1 * cell.weight_hh)[member].detach()
        expected = linear_capacity(A, cell.weight_ih[member, :, 0].detach(), lags)
        # a sampled R^2 scatters by about 1 / sqrt(steps)
        torch.testing.assert_close(capacity[:, member], expected, rtol=0, atol=0.015)


def test_a_member_has_the_capacity_that_it_has_alone():
    kw = {"residual": residuals.decay(torch.linspace(0.5, 0.95, 5)), "coupling": 0.2}
    both = memory_capacity(lt.ResidualCell(1, 5, **kw, ensemble=(2,)), 10, steps=500)
    alone = memory_capacity(lt.ResidualCell(1, 5, **kw, member_ids=1), 10, steps=500)
    torch.testing.assert_close(both[:, 1], alone, rtol=0, atol=1e-9)


def test_dead_units_do_no_harm():
    cell = lt.RateCell(1, 4)
    with torch.no_grad():
        cell.weight_hh[2:] = 0
        cell.weight_ih[2:] = 0
    capacity = memory_capacity(cell, 5, steps=1000)
    assert torch.isfinite(capacity).all()
    assert capacity[0] > 0.3


def rotated(n: int = 6) -> lt.Cell:
    recipe = residuals.rotation(torch.tensor([0.4, 1.1, 2.0])) @ residuals.decay(0.9)
    return lt.ResidualCell(1, n, residual=recipe, coupling=0.1, activation="linear")


def slow_walks(t: int, b: int) -> Tensor:
    """Strongly correlated inputs, from which what came before can be guessed."""
    noise = torch.randn(t, b, 1, generator=torch.Generator().manual_seed(1))
    return 3 + noise.cumsum(0) / t**0.5


def test_the_inputs_own_part_cancels_whatever_their_correlations():
    """Of a linear network the capacity does not depend on the inputs, be they walks or nothing."""
    cell, lags = rotated(), 20
    A = (cell.bypass.dense() + 0.1 * cell.weight_hh).detach()
    expected = linear_capacity(A, cell.weight_ih[:, 0].detach(), lags)
    for inputs in (slow_walks(400, 8), torch.zeros(400, 8, 1)):
        found = memory_capacity(cell, lags, inputs=inputs, steps=20000, transient=60)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_the_probe_has_the_size_of_what_varies():
    """Channel 1 is a bias, and has no probe that would cancel that of channel 0."""
    cell = lt.ElmanCell(2, 6, activation="linear", bias=False)
    cell.weight_hh.data = delay_line(6).weight_hh.data
    cell.weight_ih.data = torch.zeros(6, 2)
    cell.weight_ih.data[0] = torch.tensor([1.0, -1.0])
    inputs = torch.cat([slow_walks(60, 4), torch.full((60, 4, 1), 7.0)], -1)
    capacity = memory_capacity(cell, 8, inputs=inputs)
    torch.testing.assert_close(capacity[:6], torch.ones(6), rtol=0, atol=1e-9)
    # where nothing varies both have the same one, which cancels in the one unit that takes them up
    constant = memory_capacity(cell, 8, inputs=torch.ones_like(inputs))
    assert constant.abs().max() < 0.01


def test_a_saturating_network_remembers_less_of_a_larger_probe_but_a_small_one_has_no_size():
    cell, inputs = lt.RateCell(1, 8, gain=1.2), slow_walks(60, 8)
    small, smaller, large = (memory_capacity(cell, 6, inputs=inputs, scale=s) for s in (1e-2, 1e-3, 10.0))
    torch.testing.assert_close(small, smaller, rtol=0, atol=1e-3)
    assert large.sum() < small.sum() - 0.1


def test_each_trajectory_counts_up_to_its_own_end():
    cell = lt.LSTMCell(1, 3)
    inputs, lengths = slow_walks(50, 3), torch.tensor([50, 20, 9])
    padding = torch.where(torch.arange(50)[:, None] < lengths, 0.0, torch.nan).unsqueeze(-1)
    found = memory_capacity(cell, 5, inputs=inputs + padding, lengths=lengths, steps=400)
    packed = pack_padded_sequence(inputs, lengths)
    torch.testing.assert_close(found, memory_capacity(cell, 5, inputs=packed, steps=400))
    other = memory_capacity(cell, 5, inputs=inputs, steps=400)
    assert (found - other).abs().max() > 1e-3


def test_sequences_shorter_than_the_lags_are_taken_in_a_row():
    """A delay line of 6 on sequences of 4 steps: what came 5 steps ago came in the sequence before."""
    capacity = memory_capacity(delay_line(6), 12, inputs=slow_walks(4, 3))
    torch.testing.assert_close(capacity[:6], torch.ones(6), rtol=0, atol=1e-9)
    assert capacity[6:].abs().max() < 0.02


def test_what_is_still_to_come_tells_the_scatter():
    cell, inputs = lt.RateCell(1, 8, gain=0.5), slow_walks(60, 8)
    x, h = fit(cell, inputs, None)
    drawn = [recall(cell, 40, x, h, None, 600, 0, 1.0, seed) for seed in range(20)]
    forgotten = torch.stack([found.share[25:] for found in drawn])
    errors = torch.stack([found.error() for found in drawn])
    assert forgotten.square().mean().sqrt().item() == pytest.approx(
        errors.square().mean().sqrt().item(), rel=0.2
    )


def test_a_network_that_its_inputs_do_not_reach_recalls_nothing():
    cell = lt.RateCell(1, 4)
    cell.weight_ih.data.zero_()
    assert memory_capacity(cell, 5, inputs=slow_walks(30, 2)).abs().max() < 0.01


def test_dynamics_that_overflow_have_no_capacity():
    with pytest.raises(FloatingPointError, match=r"not finite within 4202 steps.*lower the gain"):
        memory_capacity(lt.ResidualCell(1, 4, residual=residuals.decay(2.0)), lags=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lags": 0}, r"lags must be an integer >= 1, got 0"),
        ({"steps": 10}, r"steps must be an integer >= 20, got 10; each half must fit n \+ 1 numbers"),
        ({"transient": -1}, r"transient must be an integer >= 0, got -1"),
    ],
)
def test_bad_arguments_of_the_capacity(settings, message):
    with pytest.raises(ValueError, match=message):
        memory_capacity(lt.RateCell(1, 4), **{"lags": 3, **settings})


def test_a_perturbation_needs_a_step_behind_the_transient():
    with pytest.raises(ValueError, match=r"transient must be in 0\.\.2, got 3"):
        fading_memory(lt.RateCell(1, 4), torch.zeros(3, 1, 1), transient=3)


def test_numbers_without_tangents_do_not_fade():
    cell = lt.RateCell(1, 3, gain=0.8).double()
    x = torch.randn(6, 1, 1, dtype=torch.float64)
    h0 = torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.int64)
    counted = fading_memory(lambda now, s: (cell.step(now, s[0]), s[1] + 1), x, h0=h0)
    torch.testing.assert_close(counted, fading_memory(cell, x), rtol=1e-12, atol=0)
