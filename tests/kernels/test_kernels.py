"""The compiled kernels against the plain torch backend and plain autograd, in every setting they serve."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import cases
import lyaptorch as lt
from fused import (
    ACTIVATIONS,
    KINDS,
    SETS,
    Bypassed,
    agree,
    bypassed,
    compare,
    compare_unrolled,
    compiled,
    errors_in_float32,
    graph,
    has_a_known_form,
    problem,
    scan,
)
from lyaptorch import kernels
from lyaptorch.cells import Form, surrogates, unroll
from lyaptorch.cells.activation import tanh
from lyaptorch.cells.surrogates import gaussian, sech2
from lyaptorch.kernels import library
from lyaptorch.kernels.library import reuse_buffer
from reference import random_frame

pytestmark = [
    pytest.mark.usefixtures("double"),
    compiled,
]


# every interval with every ensemble and batch once
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("ensemble", "b", "interval"),
    [((), 1, 1), ((), 3, 3), ((3,), 1, 3), ((3,), 3, 5), ((2, 3), 3, 1), ((2, 3), 1, 5)],
)
def test_the_same_as_torch(kind, activation, ensemble, b, interval):
    gain = 0.7 if activation == "linear" else 1.2
    case = problem(kind, 9, ensemble=ensemble, b=b, activation=activation, gain=gain)
    compare(*case, 4, interval=interval, tangent_transient=4, transient=2 if b == 1 else 0)


CATALOGUE = [
    pytest.param(case, e, id=f"{case.name}-{len(e)}")
    for case in cases.CASES
    if has_a_known_form(case)
    for e in ((), (2, 3))[: 1 + case.ensembles]
]


@pytest.mark.parametrize(("case", "ensemble"), CATALOGUE)
@pytest.mark.parametrize(
    "kw",
    [{}, {"interval": 3, "transient": 1, "tangent_transient": 2}, {"state_grad": 2}],
    ids=["plain", "intervals", "cut"],
)
def test_the_catalogue(case, ensemble, kw):
    cell, inputs, h0 = cases.setup(case, ensemble, t=9)
    inputs, h0 = inputs.requires_grad_(), h0.requires_grad_()
    compare(cell, inputs, h0, 3, 1e-9, **kw)
    if not kw:
        compare_unrolled(cell, inputs, h0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [15, 16, 17, 37])
@pytest.mark.parametrize("n", [7, 16, 37])
def test_many_trajectories_are_unrolled_in_parts(kind, b, n):
    compare_unrolled(*problem(kind, n, b=b, t=5, ensemble=(2,)))


def test_memory_is_lent_again_only_when_nobody_holds_it():
    one = reuse_buffer((300, 1000), torch.float32)
    part, address = one[7:], one.data_ptr()
    del one
    other = reuse_buffer((300, 1000), torch.float32)
    assert other.data_ptr() != address
    del part
    again = reuse_buffer((290, 1000), torch.float32)
    assert again.data_ptr() == address
    assert again.shape == (290, 1000)
    assert reuse_buffer((3,), torch.float64).dtype == torch.float64


def test_threads_never_share_lent_memory():
    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(300):
            size = int(torch.randint(70_000, 400_000, (), generator=generator))
            memory = reuse_buffer((size,), torch.uint8)
            memory.fill_(seed)
            held = memory[::7]
            del memory
            wrong[seed] += int((held != seed).sum())

    wrong = [0] * 4
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert wrong == [0] * 4


@pytest.mark.parametrize(("case", "ensemble"), CATALOGUE)
def test_the_catalogue_in_float32(case, ensemble):
    cell, inputs, h0 = cases.setup(case, ensemble, t=9)
    frame = random_frame(cases.N, 3)
    given = [z.requires_grad_() for z in (inputs, h0, frame)]
    errors_in_float32(cell, given[:2], given[2])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 12),
    k=st.integers(1, 24),
    b=st.integers(1, 3),
    interval=st.integers(1, 3),
    kind=st.sampled_from([None, "diagonal", "blocks", "dense"]),
    coupling=st.sampled_from([None, (), "n", "e"]),
    activations=st.tuples(*(st.sampled_from([None, tanh, sech2, gaussian]) for _ in range(3))),
    ensemble=st.sampled_from([(), (2,)]),
    state_grad=st.sampled_from(("full", "detach", 3)),
    biased=st.booleans(),
)
def test_any_residual_form(n, k, b, interval, kind, coupling, activations, ensemble, state_grad, biased):
    n = 2 * n if kind == "blocks" else n
    shape = {"n": (n,), "e": (*ensemble, 1)}.get(coupling, coupling)
    activations = [f and f() for f in activations]
    case = bypassed(n, kind, shape, activations, ensemble=ensemble, b=b, biased=biased)
    compare(*case, min(k, n), 1e-5, interval=interval, tangent_transient=2, state_grad=state_grad)
    compare_unrolled(*case)


@pytest.mark.parametrize("bump", surrogates.SURROGATES.values(), ids=surrogates.SURROGATES)
@pytest.mark.parametrize("norm", surrogates.NORMS)
@pytest.mark.parametrize("shape", [(), (2, 1, 1)], ids=["one", "members"])
def test_surrogates_and_their_sharpness(bump, norm, shape):
    def sharp(mean, value):
        g = torch.linspace(0.8, 1.2, math.prod(shape)).reshape(shape) * mean
        return bump(nn.Parameter(g), norm=norm, value=value)

    # gentle slopes: bumps that reach no further than 1/g kill columns
    activations = [sharp(g, value) for g, value in zip((0.2, 0.25, 0.3), surrogates.VALUES, strict=True)]
    case = bypassed(6, "blocks", (2, 6), activations, ensemble=(2,), b=2)
    compare(*case, 5, 1e-9, interval=2)
    compare_unrolled(*case)


@pytest.mark.parametrize("bump", surrogates.SURROGATES.values(), ids=surrogates.SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_far_out(bump, dtype):
    """The gradient of the input is the slope, to full precision, and never NaN."""
    x = torch.cat([-torch.logspace(-20, 35, 300), torch.zeros(1), torch.logspace(-20, 35, 300)]).to(dtype)
    f = bump(1.3).to(dtype)
    cell = Bypassed(1, None, None, [None, f, None], biased=False).to(dtype)
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.copy_(torch.tensor([[1.0, 0.0]]))
    inputs = torch.stack([x, torch.zeros_like(x)], -1)[None].requires_grad_()
    states = unroll(cell, inputs, torch.zeros(len(x), 1, dtype=dtype))
    (slope,) = torch.autograd.grad(states.sum(), inputs)
    assert torch.equal(states[0, :, 0], torch.sign(x))
    exact = f.double().slope(x.double())
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    # the exponent -(g x)^2 is known to eps of its size, up to 88 in float32
    torch.testing.assert_close(slope[0, :, 0].double(), exact, rtol=400 * eps, atol=4 * tiny)


def test_a_trained_sharpness_is_unrolled_without_gradient_or_refused():
    for through, name in (("slope", "_UnrollBackward"), ("surrogate", "StackBackward0")):
        f = sech2(nn.Parameter(torch.tensor(0.8)), through=through)
        cell, inputs, h0 = bypassed(4, None, None, [f, None, None])
        states = unroll(cell, inputs, h0)
        assert type(states.grad_fn).__name__ == name
        (bar,) = torch.autograd.grad(states.square().sum(), f.arguments, materialize_grads=True)
        assert (bar == 0) == (through == "slope")
    with pytest.raises(ValueError, match='the kernels train a sharpness through "slope" only'):
        lt.lyapunov_spectrum(cell, inputs, h0=h0, backend="cpu")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    t=st.integers(1, 9),
    b=st.integers(1, 3),
    interval=st.integers(1, 4),
    uncounted=st.integers(0, 8),
    kind=st.sampled_from(KINDS),
    activation=st.sampled_from(("tanh", "linear")),
    state_grad=st.sampled_from(("full", "detach", 3)),
    ensemble=st.sampled_from([(), (2,)]),
)
def test_any_shape(n, k, t, b, interval, uncounted, kind, activation, state_grad, ensemble):
    case = problem(kind, n, ensemble=ensemble, b=b, t=t, activation=activation)
    k = min(k, n)
    # with k near n a tanh network loses the condition number of a few steps' product, 1e8 and more
    tolerance = 1e-7 if interval == 1 or 2 * k <= n else 1e-4
    compare(
        *case,
        k,
        tolerance,
        interval=interval,
        tangent_transient=min(uncounted, t - 1),
        state_grad=state_grad,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), [(80, 75), (80, 80), (33, 17), (48, 48), (300, 20)])
def test_larger_networks(kind, n, k):
    # science: agreement through k = n = 80 is 1e-7
    compare(*problem(kind, n, t=20), k, 1e-7, tangent_transient=5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_is_as_close_to_float64_as_torch(kind, activation):
    case = problem(kind, 30, activation=activation, t=25)
    frame = random_frame(30, 12).requires_grad_()
    errors_in_float32(case[0], case[1:], frame)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_columns(kind, dtype):
    cell, inputs, h0 = problem(kind, 12, activation="relu", dtype=dtype)
    with torch.no_grad():
        bias = cell.bias if kind is lt.RateCell else cell.bias_ih
        cell.weight_ih.mul_(0.2)
        bias.fill_(3.0)
        bias[-4:] = -60.0
    frame = random_frame(12, 11).to(dtype).requires_grad_()
    fused, plain = (scan(z, cell, inputs, h0, frame, tangent_transient=3) for z in ("cpu", "torch"))
    assert fused[1].sum(-1).min() == 8
    assert not any(z.isnan().any() for z in fused if z.is_floating_point())
    agree(fused, plain, 1e-9 if dtype == torch.float64 else 2e-4)


def test_some_columns_die_in_one_trajectory_only():
    cell, inputs, h0 = problem(lt.RateCell, 10, activation="relu", b=3, t=9)
    with torch.no_grad():
        cell.bias.fill_(1.0)
        inputs[:, 1] -= 5
    compare(cell, inputs, h0, 10)


@pytest.mark.parametrize("decades", [4, 8, 13])
def test_ill_conditioned_weights(decades):
    cell, inputs, h0 = problem(lt.RateCell, 12, activation="linear")
    U, V = random_frame(12, 12), random_frame(12, 12).mT
    with torch.no_grad():
        cell.weight_hh.copy_(U @ torch.logspace(0, -decades, 12).diag() @ V)
    frame = random_frame(12, 12)
    fused, plain = (
        lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, backend=z).growth for z in ("cpu", "torch")
    )
    assert fused.healthy.all()
    assert (fused.healthy == plain.healthy).all()
    # an entry R_ii is known to eps times the condition number
    torch.testing.assert_close(fused.log_r, plain.log_r, rtol=0, atol=max(1e-9, 1e-15 * 10.0**decades))


def test_scales_whose_squares_overflow_or_vanish():
    for scale in (1e25, 1e-25):
        cell, inputs, _ = problem(lt.RateCell, 6, activation="linear", t=1, dtype=torch.float32)
        with torch.no_grad():
            cell.weight_hh.mul_(scale)
        fused, plain = (
            lt.lyapunov_spectrum(cell, inputs, frame=random_frame(6, 5).float(), k=5, backend=z).exponents
            for z in ("cpu", "torch")
        )
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("what", ["state", "tangent"])
def test_overflow_names_the_step_like_torch(what):
    cell, inputs, h0 = problem(lt.RateCell, 4, activation="linear", t=400, dtype=torch.float32)
    with torch.no_grad():
        cell.weight_hh.mul_(1e3)
        if what == "tangent":
            inputs.zero_()
            h0.zero_()
            cell.bias.zero_()
            cell.weight_hh.mul_(1e33)
    messages = []
    for backend in ("cpu", "torch"):
        with pytest.raises(FloatingPointError, match="not finite after step") as error:
            lt.lyapunov_spectrum(cell, inputs, h0=h0, interval=2, backend=backend)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("n", "ensemble", "b"), [(1, (), 1), (17, (3,), 20), (33, (2, 3), 3), (80, (), 9)])
def test_unrolling_against_plain_autograd(kind, activation, n, ensemble, b):
    cell, inputs, h0 = problem(kind, n, ensemble=ensemble, b=b, activation=activation, t=40)
    compare_unrolled(cell, inputs, h0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_and_its_slope_to_round_off(dtype):
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.logspace(-30, 0, 300), torch.tensor([0.0, -0.0])])
    x = x.to(dtype)
    cell = lt.ElmanCell(1, 1, bias=False).to(dtype)
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.fill_(1)
    inputs = x[None, :, None].clone().requires_grad_()
    value = unroll(cell, inputs, torch.zeros(len(x), 1, dtype=dtype))[0, :, 0]
    (slope,) = torch.autograd.grad(value.sum(), inputs)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(value, torch.tanh(x.double()).to(dtype), rtol=4 * eps, atol=0)
    expected = torch.cosh(x.double()).pow(-2)
    normal = expected > 4 * torch.finfo(dtype).tiny
    torch.testing.assert_close(slope.flatten()[normal], expected[normal].to(dtype), rtol=8 * eps, atol=0)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("ensemble", [(3,), (2, 3)])
def test_inputs_that_all_members_share(ensemble):
    cell, inputs, h0 = problem(lt.ElmanCell, 7, ensemble=ensemble, b=2)
    shared = inputs.detach().flatten(1, -3)[:, 0].requires_grad_()
    compare(cell, shared, h0, 5)
    results = []
    for plain in (False, True):
        states = unroll(
            cell, shared.unflatten(0, (-1, *[1] * len(ensemble))).expand_as(inputs), h0, plain=plain
        )
        results.append([states, *torch.autograd.grad(states.square().sum(), [shared, h0])])
    agree(*results, 1e-11)


def bits(threads: int) -> list[Tensor]:
    """Everything that two scans and two unrollings give, with a member's trajectories on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        kw = {"ensemble": (3,), "dtype": torch.float32}
        for case in (
            problem(lt.RateCell, 21, b=2, **kw),
            bypassed(22, "dense", (22,), [tanh(), sech2(), tanh()], b=19, t=40, **kw),
        ):
            cell, inputs, h0 = case
            frame = random_frame(h0.shape[-1], 13).float().requires_grad_()
            found += scan("cpu", cell, inputs, h0, frame, interval=2)
            states = unroll(cell, inputs, h0)
            wanted = [inputs, h0, *cell.parameters()]
            found += [states, *torch.autograd.grad(states.square().sum(), wanted)]
        return found
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit():
    one = bits(1)
    for threads in (2, 5):
        assert all(torch.equal(a, b) for a, b in zip(one, bits(threads), strict=True))


def test_a_member_is_the_same_alone_bit_for_bit():
    cell, inputs, h0 = problem(lt.RateCell, 18, ensemble=(3,), b=2)
    form, frame = cell.form(), random_frame(18, 7).expand(3, 2, 18, 7)
    cuts = kernels.Settings((0, 3, 6, 9, 12), (False, False, False, True))
    together = kernels.scan_forward(form, inputs[:12], h0, frame, cuts, keep=False)
    one = Form(form.weight_hh[1], form.weight_ih[1], (form.biases[0][1],), form.inner, None)
    alone = kernels.scan_forward(one, inputs[:12, 1], h0[1], frame[1], cuts, keep=False)
    assert torch.equal(together.pivots[:, 1], alone.pivots)
    assert torch.equal(together.Q[1], alone.Q)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set(name, dtype):
    cpu = library.open_library()
    if not cpu.lyap_use(name.encode()):
        pytest.skip(f"this machine has no {name}")
    try:
        for kind in KINDS:
            case = problem(kind, 37, b=2, dtype=dtype)
            compare(*case, 20, 1e-9 if dtype == torch.float64 else 5e-4, interval=2, tangent_transient=3)
    finally:
        assert cpu.lyap_use(None)


def test_what_the_kernels_do_not_know_falls_back_and_says_why():
    cell, inputs, h0 = problem(lt.RateCell, 5)
    mine = lt.RateCell(2, 5, activation=lt.Activation(torch.tanh, name="tanh"))
    refused = [
        (mine, {}, "the kernels know the activations"),
        (lt.as_cell(torch.nn.GRUCell(2, 5)), {}, "no Form"),
        (cell, {"checkpoint": 2}, "checkpoint"),
        (cell, {"qr_method": "householder"}, "qr_method"),
    ]
    for cell, kw, reason in refused:
        dtype = cell.tensors()[0].dtype
        with pytest.raises(ValueError, match=reason):
            lt.lyapunov_spectrum(cell, inputs.to(dtype), h0=h0.to(dtype), backend="cpu", **kw)
    assert lt.lyapunov_spectrum(mine, inputs, h0=h0).exponents.isfinite().all()


def test_the_kernels_are_taken_by_themselves_and_can_be_switched_off(monkeypatch):
    cell, inputs, _ = problem(lt.RateCell, 5)
    taken = lt.lyapunov_spectrum(cell, inputs).exponents
    assert "FusedEngine" in graph(taken)
    monkeypatch.delenv("LYAPTORCH_REQUIRE_KERNELS", raising=False)
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert not lt.kernels.available()["cpu"].available
    assert "FusedEngine" not in graph(lt.lyapunov_spectrum(cell, inputs).exponents)
    with pytest.raises(ValueError, match="switched off by LYAPTORCH_KERNELS=0"):
        lt.lyapunov_spectrum(cell, inputs, backend="cpu")
    monkeypatch.setenv("LYAPTORCH_REQUIRE_KERNELS", "1")
    with pytest.raises(RuntimeError, match="LYAPTORCH_REQUIRE_KERNELS=1, but"):
        lt.lyapunov_spectrum(cell, inputs)


def test_a_missing_or_foreign_library_is_reported(tmp_path):
    with pytest.raises(OSError, match="is not installed"):
        library.load((str(tmp_path),))
    (tmp_path / library.FILE).write_bytes(b"no library")
    with pytest.raises(OSError, match=library.FILE):
        library.load((str(tmp_path),))


def test_a_second_derivative_is_refused():
    cell, inputs, _ = problem(lt.RateCell, 5)
    loss = lt.lyapunov_spectrum(cell, inputs, backend="cpu").exponents.sum()
    (first,) = torch.autograd.grad(loss, cell.weight_hh, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        first.sum().backward()


@pytest.mark.parametrize("n", [44, 48])
def test_columns_that_shear_together_have_a_second_pass(n):
    """R_ij = -1/2 above a unit diagonal: every |a_i| / R_ii is below 4, and the condition (3/2)^n."""
    R = torch.eye(n) + torch.full((n, n), -0.5).triu(1)
    cell = lt.RateCell(1, n, activation="linear")
    with torch.no_grad():
        cell.weight_hh.copy_(random_frame(n, n) @ R)
    frame, inputs = torch.eye(n), torch.zeros(3, 1, 1)
    spec = lt.lyapunov_spectrum(cell, inputs, h0=torch.zeros(1, n), frame=frame, backend="cpu")
    # one pass alone would be off by .003 and .1 here, which the next span would take back
    torch.testing.assert_close(spec.growth.log_r[0], torch.zeros(1, n), rtol=0, atol=1e-7)


def test_products_within_a_span_are_recomputed_where_the_tape_would_grow_too_long():
    n, k, t = 128, 128, 400
    cell, frame, inputs = lt.RateCell(1, n), random_frame(n, k), 0.3 * torch.randn(t, 2, 1)

    def found(b):
        spec = lt.lyapunov_spectrum(cell, inputs[:, :b], k=k, frame=frame, interval=2, backend="cpu")
        return torch.autograd.grad(spec.exponents[0].square().mean(), list(cell.parameters()))

    # the frames before each step of one trajectory are worth their 64 MB, those of two are not
    assert t * n * k * 8 < 2**26 < 2 * t * n * k * 8
    for alone, beside in zip(found(1), found(2), strict=True):
        assert torch.equal(alone, beside)
