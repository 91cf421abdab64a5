import copy
import io
import json
import os
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lyaptorch as lt
from lyaptorch.schedules.phases import plain
from lyaptorch.tasks import SpokenDigits, make_task, recordings, sounds
from lyaptorch.tasks.batch import Draw
from spoken import TAKES, bodies, made_up, wav

FOLDER = os.environ.get("LYAPTORCH_DATA")
IDS = torch.tensor([[4, 0, 7], [2, 2, 9]])
TRAIN, TEST = 60 * (TAKES - 5), 60 * 5
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(recordings, "_loaded", {})
    monkeypatch.setattr(recordings, "TAKES", TAKES)
    monkeypatch.setattr(recordings, "CONTENT", recordings.checksum(made_up()))
    monkeypatch.delenv("LYAPTORCH_DATA", raising=False)


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setitem(recordings._loaded, "fsdd", made_up())


def packed(mode, files, start="recordings/"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, body in files:
            info = tarfile.TarInfo(start + name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def zipped(files, start="recordings/"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files:
            archive.writestr(start + name, body)
    return out.getvalue()


def equal(a, b):
    same = all(np.array_equal(x, y) for x, y in zip(a.samples, b.samples, strict=True))
    return same and all(np.array_equal(getattr(a, z), getattr(b, z)) for z in ("digits", "speakers", "takes"))


# where recordings are, and whether they are whole


def in_a_folder(place, files):
    (place / "recordings").mkdir(parents=True)
    for name, body in files:
        (place / "recordings" / name).write_bytes(body)


def in_an_archive(name, body_of):
    def put(place, files):
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(body_of(files))

    return put


RELEASE = "free-spoken-digit-dataset-1.0.10"
LAYOUTS = {
    "folder": in_a_folder,
    "tar.xz": in_an_archive("fsdd.tar.xz", lambda files: packed("w:xz", files)),
    "release": in_an_archive(
        f"{RELEASE}.tar.gz",
        lambda files: packed("w:gz", [*files, ("../metadata.py", b"1 / 0")], f"{RELEASE}/recordings/"),
    ),
    "zip": in_an_archive("fsdd.zip", lambda files: zipped(files, f"{RELEASE}/recordings/")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recordings_come_from_a_folder_or_an_archive(tmp_path, layout):
    # their order in an archive, and its other files, do not matter
    LAYOUTS[layout](tmp_path / "fsdd", list(bodies().items())[::-1])
    assert equal(recordings.load(tmp_path), made_up())


def test_they_may_lie_in_the_folder_itself_that_the_environment_names(tmp_path, monkeypatch):
    in_a_folder(tmp_path, bodies().items())
    monkeypatch.setenv("LYAPTORCH_DATA", str(tmp_path))
    assert equal(SpokenDigits()._recordings(), made_up())


def test_a_missing_archive_is_named_with_its_place_and_source(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"must be in .*fsdd; get it from https://github.com/.*1\.0\.10"
    ):
        SpokenDigits(data_dir=tmp_path)


ONE = "3_theo_2.wav"


def changed(body):
    return {**bodies(), ONE: body}.items()


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("fsdd.tar.xz", lambda: packed("w:xz", bodies().items())[:-3000], r"ended before|end of data"),
        ("fsdd.tar.gz", lambda: packed("w:gz", bodies().items())[:-3000], r"ended before|end of data"),
        ("fsdd.zip", lambda: zipped(bodies().items())[:-300], r"not a zip file"),
        ("fsdd.tar.gz", lambda: b"<html>sign in</html>", r"could not be opened"),
        ("fsdd.tar.gz", lambda: packed("w:gz", list(bodies().items())[:-2]), r"2 of 420 .* as 9_yweweler_5"),
        ("fsdd.tar.gz", lambda: packed("w:gz", bodies().items(), "other/"), r"420 of 420 recordings"),
        ("fsdd.zip", lambda: zipped(changed(b"RIFF")), r"3_theo_2.wav is no WAV file"),
        ("fsdd.zip", lambda: zipped(changed(bodies()[ONE][:-8])), r"3_theo_2.wav must hold 1?\d\d\d samples"),
        ("fsdd.zip", lambda: zipped(changed(wav(np.zeros(0)))), r"must hold 0 samples, and at least one"),
        (
            "fsdd.zip",
            lambda: zipped(changed(wav(np.ones(9), rate=16000))),
            r"at 8000 Hz, got \(1, 2, 16000\)",
        ),
        (
            "fsdd.zip",
            lambda: zipped(changed(wav(np.ones(8), channels=2))),
            r"1 channel .* got \(2, 2, 8000\)",
        ),
        (
            "fsdd.zip",
            lambda: zipped(changed(bodies()[ONE][:-1] + b"\x7f")),
            r"checksum of its samples is wrong",
        ),
        ("fsdd.tar.gz", lambda: packed("w:gz", [*bodies().items(), (ONE, b"")]), r"holds 3_theo_2.wav twice"),
    ],
)
def test_what_is_damaged_or_incomplete_is_found(tmp_path, name, body, why):
    (tmp_path / name).write_bytes(body())
    with pytest.raises(ValueError, match=rf"{name} is damaged, or another file: .*({why}).*get it again"):
        SpokenDigits(data_dir=tmp_path)
    assert not recordings._loaded


def test_a_download_that_holds_something_else_is_not_kept(tmp_path, monkeypatch):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        body = packed("w:gz", bodies().items()) if len(asked) == 2 else b"<html>sign in</html>"
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(body)
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    assert equal(recordings.load(), made_up())
    assert asked == [mirror + "v1.0.10.tar.gz" for mirror in recordings.MIRRORS]
    recordings._loaded.clear()
    with pytest.raises(
        FileNotFoundError, match=r"could not be fetched \(.*is damaged.*into a folder fsdd and"
    ):
        recordings.load()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# what is made of them


def split(task):
    return (task._sounds(CPU, test=test) for test in (False, True))


@pytest.mark.usefixtures("loaded")
def test_the_official_split_and_speakers_held_out():
    train, test = split(SpokenDigits())
    assert (len(train.x), len(test.x)) == (TRAIN, TEST)
    assert test.digits[:20].tolist() == 2 * list(range(10))
    train, test = split(SpokenDigits(speakers=("theo", "lucas")))
    assert (len(train.x), len(test.x)) == (40 * TAKES, 20 * TAKES)
    # by their number of samples, which is unlike that of others
    theirs = made_up().speakers == recordings.SPEAKERS.index("theo")
    own = {1 + len(x) // 64 for x, mine in zip(made_up().samples, theirs, strict=True) if mine}
    assert own <= set(test.lengths.tolist())
    assert test.digits.bincount().tolist() == 10 * [2 * TAKES]


@pytest.mark.usefixtures("loaded")
def test_frames_have_mean_0_and_variance_1_over_training_and_0_behind_their_end():
    train, _ = split(SpokenDigits())
    real = torch.arange(train.x.shape[1]) < train.lengths[:, None]
    torch.testing.assert_close(train.x[real].mean(0), torch.zeros(24), rtol=0, atol=1e-5)
    torch.testing.assert_close(train.x[real].std(0), torch.ones(24), rtol=1e-5, atol=0)
    assert (train.x[~real] == 0).all()


def test_a_frame_shows_in_which_band_a_tone_is_however_many_stand_beside_it():
    now = np.arange(900) / 8000
    heard = [sounds._frames([np.sin(2 * np.pi * f * now)])[0][0] for f in (200, 1000, 3000)]
    # centres on the mel scale: 2595 log10(1 + f / 700), 25 distances up to 4 kHz
    mel = [2595 * np.log10(1 + f / 700) for f in (200, 1000, 3000, 4000)]
    expected = [round(25 * m / mel[3]) - 1 for m in mel[:3]]
    assert [int(x[5].argmax()) for x in heard] == expected
    together, lengths = sounds._frames([np.sin(2 * np.pi * 200 * now)[:500], np.zeros(900)])
    alone, length = sounds._frames([np.sin(2 * np.pi * 200 * now)[:500]])
    assert lengths.tolist() == [8, 15]
    torch.testing.assert_close(together[0, :8], alone[0, : int(length)], rtol=1e-9, atol=0)


def test_white_noise_has_power_1_in_each_band():
    noise = np.random.default_rng(0).standard_normal(200_000)
    power = sounds._frames([noise])[0].exp().mean((0, 1)) - sounds.QUIET
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=0.06)


def test_resampling_keeps_what_is_below_half_the_rate_and_nothing_above():
    now = np.arange(4000) / 8000
    low, lengths = sounds._resampled([np.sin(2 * np.pi * 500 * now)], 4000)
    assert lengths.tolist() == [2000]
    inner = slice(50, -50)
    expected = torch.from_numpy(np.sin(2 * np.pi * 500 * np.arange(2000) / 4000))
    torch.testing.assert_close(low[0, inner, 0], expected[inner], rtol=0, atol=0.01)
    # at 4 kHz it would come back as 1 kHz
    high, _ = sounds._resampled([np.sin(2 * np.pi * 3000 * now)], 4000)
    assert high[0, inner].square().mean() < 1e-4


@pytest.mark.usefixtures("loaded")
def test_samples_have_unit_mean_square_and_loudness_does_not_matter(monkeypatch):
    task = SpokenDigits("samples", rate=8000)
    train, _ = split(task)
    assert (task.length, task.input_size) == (max(len(x) for x in made_up().samples), 1)
    square = train.x.square().sum((1, 2)) / train.lengths
    torch.testing.assert_close(square, torch.ones(TRAIN), rtol=1e-4, atol=0)
    louder = replace(made_up(), samples=tuple(2 * x for x in made_up().samples))
    monkeypatch.setitem(recordings._loaded, "fsdd", louder)
    torch.testing.assert_close(next(split(task)).x, train.x)


@pytest.mark.usefixtures("loaded")
def test_recordings_are_cut_at_so_many_seconds():
    short, whole = SpokenDigits("samples", seconds=0.05, rate=8000), SpokenDigits("samples", rate=8000)
    assert short.length == 400
    assert next(split(short)).lengths.tolist() == next(split(whole)).lengths.clamp_max(400).tolist()


# what is drawn


def draw(task, members=IDS, *, epoch=0, batch=8, stream="task", length=None):
    return task.draw(Draw(3, length or task.length, batch, member_ids=members, epoch=epoch, stream=stream))


@pytest.mark.usefixtures("loaded")
def test_the_digit_counts_at_the_last_step_of_each_recording():
    task = SpokenDigits()
    batch, (train, _) = draw(task), split(task)
    assert batch.inputs.shape == (task.length, 2, 3, 8, 24)
    assert batch.mask.sum() == 48
    last = batch.mask.int().argmax(0)
    assert torch.equal(last, batch.lengths - 1)
    assert batch.lengths.unique().numel() > 5
    for x, length, label in zip(
        batch.inputs.movedim(0, -2).flatten(0, 2),
        batch.lengths.flatten(),
        batch.targets.amax(0).flatten(),
        strict=True,
    ):
        (where,) = torch.nonzero((train.x[:, : int(length)] == x[: int(length)]).all(-1).all(-1)).flatten()
        assert train.digits[where] == label
        assert train.lengths[where] == length


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("stream", ["task", "test"])
def test_a_member_hears_the_same_alone_and_in_an_ensemble(stream):
    task, epoch = SpokenDigits("samples"), torch.tensor([[0, 3, 7], [0, 1, 11]])
    together = draw(task, epoch=epoch, stream=stream)
    alone = draw(task, IDS[1, 2], epoch=11, stream=stream)
    assert torch.equal(together.inputs[:, 1, 2], alone.inputs)
    assert torch.equal(together.targets[:, 1, 2], alone.targets)
    assert torch.equal(together.lengths[1, 2], alone.lengths)


@pytest.mark.usefixtures("loaded")
def test_a_longer_trial_is_padded_and_a_shorter_one_refused():
    task = SpokenDigits()
    longer, own = draw(task, length=task.length + 9), draw(task)
    assert torch.equal(longer.inputs[: task.length], own.inputs)
    assert torch.equal(longer.lengths, own.lengths)
    with pytest.raises(ValueError, match=rf"length must be at least {task.length}, that of the recordings"):
        draw(task, length=task.length - 1)


@pytest.mark.usefixtures("loaded")
def test_inputs_of_any_length_are_recordings_in_a_row_and_begin_again_where_these_are_few():
    task = SpokenDigits("samples", rate=8000)
    x = task.inputs(Draw(0, 5000, batch=2))[..., 0]
    whole = {tuple(row[:n, 0].tolist()) for row, n in zip(*next(split(task))[:2], strict=True)}
    for row in x.T.tolist():
        at, heard = 0, 0
        while at + 1200 <= len(row):
            (found,) = [r for r in whole if tuple(row[at : at + len(r)]) == r]
            at, heard = at + len(found), heard + 1
        assert heard >= 3
    few = task.inputs(Draw(0, 5000, batch=TRAIN))[:, :, 0]
    lengths = [next(n for n in range(300, 1200) if torch.equal(r[:300], r[n : n + 300])) for r in few.T[:5]]
    for row, n in zip(few.T, lengths, strict=False):
        assert torch.equal(row[:n], row[n : 2 * n])


@pytest.mark.usefixtures("loaded")
def test_bad_settings():
    for settings, message in (
        ({"features": "frame"}, r"unknown features 'frame', did you mean 'frames'"),
        ({"speakers": ("teo",)}, r"unknown speaker 'teo', did you mean 'theo'"),
        ({"speakers": recordings.SPEAKERS}, r"speakers must leave one to train on, got all"),
        ({"seconds": 0.0}, r"seconds must be"),
        ({"rate": 16000}, r"rate must be an integer in 500\.\.8000, got 16000"),
    ):
        with pytest.raises(ValueError, match=message):
            SpokenDigits(**settings)
    with pytest.raises(ValueError, match=rf"batch must be at most {TRAIN}, the number of recordings"):
        draw(SpokenDigits(), batch=TRAIN + 1)


def test_copies_remember_where_recordings_lie_and_descriptions_do_not(tmp_path):
    in_a_folder(tmp_path, bodies().items())
    task = SpokenDigits("samples", rate=2000, data_dir=tmp_path)
    for again in (copy.deepcopy(task), pickle.loads(pickle.dumps(task)), replace(task, seconds=0.1)):
        recordings._loaded.clear()
        assert again.length <= task.length
    assert copy.copy(task) == task
    assert str(tmp_path) not in json.dumps(plain(dict(vars(task))))


@pytest.mark.usefixtures("loaded")
def test_a_network_learns_tones_and_what_it_is_called_on_the_command_line():
    task = make_task("spoken_digits", delay=30)
    assert task == SpokenDigits()
    g = torch.Generator().manual_seed(1)
    cell, readout = lt.GRUCell(24, 24, generator=g), lt.Readout(24, 10, generator=g)
    model = lt.Model(cell, readout, loss=task.loss)
    before = lt.evaluate(model, task, batch=30)["accuracy"].item()
    lt.train(model, task, (lt.FitPhase(60),), batch=20, lr=1e-2, clip=None)
    assert before < 0.25
    assert lt.evaluate(model, task, batch=30)["accuracy"].item() > 0.5


@pytest.mark.skipif(
    FOLDER is None or not Path(FOLDER, "fsdd").is_dir(), reason="needs the spoken digits in LYAPTORCH_DATA"
)
def test_the_real_recordings(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(recordings, "_loaded", {})
    task = SpokenDigits(data_dir=FOLDER)
    found = task._recordings()
    lengths = [len(x) for x in found.samples]
    assert (len(lengths), min(lengths), max(lengths)) == (3000, 1148, 18262)
    assert [len(part.x) for part in split(task)] == [2700, 300]
