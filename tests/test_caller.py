"""Every public function under every mode of the caller's: the same numbers, and nothing of his moves."""

import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from tests.cases import default_dtype
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lyaptorch as lt
from lyaptorch._random import Stream
from lyaptorch.analysis import hessian_spectrum
from lyaptorch.tasks.batch import Draw

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    # of torch, the first time that it does these
    pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]

T, B, N = 10, 2, 3


class Step(nn.Module):
    """A user's step, with all that `train()` switches on, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(N, N), nn.BatchNorm1d(N), nn.Dropout(0.5)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.dropout(self.norm(self.linear(h))) + x)


class Things:
    """What the calls are made with, all of one dtype, on the CPU."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        with default_dtype(dtype), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.x, self.h = torch.randn(T, B, 1), 0.1 * torch.randn(B, N)
            self.rate, self.elman, self.gru = lt.RateCell(1, N), nn.RNN(1, N), nn.GRU(1, N)
            self.lstm = nn.LSTM(1, 2, num_layers=2, dropout=0.5)
            self.step, self.residual = Step(), lt.ResidualCell(1, 4)
            self.spiking = lt.LIFCell(1, N)
            self.blocks = [nn.Sequential(nn.Linear(N, N), nn.Tanh(), nn.Dropout()) for _ in range(3)]
            self.model = lt.Model(lt.RateCell(1, N), lt.Readout(N, 1))
            self.W = torch.randn(N, N) / N**0.5
            self.task, self.ids = lt.tasks.DelayedCopy(2), torch.arange(2)
            self.curves = torch.rand(3, 40)
            self.flow = lt.Flow(lambda x, h: torch.tanh(h @ self.W.mT) - h, dt=0.1)
            self.batch = self.task.draw(Draw(0, 8, 2, member_ids=self.ids[0], dtype=dtype))
            self.elsewhere = copy.deepcopy(self.step).eval()
        self.elman.eval()

    @property
    def modules(self) -> list[nn.Module]:
        return [z for z in vars(self).values() if isinstance(z, nn.Module)] + self.blocks

    def function(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h @ self.W.mT + x)

    def closed(self, x: Tensor, h: Tensor) -> Tensor:
        return self.elsewhere(x, h)


Case = Callable[[Things], Callable[[], Any]]
KEPT = {"k": 2}
FLOSS = {"k": 2, "epochs": 1, "steps": 6, "tangent_transient": 2}
PHASE = lt.FlossPhase(**FLOSS)
TRIGGER = lt.schedules.Trigger(lt.schedules.When(lt.schedules.lambda1 < 10.0), PHASE)


def flossed(name: str, **settings: Any) -> Case:
    """What `floss` records and leaves, of a copy."""

    def case(o: Things) -> Callable[[], Any]:
        network = copy.deepcopy(getattr(o, name))
        h0 = {} if name in ("rate", "lstm") else {"h0": o.h}
        return lambda: (lt.floss(network, o.x, **FLOSS, **h0, **settings), list(network.parameters()))

    return case


def trained(o: Things) -> Callable[[], Any]:
    model = copy.deepcopy(o.model)
    phases = (PHASE, lt.FitPhase(2, triggers=(TRIGGER,), check_every=1, flossing=PHASE, flossing_weight=0.1))
    metrics = ("spectrum", "test", "curvature", "saturated", "effective_rank")
    settings = {"batch": 2, "steps": 8, "metrics": metrics, "metrics_every": 1, "test_batches": 1}
    return lambda: (lt.train(model, o.task, phases, **settings), list(model.parameters()))


def flosser(o: Things) -> Callable[[], Any]:
    network = copy.deepcopy(o.lstm)

    def run() -> Any:
        made = lt.integrations.Flosser(network, o.x, [TRIGGER])
        return made.step(), made.exponents(2), list(network.parameters())

    return run


def diagnosed(network: Any, **settings: Any) -> Any:
    found = lt.diagnose(network, **settings)
    return found.measured, found.summary(), [r.title for r in found.suggestions], found.variables()[0]


def weights(name: str, *arguments: Any) -> Case:
    return lambda o: lambda: getattr(lt.weights, name)(*arguments)(6, Stream(0, "w"), o.ids)


def residual(make: Callable[[], Any]) -> Case:
    return lambda o: lambda: make()(6, o.ids).matrix


def task(make: Callable[[], Any], length: int | None = 12) -> Case:
    def case(o: Things) -> Callable[[], Any]:
        def run() -> Any:
            drawn = make()
            d = Draw(0, length or drawn.period, 2, member_ids=o.ids, dtype=o.dtype)
            return (drawn.draw if hasattr(drawn, "draw") else drawn.inputs)(d)

        return run

    return case


def changed(o: Things, name: str, act: Callable[[Any], Any]) -> Callable[[], Any]:
    network = copy.deepcopy(getattr(o, name))
    return lambda: (act(network), list(network.parameters()))[1]


def surrogate(name: str) -> Case:
    f = getattr(lt.surrogates, name)(1.0).to(torch.float64)
    return lambda o: lambda: (f(o.W.double()), f.slope(o.W.double()))


def of(call: Callable[[Things], Any]) -> Case:
    return lambda o: lambda: call(o)


def waves(o: Things) -> Tensor:
    return torch.sin(0.3 * torch.arange(100.0, dtype=o.dtype, device="cpu"))[:, None]


def last(states: Tensor) -> Tensor:
    return states[-1].square()


A, TH, S, R, TA = lt.analysis, lt.theory, lt.surrogates, lt.residuals, lt.tasks
CASES: dict[str, Case] = {
    "closed_loop": of(
        lambda o: lt.lyapunov_spectrum(lt.closed_loop(o.gru, o.model.readout), o.x[..., :0], h0=o.h, **KEPT)
    ),
    "closed_loop of a function": of(
        lambda o: lt.lyapunov_spectrum(
            lt.closed_loop(o.gru, lambda h: torch.tanh(h[..., :1])), o.x[..., :0], h0=o.h, **KEPT
        )
    ),
    "forced": of(
        lambda o: lt.lyapunov_spectrum(lt.forced(o.elman, 0.3), o.x.expand(-1, -1, 1 + N), h0=o.h, **KEPT)
    ),
    "lyapunov_spectrum": of(lambda o: lt.lyapunov_spectrum(o.rate, o.x, **KEPT)),
    "lyapunov_spectrum of torch": of(lambda o: lt.lyapunov_spectrum(o.lstm, o.x, backend="torch")),
    "lyapunov_spectrum auto": of(
        lambda o: lt.lyapunov_spectrum(o.gru, o.x, interval="auto", transient="auto")
    ),
    "lyapunov_spectrum of a function": of(lambda o: lt.lyapunov_spectrum(o.function, o.x, h0=o.h)),
    "lyapunov_spectrum of a closure": of(
        lambda o: lt.lyapunov_spectrum(lambda x, h: o.closed(x, h), o.x, h0=o.h)
    ),
    "lyapunov_spectrum of a module": of(lambda o: lt.lyapunov_spectrum(o.step, o.x, h0=o.h).variables()[0]),
    "lyapunov_spectrum of a flow": of(lambda o: lt.lyapunov_spectrum(o.flow, o.x, h0=o.h)),
    "lyapunov_spectrum of lists": of(
        lambda o: lt.lyapunov_spectrum([o.gru, o.gru], o.x, h0=o.h.expand(2, B, N))
    ),
    "lyapunov_spectrum of a list of modules": of(
        lambda o: lt.lyapunov_spectrum([o.step, o.step], o.x, h0=o.h.expand(2, B, N))
    ),
    "as_cell": of(lambda o: lt.lyapunov_spectrum(lt.as_cell(o.elman), o.x)),
    "covariant_vectors": of(lambda o: lt.covariant_vectors(o.step, o.x, h0=o.h)),
    "depth_spectrum": of(lambda o: lt.depth_spectrum(o.blocks, o.h)),
    "diagnose": of(lambda o: diagnosed(o.rate, inputs=o.x)),
    "diagnose a module": of(lambda o: diagnosed(o.lstm, inputs=o.x)),
    "floss": flossed("rate"),
    "floss a module": flossed("lstm"),
    "floss a step": flossed("step"),
    "floss blindly": flossed("gru", clip=0.1, frame="fixed", state_grad=2),
    "train": trained,
    "evaluate": of(lambda o: lt.evaluate(o.model, o.task, batch=2, steps=8, batches=1)),
    "flossing_loss": of(lambda o: lt.flossing_loss(-o.curves, k=2, target=-0.1)),
    "weights.fluctuation_driven": lambda o: changed(
        o, "spiking", lambda cell: lt.weights.fluctuation_driven(cell, input_rate=5.0)
    ),
    "integrations.Flosser": flosser,
    "integrations.Sequences": of(
        lambda o: lt.integrations.Sequences(o.x).inputs(Draw(0, 8, 2, member_ids=o.ids, epoch=1))
    ),
    "analysis.aligned": of(lambda o: A.aligned(o.curves, o.curves[:, 0].round(), 1, 1)),
    "analysis.characteristic_frequency": of(lambda o: A.characteristic_frequency(waves(o))),
    "analysis.condition_number": of(lambda o: A.condition_number(o.step, o.x, every=5, h0=o.h)),
    "analysis.condition_number in bits": of(lambda o: A.condition_number(o.rate, o.x[:6], bits=80)),
    "analysis.diagnose": of(lambda o: diagnosed(o.model, inputs=o.x)),
    "analysis.effective_learning_rates": of(lambda o: A.effective_learning_rates(o.curves, 0.1)),
    "analysis.effective_rank": of(lambda o: A.effective_rank(o.curves, "entropy")),
    "analysis.fading_memory": of(lambda o: A.fading_memory(o.step, o.x, h0=o.h)),
    "analysis.gradient_norms": of(lambda o: A.gradient_norms(o.step, o.x, last, h0=o.h)),
    "analysis.gradient_overlap": of(lambda o: A.gradient_overlap(o.step, o.x, torch.sin, at=4, h0=o.h)),
    "analysis.hessian_spectrum": of(
        lambda o: hessian_spectrum(o.rate, o.x, lambda h: last(h).mean(), k=2, steps=4, probes=1)
    ),
    "analysis.memory_capacity": of(lambda o: A.memory_capacity(o.rate, lags=2, transient=5, steps=40)),
    "analysis.onset": of(lambda o: A.onset(o.curves, width=5)),
    "analysis.residual_exponents": of(lambda o: A.residual_exponents(o.residual, o.x)),
    "analysis.spike_statistics": of(
        lambda o: A.spike_statistics(o.spiking, o.x[:9].expand(-1, -1, o.spiking.state_size))
    ),
    "analysis.step_jacobians": of(lambda o: A.step_jacobians(o.step, o.x, o.h)),
    "analysis.time_scales": of(lambda o: A.time_scales(-o.curves)),
    "analysis.usable_dimensions": of(lambda o: A.usable_dimensions(-o.curves, 30, 1e7)),
    "theory.binary_mean_field": of(lambda o: TH.binary_mean_field(2.0, 0.1)),
    "theory.critical_gain": of(lambda o: TH.critical_gain(0.5)),
    "theory.critical_input": of(lambda o: TH.critical_input(2.0)),
    "theory.free_probability_spectrum": of(lambda o: TH.free_probability_spectrum(8, o.curves[0])),
    "theory.gaussian_product": of(lambda o: TH.gaussian_product(5)),
    "theory.gaussian_states": of(lambda o: TH.gaussian_states(o.curves[0, 0])),
    "theory.leaky_mean_field": of(lambda o: TH.leaky_mean_field(3.0, 1.0)),
    "theory.log_condition_number": of(lambda o: TH.log_condition_number(-o.curves, 10)),
    "theory.quiescent_spectrum": of(lambda o: TH.quiescent_spectrum(o.curves[0], 0.5)),
    "theory.tanh_mean_field": of(lambda o: TH.tanh_mean_field(2.0, 0.1)),
    "theory.triangle_law": of(lambda o: TH.triangle_law(5, 0.1, 0.7)),
    "tasks.Adding": task(lambda: TA.Adding(12)),
    "tasks.DelayedCopy": task(lambda: TA.DelayedCopy(2)),
    "tasks.Draw": of(lambda o: Draw(0, 8, 2, member_ids=o.ids, dtype=o.dtype).normal(3)),
    "tasks.Noise": task(lambda: TA.Noise(2)),
    "tasks.OneHotXOR": task(lambda: TA.OneHotXOR(2)),
    "tasks.Recall": task(lambda: TA.Recall(2, 4)),
    "tasks.SequentialImages": task(lambda: TA.SequentialImages("mnist"), 784),
    "tasks.SpatialXOR": task(lambda: TA.SpatialXOR(2)),
    "tasks.SpikePatterns": task(lambda: TA.SpikePatterns(), None),
    "tasks.SpikingXOR": task(lambda: TA.SpikingXOR(40), None),
    "tasks.SpokenDigits": task(lambda: TA.SpokenDigits(), 19),
    "tasks.TemporalXOR": task(lambda: TA.TemporalXOR(2)),
    "tasks.make_task": task(lambda: TA.make_task("delayed_copy", delay=2)),
    "residuals.decay": residual(lambda: R.decay(0.9)),
    "residuals.rotation": residual(lambda: R.rotation(0.2)),
    "residuals.orthogonal": residual(lambda: R.orthogonal(6)),
    "residuals.informed": residual(lambda: R.informed(Spectral(), 6).residual),
    "residuals.matrix": lambda o: residual(lambda: R.matrix(torch.eye(6, device="cpu")))(o),
    "surrogates.arctan": surrogate("arctan"),
    "surrogates.erfc": surrogate("erfc"),
    "surrogates.fast_sigmoid": surrogate("fast_sigmoid"),
    "surrogates.gaussian": surrogate("gaussian"),
    "surrogates.sech2": surrogate("sech2"),
    "surrogates.sigmoid": surrogate("sigmoid"),
    "surrogates.triangular": surrogate("triangular"),
    "weights.balanced": weights("balanced"),
    "weights.dale": weights("dale"),
    "weights.low_rank": weights("low_rank"),
    "weights.fan_in": of(lambda o: lt.weights.fan_in((2, 3), 3, Stream(0, "w"), o.ids)),
    "weights.gaussian": weights("gaussian", 1.5),
    "weights.identity": weights("identity"),
    "weights.orthogonal": weights("orthogonal"),
    "weights.random_frame": of(lambda o: lt.cells.random_frame(6, 2, Stream(0, "w"), o.ids, dtype=o.dtype)),
    "weights.shifted_mean": weights("shifted_mean"),
    "weights.uniform": weights("uniform"),
    "weights.weakly_coupled_": lambda o: changed(
        o, "elman", lambda rnn: lt.weights.weakly_coupled_(rnn, R.decay(0.9))
    ),
    "weights.mixing": weights("mixing"),
    "weights.mixing_": lambda o: changed(o, "elman", lambda rnn: lt.weights.mixing_(rnn, horizon=9)),
    "weights.weights": of(lambda o: lt.weights.weights("uniform", 1.0)(4, Stream(0, "w"), o.ids)),
}  # fmt: skip


class Spectral:
    """Something with a frequency."""

    frequency = 0.1


NETWORK = "makes a network, whose dtype and device are the defaults, as torch's modules have it"
VALUE = "holds what others computed, or a setting"
NONE = "needs no numbers: what the machine can do"
EXEMPT = {
    NETWORK: "Activation BinaryCell Cell ElmanCell Flow GRUCell LIFCell LSTMCell LeakyRateCell Model "
    "RateCell Readout  ResidualCell cells.AdaptiveLIFCell cells.CoRNNCell cells.DeltaCell "
    "cells.Depth cells.FormCell cells.FunctionCell  cells.LRUCell cells.LeakyReadout "
    "cells.MinGRUCell cells.S4DCell cells.SelectiveSSMCell  cells.SpikingCell cells.Stacked "
    "cells.Substituted cells.URLSTMCell  presets.gf2023 surrogates.Surrogate",
    VALUE: "SGD Adam Batch FitPhase FlossPhase Record Spectrum Task cells.Block cells.Form cells.LIFForm "
    "schedules.At schedules.Every schedules.Scale schedules.Schedule schedules.Trigger schedules.When "
    "residuals.Recipe tasks.Batch tasks.Task theory.LeakyMeanField theory.MeanField weights.Mixing "
    "weights.Weights " + " ".join(f"analysis.{name}" for name in A.__all__ if name[0].isupper()),
    NONE: " ".join(f"kernels.{name}" for name in lt.kernels.__all__),
    "a part of others here": "residuals.spread cells.copied cells.fit cells.owned cells.probe "
    "cells.random_frame cells.settle cells.unroll cells.unwrap",
    "takes a graph, which the caller made": "analysis.gradient_singular_values",
    "reads a Record": "analysis.best_so_far analysis.iterations_to",
}


def public() -> Iterator[str]:
    """Every public name of the library."""
    for name in lt.__all__:
        found = getattr(lt, name)
        if not isinstance(found, types.ModuleType):
            yield name
            continue
        own = [
            k
            for k, v in vars(found).items()
            if k[0] != "_" and getattr(v, "__module__", "") == found.__name__
        ]
        # what stands above, too, is tested under that name
        yield from (
            f"{name}.{k}"
            for k in getattr(found, "__all__", own)
            if callable(getattr(found, k)) and (k not in lt.__all__ or name == "tasks")
        )


def test_no_public_name_is_forgotten():
    tested = {name.partition(" ")[0] for name in CASES}
    exempt = {name for names in EXEMPT.values() for name in names.split()}
    assert set(public()) <= tested | exempt
    assert not tested & exempt


@contextmanager
def both(one: Any, other: Any) -> Iterator[None]:
    with one, other:
        yield


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast on meta": lambda: both(torch.autocast("cpu", torch.bfloat16), torch.device("meta")),
    "other dtype": lambda: default_dtype(other(torch.get_default_dtype())),
}


def other(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.float64 else torch.float64


def caller() -> tuple[Any, ...]:
    """The modes as they stand."""
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    libraries = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    return (*modes, *libraries, torch.get_default_dtype(), torch.get_default_device())


def state(o: Things) -> list[Any]:
    """All that a call must leave alone: flags, parameters, buffers, gradients and the global generator."""
    found: list[Any] = [torch.get_rng_state()]
    for module in o.modules:
        found += [part.training for part in module.modules()]
        found += [z.detach().clone() for z in [*module.parameters(), *module.buffers()]]
        found += [p.requires_grad for p in module.parameters()]
        found += [p.grad is None for p in module.parameters()]
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True)
    )


def numbers(result: Any) -> list[Any]:
    """All that a result holds, in a row."""
    if isinstance(result, Tensor):
        return [result.detach().clone()]
    if isinstance(result, np.ndarray):
        return [torch.from_numpy(result.copy())]
    if isinstance(result, lt.Record):
        return [result.config, *numbers(result.dataset)]
    if hasattr(result, "data_vars"):
        return [z for name in sorted(result.data_vars) for z in numbers(result[name].values)]
    if isinstance(result, dict):
        return [z for name in result for z in numbers(result[name])]
    if isinstance(result, list | tuple):
        return [z for one in result for z in numbers(one)]
    if dataclasses.is_dataclass(result):
        return [z for field in dataclasses.fields(result) for z in numbers(getattr(result, field.name))]
    return [result]


@functools.cache
def things(dtype: torch.dtype) -> Things:
    return Things(dtype)


@functools.cache
def plain(name: str, dtype: torch.dtype) -> list[Any]:
    with default_dtype(dtype):
        return numbers(CASES[name](things(dtype))())


@pytest.mark.parametrize("name", CASES)
def test_no_mode_of_the_callers_changes_a_result_or_is_changed(name):
    """To the bit: in the float32 of most users under all modes, in float64 under a default of float32.

    The default dtype decides the dtype of new networks, and so that of their weights.
    """
    new = name.startswith(("weights.", "residuals."))
    runs = [*((mode, torch.float32) for mode in MODES), ("other dtype", torch.float64)]
    for mode, dtype in runs[: -2 if new else None]:
        expected, o = plain(name, dtype), things(dtype)
        call, before = CASES[name](o), state(o)
        with default_dtype(dtype), MODES[mode]():
            entered = caller()
            result = call()
            assert caller() == entered, mode
        found = numbers(result)
        assert same(state(o), before), mode
        for got, wanted in zip(found, expected, strict=True):
            if isinstance(wanted, Tensor):
                assert (got.dtype, got.device) == (wanted.dtype, wanted.device), mode
                torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True, msg=f"under {mode}")
            else:
                assert got == wanted, mode


def moving(x: Tensor, h: Tensor) -> Tensor:
    return COUNTER(h)


class Counter(nn.Module):
    """A module that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        return 0.5 * h


COUNTER, TRAINING = Counter(), Step()


class Counting(nn.Module):
    """A step whose module replaces a buffer by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return 0.5 * h


COUNTING = Counting()
REFUSED: dict[str, tuple[Callable[[Things], Any], str]] = {
    "k": (lambda o: lt.lyapunov_spectrum(o.step, o.x, k=9, h0=o.h), r"k must be an integer in 1\.\.3"),
    "dropout": (
        lambda o: lt.lyapunov_spectrum(lambda x, h: nn.functional.dropout(h), o.x, h0=o.h),
        "same answer twice",
    ),
    "batch normalisation": (
        lambda o: lt.lyapunov_spectrum(lambda x, h: torch.tanh(TRAINING.norm(h)), o.x, h0=o.h),
        r"treat trajectories independently.*\.eval\(\)",
    ),
    "a closure in training": (
        lambda o: lt.floss(lambda x, h: TRAINING(x, h), o.x, h0=o.h, **FLOSS),
        r"same answer twice.*\.eval\(\)",
    ),
    "a buffer that moves": (
        lambda o: lt.covariant_vectors(moving, o.x, h0=o.h),
        "change nothing but the state that it returns, got changes of calls of Counter",
    ),
    "a buffer that is replaced": (
        lambda o: A.fading_memory(COUNTING, o.x, h0=o.h),
        "change nothing but the state that it returns, got changes of calls of Counting",
    ),
    "steps": (lambda o: lt.floss(o.lstm, o.x[:3], **FLOSS), "inputs must hold steps=6 steps"),
    "horizon": (lambda o: lt.diagnose(o.lstm, o.x, horizon=0), "horizon must be an integer >= 1"),
    "metric": (lambda o: lt.train(o.model, o.task, (PHASE,), metrics=("none",)), "unknown metric"),
    "blocks": (lambda o: lt.depth_spectrum(o.blocks, o.h, k=0), "k must be an integer"),
    "reentrant": (
        lambda o: lt.lyapunov_spectrum(
            lambda x, h: checkpoint(torch.tanh, h, use_reentrant=True), o.x, h0=o.h
        ),
        "pass use_reentrant=False",
    ),
    "rows of h0": (
        lambda o: lt.integrations.Flosser(
            o.gru,
            o.x,
            [lt.schedules.Trigger(lt.schedules.At(0), dataclasses.replace(PHASE, batch=3))],
            h0=o.h[:1],
        ),
        r"h0 must have shape .* = \(3, 3\), got \(1, 3\)",
    ),
}


@pytest.mark.parametrize("mode", ["plain", "inference", "autocast on meta"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_call_changes_nothing(name, mode):
    call, message = REFUSED[name]
    o, own = things(torch.float32), [COUNTER, COUNTING, TRAINING]
    before = state(o), [z.clone() for module in own for z in module.buffers()]
    with MODES[mode]() if mode in MODES else nullcontext():
        entered = caller()
        with pytest.raises(ValueError, match=message):
            call(o)
        assert caller() == entered
    assert same(state(o), before[0])
    assert same([z for module in own for z in module.buffers()], before[1])


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_halving_in_inference_mode_is_half():
    with inference():
        found = lt.lyapunov_spectrum(lambda u, h: 0.5 * h, torch.zeros(4, 1, 1), h0=torch.ones(1, 1))
    assert found.exponents.item() == pytest.approx(np.log(0.5), rel=1e-6)
    assert not found.exponents.is_inference()


def test_a_probe_in_inference_mode_leaves_forward_mode_on():
    cell = lt.as_cell(Step().eval())
    with inference():
        lt.lyapunov_spectrum(cell, torch.zeros(4, 1, 1), h0=torch.ones(1, N))
        inside = torch.zeros(4, 1, 1)
        lt.Model(lt.as_cell(nn.GRUCell(1, N)), lt.Readout(N, 1))(inside)
    assert not cell.unproven
    assert not cell.reverse_mode
    found = lt.lyapunov_spectrum(cell, inside, h0=torch.ones(1, N))
    found.exponents.sum().backward()
    assert cell.function.linear.weight.grad.abs().sum() > 0


def test_networks_made_in_inference_mode_are_measured_and_not_trained():
    o = things(torch.float32)
    with inference():
        made, blocks = copy.deepcopy(o.step), copy.deepcopy(o.blocks)
        W = o.W.clone()
        x, h = o.x.clone(), o.h.clone()
        inside = lt.lyapunov_spectrum(lambda x, h: torch.tanh(h @ W.mT + x), x, h0=h).exponents
    for network in (made, [made, made]):
        h0 = h if network is made else h.expand(2, B, N)
        measured = lt.lyapunov_spectrum(network, x, h0=h0).exponents
        wanted = lt.lyapunov_spectrum(
            o.step if network is made else [o.step, o.step], o.x, h0=o.h if network is made else h0.clone()
        ).exponents
        assert torch.equal(measured, wanted)
    assert torch.equal(inside, lt.lyapunov_spectrum(o.function, o.x, h0=o.h).exponents)
    assert torch.equal(lt.depth_spectrum(blocks, h).exponents, lt.depth_spectrum(o.blocks, o.h).exponents)
    for call in (lt.floss, functools.partial(lt.integrations.Flosser, triggers=[])):
        with pytest.raises(ValueError, match=r"trained must be made outside of torch\.inference_mode"):
            call(made, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32_and_not_trained(dtype):
    o = things(torch.float32)
    for network in (o.step, o.lstm, o.rate):
        half, h0 = copy.deepcopy(network).to(dtype), {"h0": o.h.to(dtype)} if network is o.step else {}
        wide = {name: h.float() for name, h in h0.items()}
        found = lt.lyapunov_spectrum(half, o.x.to(dtype), **h0).exponents
        expected = lt.lyapunov_spectrum(copy.deepcopy(half).float(), o.x.to(dtype).float(), **wide).exponents
        assert torch.equal(found, expected.detach())
        assert not found.requires_grad
        assert next(half.parameters()).dtype == dtype
        with pytest.raises(ValueError, match=f"must be float32 or float64, got {dtype}.*float"):
            lt.floss(half, o.x, **FLOSS)
    with pytest.raises(ValueError, match=f"inputs must be float32 or float64, got {dtype}"):
        lt.lyapunov_spectrum(lambda x, h: 0.5 * h, o.x.to(dtype), h0=o.h.to(dtype))


class Rotation(nn.Module):
    """z' = w z in real coordinates, w complex."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.3 + 0.4j))
        self.register_buffer("one", torch.tensor(1.0 + 0j))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z = torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(self.w * self.one * z).flatten(-2)


def test_complex_parameters_are_measured_and_complex_states_of_real_cells_refused():
    o, step = things(torch.float32), Rotation()
    found = lt.lyapunov_spectrum(step, o.x, h0=torch.ones(B, 2)).exponents
    assert found.detach().numpy() == pytest.approx(np.log(0.5), rel=1e-5)
    found.sum().backward()
    # 4 log |w| in all, by torch's convention for complex gradients
    assert step.w.grad.item() == pytest.approx(4 * (0.3 + 0.4j) / 0.25, rel=1e-4)
    with pytest.raises(ValueError, match=r"trained must be real, got torch\.complex64"):
        lt.floss(step, o.x, h0=torch.ones(B, 2), **FLOSS)
    with pytest.raises(ValueError, match=r"h0 must be real, got torch\.complex64; .*view_as_real") as refused:
        lt.lyapunov_spectrum(lt.RateCell(o.x.shape[-1], 2), o.x, h0=torch.ones(B, 2) + 0j)
    assert ".float()" not in str(refused.value)


@pytest.mark.parametrize("two", [np.int64(2), np.int32(2), torch.tensor(2)])
def test_integers_of_other_libraries_are_integers(two):
    o = things(torch.float32)
    found = lt.lyapunov_spectrum(o.rate, o.x, k=two, transient=two, interval=two)
    assert torch.equal(
        found.exponents, lt.lyapunov_spectrum(o.rate, o.x, k=2, transient=2, interval=2).exponents
    )
    record = lt.floss(
        copy.deepcopy(o.rate), o.x, k=int(two), steps=two + 6, tangent_transient=two, epochs=two
    )
    assert record["exponents"].shape == (1, 2, 2)
    assert lt.diagnose(o.rate, o.x, k=two, transient=two, horizon=two + 6).config["transient"] == 2
    for no in (True, np.True_, torch.tensor(True), 2.0, torch.tensor([2])):
        with pytest.raises(ValueError, match=r"k must be an integer in 1\.\.3"):
            lt.lyapunov_spectrum(o.rate, o.x, k=no)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda x: x.to("meta"), "inputs must hold numbers, got a meta tensor"),
        (lambda x: torch.nested.nested_tensor([x[:, 0]]), "inputs must be one dense tensor, got a nested"),
        (lambda x: x.to_sparse(), "inputs must be one dense tensor, got torch.sparse_coo"),
    ],
)
def test_tensors_without_numbers_of_their_own_are_refused(inputs, message):
    o = things(torch.float32)
    with pytest.raises(ValueError, match=message):
        lt.lyapunov_spectrum(o.rate, inputs(o.x))
    with pytest.raises(ValueError, match=r"weight_hh must hold numbers, got a meta tensor"):
        lt.lyapunov_spectrum(copy.deepcopy(o.rate).to("meta"), o.x)
    with pytest.raises(ValueError, match="h0 must hold at least one unit"):
        lt.lyapunov_spectrum(lambda x, h: h, o.x, h0=torch.ones(B, 0))


def test_the_network_is_evaluated_wherever_it_is_handed_over():
    o = things(torch.float32)
    training, evaluated = o.step, copy.deepcopy(o.step).eval()
    assert training.dropout.training
    for measured in (
        lambda step: lt.lyapunov_spectrum(step, o.x, h0=o.h).exponents,
        lambda step: lt.lyapunov_spectrum(step.forward, o.x, h0=o.h).exponents,
        lambda step: A.gradient_norms(step, o.x, last, h0=o.h),
        lambda step: lt.floss(copy.deepcopy(step), o.x, h0=o.h, **FLOSS)["exponents"],
    ):
        assert np.array_equal(
            *(np.asarray(torch.as_tensor(measured(s)).detach()) for s in (training, evaluated))
        )


def test_a_closure_is_probed_again_when_its_module_is_put_into_training_mode():
    o, inside = things(torch.float32), Step().eval()
    cell = lt.as_cell(lambda x, h: inside(x, h))
    for _ in range(2):
        lt.lyapunov_spectrum(cell, o.x, h0=o.h)
    inside.train()
    with pytest.raises(ValueError, match="same answer twice"):
        lt.lyapunov_spectrum(cell, o.x, h0=o.h)


def test_another_thread_runs_its_modules_undisturbed_by_a_probe():
    import threading

    counter, done, o = Counter(), threading.Event(), things(torch.float32)

    def step(x: Tensor, h: Tensor) -> Tensor:
        if not done.is_set():
            worker = threading.Thread(target=lambda: counter(torch.ones(1)))
            worker.start()
            worker.join()
            done.set()
        return 0.5 * h

    lt.lyapunov_spectrum(step, o.x, h0=o.h)
    assert counter.calls == 1
