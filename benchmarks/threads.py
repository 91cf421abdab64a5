"""What a second thread brings to whole epochs of `lt.train` and `lt.floss`.

For each row the milliseconds of an epoch of all networks with one thread and with two, and their ratio, 2 at
best. "own" is the processor time of the calling thread, which does not grow while other programs have its
core; "serial", 2 own_2 / own_1 - 1, is the share of an epoch that only this thread does. Both hold where the
other core is free: a thread that waits for the other one spins.

    python benchmarks/threads.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch

import lyaptorch as lt
from lyaptorch.bench import Row, runs

ROWS = (
    Row("train", 80, 300, batch=16),
    Row("train", 80, 300, batch=128),
    *(Row("train", 80, 300, batch=16, networks=networks) for networks in (8, 20, 36)),
    Row("floss", 80, 55, k=75),
    *(Row("floss", 80, 55, k=75, networks=networks) for networks in (8, 20)),
)
CLOCKS: tuple[Callable[[], float], ...] = (time.perf_counter, time.thread_time)


def epoch(run: Callable[[int], torch.Tensor], epochs: int) -> list[float]:
    """Milliseconds of an epoch by each clock, without those of what is around all epochs."""
    marks = [[clock() for clock in CLOCKS]]
    for count in (1, 1 + epochs):
        run(count)
        marks.append([clock() for clock in CLOCKS])
    return [1e3 * (c - b - (b - a)) / epochs for a, b, c in zip(*marks, strict=True)]


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="*", default=[], help="parts of names, such as batch 128")
    options = parser.parse_args()
    print("| epoch of | 1 thread, ms | 2 threads, ms | ratio | own, ms | own, ms | ratio | serial |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in ROWS:
        if options.rows and not any(part in row.name for part in options.rows):
            continue
        run = runs(row, torch.float32)["fused"]
        least = {threads: [float("inf")] * len(CLOCKS) for threads in (1, 2)}
        for _ in range(options.rounds):
            for threads, best in least.items():
                torch.set_num_threads(threads)
                run(1)
                best[:] = map(min, best, epoch(run, row.epochs))
        (wall, own), (wall_2, own_2) = least[1], least[2]
        # own_2 / own = serial + (1 - serial) / 2
        serial = max(0.0, 2 * own_2 / own - 1)
        print(
            f"| {row.name} | {wall:.1f} | {wall_2:.1f} | {wall / wall_2:.2f} "
            f"| {own:.1f} | {own_2:.1f} | {own / own_2:.2f} | {serial:.0%} |",
            flush=True,
        )
    cpu = lt.kernels.available()["cpu"]
    load = os.getloadavg()[0]
    print(f"\nfloat32, least of {options.rounds}; {cpu.detail}; load {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
