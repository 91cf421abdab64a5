"""`lyap bench`: every method of a row does the same work, and the table says what was measured."""

import numpy as np
import pytest
import torch

from command import command
from fused import compiled
from lyaptorch import bench
from lyaptorch.bench import METHODS, ROWS, Benchmark, Row, runs, summary
from lyaptorch.kernels.library import peak
from lyaptorch.record import Record

pytestmark = compiled

SMALL = (
    Row("exponents", 8, 5, k=4),
    Row("exponents", 8, 5, k=8, networks=3, threads=2),
    Row("BPTT", 6, 5, batch=3),
    Row("residual", 6, 5, batch=3),
    Row("spiking", 6, 20, batch=3),
    Row("spectrum", 6, 20, k=6),
    Row("segments", 3, 20, k=2),
)
EPOCHS = (
    Row("train", 6, 30, batch=3),
    Row("train", 6, 30, batch=3, networks=2),
    Row("floss", 6, 14, k=3, networks=2),
    Row("GRU", 6, 30, batch=3, networks=2),
    Row("LSTM", 6, 30, batch=3),
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench.benchmark, "ROWS", SMALL)


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked, small):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


@pytest.mark.parametrize("row", SMALL, ids=lambda row: row.name)
def test_every_method_of_a_row_does_the_same(row):
    default = torch.get_default_dtype()
    done = {method: [run() for _ in range(3)] for method, run in runs(row, torch.float64).items()}
    assert torch.get_default_dtype() == default
    expected = {"torch", "fused"} | ({"loop"} if row.kind != "segments" else set())
    assert set(done) - {"clvlib"} == expected | ({"rnn"} if row.kind == "BPTT" else set())
    for values in done.values():
        # of a training step the loss: it falls, so gradient and optimiser have their say
        torch.testing.assert_close(values, done["torch"], rtol=1e-10, atol=0)
    assert row.k or done["loop"][2] < done["loop"][0]


@pytest.mark.parametrize("row", EPOCHS, ids=lambda row: row.name)
def test_epochs_are_whole_trainings(row):
    """As many epochs as asked for, of the row's size, from the same start each time."""
    done = runs(row, torch.float64)
    assert set(done) == ({"fused"} if row.kind == "floss" else {"rnn", "fused"})
    for run in done.values():
        one, three, again = run(1), run(3), run(1)
        assert one.dtype == torch.float64
        assert one == again != three


def test_of_many_epochs_those_of_one_are_taken_off(monkeypatch):
    """A run that takes 5 s around its epochs of 2 s each."""
    now = [0.0]
    monkeypatch.setattr(bench.benchmark.time, "perf_counter", lambda: now[0])

    def run(epochs):
        now[0] += 5 + 2 * epochs

    assert bench.benchmark._epoch(run, 6) == 2
    assert [Row("train", 80, 300, batch=16, networks=many).epochs for many in (1, 8, 36)] == [24, 3, 3]
    assert Row("BPTT", 80, 300, batch=16).epochs == 0


def test_operations_are_counted_as_announced():
    n, k = 80, 75
    forwards = 2 * n**2 * k + 2 * n * k**2 + k**3 / 3 + 2 * n**2
    assert ROWS[0].operations == pytest.approx(55 * (forwards + 4 * n**2 * k + 3 * n * k**2 + 4 * n**2))
    assert Row("BPTT", 80, 300, batch=16).operations == 300 * 16 * 6 * 80**2
    # a whole epoch counts what a step of it counts
    assert Row("train", 80, 300, batch=16).operations == Row("BPTT", 80, 300, batch=16).operations
    assert Row("GRU", 80, 300, batch=16).operations == 3 * 300 * 16 * 6 * 80**2
    assert Row("floss", n, 55, k=k).operations == ROWS[0].operations
    assert Row("spectrum", n, 55, k=k).operations == pytest.approx(55 * forwards)
    lstm = 8 * n**2 * k + 4 * n * k**2 + k**3 / 3 + 8 * n**2
    assert Row("segments", n, 55, k=k).operations == pytest.approx(55 * lstm)


def test_the_table_is_what_was_measured(small):
    record = Benchmark(rounds=3, dtype="float64").run()
    assert record["seconds"].shape == (7, 5, 3)
    assert [str(name) for name in record["row"]] == [row.name for row in SMALL]
    for i, (entry, row) in enumerate(zip(summary(record), SMALL, strict=True)):
        seconds = dict(zip(METHODS, np.median(record["seconds"][i], axis=-1), strict=True))
        assert (entry["rnn_ms"] is None) == np.isnan(seconds["rnn"]) == (row.kind != "BPTT")
        assert entry["torch_ratio"] == pytest.approx(seconds["torch"] / seconds["fused"])
        assert entry["fused_ms"] == pytest.approx(1e3 * seconds["fused"])
        share = row.operations / seconds["fused"] / record["limit"][i]
        assert entry["share_of_limit"] == pytest.approx(share)
        assert 0 < share < 1


def test_times_are_per_network_and_the_first_round_does_not_count(small, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(bench.benchmark.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(bench.benchmark.kernels, "peak", lambda dtype, threads: 1e9 * threads)
    record = Benchmark(rounds=2, rows=("3 networks", "BPTT")).run()
    assert record["seconds"][0, :, 0].tolist() == pytest.approx([1, 1 / 3, *[np.nan] * 2, 1 / 3], nan_ok=True)
    assert record["seconds"][1, [0, 1, 2, 4]].tolist() == [[1.0, 1.0]] * 4
    assert record["limit"].tolist() == [2e9, 1e9]


def test_threads_and_rows_are_chosen():
    assert [row.threads for row in Benchmark(rows=("residual",)).chosen()] == [1, 2]
    # the same row twice is timed once
    assert [row.threads for row in Benchmark(rows=("residual",), threads=3).chosen()] == [3]
    assert len(Benchmark().chosen()) == len(ROWS)
    with pytest.raises(ValueError, match="rows must be parts of the names exponents n 80"):
        Benchmark(rows=("MGU",)).chosen()
    with pytest.raises(ValueError, match=r"threads must be an integer in 1\.\.1024"):
        Benchmark(threads=0).chosen()


def test_the_command_prints_writes_and_draws(lyap, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    status, out, err = lyap("bench", "--rounds", 1)
    assert (status, err) == (0, "")
    assert "exponents n 8, k 8, t 5, 3 networks, 2 threads" in out
    assert "float32, median of 1" in out
    assert Record.load(tmp_path / "runs/bench.nc").kind == "bench"
    assert (tmp_path / "runs/bench.png").read_bytes().startswith(b"\x89PNG")
    answer = lyap.json("bench", "--rounds", 1, "--rows", "BPTT", "--dtype", "float64")
    (row,) = answer["rows"]
    assert row["rnn_ratio"] == pytest.approx(row["rnn_ms"] / row["fused_ms"])
    assert Record.load(answer["record"]).config["dtype"] == "float64"
    status, out, err = lyap("bench", "--rounds", 1, "--rows", "k 4", "--markdown")
    head, rule, line, *_ = out.splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| exponents n 8, k 4, t 5 |")


def test_without_kernels_there_is_nothing_to_time(lyap, monkeypatch):
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert "switched off by LYAPTORCH_KERNELS=0" in lyap.fails("bench", "--runs", ".")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_limit_is_measured(dtype):
    one = max(peak(dtype) for _ in range(5))
    # slower than any core of today, and faster than any
    assert 1e8 < one < 1e13
    assert peak(dtype, 2) > 0
