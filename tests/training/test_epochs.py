"""Epochs between two looks: what is recorded and replayed is what runs one by one, to the bit."""

import warnings
from contextlib import nullcontext
from importlib import import_module

import pytest
import torch

import cases
import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase, _checks
from lyaptorch.kernels import dispatch
from lyaptorch.schedules import At, Every, Scale, Trigger, When
from lyaptorch.tangent import engine
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import epochs, work
from lyaptorch.training.ensemble import new_ensemble
from lyaptorch.training.flossing import Flossing
from lyaptorch.training.work import Settings
from recorded import NoKernel, OneDevice, stand_in

pytestmark = [pytest.mark.usefixtures("double")]
T, ROWS = 4, 2
FLOSS = {"k": 2, "steps": 3, "tangent_transient": 1, "lr": 1e-2}
JOINT = FitPhase(4, flossing_weight=0.3, flossing=FlossPhase(0, **FLOSS))
"""What a task and what flossing do, in one epoch."""
EACH_CASE = pytest.mark.parametrize("case", {case.name: case for case in cases.CASES}.values(), ids=str)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Operators alone can be recorded: without compiled kernels."""
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")


def model_of(case):
    """Two networks, unless they share a parameter or are a function, which knows no ensemble."""
    cell, _, h0 = cases.setup(case, (2,) if case.ensembles else ())
    if not cell.state_size or any(tuple(p.shape[:1]) != (2,) for p in cell.parameters()):
        cell, _, h0 = cases.setup(case)
    readout = lt.Readout(cell.output_size or cases.N, 1, ensemble=tuple(h0.shape[:-2]))
    return lt.Model(cell, readout, h0=torch.nn.Parameter(h0), loss="mean_squared_error")


def train(model, schedule, fetch_every, task=None, **kw):
    settings = {"batch": ROWS, "steps": T, "show_progress": False, **kw}
    return lt.train(model, task or lt.tasks.Adding(T), schedule, fetch_every=fetch_every, **settings)


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


@EACH_CASE
def test_the_catalogue(case, monkeypatch):
    one, two = model_of(case), model_of(case)
    expected = train(one, (JOINT,), 1)
    with stand_in(monkeypatch) as recorded, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train(two, (JOINT,), 4)
    assert len(recorded) == 1
    assert found == expected
    for a, b in zip(parameters(one), parameters(two), strict=True):
        assert torch.equal(a, b)


def networks(task=None, n=6, count=3, **kw):
    return lt.presets.gf2023(task or XOR, hidden_size=n, rows=ROWS, ensemble=(count,), **kw)


XOR = lt.tasks.TemporalXOR(2)
EPISODE = FlossPhase(3, **FLOSS)
RAISE = Scale("cell.weight_hh", 1.1)
EACH = torch.tensor([1.0, 2.0, 3.0])
SOME = torch.tensor([True, False, True])
RUNS = {
    "subsets": ((FlossPhase(5, who=SOME, **FLOSS), FitPhase(5, who=~SOME), FitPhase(4)), {}),
    "one for each": (
        (
            FlossPhase(
                4, **{**FLOSS, "k": EACH.long(), "lr": 1e-3 * EACH}, target=0.1 * EACH[:, None], clip=EACH
            ),
            FitPhase(4, flossing_weight=EACH, flossing=FlossPhase(0, **FLOSS)),
        ),
        {"lr": 1e-3 * EACH, "clip": 0.01 * EACH, "task": lt.tasks.TemporalXOR(torch.tensor([2, 4, 2]))},
    ),
    "rates": ((FitPhase(4), FitPhase(4, lr=1e-4 * EACH), FitPhase(2, who=SOME)), {}),
    "rules": ((FitPhase(4),), {"optimizer": lt.SGD(0.9), "clip": 0.1, "clip_mode": "global"}),
    "metrics": ((FitPhase(7),), {"metrics": ("initial_gradient_norm", "test"), "metrics_every": 3}),
    "epochs": (
        (FitPhase(13, triggers=(Trigger(Every(4), EPISODE), Trigger(At(0, 5, 6), EPISODE, RAISE))),),
        {},
    ),
    "conditions": (
        (
            FlossPhase(2, who=SOME, **FLOSS),
            FitPhase(
                14,
                triggers=(Trigger(When(lt.schedules.lambda1 > -0.2, after=2), EPISODE),),
                stop=When(lt.schedules.accuracy > 0.4, after=9),
                check_every=3,
            ),
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_when_somebody_looks_changes_nothing(name, monkeypatch):
    schedule, kw = RUNS[name]
    found, models = [], [networks(kw.get("task")) for _ in range(3)]
    for model, every in zip(models[:2], (1, 5), strict=True):
        found.append(train(model, schedule, every, **{"task": XOR, "steps": 8, **kw}))
    with stand_in(monkeypatch) as recorded:
        found.append(train(models[2], schedule, 5, **{"task": XOR, "steps": 8, **kw}))
    assert recorded
    assert found[0] == found[1] == found[2]
    for a, b, c in zip(*map(parameters, models), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("unstable", ["raise", "mark"])
def test_an_overflow_between_two_looks(unstable, monkeypatch):
    """At a rate at which one linear network overflows in its third epoch."""
    models = [networks(activation="linear") for _ in range(2)]
    kw = {"lr": torch.tensor([1e-3, 10.0, 1e-3]), "clip": None, "optimizer": lt.SGD(), "unstable": unstable}
    kw |= {"task": XOR, "steps": 8}

    def outcome(model, every):
        try:
            return train(model, (FitPhase(9),), every, **kw)
        except FloatingPointError as error:
            return str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = outcome(models[0], 1)
        with stand_in(monkeypatch) as recorded:
            found = outcome(models[1], 9)
    assert recorded
    assert found == expected
    if unstable == "mark":
        assert torch.tensor(found["unstable_at"]).isfinite().tolist() == [False, True, False]
    for a, b in zip(*map(parameters, models), strict=True):
        assert torch.equal(a, b)


def test_a_weight_that_is_no_number_is_seen_though_no_loss_tells(monkeypatch):
    """It comes in the last epoch before somebody looks."""
    weight, count = torch.zeros(()), torch.zeros(())

    def epoch():
        count.add_(1)
        weight.copy_(torch.where(count == 4, torch.inf, weight + 1))
        if _checks.can_look() and weight.isinf():
            raise FloatingPointError(f"seen in epoch {count.item():g}")
        return {"loss": count.clone()}

    with stand_in(monkeypatch) as recorded, pytest.raises(FloatingPointError, match="seen in epoch 4"):
        list(epochs.Epochs(epoch, [weight, count]).run(4))
    assert recorded


class Reading(torch.nn.Module):
    """A readout of somebody who looks at numbers."""

    ensemble = (3,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 6))

    def forward(self, h):
        return h @ self.weight.mT * (1.0 if h.mean().item() > 0 else 2.0)


def test_what_cannot_be_recorded_runs_one_by_one(monkeypatch):
    models = [lt.Model(networks().cell, Reading()) for _ in range(2)]
    expected = train(models[0], (FitPhase(6),), 1, task=XOR, steps=8)
    with (
        stand_in(monkeypatch) as recorded,
        pytest.warns(UserWarning, match="one by one .*not permitted") as seen,
    ):
        found = train(models[1], (FitPhase(6),), 2, task=XOR, steps=8)
    assert not recorded
    assert len(seen) == 1
    assert found == expected


def test_deaths_are_seen_one_by_one(monkeypatch):
    """A tangent vector that dies between two looks is no NaN afterwards."""
    models = [networks(activation="relu", n=4) for _ in range(2)]
    for model in models:
        with torch.no_grad():
            model.cell.bias.copy_(torch.tensor([3.0, 3.0, 3.0, -60.0]))
    phase = FlossPhase(6, **{**FLOSS, "k": 4})
    expected = train(models[0], (phase,), 1, task=XOR)
    with stand_in(monkeypatch), pytest.warns(UserWarning, match="which tangent vectors died"):
        assert train(models[1], (phase,), 6, task=XOR) == expected
    assert (expected["exponents"] == -torch.inf).any()


def test_floss(monkeypatch):
    cells = [lt.RateCell(1, 6, ensemble=(2,)) for _ in range(2)]
    kw = {"k": 3, "steps": 6, "tangent_transient": 2, "epochs": 7, "frame": "fixed"}
    expected = lt.floss(cells[0], lt.tasks.Noise(), **kw)
    with stand_in(monkeypatch) as recorded:
        found = lt.floss(cells[1], lt.tasks.Noise(), **kw)
    assert len(recorded) == 1
    assert found == expected
    assert torch.equal(cells[0].weight_hh, cells[1].weight_hh)


TASKS = [
    lt.tasks.DelayedCopy(2),
    lt.tasks.TemporalXOR(torch.tensor([2, 4])),
    lt.tasks.OneHotXOR(2),
    lt.tasks.SpatialXOR(3),
    lt.tasks.Recall(2, 3),
    lt.tasks.Adding(9),
    lt.tasks.SpikePatterns(steps=3, answer=2, channels=2),
    lt.tasks.SpikePatterns(steps=3, answer=2, channels=2, code="latency"),
    lt.tasks.SpikingXOR(2, channels=2, cue=1, answer=2),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_tasks_draw_within_a_graph(task, monkeypatch):
    epoch, ids = torch.tensor([0, 5]), torch.arange(2)

    def draw():
        batch = task.draw(Draw(3, 9, 2, member_ids=ids, epoch=epoch))
        epoch.add_(1)
        return {"inputs": batch.inputs, "targets": batch.targets, "mask": batch.mask}

    expected = [draw() for _ in range(4)]
    epoch.copy_(torch.tensor([0, 5]))
    with stand_in(monkeypatch):
        work = epochs.Epochs(draw, [epoch])
        found = list(work.run(4))
        assert work.capturing
    for a, b in zip(expected, found, strict=True):
        for name in a:
            assert torch.equal(a[name], b[name])
    assert not torch.equal(found[2]["inputs"], found[3]["inputs"])
    # what is said not to count does not, and what counts first does
    batch = task.draw(Draw(3, 9, 2, member_ids=ids, epoch=epoch))
    counted = batch.mask.any(-1)
    assert batch.first == int(counted.int().argmax())


class Everywhere(lt.kernels.FusedRecurrence):
    """Triton's recurrence on any device."""

    def serves(self, form, h):
        return dispatch._refuses(form, h) is None


@EACH_CASE
def test_nothing_leaves_the_device(case, monkeypatch):
    """The meta device stands for a GPU: what lies there can be read by nobody, nor mixed with the host's.

    Triton's kernels, where they serve, are launched and left out.
    """
    model = model_of(case).to("meta")
    if not model.cell.state_size:
        return
    if (form := model.cell.form()) is not None and dispatch._refuses(form, model.h0) is None:
        served_by_triton(monkeypatch)
    monkeypatch.setattr(_checks, "can_look", lambda: False)
    # which knows no such device
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: nullcontext())
    together = lambda phase, seed, *at: Flossing(phase, phase.k, seed, True, *at)  # noqa: E731
    monkeypatch.setattr(work, "flossing_of", together)
    members, task = new_ensemble(model, None, 1e-3, lt.Adam()), lt.tasks.Adding(T)
    settings = Settings(1, ROWS, T, 1e-3, lt.Adam(), 0.1, "tensor", (), 1, 1, "raise", 1)
    model.cell.unproven = False
    epoch = work.work_of(JOINT, members, task, settings).epochs.epoch
    # what is laid down on the device once and for all
    epoch()
    with OneDevice():
        row = epoch()
    assert {z.device.type for z in row.values()} == {"meta"}


def served_by_triton(monkeypatch):
    pytest.importorskip("triton")
    from lyaptorch.kernels.triton import form_kernels, frame_kernels, lif_kernels

    for module in (form_kernels, frame_kernels, lif_kernels):
        for name in {"forward", "backward", "forward_frame", "backward_frame"} & {*vars(module)}:
            monkeypatch.setattr(module, name, NoKernel())
    monkeypatch.setattr(import_module("lyaptorch.cells.unroll"), "_recurrences", [Everywhere("triton")])
    monkeypatch.setattr(engine, "choose", lambda problem, h, backend: "triton" if problem.form else "torch")


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("name", RUNS)
def test_on_a_gpu(name, kernels, monkeypatch):
    """Real graphs, on Triton's kernels and on the plain backend, against epochs one by one."""
    monkeypatch.setenv("LYAPTORCH_KERNELS", kernels)
    schedule, kw = RUNS[name]
    found, models = [], [networks(kw.get("task")).cuda() for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, captured in zip(models, (False, True), strict=True):
            monkeypatch.setattr(epochs, "capturable", lambda device, captured=captured: captured)
            found.append(train(model, schedule, 5, **{"task": XOR, "steps": 8, **kw}))
    for variable in found[0].variables:
        one, other = (torch.as_tensor(record[variable]) for record in found)
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, equal_nan=True)
    for a, b in zip(*map(parameters, models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
