"""Hard use: many inputs, long runs, several threads and processes; nothing crashes, grows or phones home."""

import gc
import gzip
import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bad_inputs
import fuzz
import lyaptorch as lt
from lyaptorch._files import SEAL, sealed
from lyaptorch.integrations import Sequences
from lyaptorch.record import Record
from lyaptorch.tasks import archives
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.checkpoint import load_checkpoint

READERS = (
    "IDX",
    "IDX, packed, on disk",
    "CIFAR-10 batch",
    "CIFAR-10 archive",
    "WAV",
    "recordings, zip",
    "recordings, tar",
    "checkpoint",
    "Record",
    "configuration",
    "settings, TOML",
    "settings, JSON",
    "part of a figure",
    "cost of a part",
    ".npy inputs",
    ".npz inputs",
    ".pt inputs",
    ".csv inputs",
)

# files


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(name):
    result = fuzz.fuzz(name, 60)
    assert result.crashes == []
    assert result.tried == result.read + result.refused == 60
    assert result.refused > 10
    assert result.slowest < fuzz.PATIENCE
    assert result.memory < fuzz.MEMORY


def test_every_reader_is_tried(tmp_path):
    assert tuple(fuzz.readers(tmp_path)) == READERS


def test_the_fuzzing_would_find_a_crash(monkeypatch):
    monkeypatch.setattr(archives, "read_idx", lambda body: body[60:][0])
    assert "IndexError" in fuzz.fuzz("IDX", 60).crashes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_thousands_of_damaged_files(name):
    result = fuzz.isolated(name, 5000)
    assert result.crashes == []
    assert result.memory < fuzz.MEMORY


def test_a_packed_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    whole = io.BytesIO()
    with gzip.open(whole, "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    (tmp_path / "train-images.gz").write_bytes(whole.getvalue())
    file = archives.File("train-images.gz", "", "0" * 64)
    with pytest.raises(ValueError, match="must not unpack to more than"):
        archives._content(tmp_path / "train-images.gz", file)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        member.size = 65 << 20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(ValueError, match="must not unpack to more than"):
        archives._read_cifar10([out.getvalue()])


def test_sizes_whose_product_overflows_are_refused():
    sizes = (2**31, 2**31, 4, 1)
    body = b"\0\0\x08\x04" + b"".join(n.to_bytes(4, "big") for n in sizes)
    with pytest.raises(ValueError, match="must hold as many bytes, got 0"):
        archives.read_idx(body)


def test_a_record_that_claims_a_terabyte_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.create_dataset("loss", shape=(1 << 37,), dtype="f8", chunks=(1 << 20,))
    (tmp_path / "large.nc").write_bytes(sealed(body.getvalue()))
    with pytest.raises(ValueError, match=r"must hold the 1099511627776 bytes that it claims, got"):
        Record.load(tmp_path / "large.nc")


def test_a_record_with_a_text_of_four_gigabytes_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    body = bytearray(fuzz.record(tmp_path / "whole").rpartition(SEAL)[0])
    with h5py.File(io.BytesIO(body)) as file:
        start = file["name"].id.get_offset()
    # "bc" is the second of two
    assert int.from_bytes(body[start + 16 : start + 20], "little") == 2
    body[start + 16 : start + 20] = (2**32 - 1).to_bytes(4, "little")
    (tmp_path / "long.nc").write_bytes(sealed(bytes(body)))
    with pytest.raises(ValueError, match=r"must hold the 42949\d+ bytes that it claims, got"):
        Record.load(tmp_path / "long.nc")


def test_a_record_with_text_in_chunks_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        file.create_dataset("name", (2,), h5py.string_dtype(), chunks=(1,))[:] = ["a", "bc"]
    (tmp_path / "chunks.nc").write_bytes(sealed(body.getvalue()))
    with pytest.raises(ValueError, match="must hold text in one piece, got chunks"):
        Record.load(tmp_path / "chunks.nc")


def test_a_record_whose_heap_never_ends_is_refused(tmp_path):
    body = bytearray(fuzz.record(tmp_path / "whole").rpartition(SEAL)[0])
    start = body.index(b"GCOL")
    at = start + 16
    while number := int.from_bytes(body[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(body[at + 8 : at + 16], "little") // 8) * 8
    assert number == 0
    for size in (0, 8, 1 << 40):
        body[at + 8 : at + 16] = size.to_bytes(8, "little")
        (tmp_path / "endless.nc").write_bytes(sealed(bytes(body)))
        with pytest.raises(ValueError, match="it must hold heaps that end"):
            Record.load(tmp_path / "endless.nc")


def test_inputs_that_claim_a_terabyte_are_refused(tmp_path):
    from lyaptorch.cli import files

    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37, 1)}
        )
    with pytest.raises(ValueError, match=r"cannot read .*it must be a \.npy file of numbers"):
        files.read(str(tmp_path / "x.npy"), 1)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("name", ["checkpoint", "Record", ".npy inputs"])
def test_nothing_in_a_file_is_executed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.BytesIO()
    if name == ".npy inputs":
        np.save(out, np.array([Bomb()], dtype=object), allow_pickle=True)
    else:
        torch.save({"model.weight": Bomb()}, out)
    body = out.getvalue() if name == ".npy inputs" else sealed(out.getvalue())
    with pytest.raises(ValueError, match=r"cannot (load|read)"):
        fuzz.readers(tmp_path)[name].read(body, tmp_path)
    assert not (tmp_path / "executed").exists()


KNOWN = '"format": "lyaptorch checkpoint", "version": 1'
HEADS = ("[" * 100_000, f"{{{KNOWN}}}", f'{{{KNOWN}, "facts": [], "environment": {{}}}}')
HEADS += (f'{{{KNOWN}, "facts": {{"config": 3}}, "environment": {{}}}}',)


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_with_another_head_is_refused(head, tmp_path):
    text = json.dumps({"__metadata__": {"lyaptorch": head}}).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "checkpoint"
    path.write_bytes(sealed(len(text).to_bytes(8, "little") + text))
    with pytest.raises(ValueError, match=r"it is no checkpoint, (it has no run|RecursionError)"):
        load_checkpoint(path, {})


# mistakes


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
def test_the_page_of_mistakes_is_up_to_date_and_each_answer_is_a_sentence():
    assert bad_inputs.PAGE.read_text(encoding="utf-8") == bad_inputs.page(), "run python tests/bad_inputs.py"
    answers = bad_inputs.answers()
    assert len(answers) == sum(map(len, bad_inputs.MISTAKES.values())) >= 60
    for answer in answers:
        assert any(word in answer for word in ("must", "unknown", "nothing", "takes", "got", "cannot")), (
            answer
        )
        assert 20 < len(answer) < 500, answer


# properties of the public API

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CELLS = (lt.RateCell, lt.ElmanCell, lt.LSTMCell, lt.GRUCell, lt.BinaryCell, lt.LIFCell)


@few
@given(
    make=st.sampled_from(CELLS),
    m=st.integers(1, 3),
    n=st.integers(1, 6),
    b=st.integers(1, 3),
    t=st.integers(1, 12),
    ensemble=st.sampled_from([(), (1,), (2, 2)]),
    data=st.data(),
)
def test_any_spectrum_that_is_asked_for_rightly_has_its_shape_and_no_nan(make, m, n, b, t, ensemble, data):
    cell = make(m, n, ensemble=ensemble)
    k = data.draw(st.integers(1, cell.state_size))
    uncounted = data.draw(st.integers(0, t - 1))
    interval = data.draw(st.integers(1, t))
    inputs = torch.randn(t, b, m)
    spec = lt.lyapunov_spectrum(cell, inputs, k=k, tangent_transient=uncounted, interval=interval)
    assert spec.exponents.shape == (*ensemble, b, k)
    for values in (spec.exponents, spec.running(), spec.stderr(), spec.kaplan_yorke(), spec.entropy()):
        assert not values.isnan().any()
    loss = lt.flossing_loss(spec.exponents)
    assert torch.isfinite(loss)
    if loss.requires_grad:
        bars = torch.autograd.grad(loss, list(cell.parameters()), allow_unused=True)
        assert all(bar is None or torch.isfinite(bar).all() for bar in bars)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.floats(),
    st.text(max_size=5),
    st.just(torch.zeros(2)),
    st.lists(st.integers(-1, 3), max_size=2),
)
SETTINGS = st.dictionaries(
    st.sampled_from(["k", "transient", "tangent_transient", "interval", "dt", "state_grad", "backend"]),
    ANYTHING,
    max_size=3,
)


@pytest.mark.usefixtures("unchecked")
@settings(
    few,
    max_examples=80,
    suppress_health_check=[*few.suppress_health_check, HealthCheck.function_scoped_fixture],
)
@given(given_settings=SETTINGS)
def test_whatever_is_passed_to_a_spectrum_it_answers_or_says_what_is_wrong(given_settings):
    cell = lt.RateCell(1, 4)
    try:
        spec = lt.lyapunov_spectrum(cell, torch.zeros(12, 1, 1), **given_settings)
    except ValueError:
        return
    assert not spec.exponents.isnan().any()


PHASES = st.dictionaries(
    st.sampled_from(
        ["k", "steps", "tangent_transient", "interval", "lr", "clip", "batch", "reduction", "frame"]
    ),
    ANYTHING,
    max_size=3,
)


@pytest.mark.usefixtures("unchecked")
@settings(
    few,
    max_examples=50,
    suppress_health_check=[*few.suppress_health_check, HealthCheck.function_scoped_fixture],
)
@given(given_settings=PHASES)
def test_whatever_is_passed_to_floss_it_flosses_or_says_what_is_wrong(given_settings):
    cell = lt.RateCell(1, 4)
    before = [p.detach().clone() for p in cell.parameters()]
    asked = {"steps": 6, "tangent_transient": 2, **given_settings}
    try:
        lt.floss(cell, torch.ones(60, 1, 1), epochs=1, **asked)
    except ValueError:
        assert all(torch.equal(p, q) for p, q in zip(cell.parameters(), before, strict=True))
    except FloatingPointError as error:
        assert "lower lr" in str(error)  # noqa: PT017
        return
    assert all(torch.isfinite(p).all() for p in cell.parameters())


@few
@given(
    exponents=st.lists(st.one_of(st.floats(-50, 50), st.just(-np.inf)), min_size=1, max_size=6),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    target=st.floats(-5, 5),
)
def test_the_loss_is_finite_and_least_at_the_target(exponents, reduction, target):
    values = torch.tensor([exponents], dtype=torch.float64)
    loss = lt.flossing_loss(values, target=target, reduction=reduction)
    best = torch.where(values == -torch.inf, values, torch.full_like(values, target))
    assert torch.isfinite(loss).all()
    assert lt.flossing_loss(best, target=target, reduction=reduction) == 0 <= loss


@few
@given(t=st.integers(1, 30), b=st.integers(1, 4), length=st.integers(1, 30), batch=st.integers(1, 6))
def test_sequences_are_drawn_from_what_is_there_or_refused(t, b, length, batch):
    source = Sequences(torch.randn(t, b, 2))
    if length > t:
        with pytest.raises(ValueError, match="pass fewer steps"):
            source.inputs(Draw(0, length, batch, epoch=3))
        return
    drawn = source.inputs(Draw(0, length, batch, epoch=3))
    assert drawn.shape == (length, batch, 2)
    known = source._inputs.reshape(-1, 2).tolist()
    assert all(row in known for row in drawn.reshape(-1, 2).tolist())


@few
@given(
    values=st.lists(st.floats(width=32), max_size=5),
    config=st.dictionaries(
        st.text(max_size=4), st.one_of(st.integers(-9, 9), st.text(max_size=4), st.none())
    ),
)
def test_a_record_comes_back_as_it_was_or_is_refused(values, config, tmp_path_factory):
    try:
        record = Record("train", config, {"loss": (("epoch",), np.array(values, np.float32))})
    except ValueError:
        return
    assert Record.load(record.save(tmp_path_factory.mktemp("records") / "r")) == record


# threads and processes


def exponents(seed=0):
    cell = lt.RateCell(1, 12, generator=torch.Generator().manual_seed(seed))
    return lt.lyapunov_spectrum(cell, torch.ones(40, 3, 1), k=6)


def gradient(seed=0):
    cell = lt.RateCell(1, 12, generator=torch.Generator().manual_seed(seed))
    loss = lt.flossing_loss(lt.lyapunov_spectrum(cell, torch.ones(40, 3, 1), k=6).exponents)
    return torch.autograd.grad(loss, cell.weight_hh)[0]


def test_threads_at_once_compute_what_one_computes():
    expected = [gradient(seed) for seed in range(4)]
    found = [[] for _ in range(4)]

    def work(seed):
        found[seed] = [gradient(seed) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, expected[seed]) for seed in range(4) for one in found[seed])
    assert [len(one) for one in found] == [5] * 4


def _answer(queue, threads):
    torch.set_num_threads(1)  # torch's own operations hang on more in a forked process
    torch.get_num_threads = lambda: threads
    queue.put(exponents().exponents.detach().numpy())


@pytest.mark.skipif(sys.platform == "darwin", reason="fork is not safe on macOS")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernels_work_in_a_forked_process(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # the child does not inherit the second one
    try:
        expected = exponents().exponents.detach().numpy()
    finally:
        torch.set_num_threads(before)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_answer, args=(queue, threads))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert (found == expected).all()


class Exponents(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return exponents(i).exponents.detach()[0]


@pytest.mark.skipif(sys.platform == "darwin", reason="fork is not safe on macOS")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there is one core
def test_the_kernels_work_in_workers_of_a_data_loader():
    expected = torch.stack([Exponents()[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(Exponents(), 2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), expected)


# the network


def test_nothing_reaches_the_network_unasked(monkeypatch):
    def refuse(*_args, **_settings):
        raise AssertionError("somebody reaches for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cell = lt.RateCell(1, 8)
    lt.floss(cell, lt.tasks.TemporalXOR(4), k=2, epochs=2)
    task = lt.tasks.DelayedCopy(3)
    model = lt.Model(cell, lt.Readout(8, 1))
    lt.train(model, task, (lt.FitPhase(2),), steps=20, batch=2)
    lt.diagnose(model, torch.randn(40, 2, 1))
    exponents().plot()


# a long time


def memory():
    """MiB that this process holds."""
    gc.collect()
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_flat_over_a_thousand_flossing_epochs_of_a_hundred_networks(capsys):
    cell = lt.RateCell(1, 32, ensemble=(100,))
    settings = {"k": 16, "steps": 30, "tangent_transient": 6, "clip": 1.0, "show_progress": False}
    lt.floss(cell, lt.tasks.TemporalXOR(10), epochs=100, **settings)
    held = [memory()]
    for _ in range(10):
        lt.floss(cell, lt.tasks.TemporalXOR(10), epochs=100, **settings)
        held.append(memory())
    with capsys.disabled():
        print(f"\nMiB after every 100 epochs: {', '.join(f'{value:.1f}' for value in held)}")
    assert max(held[1:]) - held[0] < 20


# being a library


HEAVY = ("matplotlib", "xarray", "ray", "scipy", "h5py", "h5netcdf", "pooch", "rich", "tyro", "pandas")
HEAVY += ("lightning", "transformers", "accelerate", "hypothesis", "torch._dynamo", "triton", "sympy")


def test_importing_adds_nothing_heavy_to_torch_and_less_than_half_a_second():
    code = f"""
import sys, time, torch, numpy
before, start = set(sys.modules), time.process_time()
import lyaptorch
took, added = time.process_time() - start, set(sys.modules) - before
print(took, sorted(set({HEAVY}) & added))
"""
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
        )
        took, _, modules = done.stdout.partition(" ")
        assert modules.strip() == "[]"
        runs.append(float(took))
    assert min(runs) < 0.5
