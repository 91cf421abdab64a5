"""The Triton kernels against plain autograd and the torch backend: on a GPU, else interpreted on the CPU."""

import os
import runpy
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cases
import lyaptorch as lt
from fused import agree, bypassed, has_a_known_form, neurons, problem, scan
from lyaptorch.cells import unroll
from lyaptorch.cells.spiking import ORDERS
from lyaptorch.tangent import engine
from lyaptorch.training.optim import MemberOptimizer
from recorded import launched, stand_in
from reference import random_frame

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # before the kernels are imported
    os.environ["TRITON_INTERPRET"] = "1"
# the module: `lyaptorch.cells.unroll` as an attribute is the function
trajectory = import_module("lyaptorch.cells.unroll")
TRITON = lt.kernels.available()["triton"]
pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.skipif(not TRITON.available, reason=f"no Triton: {TRITON.detail}"),
    pytest.mark.filterwarnings("ignore:.*overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*invalid value encountered:RuntimeWarning"),
]

CASES = [pytest.param(case, id=case.name) for case in cases.CASES if has_a_known_form(case)]


class Everywhere(lt.kernels.FusedRecurrence):
    """Taken on the CPU too."""

    def serves(self, form, h):
        return lt.kernels.refusal("triton", form, h) is None


def compare_unrolled(cell, inputs, h0, monkeypatch, tolerance=1e-11):
    cell, (inputs, h0) = cell.to(DEVICE), (z.detach().to(DEVICE).requires_grad_() for z in (inputs, h0))
    monkeypatch.setattr(trajectory, "_recurrences", [Everywhere("triton")])
    results = []
    for plain in (False, True):
        states = unroll(cell, inputs, h0, plain=plain)
        weights = torch.linspace(-1, 2, states.numel(), device=DEVICE).reshape(states.shape).cos()
        loss = (weights.to(states.dtype) * states).sum() + states[-1].square().sum()
        wanted = [inputs, h0, *cell.parameters()]
        results.append(
            [states, *torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True)]
        )
        assert (type(states.grad_fn).__name__ == "_UnrollBackward") != plain
    agree(*results, tolerance)


def compare(cell, inputs, h0, k, tolerance=1e-9, **kw):
    frame = random_frame(h0.shape[-1], k).to(h0.dtype)
    cell, given = cell.to(DEVICE), [z.detach().to(DEVICE).requires_grad_() for z in (inputs, h0, frame)]
    agree(scan("triton", cell, *given, **kw), scan("torch", cell, *given, **kw), tolerance)


@pytest.mark.parametrize("case", CASES)
def test_the_catalogue_unrolled(case, monkeypatch):
    cell, inputs, h0 = cases.setup(case, (2,) if case.ensembles else (), t=4)
    compare_unrolled(cell, inputs, h0, monkeypatch)


# what differs from others in what is computed before the kernels alone; unrolled they are always
ALIKE = ("elman-linear", "elman-relu", "wcrnn-A", "wcrnn-coupling-trained")
SCANNED = [pytest.param(*c.values, id=c.id, marks=[pytest.mark.slow] if c.id in ALIKE else []) for c in CASES]


@pytest.mark.parametrize("case", SCANNED)
def test_the_catalogue_scanned(case):
    cell, inputs, h0 = cases.setup(case, t=3, b=1)
    compare(cell, inputs, h0, 3, tangent_transient=1, state_grad=2)


def test_an_ensemble_scanned():
    compare(*cases.setup(case_named("wcrnn-A"), (2, 1), t=3, b=2), 3)


@pytest.mark.parametrize(
    ("kind", "kw"),
    [
        (lt.RateCell, {"n": 16, "b": 17}),
        (lt.ElmanCell, {"n": 11, "ensemble": (2, 3), "b": 2}),
        (lt.RateCell, {"n": 1, "b": 1, "t": 1}),
    ],
)
def test_tiles_of_trajectories_and_units(kind, kw, monkeypatch):
    compare_unrolled(*problem(kind, **{"t": 3, **kw}), monkeypatch)


@pytest.mark.parametrize("kind", ["diagonal", "blocks", "dense"])
def test_weights_read_in_tiles(kind, monkeypatch):
    """As beyond the size at which they stay on the chip."""
    monkeypatch.setattr("lyaptorch.kernels.triton.operands.RESIDENT", 0)
    activations = [f() for f in (lt.surrogates.sech2, cases.tanh, cases.tanh)]
    compare_unrolled(*bypassed(6, kind, (6,), activations, t=3), monkeypatch)
    if kind == "dense":
        compare_unrolled(*cases.setup(case_named("lif-full"), t=3), monkeypatch)


def case_named(name):
    return next(case for case in cases.CASES if case.name == name)


@pytest.mark.parametrize("kind", [None, "blocks", "dense"])
def test_sharpness_coupling_and_intervals(kind):
    def sharp(bump, g):
        return bump(torch.nn.Parameter(torch.tensor(g)), norm="area", value="step")

    activations = [sharp(lt.surrogates.sech2, 0.3), sharp(lt.surrogates.erfc, 0.4), cases.tanh()]
    case = bypassed(4, kind, (4,) if kind else None, activations, t=4)
    compare(*case, 4, interval=3)


@pytest.mark.parametrize("order", ORDERS)
def test_neurons_with_constants_of_their_own(order):
    """Their reset depends on the state, twice over, and their sharpness is trained."""
    compare(*neurons(3, ("product", "full", order), ensemble=(2,), b=1, t=4), 5, interval=3, state_grad=2)


def test_more_rows_than_a_panel():
    """Of 17 rows the last stands alone in the second panel."""
    cell, inputs, h0 = problem(lt.RateCell, 18, activation="linear", t=2)
    compare(cell, inputs, h0, 17)


def test_a_second_pass_where_one_is_not_enough():
    """Columns six decades apart and nearly parallel: one pass errs by that much more than round-off."""
    cell, inputs, h0 = problem(lt.RateCell, 18, activation="linear", t=1)
    with torch.no_grad():
        cell.weight_hh.copy_(random_frame(18, 18) * torch.logspace(0, -6, 18))
    cell, inputs, h0 = cell.to(DEVICE), inputs.to(DEVICE), h0.to(DEVICE)
    frame = random_frame(18, 17).to(DEVICE)
    Q = lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, k=17, backend="triton").final_frame
    assert (Q.mT @ Q - torch.eye(17, device=DEVICE)).abs().max() < 1e-14


def test_dead_columns():
    cell, inputs, h0 = problem(lt.RateCell, 6, activation="relu", t=4)
    with torch.no_grad():
        cell.bias[-2:] = -60.0
    compare(cell, inputs, h0, 6, tangent_transient=1)


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_float32(kind):
    cell, inputs, h0 = problem(kind, 8, t=4, dtype=torch.float32)
    compare(cell, inputs, h0, 6, 2e-4)


@pytest.mark.parametrize("what", ["state", "tangent"])
def test_overflow_names_the_step_like_torch(what):
    cell, inputs, h0 = problem(lt.RateCell, 4, activation="linear", t=4, dtype=torch.float32)
    with torch.no_grad():
        cell.weight_hh.mul_(1e13)
        if what == "tangent":
            for z in (inputs, h0, cell.bias):
                z.zero_()
    cell, (inputs, h0) = cell.to(DEVICE), (z.detach().to(DEVICE) for z in (inputs, h0))
    messages = []
    for backend in ("triton", "torch"):
        with pytest.raises(FloatingPointError, match="not finite after step") as error:
            lt.lyapunov_spectrum(cell, inputs, h0=h0, interval=4, backend=backend)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_what_the_kernels_do_not_know_is_refused():
    cell, inputs, _ = problem(lt.RateCell, 4, t=2)
    refused = [
        (lt.as_cell(torch.nn.GRUCell(2, 4)), {}, "no Form"),
        (lt.RateCell(2, 4, activation=cases.softplus()), {}, "the kernels know the activations"),
        (lt.LIFCell(2, 65), {}, "up to 64 units"),
        (cell, {"checkpoint": 1}, "checkpoint"),
        (lt.RateCell(2, 129), {}, "up to 128 units"),
    ]
    for cell, kw, reason in refused:
        with pytest.raises(ValueError, match=f'backend "triton" cannot serve: .*{reason}'):
            lt.lyapunov_spectrum(cell, inputs, backend="triton", **kw)


def test_nothing_is_taken_by_itself_on_the_cpu():
    cell, _, h0 = problem(lt.RateCell, 4, t=2)
    assert not lt.kernels.FusedRecurrence("triton").serves(cell.form(), h0.detach().cpu())


def test_availability(monkeypatch):
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert "switched off" in lt.kernels.available()["triton"].detail
    monkeypatch.delenv("LYAPTORCH_KERNELS")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if DEVICE == "cpu":
        assert "there is no GPU" in lt.kernels.available()["triton"].detail
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed" in lt.kernels.available()["triton"].detail


def test_precision(monkeypatch):
    from lyaptorch.kernels.triton.operands import precision

    assert precision(torch.float32) == "tf32x3"
    monkeypatch.setenv("LYAPTORCH_PRECISION", "tf32")
    assert (precision(torch.float32), precision(torch.float64)) == ("tf32", "ieee")
    monkeypatch.setenv("LYAPTORCH_PRECISION", "bf16")
    with pytest.raises(ValueError, match="LYAPTORCH_PRECISION must be one of tf32x3, ieee, tf32"):
        precision(torch.float32)


class NoReading(TorchDispatchMode):
    """Whoever reads a number back to the host fails, as it would in a CUDA graph."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "masked_select"), name
        return function(*args, **(kwargs or {}))


def test_nothing_is_read_back_while_a_graph_is_captured(monkeypatch):
    cell, inputs, h0 = problem(lt.ElmanCell, 4, t=3)
    frame = random_frame(4, 3)

    def step():
        spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, k=3, backend="triton")
        loss = spec.exponents.square().sum() + unroll(cell, inputs, h0).sum()
        return torch.autograd.grad(loss, list(cell.parameters()))

    monkeypatch.setattr(trajectory, "_recurrences", [Everywhere("triton")])
    step()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():
        step()
    monkeypatch.setattr("lyaptorch._checks.can_look", lambda: False)
    with NoReading():
        step()


def test_an_overflow_while_a_graph_is_captured_is_no_number(monkeypatch):
    """Of the state alone: the tangent vectors of a linear network are finite."""
    cell, inputs, h0 = problem(lt.RateCell, 4, activation="linear", t=4, dtype=torch.float32)
    cell, h0, inputs = cell.to(DEVICE), h0.detach().to(DEVICE), 3e38 * inputs.detach().to(DEVICE).sign()
    monkeypatch.setattr("lyaptorch._checks.can_look", lambda: False)
    spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, k=2, backend="triton")
    assert spec.exponents.isnan().all()


@pytest.mark.skipif(DEVICE != "cpu", reason="tests of epochs record real graphs on a GPU")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["rate-tanh", "lif-full"])
def test_epochs_on_these_kernels_are_recorded_and_replayed(name, monkeypatch):
    from lyaptorch.kernels.triton import form_kernels, frame_kernels, lif_kernels

    for module in (form_kernels, frame_kernels, lif_kernels):
        for way in {"forward", "backward", "forward_frame", "backward_frame"} & {*vars(module)}:
            monkeypatch.setattr(module, way, launched(getattr(module, way)))
    monkeypatch.setattr(trajectory, "_recurrences", [Everywhere("triton")])
    monkeypatch.setattr(engine, "choose", lambda problem, h, backend: "triton")
    # of the host's own: what is recorded are operations, and both are to be equal to the bit
    monkeypatch.setattr(MemberOptimizer, "_compiled", lambda self: None)
    flossing = lt.FlossPhase(0, k=2, steps=2, tangent_transient=1)
    phase, results = lt.FitPhase(3, flossing_weight=0.5, flossing=flossing), []
    for captured in (False, True):
        cell, _, h0 = cases.setup(case_named(name), b=1)
        model = lt.Model(cell, lt.Readout(4, 1), h0=torch.nn.Parameter(h0), loss="mean_squared_error")
        with stand_in(monkeypatch) if captured else nullcontext() as recorded:
            record = lt.train(model, lt.tasks.Adding(2), (phase,), batch=1, fetch_every=3)
        results.append([record, *(p.detach() for p in model.parameters())])
    assert len(recorded) == 1
    (one, *weights), (other, *others) = results
    assert one == other
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


@pytest.mark.slow
def test_the_benchmark_runs(capsys, monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    monkeypatch.setattr("sys.argv", [str(path), "--smoke"])
    monkeypatch.setattr(trajectory, "_recurrences", list(trajectory._recurrences))
    torch.set_default_dtype(torch.float32)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.count("\n|") == 8


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h200():
    """The interpreter lets through what the compiler refuses; no GPU is needed to ask the compiler."""
    script = Path(__file__).parent / "triton_compile.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
