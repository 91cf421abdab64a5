"""`Benchmark`: medians of methods that take turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lyaptorch import _checks, kernels
from lyaptorch._shown import Advance, progress
from lyaptorch.bench.problems import runs
from lyaptorch.bench.rows import METHODS, ROWS, Row, Run
from lyaptorch.record import Record

CALLS, TURN = 5, 0.05
"""Calls of a method in its turn, after a first one, while it takes less than this many seconds."""
LONG = 1.0
"""Seconds of a first call that counts itself."""


@dataclass(frozen=True)
class Benchmark:
    """Exponents with their gradient, and steps of training, timed against the plain loop.

    Attributes:
        dtype: of everything.
        threads: of every row; when missing one, and two in the rows whose names say so.
        rounds: turns of each method; the median counts.
        rows: only rows whose names contain one of these, such as "k 75" or BPTT; all when empty.
        seed: of inputs, targets and frames.
    """

    dtype: Literal["float32", "float64"] = "float32"
    threads: int | None = None
    rounds: int = 7
    rows: tuple[str, ...] = ()
    seed: int = 1

    def chosen(self) -> list[Row]:
        """The rows to be timed.

        Raises:
            ValueError: if there is none.
        """
        found = [row for row in ROWS if not self.rows or any(part in row.name for part in self.rows)]
        if not found:
            names = "; ".join(row.name for row in ROWS)
            raise ValueError(f"rows must be parts of the names {names}, got {', '.join(self.rows)}")
        if self.threads is None:
            return found
        _checks.threads(self.threads)
        # rows that differ in threads alone have become one
        return list(dict.fromkeys(replace(row, threads=self.threads) for row in found))

    def run(self, show_progress: bool | None = None) -> Record:
        """Time them. About a minute.

        Returns:
            A Record with `seconds (row, method, run)` per network, NaN where a method does not apply, `limit
            (row)` the operations a second that the row's threads reach in registers, measured in between,
            `operations (row)` of a network, `threads (row)`, the machine's `load (row)` before, and `cores`.

        Raises:
            ValueError: if no row is chosen, or there are no compiled kernels.
        """
        _checks.integer("rounds", self.rounds, 1)
        _checks.seed(self.seed)
        cpu, rows = kernels.available()["cpu"], self.chosen()
        if not cpu.available:
            raise ValueError(f"the compiled kernels are what is timed, and {cpu.detail}")
        shape = (len(rows), len(METHODS), self.rounds)
        seconds, limit, load = np.full(shape, np.nan), np.zeros(len(rows)), np.zeros(len(rows))
        before = torch.get_num_threads()
        try:
            with progress("bench", len(rows) * self.rounds, show_progress) as advance:
                for i, row in enumerate(rows):
                    load[i] = os.getloadavg()[0]
                    torch.set_num_threads(row.threads)
                    limit[i] = self._time(row, seconds[i], advance)
        finally:
            torch.set_num_threads(before)
        variables: dict[str, Any] = {
            "seconds": (("row", "method", "run"), seconds, {"units": "s"}),
            "limit": (("row",), limit, {"units": "operations per second"}),
            "operations": (("row",), np.array([row.operations for row in rows])),
            "threads": (("row",), np.array([row.threads for row in rows])),
            "load": (("row",), load),
            "cores": ((), os.cpu_count() or 1),
            "instruction_set": ((), cpu.detail),
        }
        names = {
            "row": (("row",), np.array([row.name for row in rows])),
            "method": (("method",), np.array(METHODS)),
        }
        return Record("bench", asdict(self), variables, names)

    def _time(self, row: Row, seconds: NDArray[Any], advance: Advance) -> float:
        """The median limit; into `seconds (method, run)` go those of each method in each round.

        As in training, the same call has just been made: of the calls of a turn the last is timed.
        """
        dtype = getattr(torch, self.dtype)
        todo, limits = runs(row, dtype, self.seed), []
        for turn in range(self.rounds):
            for method, run in todo.items():
                # the loops of others have no ensemble, so they are timed on one network
                shared = row.networks if method in ("torch", "fused") else 1
                elapsed = _epoch(run, row.epochs) if row.epochs else _call(run)
                seconds[METHODS.index(method), turn] = elapsed / shared
            # in the same minute as the methods: a busy core or a hot one lowers both
            limits.append(kernels.peak(dtype, row.threads))
            advance(row.name)
        return float(np.median(limits))


def _call(run: Run) -> float:
    """Seconds of a call after others; one that takes long is its own warm-up."""
    start = time.perf_counter()
    run()
    stop = time.perf_counter()
    if stop - start > LONG:
        return stop - start
    # caches and clock are those of the method before until it has run once
    begin = time.perf_counter()
    for _ in range(CALLS):
        start = time.perf_counter()
        run()
        stop = time.perf_counter()
        if stop - begin > TURN:
            break
    return stop - start


def _epoch(run: Run, epochs: int) -> float:
    """Seconds of an epoch: of so many more than one, without those of one and of all around them."""
    run(1)
    start = time.perf_counter()
    run(1)
    middle = time.perf_counter()
    run(1 + epochs)
    return (time.perf_counter() - middle - (middle - start)) / epochs


def summary(record: Record) -> list[dict[str, Any]]:
    """A row of the table each: median milliseconds, ratios to the kernels, and their share of the limit.

    What does not apply is None.
    """
    table = []
    for i, name in enumerate(record["row"]):
        medians = np.median(record["seconds"][i], axis=-1)
        times = {m: None if np.isnan(s) else float(s) for m, s in zip(METHODS, medians, strict=True)}
        fused = times["fused"]
        assert fused is not None
        entry: dict[str, Any] = {"row": str(name)}
        entry |= {f"{m}_ms": s and 1e3 * s for m, s in times.items()}
        entry |= {f"{m}_ratio": s and s / fused for m, s in times.items() if m != "fused"}
        entry["share_of_limit"] = float(record["operations"][i] / fused / record["limit"][i])
        table.append(entry)
    return table
