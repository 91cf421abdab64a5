"""Long-term Jacobians, gradients and events: closed forms, brute force, two arithmetics against a third."""

import builtins
import math

import numpy as np
import pytest
import torch

import lyaptorch as lt
import reference
from lyaptorch import analysis
from lyaptorch.analysis.products import graded_log_singular_values, precise_log_singular_values
from lyaptorch.theory import log_condition_number
from reference import differences

pytestmark = pytest.mark.usefixtures("double")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def driven(n, t, ensemble=(), b=1, gain=1.0):
    return lt.RateCell(1, n, gain=gain, ensemble=ensemble), noise(t, *ensemble, b, 1)


@pytest.fixture
def without_flint(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "flint":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr("importlib.import_module", lambda name: missing(name))


def test_the_jacobians_of_all_steps_are_those_of_autodiff():
    cell, x = driven(4, 5, (2,), 3)
    found, h = analysis.step_jacobians(cell, x), torch.zeros(2, 3, 4)
    for D, now in zip(found, x, strict=True):
        torch.testing.assert_close(D, reference.jacobian(cell, now, h), rtol=1e-12, atol=1e-14)
        h = cell.step(now, h)


@pytest.mark.parametrize("bits", [None, "auto", 200])
@pytest.mark.parametrize("ensemble", [(), (2,)])
def test_singular_values_of_a_short_product_are_those_of_plain_svd(bits, ensemble):
    cell, x = driven(5, 9, ensemble, 2)
    found = analysis.condition_number(cell, x, transient=3, every=2, bits=bits)
    assert found.times.tolist() == [2, 4, 6]
    T = torch.eye(5)
    for s, D in enumerate(analysis.step_jacobians(cell, x)[3:], 1):
        T = D @ T
        if s % 2 == 0:
            expected = torch.linalg.svdvals(T).log()
            torch.testing.assert_close(found.log_singular_values[s // 2 - 1], expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.log_kappa[-1], expected[..., 0] - expected[..., -1], rtol=0, atol=1e-7)


def test_k_columns_are_a_random_frame_carried_along():
    cell, x = driven(6, 7, b=2)
    found = analysis.condition_number(cell, x, k=3, every=7)
    T = lt.cells.random_frame(6, 3, lt._random.Stream(lt._random.seed_from(None), "frame"), torch.tensor(0))
    for D in analysis.step_jacobians(cell, x):
        T = D @ T
    torch.testing.assert_close(found.log_singular_values[0], torch.linalg.svdvals(T).log(), atol=1e-9, rtol=0)
    spectrum = lt.lyapunov_spectrum(cell, x, k=3).exponents.detach()
    torch.testing.assert_close(found.exponents, spectrum, rtol=1e-9, atol=1e-12)
    gap = spectrum[:, 0] - spectrum[:, 2]
    torch.testing.assert_close(found.predicted[0], 7 * gap, rtol=1e-9, atol=1e-9)


def test_where_the_plain_product_is_lost_the_two_ways_agree():
    cell, x = driven(16, 120, b=2, gain=0.7)
    graded = analysis.condition_number(cell, x, transient=60, every=30)
    precise = analysis.condition_number(cell, x, transient=60, every=30, bits="auto")
    assert (graded.bits, graded.arithmetic) == (53, "float64")
    assert graded.log_kappa.max() > math.log(2**53) + 40
    torch.testing.assert_close(graded.log_kappa, precise.log_kappa, rtol=0, atol=1e-7)
    torch.testing.assert_close(graded.log_singular_values, precise.log_singular_values, rtol=0, atol=1e-6)
    spread = (graded.exponents.amax() - graded.exponents.amin()) * 60
    assert precise.bits >= spread / math.log(2) + 64
    # twice the bits change nothing
    more = analysis.condition_number(cell, x, transient=60, every=30, bits=2 * precise.bits)
    torch.testing.assert_close(more.log_singular_values, precise.log_singular_values, rtol=0, atol=1e-12)
    # the sum of all is the determinant, exactly
    total = torch.linalg.slogdet(analysis.step_jacobians(cell, x)[60:]).logabsdet.sum(0)
    for found in (graded, precise):
        torch.testing.assert_close(found.log_singular_values[-1].sum(-1), total, rtol=1e-11, atol=0)


def test_few_bits_saturate_where_kappa_passes_them():
    cell, x = driven(16, 40)
    full = analysis.condition_number(cell, x, every=4)
    few = analysis.condition_number(cell, x, every=4, bits=64)
    limit = 64 * math.log(2)
    safe = full.log_kappa[:, 0] < limit - 12
    lost = full.log_kappa[:, 0] > limit + 12
    assert safe.any()
    assert lost.any()
    torch.testing.assert_close(few.log_kappa[safe], full.log_kappa[safe], rtol=0, atol=1e-3)
    assert ((few.log_kappa[lost] - limit).abs() < 12).all()
    assert (full.log_kappa[lost] - few.log_kappa[lost] > 10).any()


def test_mpmath_serves_where_flint_is_missing(without_flint):
    cell, x = driven(6, 30)
    found = analysis.condition_number(cell, x, bits="auto")
    assert found.arithmetic == "mpmath"
    graded = analysis.condition_number(cell, x)
    torch.testing.assert_close(found.log_singular_values, graded.log_singular_values, rtol=0, atol=1e-6)


def test_flint_and_mpmath_agree(request):
    pytest.importorskip("flint", reason="python-flint is not installed")
    cell, x = driven(6, 40)
    by_flint = analysis.condition_number(cell, x, bits=300)
    assert by_flint.arithmetic == "python-flint"
    request.getfixturevalue("without_flint")
    by_mpmath = analysis.condition_number(cell, x, bits=300)
    torch.testing.assert_close(
        by_flint.log_singular_values, by_mpmath.log_singular_values, rtol=1e-14, atol=1e-12
    )


def test_a_linear_network_has_the_powers_of_its_weights():
    """W orthogonal times a diagonal that commutes: the singular values of W^t are the t-th powers."""
    values = torch.tensor([1.1, 0.9, 0.4, 0.05])
    cell = lt.RateCell(1, 4, activation="linear", bias=False)
    basis = torch.linalg.qr(noise(4, 4)).Q
    with torch.no_grad():
        cell.weight_hh.copy_(basis @ torch.diag(values) @ basis.T)
    for bits in (None, "auto"):
        found = analysis.condition_number(cell, torch.zeros(100, 1, 1), every=50, bits=bits)
        for s, t in enumerate((50, 100)):
            torch.testing.assert_close(found.log_singular_values[s, 0], t * values.log(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("order", ["falling", "rising", "shuffled"])
@pytest.mark.parametrize("t", [8, 40, 160])
def test_products_of_triangles_whatever_the_order_of_their_diagonals(order, t):
    """Within the range of float64, which 160 factors leave, and beyond it."""
    d = torch.linspace(0, -6, 6)
    d = {"falling": d, "rising": d.flip(0), "shuffled": d[torch.tensor([3, 1, 5, 0, 4, 2])]}[order]
    R = torch.triu(noise(t, 2, 6, 6), 1) * d.exp()[:, None] + torch.diag(d.exp())
    # multiplied out, with as many bits as it takes
    bits = math.ceil(6 * t / math.log(2)) + 100
    expected, _ = precise_log_singular_values(R, torch.eye(6), torch.tensor([t]), bits)
    torch.testing.assert_close(graded_log_singular_values(R), expected[0], rtol=0, atol=1e-8)


def test_columns_that_die_take_no_other_with_them():
    """Four rectified units of which the last is shut: one singular value is nothing."""
    cell = lt.RateCell(1, 4, activation="relu", bias=True)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.diag(torch.tensor([0.9, 0.5, 0.2, 0.1])))
        cell.weight_ih.zero_()
        cell.bias.copy_(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    x = torch.zeros(40, 1, 1)
    found = analysis.condition_number(cell, x, transient=5, every=5)
    expected = torch.tensor([0.9, 0.5, 0.2]).log()
    values = found.log_singular_values[:, 0]
    # three columns of the frame are left: their singular values are those of W^t up to a constant
    torch.testing.assert_close(values[-1, :3] - values[-2, :3], 5 * expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(values[-1, :3].sum(), 35 * expected.sum(), rtol=0, atol=5)
    assert (values[:, 3] == -torch.inf).all()
    assert (found.log_kappa == torch.inf).all()
    with pytest.raises(ValueError, match=r"no number of bits is enough where an exponent is -inf"):
        analysis.condition_number(cell, x, transient=5, bits="auto")
    some = analysis.condition_number(cell, x, transient=5, bits=400)
    torch.testing.assert_close(some.log_singular_values[0, 0, :3], 35 * expected, rtol=1e-9, atol=0)
    assert some.log_singular_values[0, 0, 3] == -torch.inf


@pytest.mark.parametrize("bits", [None, 200])
def test_what_died_had_been_handed_on_before(bits):
    """W = [[1, 1], [0, 0]] = W^t: one value is sqrt 2, whichever column of the frame died at once."""
    cell = lt.RateCell(1, 2, activation="linear", bias=False)
    cell.weight_hh.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = analysis.condition_number(cell, torch.zeros(3, 1, 1), every=1, bits=bits)
    expected = torch.tensor([2**0.5, 0.0]).expand(3, 1, 2)
    torch.testing.assert_close(found.log_singular_values.exp(), expected, rtol=1e-14, atol=1e-60)


def dying(kind, seed):
    """A network some of whose directions die, at different times, and its inputs."""
    draws = torch.Generator().manual_seed(seed)
    if kind == "lif":
        return lt.LIFCell(1, 4, generator=draws), 1.5 * torch.randn(12, 2, 1, generator=draws)
    cell = lt.ElmanCell(1, 8, activation="relu", gain=2.0, generator=draws)
    cell.bias_ih.data.fill_(1.0)
    return cell, torch.randn(12, 2, 1, generator=draws)


@pytest.mark.parametrize("kind", ["relu", "lif"])
def test_singular_values_after_deaths_are_those_of_the_dense_product(kind):
    ranks = set()
    for seed in range(20):
        cell, x = dying(kind, seed)
        found = analysis.condition_number(cell, x, every=3)
        T = torch.eye(8)
        for s, D in enumerate(analysis.step_jacobians(cell, x), 1):
            T = D @ T
            if s % 3 == 0:
                expected, values = torch.linalg.svdvals(T), found.log_singular_values[s // 3 - 1]
                torch.testing.assert_close(values.exp(), expected, rtol=0, atol=1e-13 * expected.max().item())
                # logarithms of what a plain product keeps to 1e-6
                seen = expected > 1e-9 * expected[..., :1]
                torch.testing.assert_close(values[seen], expected[seen].log(), rtol=0, atol=1e-6)
                ranks |= set(torch.isfinite(values).sum(-1).tolist())
    assert len(ranks) >= 3


@pytest.mark.parametrize("kind", ["relu", "lif"])
def test_covariant_vectors_live_through_the_deaths_of_others(kind):
    died = 0
    for seed in range(8):
        cell, x = dying(kind, seed)
        clv = lt.covariant_vectors(cell, x)
        alive = clv.growth.healthy[-1]
        died += int((~alive).sum())
        assert clv.covariance_error.max() < 1e-12
        h = torch.zeros(2, 8)
        # what they gained by the Jacobians themselves, also in the step in which another dies
        for s, now in enumerate(x):
            h, pushed = cell.pushforward(now, h, clv.vectors[s])
            gained = torch.linalg.vector_norm(pushed, dim=-2).log()[alive]
            torch.testing.assert_close(gained, clv.growth.log_r[s][alive], rtol=0, atol=1e-9)
    assert died > 8


@pytest.mark.parametrize("gain", [0.25, 4.0])
def test_norms_of_gradients_whose_squares_leave_the_range_of_floats(gain):
    """Over 60 steps 4^60 = 1.3e36: no square of that, nor of its inverse, is a float32."""
    cell = lt.RateCell(1, 3, activation="linear", bias=False).float()
    cell.weight_hh.data = gain * torch.eye(3, dtype=torch.float32)
    x = torch.zeros(60, 1, 1, dtype=torch.float32)
    norms = analysis.gradient_norms(cell, x, lambda states: states[-1])
    expected = 3**0.5 * gain ** torch.arange(60, -1, -1)
    torch.testing.assert_close(norms[:, 0].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 5}, r"k must be an integer in 1\.\.4, got 5; a state of size 4 has 4 exponents"),
        ({"every": 0}, r"every must be an integer >= 1, got 0"),
        ({"bits": 1}, r"bits must be an integer >= 2, got 1"),
        ({"bits": "many"}, r"unknown bits 'many'; known: auto"),
        ({"transient": 6}, r"transient must be an integer in 0\.\.5, got 6"),
    ],
)
def test_arguments_of_the_condition_number(settings, message):
    cell, x = driven(4, 6)
    with pytest.raises(ValueError, match=message):
        analysis.condition_number(cell, x, **settings)


def condition_slope(n, steps, networks, skip, bits):
    """Slope of log kappa_n over time for each network, and (lambda_1 - lambda_n) with its standard error."""
    cell = lt.RateCell(1, n, ensemble=(networks,))
    x = noise(200 + steps, networks, 1, 1)
    found = analysis.condition_number(cell, x, transient=200, every=5, bits=bits)
    t, y = found.times[found.times >= skip].double(), found.log_kappa[found.times >= skip][:, :, 0]
    slope = ((t - t.mean())[:, None] * y).sum(0) / (t - t.mean()).square().sum()
    spectrum = lt.lyapunov_spectrum(cell, noise(3200, networks, 1, 1, seed=1), transient=200)
    gap = spectrum.exponents[:, 0, 0] - spectrum.exponents[:, 0, -1]
    return slope, gap.detach()


def test_the_condition_number_grows_at_the_gap_of_the_exponents():
    slope, gap = condition_slope(8, 100, 24, 20, None)
    difference = slope - gap
    assert abs(difference.mean()) < 2 * difference.std() / len(difference) ** 0.5
    assert difference.std() < 0.3 * gap.mean()


@pytest.mark.slow
def test_the_condition_number_of_thirty_two_units_over_sixty_steps():
    """With enough bits the slope is the gap of the exponents; 256 saturate where kappa passes them."""
    slope, gap = condition_slope(32, 60, 16, 0, None)
    error = (slope - gap).std() / 16**0.5
    assert abs(slope.mean() - gap.mean()) < 2 * error
    assert error < 0.1
    three, _ = condition_slope(32, 60, 3, 0, None)
    enough, _ = condition_slope(32, 60, 3, 0, "auto")
    torch.testing.assert_close(enough, three, rtol=0, atol=1e-4)
    few, _ = condition_slope(32, 60, 3, 0, 256)
    # the steepest passes 256 bits long before the end
    assert few[three.argmax()] < three.max() - 0.5


@pytest.mark.parametrize(
    ("kappa", "steps", "expected"), [(1.0, 10, 1), (math.exp(1.01), 10, 2), (1e300, 10, 3), (1e9, 1, 3)]
)
def test_usable_dimensions_count_directions_within_the_condition_number(kappa, steps, expected):
    exponents = torch.tensor([[-0.3, -0.2, -9.0, -torch.inf], [-0.2, -9.0, -torch.inf, -0.3]])
    assert analysis.usable_dimensions(exponents, steps, kappa).tolist() == [expected] * 2
    assert analysis.usable_dimensions(torch.full((2,), -torch.inf), steps, kappa).item() == 0


def test_what_died_is_never_usable():
    exponents = torch.tensor([[0.0, -1.0, -torch.inf], [-torch.inf, -torch.inf, -torch.inf]])
    assert analysis.usable_dimensions(exponents, 3, math.inf).tolist() == [2, 0]


def test_usable_dimensions_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"kappa must be at least 1, got 0\.5; it is a ratio"):
        analysis.usable_dimensions(torch.zeros(2), 3, 0.5)
    with pytest.raises(ValueError, match=r"steps must be a finite number above 0, got 0"):
        analysis.usable_dimensions(torch.zeros(2), 0, 10.0)


def test_the_predicted_condition_number_broadcasts_over_times():
    exponents = torch.tensor([[0.0, -1.0, -torch.inf], [0.5, 0.5, 0.0]])
    found = log_condition_number(exponents, torch.tensor([[1.0], [2.0]]))
    expected = torch.tensor([[[0.0, 1, torch.inf], [0, 0, 0.5]], [[0.0, 2, torch.inf], [0, 0, 1]]])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
@pytest.mark.parametrize("ensemble", [(), (2,)])
def test_gradient_norms_are_those_of_finite_differences(kind, ensemble):
    """dL/dh_s, by starting at the state s and running the rest of the inputs."""
    cell, b, t = kind(1, 3, ensemble=ensemble), 2, 6
    x, h0 = noise(t, *ensemble, b, 1), noise(*ensemble, b, 3, seed=2)
    target = noise(t, *ensemble, b, 3, seed=3)

    def loss(states):
        return (states - target).square()

    found = analysis.gradient_norms(cell, x, loss, h0=h0)
    states = [h0, *lt.cells.unroll(cell, x, h0).detach()]
    for s in range(t + 1):
        h = states[s].clone()

        def tail(s=s, h=h):
            rest = [h]
            for now in x[s:]:
                rest.append(cell.step(now, rest[-1]))
            before = states[1:s] if s else []
            everything = torch.stack([*before, *(rest if s else rest[1:])])
            return loss(everything).sum((0, -2, -1)).detach()

        expected = differences(tail, h, ensemble).norm(dim=-1)
        torch.testing.assert_close(found[s], expected, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_the_last_state_fades_at_the_rate_of_the_exponents():
    cell, t = lt.RateCell(1, 12, gain=0.8, bias=False), 400
    norms = analysis.gradient_norms(cell, noise(t, 1, 1), lambda states: states[-1])[:, 0]
    lambda1 = lt.lyapunov_spectrum(cell, noise(t, 1, 1), k=1).exponents.item()
    assert ((norms[-1] / norms[0]).log() / t).item() == pytest.approx(-lambda1, abs=0.03)


def test_a_loss_that_sees_no_state_is_refused():
    cell, x = driven(3, 4)
    with pytest.raises(ValueError, match="loss must depend on the states"):
        analysis.gradient_norms(cell, x, lambda states: states.detach())
    later = analysis.gradient_norms(cell, x, lambda states: states[0])
    assert (later[:2] > 0).all()
    assert (later[2:] == 0).all()


def test_the_overlap_with_covariant_vectors_of_a_linear_network():
    """W diagonal: the vectors are the axes, and the gradient of a known weighting is known."""
    cell = lt.RateCell(1, 3, activation="linear", bias=False)
    with torch.no_grad():
        cell.weight_hh.copy_(torch.diag(torch.tensor([1.1, 0.6, 0.2])))
    x, weights = noise(120, 2, 1), torch.tensor([3.0, 4.0, 12.0])
    found = analysis.gradient_overlap(cell, x, lambda h: h @ weights, at=60, k=3)
    np.testing.assert_allclose(found.detach(), [[3 / 13, 4 / 13, 12 / 13]] * 2, rtol=1e-9)
    # many steps on, only what grows most is left of any gradient
    later = analysis.gradient_overlap(cell, x, lambda h: lt.cells.unroll(cell, x[60:], h)[-1], at=60, k=2)
    np.testing.assert_allclose(later, [[1, 0]] * 2, atol=1e-9)
    with pytest.raises(ValueError, match="loss must depend on the state"):
        analysis.gradient_overlap(cell, x, lambda h: h.detach(), at=60)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("at", [0, 6])
def test_a_state_has_steps_on_both_sides(at):
    cell, x = driven(3, 6)
    with pytest.raises(ValueError, match=rf"at must be an integer in 1\.\.5, got {at}; steps must be left"):
        analysis.gradient_overlap(cell, x, lambda h: h, at=at)


def test_singular_values_of_a_gradient_of_independent_networks():
    W = noise(3, 4, 4).requires_grad_()
    loss = (W @ W).square().sum((-2, -1))
    found = analysis.gradient_singular_values(loss, W)
    for i in range(3):
        (alone,) = torch.autograd.grad((W[i] @ W[i]).square().sum(), W)
        np.testing.assert_allclose(found[i], np.linalg.svd(alone[i], compute_uv=False), rtol=1e-10)


@pytest.mark.parametrize("kind", ["participation", "entropy", "threshold"])
@pytest.mark.parametrize(
    ("values", "rank"), [([1.0, 1, 1, 1], 4), ([5.0, 0, 0], 1), ([2.0, 2, 0, 0], 2), ([0.0, 0], 0)]
)
def test_the_effective_rank_counts_equal_values_at_any_scale(kind, values, rank):
    for scale in (1.0, 1e-300, 1e300):
        found = analysis.effective_rank(scale * torch.tensor([values, values]), kind)
        torch.testing.assert_close(found, torch.tensor([float(rank)] * 2), rtol=1e-12, atol=0)


def test_kinds_of_effective_rank_by_their_formulas():
    s = torch.tensor([4.0, 1.0, 0.039, 0.041])
    p = s / s.sum()
    assert analysis.effective_rank(s).item() == pytest.approx((s**2).sum().item() ** 2 / (s**4).sum().item())
    assert analysis.effective_rank(s, "entropy").item() == pytest.approx(math.exp(-(p * p.log()).sum()))
    assert analysis.effective_rank(s, "threshold").item() == 3
    assert analysis.effective_rank(s, "threshold", 0.3).item() == 1
    with pytest.raises(ValueError, match=r"unknown kind 'entropic', did you mean 'entropy'\?"):
        analysis.effective_rank(s, "entropic")


def curve(*parts):
    return torch.cat([torch.full((length,), value) for value, length in parts])


@pytest.mark.parametrize(
    ("accuracy", "first", "last"),
    [
        (curve((0.5, 50), (1.0, 50)), 43, 43),
        (curve((0.5, 50), (0.61, 50)), 50, 50),
        (curve((0.61, 10)), 0, 0),
        (curve((0.599, 100)), math.nan, math.nan),
        # a lucky batch is no learning
        (curve((0.5, 20), (1.0, 1), (0.5, 50)), math.nan, math.nan),
        (curve((0.5, 20), (1.0, 3), (0.5, 50)), 13, math.nan),
        (curve((0.5, 20), (1.0, 10), (0.5, 50), (1.0, 20)), 13, 73),
        (curve((1.0, 9)), math.nan, math.nan),
        (curve((math.nan, 20)), math.nan, math.nan),
        (curve((1.0, 20), (math.nan, 5), (1.0, 20)), 0, 25),
    ],
)
def test_when_accuracy_leaves_chance(accuracy, first, last):
    """At the first epoch from which on ten have a mean above 0.6, or the one that never falls back."""
    for which, expected in (("first", first), ("last", last)):
        np.testing.assert_equal(analysis.onset(accuracy, which=which).item(), expected)
        both = analysis.onset(torch.stack([accuracy, 0 * accuracy]), which=which)
        np.testing.assert_equal(both.tolist(), [expected, math.nan])
        # beside a member that went on
        stopped = torch.stack(
            [curve((0.5, len(accuracy) + 30)), torch.cat([accuracy, curve((math.nan, 30))])]
        )
        np.testing.assert_equal(analysis.onset(stopped, which=which).tolist(), [math.nan, expected])


def test_curves_are_aligned_to_their_own_events():
    rows = torch.arange(12.0).reshape(2, 6)
    found = analysis.aligned(rows, torch.tensor([1.0, 4.0]), before=2, after=3)
    n = math.nan
    np.testing.assert_array_equal(found, [[n, 0, 1, 2, 3, 4], [8, 9, 10, 11, n, n]])
    assert analysis.aligned(rows, torch.tensor([n, n]), 1, 1).isnan().all()
    assert analysis.aligned(rows.reshape(1, 2, 6), torch.tensor([[0.0, 0.0]]), 0, 1).shape == (1, 2, 2)


@pytest.mark.usefixtures("unchecked")
def test_events_that_do_not_fit():
    rows = torch.zeros(2, 6)
    with pytest.raises(ValueError, match=r"events must have shape \*e = \(2,\), got \(3,\)"):
        analysis.aligned(rows, torch.zeros(3), 1, 1)
    with pytest.raises(ValueError, match=r"before must be an integer >= 0, got -1"):
        analysis.aligned(rows, torch.zeros(2), -1, 1)
