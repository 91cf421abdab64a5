"""A run that is stopped anywhere and resumed is the uninterrupted run; a damaged file is never used."""

import contextlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch._files import sealed
from lyaptorch.schedules import At, Scale, Trigger, When
from lyaptorch.tasks import TemporalXOR
from lyaptorch.training import checkpoint as module
from lyaptorch.training import run as engine
from lyaptorch.training.checkpoint import SPENT, begin, cost, load_checkpoint, save_checkpoint
from trained import SCAN, make, numbers, run, same, seeded

A, B, C = torch.eye(3, dtype=torch.bool)
FLOSS = FlossPhase(1, k=2, **SCAN)
THRESHOLD = torch.tensor([0.0, 1e9, 0.0])
FIT = FitPhase(
    5,
    flossing_weight=torch.tensor([0.0, 0.1, 0.2]),
    flossing=FlossPhase(0, k=torch.tensor([1, 2, 3]), **SCAN),
    triggers=(
        Trigger(At(2), replace(FLOSS, k=3)),
        Trigger(
            When(lt.schedules.task_loss > THRESHOLD, after=3), replace(FLOSS, who=A | B), Scale("h0", 0.9)
        ),
    ),
    stop=When(lt.schedules.accuracy > torch.tensor([2.0, 2.0, -1.0]), after=4),
    check_every=1,
)
MIXED = (
    replace(FLOSS, epochs=2, who=A | C),
    FIT,
    FitPhase(2, who=B | C, lr=torch.tensor([0.1, 5e-4, 4e-3])),
)
OPTIONS = {
    "lr": torch.tensor([1e-3, 2e-3, 3e-3]),
    "clip": torch.tensor([0.03, 0.01, 0.1]),
    "metrics": ("effective_rank", "singular_values"),
    "metrics_every": 3,
    "member_ids": torch.tensor([4, 0, 4]),
}
SHORT = (replace(FLOSS, epochs=2), FitPhase(3))
RUNS = {
    "mixed": ((3,), MIXED, OPTIONS),
    "sgd": ((2,), SHORT, {"optimizer": lt.SGD(0.9, nesterov=True), "clip_mode": "global"}),
    "one": ((), SHORT, {"clip": None}),
}


def once(name="one", **kw):
    """A run with a fresh model: its Record and parameters."""
    ensemble, schedule, options = RUNS[name]
    options = {**options, **kw}
    model = make(ensemble, options.get("member_ids"))
    record = run(model, *options.pop("schedule", schedule), **options)
    return record, numbers(model)


class Stopped(Exception):  # noqa: N818
    """The machine goes down."""


@pytest.fixture
def stop_after(monkeypatch):
    """Save after every step; `stop_after(i)` ends the next run when i steps are done and saved."""
    step, left = engine.Run.step, []

    def counted(self):
        if left:
            if left[0] == 0:
                left.clear()
                raise Stopped
            left[0] -= 1
        return step(self)

    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(engine.Run, "step", counted)
    return lambda count: left.__setitem__(slice(None), [count])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_any_of_its_checkpoints_to_the_same_numbers(name, monkeypatch, tmp_path):
    copies = [tmp_path / f"{i}" for i in range(100)]
    with monkeypatch.context() as patch:
        unused = iter(copies)
        patch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(engine, "save_checkpoint", lambda path, *rest: save_checkpoint(next(unused), *rest))
        expected, parameters = once(name, checkpoint=tmp_path / "none")
    data = expected.save(tmp_path / "record").read_bytes()
    assert once(name)[0] == expected
    copies = [path for path in copies if path.exists()]
    # every epoch is a step, every phase ends with one, and the last is saved twice
    assert len(copies) >= len(expected["floss_loss"][0]) + len(expected["loss"][0]) + 3
    for path in copies:
        record, found = once(name, checkpoint=path)
        assert record == expected
        assert same(found, parameters)
    assert record.save(tmp_path / "record").read_bytes() == data


@pytest.mark.parametrize("name", RUNS)
def test_a_run_stopped_after_every_single_step(name, stop_after, tmp_path):
    expected, parameters = once(name)
    found = None
    while found is None:
        stop_after(1)
        with contextlib.suppress(Stopped):
            record, found = once(name, checkpoint=tmp_path / "run.checkpoint")
    assert record == expected
    assert same(found, parameters)


def test_the_mixed_run_has_all_that_there_is():
    record, _ = once("mixed")
    at = [row[~np.isnan(row)].tolist() for row in record["at_epoch"]]
    assert at == [[0, 0, 2, 3, 4], [2], [0, 0, 2]]
    assert np.isfinite(record["loss"]).sum(1).tolist() == [5, 7, 6]


def dropping():
    return lt.Model(lt.RateCell(1, 8), torch.nn.Sequential(torch.nn.Dropout(0.5), lt.Readout(8, 1))).train()


def test_masks_of_dropout_are_those_of_the_seed_also_in_a_run_that_goes_on(stop_after, tmp_path):
    state = torch.get_rng_state()
    expected = run(dropping(), *SHORT)
    torch.rand(3)
    assert run(dropping(), *SHORT) == expected
    assert not np.allclose(run(dropping(), *SHORT, generator=seeded(8))["loss"], expected["loss"])
    torch.set_rng_state(state)
    found = None
    while found is None:
        stop_after(1)
        with contextlib.suppress(Stopped):
            found = run(dropping(), *SHORT, checkpoint=tmp_path / "a")
    assert found == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_a_finished_run_returns_at_once(monkeypatch, tmp_path):
    expected, parameters = once("mixed", checkpoint=tmp_path / "a")
    monkeypatch.setattr(engine.Run, "step", lambda self: pytest.fail("it trains again"))
    record, found = once("mixed", checkpoint=str(tmp_path / "a"))
    assert record == expected
    assert same(found, parameters)


def test_a_checkpoint_is_written_when_it_is_time_and_at_the_end(monkeypatch, tmp_path):
    seconds, saved = iter(range(0, 1000, 8)), []
    monkeypatch.setattr(engine.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(engine, "save_checkpoint", lambda path, *_: saved.append(path.name))
    once(schedule=(FitPhase(10),), checkpoint=tmp_path / "new" / "a")
    # 11 steps of 8 s, a look at the watch after each save, too; every 20 s and at the end
    assert saved == ["a"] * (11 // 3 + 1)
    assert (tmp_path / "new").is_dir()


OTHER = {
    "schedule": {"schedule": (replace(FLOSS, epochs=2), FitPhase(4))},
    "seed": {"generator": seeded(8)},
    "member_ids": {"member_ids": torch.tensor(1)},
    "lr": {"lr": 2e-3},
    "clip": {"clip": 0.1},
    "clip_mode": {"clip_mode": "global"},
    "batch": {"batch": 2},
    "steps": {"steps": 17},
    "task": {"task": TemporalXOR(2)},
    "optimizer": {"optimizer": lt.Adam(beta1=0.8)},
    "metrics": {"metrics": ("saturated",)},
    "metrics_every": {"metrics_every": 7},
}


@pytest.mark.parametrize("what", [*OTHER, "ensemble", "model"])
def test_the_checkpoint_of_another_run_is_refused(what, tmp_path):
    path = tmp_path / "a.checkpoint"
    once(checkpoint=path)
    before = path.read_bytes()
    model = make((1,) if what == "ensemble" else ())
    model.loss_name = "mean_squared_error" if what == "model" else model.loss_name
    start, options = numbers(model), {"clip": None, **OTHER.get(what, {})}
    message = (
        rf"cannot resume from .*a\.checkpoint: it is of a run with another [\w, ]*\b{what}\b.* delete it"
    )
    with pytest.raises(ValueError, match=message):
        run(model, *options.pop("schedule", SHORT), **options, checkpoint=path)
    assert same(numbers(model), start)
    assert path.read_bytes() == before


def test_a_checkpoint_in_which_other_parameters_were_trained_is_refused(tmp_path):
    once(checkpoint=tmp_path / "a")
    model = make()
    model.readout.requires_grad_(False)
    with pytest.raises(ValueError, match=r"the checkpoint holds optimizer\.\d+.* this model does not"):
        run(model, *SHORT, clip=None, checkpoint=tmp_path / "a")


def test_the_checkpoint_of_a_network_that_began_with_other_weights_is_refused(tmp_path):
    path, model = tmp_path / "a", make(gain=2.0)
    once(checkpoint=path)
    before, start = path.read_bytes(), numbers(model)
    with pytest.raises(ValueError, match="its run began with other weights; make the network again"):
        run(model, *SHORT, clip=None, checkpoint=path)
    assert same(numbers(model), start)
    assert path.read_bytes() == before


def test_a_model_whose_run_was_interrupted_goes_on(stop_after, tmp_path):
    """As in a notebook: the cell that trains is run again, the one that makes the network is not."""
    expected, parameters = once()
    model, path = make(), tmp_path / "a"
    stop_after(3)
    with pytest.raises(Stopped):
        run(model, *SHORT, clip=None, checkpoint=path)
    assert not same(numbers(model), numbers(make()))
    record = run(model, *SHORT, clip=None, checkpoint=path)
    assert record == expected
    assert same(numbers(model), parameters)
    # of another file the same model is another network
    once(checkpoint=tmp_path / "b")
    with pytest.raises(ValueError, match="its run began with other weights"):
        run(model, *SHORT, clip=None, checkpoint=tmp_path / "b")


def test_a_checkpoint_of_before_the_start_was_kept_goes_on(tmp_path):
    expected, parameters = once(checkpoint=tmp_path / "a")
    tensors, facts = load_checkpoint(tmp_path / "a", expected.config)
    del facts["start"], facts["config"]["model"]["settings"]
    save_checkpoint(tmp_path / "a", tensors, facts)
    record, found = once(checkpoint=tmp_path / "a")
    assert record == expected
    assert same(found, parameters)


def test_other_weights_on_another_machine_may_be_round_off(monkeypatch, tmp_path):
    once(checkpoint=tmp_path / "a")
    monkeypatch.setattr(module.platform, "machine", lambda: "another")
    model = make()
    with torch.no_grad():
        model.h0.mul_(1 + 1e-6)
    with pytest.warns(UserWarning, match=r"environment \(machine .* -> another\): equal to round-off"):
        run(model, *SHORT, clip=None, checkpoint=tmp_path / "a")


def test_another_number_of_threads_is_a_warning(stop_after, tmp_path):
    stop_after(3)
    with pytest.raises(Stopped):
        once(checkpoint=tmp_path / "a")
    torch.set_num_threads(2)
    try:
        with pytest.warns(UserWarning, match=r"another environment \(threads 1 -> 2\): equal to round-off"):
            once(checkpoint=tmp_path / "a")
    finally:
        torch.set_num_threads(1)


def test_a_checkpoint_of_another_release_is_refused(monkeypatch, tmp_path):
    path, installed = tmp_path / "a", {"lyaptorch": "0.2.1"}
    monkeypatch.setattr(module, "host_facts", lambda: installed)
    once(checkpoint=path)
    before = path.read_bytes()
    installed["lyaptorch"] = "0.3.0.dev7"
    message = (
        r"cannot resume from .*a: lyaptorch 0\.2\.1 wrote it, and 0\.3\.0 may train to other numbers; "
        r"install 0\.2\.1 to end the run, or delete it to start again"
    )
    with pytest.raises(ValueError, match=message):
        once(checkpoint=path)
    assert path.read_bytes() == before
    path.unlink()
    once(checkpoint=path)
    # the source of a release in the making is one
    installed["lyaptorch"] = "0.3.0.dev8"
    once(checkpoint=path)


def test_what_led_to_a_checkpoint_counts(stop_after, tmp_path):
    path = tmp_path / "a"
    assert 0 <= cost(begin(path))["cpu_seconds"] < 60
    stop_after(3)
    with pytest.raises(Stopped):
        once(checkpoint=path)
    assert cost(begin(path))["seconds"] > 0
    expected = once()[0]
    tensors, facts = load_checkpoint(path, expected.config)
    save_checkpoint(path, {**tensors, SPENT: torch.tensor([1000.0, 500.0], dtype=torch.float64)}, facts)
    assert once(checkpoint=path)[0] == expected
    # of a second training, and half of one that was being written
    save_checkpoint(tmp_path / "a-fit", tensors, facts)
    (tmp_path / "a.0.tmp").write_bytes(b"half")
    assert 1000 < cost(begin(path))["seconds"] < 1060
    assert 500 < cost(begin(path))["cpu_seconds"] < 560
    del tensors[SPENT]
    save_checkpoint(tmp_path / "a-fit", tensors, facts)
    assert cost(begin(path)) == {}
    (tmp_path / "a-fit").write_bytes(b"damaged")
    assert cost(begin(path)) == {}


@pytest.mark.parametrize("seconds", ["abc", "", "nan"])
def test_seconds_between_checkpoints_that_are_no_number_are_refused(seconds, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", seconds)
    model = make()
    start = numbers(model)
    with pytest.raises(
        ValueError, match=f"LYAPTORCH_CHECKPOINT_SECONDS must be a number of seconds, got '{seconds}'; corr"
    ):
        run(model, *SHORT, clip=None, checkpoint=tmp_path / "a")
    assert same(numbers(model), start)
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint, its bytes, its configuration, and a path for damaged copies."""
    path = tmp_path_factory.mktemp("whole") / "a.checkpoint"
    config = once(checkpoint=path)[0].config
    return path, path.read_bytes(), config, path.with_name("damaged")


def refused(path: Path, data: bytes, config, message="cannot load .*damaged: .*delete it to start again"):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path, config)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_checkpoint_cut_anywhere_is_refused(whole, data):
    _, good, config, damaged = whole
    length = data.draw(st.integers(0, len(good) - 1) | st.integers(len(good) - 130, len(good) - 1))
    refused(damaged, good[:length], config)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_checkpoint_with_any_byte_flipped_is_refused(whole, data):
    _, good, config, damaged = whole
    places = st.integers(0, len(good) - 1) | st.integers(0, 200) | st.integers(len(good) - 130, len(good) - 1)
    changed = bytearray(good)
    changed[data.draw(places)] ^= data.draw(st.integers(1, 255))
    refused(damaged, bytes(changed), config)


def test_the_whole_one_is_not_refused(whole):
    path, good, config, damaged = whole
    damaged.write_bytes(good)
    tensors, facts = load_checkpoint(damaged, config)
    assert {**facts, "start": 0} == {"config": config, "stack": [], "start": 0}
    assert torch.equal(tensors["model.cell.weight_hh"], once()[1][1])
    refused(damaged, good + b"\n", config)
    refused(path.with_name("damaged-2"), good[:-64] + good[-64:].upper(), config, "damaged-2")


class Evil(str):
    """Whoever unpickles it makes a folder."""

    def __reduce__(self):
        return os.mkdir, (str(self),)


def test_what_is_no_checkpoint_is_refused_and_nothing_is_executed(whole, tmp_path, monkeypatch):
    _, good, config, _ = whole
    bad, evil = tmp_path / "damaged", tmp_path / "evil"
    torch.save({"model": Evil(evil)}, tmp_path / "torch")
    record, pickled = (
        lt.Record("train", {}, {}).save(tmp_path / "record").read_bytes(),
        pickle.dumps(Evil(evil)),
    )
    foreign = save({"x": torch.zeros(3)}, {"lyaptorch": "[]"})
    noise = bytes(torch.randint(256, (5000,)).tolist())
    others = [b"", b"{}", noise, pickled, (tmp_path / "torch").read_bytes(), save({"x": torch.zeros(3)})]
    for data in (*others, *map(sealed, others), record, foreign, good.rpartition(b"\nlyaptorch")[0]):
        refused(bad, data, config)
    refused(bad, sealed(foreign), config, "must be 'lyaptorch checkpoint' version 1, got None None; update")
    for name, value in (("VERSION", 2), ("FORMAT", "lyaptorch Checkpoint")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            save_checkpoint(bad, {}, {"config": config, "stack": []})
        refused(bad, bad.read_bytes(), config, rf"damaged: it must be .* version 1, got .*{value}.*; update")
    bad.unlink()
    bad.mkdir()
    with pytest.raises(ValueError, match=r"cannot load .*damaged: got "):
        load_checkpoint(bad, config)
    assert not evil.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failure_leaves_the_old_checkpoint_and_no_other_file(
    error, moment, stop_after, tmp_path, monkeypatch
):
    path = tmp_path / "a"
    stop_after(2)
    with pytest.raises(Stopped):
        once(checkpoint=path)
    before = path.read_bytes()

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os if moment == "fsync" else Path, moment, fail)
        expected = (ValueError, "cannot write .*No space left") if error.args else (KeyboardInterrupt, None)
        with pytest.raises(expected[0], match=expected[1]):
            once(checkpoint=path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    assert once(checkpoint=path)[0] == once()[0]


def test_a_folder_that_cannot_be_is_refused_before_the_training(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(engine.Run, "step", lambda self: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=r"cannot write to the folder .*file"):
        once(checkpoint=tmp_path / "file" / "a")
