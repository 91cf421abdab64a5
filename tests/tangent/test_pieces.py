"""A long orbit in pieces: the same as in one go, within its error, and what is said of it."""

import math
import warnings

import pytest
import torch

import lyaptorch as lt
from lyaptorch.cells import GRUCell, LSTMCell, URLSTMCell
from lyaptorch.tangent.pieces import CHUNKS, HEAD, LEAST, LONGEST, _left, _mixed
from lyaptorch.testing.systems import lorenz

pytestmark = pytest.mark.usefixtures("double")

SIGMAS = 3.0
"""Both runs see the same orbit, so that they differ by less than either is off."""


def noise(t, b=1, m=1, seed=3):
    return torch.randn(t, b, m, generator=torch.Generator().manual_seed(seed))


def both(cell, x, segments, **arguments):
    """In one go, and in pieces."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = lt.lyapunov_spectrum(cell, x, **arguments)
        pieces = lt.lyapunov_spectrum(cell, x, segments=segments, **arguments)
    assert (whole.segments, whole.warm_up, whole.seams) == (1, 0, None)
    assert pieces.segments == segments
    return whole, pieces


def agree(whole, pieces, sigmas=SIGMAS):
    """Within the error of the pieces, which has their seams in it; everything downstream in its shape."""
    assert pieces.growth.log_r.shape == whole.growth.log_r.shape
    assert pieces.growth.steps.sum() == whole.growth.steps.sum()
    assert pieces.seams.shape == whole.exponents.shape
    assert torch.isfinite(pieces.seams).all()
    error = pieces.stderr()
    assert (error >= pieces.seams).all()
    far = (pieces.exponents - whole.exponents).abs() / error
    assert far.max() < sigmas, far
    # an error that is ten times as large would agree with anything
    assert error.median() < 10 * whole.stderr().median() + 5e-3 * whole.exponents.abs().max()


def mild():
    """A network with no exponent far below the others."""
    return lt.RateCell(1, 12, gain=0.9, weights="orthogonal")


DECAY = torch.tensor([0.9, 0.6, 0.4, 0.2], dtype=torch.float64)
CELLS = {
    "chaotic": (lambda: lt.RateCell(1, 24, gain=2.5), 1, {"k": 8}),
    "stable": (lambda: lt.RateCell(1, 24, gain=0.8), 1, {"k": 20}),
    "elman": (lambda: lt.ElmanCell(1, 16, gain=1.5), 1, {"k": 6}),
    "lstm": (lambda: torch.nn.LSTM(2, 8), 2, {"k": 4}),
    "gru": (lambda: GRUCell(2, 8, gain=2.0), 2, {"k": 8}),
    "function": (lambda: lambda x, h: torch.tanh(DECAY * h + 0.2 * h.roll(1, -1) + x), 4, {"k": 4}),
}


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("name", CELLS)
def test_pieces_give_what_one_go_gives(name, b):
    make, m, arguments = CELLS[name]
    if name == "function":
        arguments = {**arguments, "h0": noise(1, b, 4)[0]}
    whole, pieces = both(make(), noise(1000, b, m), 4, transient=40, **arguments)
    agree(whole, pieces)
    # a warm-up of an eighth of a piece at least, and a quarter of it at most
    length = (960 - 960 // HEAD) // 4
    assert length // CHUNKS <= pieces.warm_up <= LONGEST * length
    assert not torch.equal(whole.exponents, pieces.exponents)


@pytest.mark.parametrize("gain", [0.9, 2.5])
def test_autonomous(gain):
    whole, pieces = both(
        lt.RateCell(1, 24, gain=gain), torch.zeros(3000, 1, 1), 10, k=6, h0=noise(1, 1, 24)[0], transient=500
    )
    agree(whole, pieces)


def test_a_flow_in_units_of_time():
    cell, h0 = lt.Flow(lorenz, dt=0.02), 1 + noise(1, 2, 3)[0]
    whole, pieces = both(cell, torch.zeros(1850, 2, 0), 2, h0=h0, transient=50)
    agree(whole, pieces)
    assert pieces.discretisation.shape == (2, 3)
    torch.testing.assert_close(pieces.discretisation, whole.discretisation, rtol=0.5, atol=1e-3)
    assert torch.equal(pieces.resolved, whole.resolved)
    # the volume needs no alignment; the state is the same to exp(.9 * 16) of round-off
    assert (pieces.exponents.sum(-1) - whole.exponents.sum(-1)).abs().max() < 1e-6


def test_members_of_an_ensemble():
    cell = lt.RateCell(1, 16, gain=torch.tensor([0.8, 2.5]), ensemble=(2,))
    whole, pieces = both(cell, noise(2000, 2), 6, k=5)
    agree(whole, pieces)
    assert pieces.exponents.shape == (2, 2, 5)
    assert (pieces.final_state[0] - whole.final_state[0]).abs().max() < 1e-12


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_backend_and_precision(backend, dtype):
    if backend == "cpu" and not lt.kernels.available()["cpu"].available:
        pytest.skip("no compiled kernels here")
    whole, pieces = both(mild().to(dtype), 0.5 * noise(700).to(dtype), 4, backend=backend)
    agree(whole, pieces)
    assert pieces.exponents.dtype == dtype
    if dtype == torch.float64:
        # all columns together span everything from the start: log|det D| has no need to align
        assert (pieces.exponents.sum(-1) - whole.exponents.sum(-1)).abs().max() < 1e-11


@pytest.mark.parametrize(
    ("t", "segments", "interval"), [(1003, 7, 1), (1003, 7, 3), (998, 5, 4), (640, 2, 5)]
)
@pytest.mark.parametrize("tangent_transient", [0, 5, 37, 300])
def test_pieces_that_do_not_divide_the_orbit(t, segments, interval, tangent_transient):
    whole, pieces = both(
        mild(),
        0.5 * noise(t + tangent_transient),
        segments,
        interval=interval,
        tangent_transient=tangent_transient,
    )
    agree(whole, pieces)
    assert sorted(pieces.growth.steps.tolist()) == sorted(whole.growth.steps.tolist())
    assert pieces.warm_up % interval == 0
    assert (pieces.exponents.sum(-1) - whole.exponents.sum(-1)).abs().max() < 1e-11
    torch.testing.assert_close(pieces.final_state, whole.final_state, rtol=0, atol=1e-12)
    assert pieces.running().shape == whole.running().shape
    assert pieces.finite_time(10).shape == whole.finite_time(10).shape


def test_local_exponents_stand_at_their_steps():
    # of one tangent vector in one dimension nothing has to align: every step as in one go
    cell = lt.RateCell(1, 1, gain=0.9)
    whole, pieces = both(cell, noise(700, 2), 5, tangent_transient=9)
    torch.testing.assert_close(pieces.local(), whole.local(), rtol=0, atol=1e-12)
    torch.testing.assert_close(pieces.final_frame, whole.final_frame)


def test_a_piece_goes_on_where_the_next_one_starts():
    # gaps of half a nat: what has been carried over a piece of 187 steps is aligned to round-off
    W = torch.diag(torch.tensor([1.0, 0.5, 0.2])) + 0.1 * noise(1, 3, 3)[0]
    step = lambda x, h: torch.tanh(h @ W.T + 0.5 * x)  # noqa: E731
    whole, pieces = both(step, noise(800, 2, 3), 4, h0=torch.zeros(2, 3), k=2)
    length = (800 - 800 // HEAD) // 4
    off = (pieces.growth.log_r - whole.growth.log_r)[-4 * length :].abs().unflatten(0, (4, length))
    assert off[0].max() < 1e-12
    assert off[:, : pieces.warm_up].max() < 1e-6
    assert off[:, pieces.warm_up :].max() > 1e-6


def test_a_frame_that_is_aligned_needs_no_warm_up():
    # of a diagonal Jacobian the identity stays what it is: exact at any t
    decay = torch.tensor([0.9, 0.3, 0.6])
    step = lambda x, h: decay * torch.tanh(h + x)  # noqa: E731
    x = noise(900, 2, 3)
    whole, pieces = both(step, x, 6, h0=torch.zeros(2, 3), frame=torch.eye(3))
    torch.testing.assert_close(pieces.growth.log_r, whole.growth.log_r, rtol=0, atol=1e-12)
    assert pieces.warm_up == (900 - 900 // HEAD) // 6 // CHUNKS


def test_a_chaotic_orbit_needs_less_warm_up_than_a_slow_one():
    # what is below the standard error need not be waited for
    fast = both(lt.RateCell(1, 24, gain=3.0), torch.zeros(2500, 1, 1), 4, k=2, h0=noise(1, 1, 24)[0])[1]
    cell = lt.RateCell(1, 2, activation="linear", bias=False)
    turn = torch.linalg.qr(noise(1, 2, 2)[0]).Q
    with torch.no_grad():
        cell.weight_hh.copy_(turn * torch.tensor([0.99, 0.985]) @ turn.T)
    slow = both(cell, torch.zeros(2500, 1, 1), 4)[1]
    length = (2500 - 2500 // HEAD) // 4
    assert fast.warm_up < slow.warm_up == int(LONGEST * length)
    # frames of some hundred steps still mix what is .005 apart, in all pieces alike
    gap = math.log(0.99 / 0.985)
    mixed = gap * math.exp(-gap * (2500 - 4 * length + slow.warm_up))
    assert (slow.seams > 0.99 * mixed).all()


def test_equal_exponents_need_no_alignment():
    orthogonal = lt.RateCell(1, 12, activation="linear", weights="orthogonal", gain=1.0, bias=False)
    whole, pieces = both(orthogonal, torch.zeros(1000, 1, 1), 5, h0=noise(1, 1, 12)[0])
    assert pieces.exponents.abs().max() < 1e-14 > whole.exponents.abs().max()
    # pairs of complex eigenvalues: each pair for ever turns, its sum is exact
    linear = lt.RateCell(1, 12, activation="linear", gain=0.9, bias=False)
    sizes = torch.linalg.eigvals(linear.weight_hh).abs().log().sort(descending=True).values
    whole, pieces = both(linear, torch.zeros(6000, 1, 1), 6, h0=noise(1, 1, 12)[0], tangent_transient=2000)
    found = pieces.exponents[0].sort(descending=True).values
    assert (pieces.exponents.sum() - sizes.sum()).abs() < 1e-10
    pairs = [i for i in range(11) if (sizes[i] - sizes[i + 1]).abs() < 1e-9]
    assert pairs
    for i in pairs:
        assert (found[i : i + 2].sum() - sizes[i : i + 2].sum()).abs() < 1e-3
    assert ((pieces.exponents - whole.exponents).abs() < SIGMAS * pieces.stderr() + 1e-4).all()


def relu_network():
    """Of twelve units three to five are on: the rank falls in the first steps, and then no more."""
    return lt.ElmanCell(1, 12, activation="relu", gain=1.5)


def test_what_dies_is_dead_for_ever():
    whole, pieces = both(relu_network(), noise(800), 5)
    dead = whole.exponents == -math.inf
    assert dead.any()
    assert not dead.all()
    assert torch.equal(pieces.exponents == -math.inf, dead)
    assert torch.equal(pieces.growth.healthy, whole.growth.healthy)
    assert torch.equal(pieces.died_at, whole.died_at)
    alive = ~dead
    far = (pieces.exponents - whole.exponents)[alive].abs() / pieces.stderr()[alive]
    assert far.max() < SIGMAS
    assert torch.isinf(pieces.stderr()[dead]).all()
    assert torch.isfinite(pieces.seams).all()


@pytest.mark.parametrize("when", [3, 150, 333, 799])
@pytest.mark.parametrize("backend", ["torch", None])
def test_a_direction_that_dies_once_never_comes_back(when, backend):
    # a slope of zero at one step, in one piece: those after it start alive
    torch.manual_seed(0)
    W = 0.5 * torch.randn(3, 3)
    gate = torch.ones(800, 1, 3)
    gate[when, 0, 1] = 0.0
    step = lambda x, h: torch.tanh(h @ W.T + 0.1) * x  # noqa: E731
    whole, pieces = both(step, gate, 4, h0=torch.ones(1, 3), backend=backend)
    assert torch.equal(pieces.growth.healthy, whole.growth.healthy)
    assert pieces.died_at.tolist() == whole.died_at.tolist() == [[0, 0, when + 1]]
    assert pieces.exponents[0, 2] == -math.inf


def test_a_death_of_the_start_alone_is_none():
    # H turns the frame by half a right angle, exactly; the one that was turned survives diag(1, 1e-17) H
    H, t, segments = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), 600, 4
    D = torch.eye(2).repeat(t, 1, 1)
    length = (t - t // HEAD) // segments
    second = t - 3 * length
    D[second - 1], D[second] = H, torch.tensor([[1.0], [1e-17]]) * H
    step = lambda x, h: (x.reshape(-1, 2, 2) @ h.unsqueeze(-1)).squeeze(-1)  # noqa: E731
    arguments = {"h0": torch.ones(1, 2), "frame": torch.eye(2)}
    whole = lt.lyapunov_spectrum(step, D.reshape(t, 1, 4), **arguments)
    assert whole.died_at is None
    with pytest.warns(UserWarning, match=r"segments=4: a tangent vector died of the new start of a piece"):
        pieces = lt.lyapunov_spectrum(step, D.reshape(t, 1, 4), segments=segments, **arguments)
    assert (pieces.segments, pieces.warm_up, pieces.seams) == (1, 0, None)
    assert torch.equal(pieces.growth.log_r, whole.growth.log_r)


def test_an_overflow_is_named_by_its_step():
    step = lambda x, h: h * torch.where(x > 0, 1e300, 1.0)  # noqa: E731
    x = torch.zeros(400, 1, 2)
    x[[300, 301, 302]] = 1.0
    with pytest.raises(FloatingPointError, match=r"not finite after step 30[123] ") as whole:
        lt.lyapunov_spectrum(step, x, h0=torch.ones(1, 2))
    with pytest.raises(FloatingPointError) as pieces:
        lt.lyapunov_spectrum(step, x, h0=torch.ones(1, 2), segments=4)
    assert str(whole.value) == str(pieces.value)


def test_a_seam_that_matters_is_said_and_is_in_the_error():
    # chaos along one direction, and one to which it mixes over hundreds of steps
    cell = lt.Flow(lorenz, dt=0.02)
    x, h0 = torch.zeros(1500, 1, 0), torch.ones(1, 3)
    with pytest.warns(UserWarning, match=r"segments=30: after \d+ steps the frames of successive pieces"):
        pieces = lt.lyapunov_spectrum(cell, x, h0=h0, segments=30)
    assert (pieces.stderr() >= pieces.seams).all()
    whole = lt.lyapunov_spectrum(cell, x, h0=h0)
    assert ((pieces.exponents - whole.exponents).abs() < SIGMAS * pieces.stderr()).all()


def test_a_gradient_is_refused():
    cell, x = lt.RateCell(1, 8), noise(400)
    with pytest.raises(ValueError, match=r"segments must be 1 where a gradient is asked for.*no_grad"):
        lt.lyapunov_spectrum(cell, x, segments=3)
    cell.requires_grad_(False)
    assert lt.lyapunov_spectrum(cell, x, segments=3).segments == 3
    for name in ("h0", "frame", "inputs"):
        given = {"inputs": x, "h0": torch.zeros(1, 8), "frame": torch.eye(8)}
        given[name] = given[name].clone().requires_grad_()
        with pytest.raises(ValueError, match="segments must be 1 where a gradient"):
            lt.lyapunov_spectrum(cell, segments=3, **given)


def test_what_cannot_be_cut_is_refused():
    cell = lt.RateCell(1, 8).requires_grad_(False)
    most = (400 - 400 // HEAD) // LEAST
    with pytest.raises(ValueError, match=rf"segments must be in 1..{most} for 400 counted steps, got 50"):
        lt.lyapunov_spectrum(cell, noise(400), segments=50)
    with pytest.warns(UserWarning, match=f"segments={most}: after 4 steps the frames"):
        assert lt.lyapunov_spectrum(cell, noise(400), segments=most).segments == most
    with pytest.raises(ValueError, match="segments must be an integer >= 1, got 0"):
        lt.lyapunov_spectrum(cell, noise(400), segments=0)
    with pytest.raises(ValueError, match="segments must be 1 where trajectories have lengths, got 3"):
        lt.lyapunov_spectrum(cell, noise(400, 2), segments=3, lengths=torch.tensor([300, 400]))


def test_a_record_says_how_it_was_measured():
    whole, pieces = both(lt.RateCell(1, 8), noise(600), 3, k=2)
    for spec in (whole, pieces):
        config = spec.record().config
        assert (config["segments"], config["warm_up"]) == (spec.segments, spec.warm_up)


def test_with_chosen_transient_and_interval():
    whole, pieces = both(lt.RateCell(1, 12, gain=0.9), noise(2000), 5, k=4, transient="auto", interval="auto")
    assert (pieces.transient, pieces.interval) == (whole.transient, whole.interval)
    agree(whole, pieces)


def test_what_is_left_of_a_single_gap():
    # exp(-g s) from its start, in 7 pieces alike: what comes after w is less than what is said, not by much
    g, w, intervals = 0.1, 40, 80
    curve = torch.exp(-g * torch.arange(1000.0))
    difference = curve[:w].reshape(w, 1, 1, 1).expand(w, 7, 1, 1)
    rest = 7 * curve[w:].sum()
    assert rest < _left(difference, intervals).item() < 20 * rest
    # and of gaps of all sizes, 1 / s
    curve = 1 / torch.arange(1.0, 1000.0)
    said = _left(curve[:w].reshape(w, 1, 1, 1).expand(w, 7, 1, 1), intervals).item()
    assert said == pytest.approx(7 * curve[w : w + intervals].sum().item(), rel=0.15)


def test_what_neighbours_may_have_of_each_other():
    rates = torch.tensor([[-0.1, -0.1, -0.3, -5.0, -math.inf]])
    part = 0.2 * math.exp(-0.2 * 10)
    expected = torch.tensor([[0.0, part, part, 0.0, 0.0]])
    torch.testing.assert_close(_mixed(rates, 10, 5), expected, rtol=0, atol=1e-15)
    # below the last of fewer than all there may be one as near as that above
    torch.testing.assert_close(_mixed(rates[:, :3], 10, 5)[0, 2], torch.tensor(2 * part))


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make", [LSTMCell, GRUCell])
def test_the_last_state_is_that_after_all_steps(make, bias, b):
    cell, x = make(2, 5, bias=bias, gain=2.0), noise(30, b, 2)
    h = first = torch.rand(b, cell.state_size)
    for u in x:
        h = cell.step(u, h)
    with torch.no_grad():
        torch.testing.assert_close(cell.last(x, first), h, rtol=0, atol=1e-13)
        assert torch.equal(cell.last(x[:0], first), first)
    # with a gradient by the steps themselves
    assert torch.equal(cell.last(x, first), h)


def test_the_last_state_of_what_torch_has_no_function_for():
    x = noise(9, 2, 2)
    with torch.no_grad():
        for cell in (LSTMCell(2, 3, ensemble=(2,)), URLSTMCell(2, 3)):
            h = first = torch.rand(*cell.ensemble, 2, cell.state_size)
            for u in x:
                h = cell.step(u, h)
            assert torch.equal(cell.last(x, first), h)

        class Other(LSTMCell):
            def step(self, x, h):
                return 0.5 * h

        first = torch.rand(2, 6)
        assert torch.equal(Other(2, 3).last(x, first), first * 0.5**9)
