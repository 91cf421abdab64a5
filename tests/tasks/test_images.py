import copy
import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
import torch

from digits import BODIES, PIXELS, SIDE, TEST, TRAIN, drawn
from lyaptorch.schedules.phases import plain
from lyaptorch.tasks import Adding, SequentialImages, archives
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.epochs import Epochs
from recorded import stand_in

IDS = torch.tensor([[4, 0, 7], [2, 2, 9]])


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(archives, "_loaded", {})
    monkeypatch.delenv("LYAPTORCH_DATA", raising=False)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A data set of MNIST's format, with its checksums."""
    (tmp_path / "mnist").mkdir()
    files = []
    for file, body in zip(archives.ARCHIVES["mnist"].files, BODIES, strict=True):
        packed = gzip.compress(body)
        (tmp_path / "mnist" / file.name).write_bytes(packed)
        files.append(
            archives.File(file.name, hashlib.md5(packed).hexdigest(), hashlib.sha256(body).hexdigest())
        )
    small = replace(archives.ARCHIVES["mnist"], files=tuple(files), mirrors=("https://one/", "https://two/"))
    monkeypatch.setitem(archives.ARCHIVES, "mnist", small)
    return tmp_path


@pytest.fixture
def task(folder):
    return SequentialImages("mnist", data_dir=folder)


def draw(task, members=IDS, *, epoch=0, batch=8, stream="task", length=PIXELS):
    return task.draw(Draw(3, length, batch, member_ids=members, epoch=epoch, stream=stream))


def rows_of(batch):
    """Each sequence as bytes again, `(*e, b, t)`."""
    return (batch.inputs.squeeze(-1).movedim(0, -1) * 255).round().to(torch.uint8)


def test_a_trial_is_an_image_in_scan_line_order_and_its_label_at_the_end(task):
    batch = draw(task)
    assert batch.inputs.shape == (PIXELS, 2, 3, 8, 1)
    assert batch.targets.shape == (PIXELS, 2, 3, 8, 1)
    assert batch.mask.sum().item() == 6
    assert batch.mask[-1].all()
    images, labels = drawn(TRAIN, SIDE, SIDE).flatten(1), drawn(TRAIN, below=10, seed=1)
    for row, label in zip(
        rows_of(batch).reshape(-1, PIXELS), batch.targets[-1].flatten().tolist(), strict=True
    ):
        (where,) = torch.nonzero((images == row).all(-1)).flatten()
        assert labels[where] == label
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 1


def test_every_image_is_seen_once_in_a_pass_and_passes_differ(task):
    def of_pass(p):
        return [rows_of(draw(task, epoch=5 * p + i, batch=10))[0, 0] for i in range(5)]

    first, second = (torch.cat(of_pass(p)) for p in (0, 1))
    images = drawn(TRAIN, SIDE, SIDE).flatten(1)
    for seen in (first, second):
        assert sorted(seen.tolist()) == sorted(images.tolist())
    assert not torch.equal(first, second)


def test_a_remainder_smaller_than_a_batch_is_left_out_of_a_pass(task):
    # 50 // 16 = 3 batches a pass
    first = torch.cat([rows_of(draw(task, epoch=i, batch=16))[0, 0] for i in range(3)])
    assert len({tuple(row) for row in first.tolist()}) == 48


@pytest.mark.parametrize("stream", ["task", "test", "floss"])
def test_a_member_sees_the_same_alone_and_in_an_ensemble_at_any_epoch(task, stream):
    epoch = torch.tensor([[0, 3, 7], [0, 1, 11]])
    together = draw(task, epoch=epoch, stream=stream)
    for i in range(2):
        for j in range(3):
            alone = draw(task, IDS[i, j], epoch=int(epoch[i, j]), stream=stream)
            assert torch.equal(together.inputs[:, i, j], alone.inputs)
            assert torch.equal(together.targets[:, i, j], alone.targets)
    assert torch.equal(draw(task).inputs[:, 1, 0], draw(task).inputs[:, 1, 1])  # ids 2 and 2


def test_test_images_come_in_their_order_and_to_all_members(task):
    batch = draw(task, stream="test", epoch=1, batch=10)
    expected = drawn(TEST, SIDE, SIDE, seed=2).flatten(1)[10:]
    assert torch.equal(rows_of(batch), expected.expand(2, 3, 10, PIXELS))
    assert torch.equal(rows_of(draw(task, stream="test", epoch=3, batch=10)), rows_of(batch))


def test_a_part_of_the_training_images_are_the_first_ones(folder):
    task = SequentialImages("mnist", count=10, data_dir=folder)
    seen = torch.cat([rows_of(draw(task, epoch=i, batch=5))[0, 0] for i in range(2)])
    assert sorted(seen.tolist()) == sorted(drawn(TRAIN, SIDE, SIDE).flatten(1)[:10].tolist())


def test_a_permutation_is_fixed_and_recorded(folder):
    plainly, task = (SequentialImages("mnist", permuted=p, data_dir=folder) for p in (False, True))
    order = list(task.permutation)
    assert order != sorted(order)
    assert sorted(order) == list(range(PIXELS))
    assert torch.equal(draw(task).inputs, draw(plainly).inputs[order])
    assert json.loads(json.dumps(plain(dict(vars(task)))))["permutation"] == order
    assert SequentialImages("mnist", permuted=True, permutation=task.permutation, data_dir=folder) == task


def test_a_task_is_described_without_the_place_of_its_files(task, folder):
    assert str(folder) not in json.dumps(plain(dict(vars(task))))


FRESH = """
import pickle, sys
from dataclasses import replace
from pathlib import Path
from lyaptorch.tasks import archives

body, known = Path(sys.argv[1]).read_bytes(), pickle.loads(Path(sys.argv[2]).read_bytes())
archives.ARCHIVES["mnist"] = replace(archives.ARCHIVES["mnist"], files=known, mirrors=())
task = pickle.loads(body)
print(int(task._images.train.sum()), len(task._images.train), task.count)
"""


def test_a_task_finds_its_files_in_another_process_and_in_its_copies(folder, tmp_path, monkeypatch):
    """The folder of the worker's own is another one, and empty."""
    monkeypatch.chdir(folder)
    task = SequentialImages("mnist", count=9, data_dir=".")
    (tmp_path / "elsewhere").mkdir()
    body, known = tmp_path / "task.pkl", tmp_path / "known.pkl"
    body.write_bytes(pickle.dumps(task))
    known.write_bytes(pickle.dumps(archives.ARCHIVES["mnist"].files))
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, str(body), str(known)],
        capture_output=True,
        text=True,
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "LYAPTORCH_DATA": str(tmp_path / "elsewhere")},
    )
    assert fresh.stdout.split() == [str(int(task._images.train.sum())), str(TRAIN), "9"], fresh.stderr
    for again in (copy.copy(task), copy.deepcopy(task), replace(task, count=5)):
        archives._loaded.clear()
        assert again.length == PIXELS
    assert copy.copy(task) == task
    assert hash(copy.copy(task)) == hash(task)


def test_inputs_of_any_length_are_images_in_a_row(task):
    x = task.inputs(Draw(3, 2 * PIXELS + 5, 4, member_ids=IDS, stream="floss"))
    assert x.shape == (2 * PIXELS + 5, 2, 3, 4, 1)
    images = {tuple(row) for row in drawn(TRAIN, SIDE, SIDE).flatten(1).tolist()}
    for start in (0, PIXELS):
        rows = (x[start : start + PIXELS, 0, 0, :, 0].T * 255).round().int()
        assert {tuple(row) for row in rows.tolist()} <= images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 51}, r"count must be an integer in 1\.\.50, got 51"),
        ({"permuted": True, "permutation": (0,) * PIXELS}, r"permutation must hold 0\.\.35 once each"),
        ({"permutation": tuple(range(PIXELS))}, r"needs permuted=True"),
    ],
)
def test_bad_settings(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        SequentialImages("mnist", data_dir=folder, **settings)


def test_a_length_or_batch_that_does_not_fit(task):
    with pytest.raises(ValueError, match=r"length must be 36, the pixels of an image, got 30"):
        draw(task, length=30)
    with pytest.raises(ValueError, match=r"batch must be at most 50, the number of images, got 51"):
        draw(task, batch=51)


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"unknown images 'mnits', did you mean 'mnist'\?"):
        SequentialImages("mnits")


# where files are, and whether they are whole


def test_files_may_lie_in_the_folder_itself_unpacked_or_be_named_by_the_environment(folder, monkeypatch):
    expected = archives.load("mnist", folder)
    for file in (folder / "mnist").iterdir():
        (folder / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    archives._loaded.clear()
    monkeypatch.setenv("LYAPTORCH_DATA", str(folder))
    assert torch.equal(archives.load("mnist").train, expected.train)


def test_a_missing_file_is_named_with_its_place_and_source(folder):
    (folder / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"^train-labels-idx1-ubyte.gz must be in .*mnist; get them from.*https://one/",
    ):
        archives.load("mnist", folder)


FIRST = "train-images-idx3-ubyte.gz"
PACKED = gzip.compress(BODIES[0])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (PACKED[:-50], r"Compressed file ended before"),
        (PACKED[:40] + bytes([PACKED[40] ^ 255]) + PACKED[41:], r""),
        (b"<html>no such page</html>", r"Not a gzipped file"),
        (b"", r""),
        (gzip.compress(BODIES[0][:-1] + b"\0"), r"the checksum of its content is wrong"),
        (gzip.compress(BODIES[1]), r"the checksum of its content is wrong"),
    ],
    ids=["cut short", "a byte changed", "a page", "empty", "a pixel changed", "another file"],
)
def test_a_damaged_file_is_found(folder, body, why):
    (folder / "mnist" / FIRST).write_bytes(body)
    with pytest.raises(ValueError, match=rf"{FIRST} is damaged, or another file: .*{why}.*get it again"):
        archives.load("mnist", folder)
    assert not archives._loaded


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", r"must start with 0, 0, 8"),
        (b"\0\0\x09\1" + bytes(4), r"must start with 0, 0, 8 and its sizes, got 00 00 09 01"),
        (b"\0\0\x08\3" + bytes(4), r"must start with"),
        (BODIES[0][:-1], r"an IDX file of \[50, 6, 6\] must hold as many bytes, got 1799"),
        (BODIES[0] + b"\0", r"got 1801"),
    ],
)
def test_the_structure_of_idx_is_checked(body, message):
    with pytest.raises(ValueError, match=message):
        archives.read_idx(body)


def test_images_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match=r"must be as many, got \(50, 6, 6\) and \(20,\)"):
        archives._read_idx_set([BODIES[0], BODIES[3], BODIES[2], BODIES[3]])


# CIFAR-10, in its official layout


def cifar_batch(count, seed):
    return torch.cat([drawn(count, 1, below=10, seed=seed), drawn(count, 3072, seed=seed + 100)], 1)


def cifar_archive(names, count=4):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for i, name in enumerate(names):
            body = bytes(cifar_batch(count, i).flatten().tolist())
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


OFFICIAL = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def cifar(monkeypatch, tmp_path, body, md5=None):
    name = "cifar-10-binary.tar.gz"
    (tmp_path / name).write_bytes(body)
    file = archives.File(name, md5 or hashlib.md5(body).hexdigest())
    monkeypatch.setitem(
        archives.ARCHIVES, "cifar10-grey", replace(archives.ARCHIVES["cifar10-grey"], files=(file,))
    )
    return SequentialImages("cifar10-grey", data_dir=tmp_path)


def test_cifar_is_read_from_its_binary_archive_and_made_grey(monkeypatch, tmp_path):
    task = cifar(monkeypatch, tmp_path, cifar_archive(OFFICIAL))
    assert task.length == 1024
    images = archives.load("cifar10-grey")
    assert images.train.shape == (20, 1024)
    records = torch.cat([cifar_batch(4, i) for i in range(5)])
    assert torch.equal(images.train_labels, records[:, 0])
    colours = records[:, 1:].reshape(20, 3, 1024).double()
    grey = (colours * torch.tensor([0.299, 0.587, 0.114]).double()[:, None]).sum(1)
    assert (images.train.double() - grey).abs().max() <= 0.5 + 1e-4
    assert torch.equal(images.test_labels, cifar_batch(4, 5)[:, 0])


def test_another_cifar_archive_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"must hold the binary version, got .*data_batch_3"):
        cifar(monkeypatch, tmp_path, cifar_archive([n for n in OFFICIAL if "3" not in n]))
    with pytest.raises(ValueError, match=r"damaged, or another file: its checksum is wrong"):
        cifar(monkeypatch, tmp_path, cifar_archive(OFFICIAL), md5="0" * 32)
    with pytest.raises(ValueError, match=r"must hold the binary version"):
        cifar(monkeypatch, tmp_path, cifar_archive(OFFICIAL)[:-300])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", r"records of 3073 bytes, got 0 bytes"),
        (bytes(3073 + 5), r"records of 3073 bytes, got 3078 bytes"),
        (b"\x0a" + bytes(3072), r"labels of CIFAR-10 must be in 0\.\.9, got 10"),
    ],
)
def test_the_structure_of_cifar_is_checked(body, message):
    with pytest.raises(ValueError, match=message):
        archives.read_cifar10(body)


# the adding problem


@pytest.mark.parametrize("length", [2, 7, 100])
def test_two_cued_numbers_one_in_each_half_are_to_be_added(length):
    batch = Adding(length).draw(Draw(1, length, 50, member_ids=IDS, epoch=2))
    numbers, cues = batch.inputs.unbind(-1)
    half = length // 2
    assert torch.equal(cues[:half].sum(0), torch.ones(2, 3, 50))
    assert torch.equal(cues[half:].sum(0), torch.ones(2, 3, 50))
    torch.testing.assert_close(batch.targets[-1].squeeze(-1), (numbers * cues).sum(0))
    assert batch.mask.nonzero()[:, 0].tolist() == [length - 1] * 6


def test_cues_stand_anywhere_in_their_half_and_numbers_are_uniform():
    batch = Adding(10).draw(Draw(1, 10, 500, member_ids=torch.arange(4)))
    share = batch.inputs[..., 1].mean((1, 2))
    assert (share - 0.2).abs().max() < 0.05
    # the mean predictor's error
    assert batch.targets[-1].std().item() == pytest.approx((1 / 6) ** 0.5, rel=0.05)


def test_cues_of_an_odd_length_reach_its_last_place():
    """The second half is the longer one: of 5 places the cue stands at 0 or 1, and at 2, 3 or 4."""
    batch = Adding(5).draw(Draw(1, 5, 500, member_ids=torch.arange(4)))
    share = batch.inputs[..., 1].mean((1, 2))
    # 2000 cues: a share is known to .011
    torch.testing.assert_close(share, torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]), rtol=0, atol=0.05)


def test_a_member_adds_the_same_alone_and_in_another_dtype():
    task, epoch = Adding(20), torch.tensor([[0, 3, 7], [0, 1, 11]])
    together = task.draw(Draw(1, 20, 5, member_ids=IDS, epoch=epoch))
    alone = task.draw(Draw(1, 20, 5, member_ids=IDS[0, 1], epoch=3, dtype=torch.float64))
    torch.testing.assert_close(together.inputs[:, 0, 1].double(), alone.inputs, rtol=0, atol=1e-6)
    assert torch.equal(together.inputs[:, 0, 1, :, 1].double(), alone.inputs[..., 1])


def test_a_bad_length_of_the_adding_problem():
    with pytest.raises(ValueError, match=r"length must be an integer >= 2, got 1"):
        Adding(1)
    with pytest.raises(ValueError, match=r"length must be 20, that of the task, got 30"):
        Adding(20).draw(Draw(0, 30, member_ids=IDS))


@pytest.mark.parametrize("permuted", [False, True])
def test_images_are_drawn_within_a_graph(folder, permuted, monkeypatch):
    task = SequentialImages("mnist", permuted=permuted, data_dir=folder)
    epoch = torch.zeros_like(IDS)

    def draw():
        batch = task.draw(Draw(5, PIXELS, 20, member_ids=IDS, epoch=epoch))
        epoch.add_(1)
        return {"inputs": batch.inputs, "targets": batch.targets}

    # three passes
    expected = [draw() for _ in range(6)]
    epoch.zero_()
    with stand_in(monkeypatch):
        work = Epochs(draw, [epoch])
        found = list(work.run(6))
        assert work.capturing
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a["inputs"], b["inputs"])
        assert torch.equal(a["targets"], b["targets"])
