"""Flossing before training, a penalty on one-step Jacobians before it, and flossing beside it, at equal cost.

Rate networks of the setting `gf2023` (80 tanh units, gain 1) learn the binary temporal XOR. Every way has the
processor time of 300 flossing steps and so many task steps; how many of each kind of step that is, is
measured first. Prints the tables of docs/not-learning.md:

    python benchmarks/beside.py
    python benchmarks/beside.py --delays 40 --steps 1500
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

import lyaptorch as lt

FLOSSED, K = 300, 75
BESIDE = 0.1
"""Weight of the flossing loss beside the task's."""

Way = Callable[[int, int], lt.schedules.Schedule]
"""A schedule of so many steps before training, and of so many of training."""


def way(penalty: str = "exponents", weight: float = 0.0) -> Way:
    """A penalty before training, and the flossing loss beside it."""

    def schedule(before: int, steps: int) -> lt.schedules.Schedule:
        first = lt.FlossPhase(before, k=K, clip=1.0, penalty=penalty)
        return first, lt.FitPhase(steps, flossing_weight=weight, flossing=lt.FlossPhase(0, k=K))

    return schedule


WAYS: dict[str, Way] = {
    "nothing": way(),
    "flossing before training": way(),
    "penalty on one-step Jacobians before training": way("one_step_jacobians"),
    "flossing loss beside the task's": way(weight=BESIDE),
    "both: flossing before, and its loss beside": way(weight=BESIDE),
}


def run(schedule: lt.schedules.Schedule, delays: list[int], seeds: list[int]) -> tuple[torch.Tensor, float]:
    """Accuracies `(delay, seed)` over the last 20 batches, and the processor time."""
    ids = torch.tensor(seeds).expand(len(delays), -1)
    task = lt.tasks.TemporalXOR(torch.tensor(delays).unsqueeze(-1).expand(ids.shape))
    model = lt.presets.gf2023(task, ensemble=tuple(ids.shape), member_ids=ids)
    start = time.process_time()
    record = lt.train(model, task, schedule, member_ids=ids, unstable="mark")
    taken = time.process_time() - start
    return torch.tensor(record["accuracy"])[..., -20:].mean(-1).reshape(ids.shape), taken


def cost(before: int, steps: int, schedule: Way, delays: list[int], seeds: list[int]) -> float:
    """Processor seconds of a step of that kind."""
    few, many = (min(run(schedule(before * n, steps * n), delays, seeds)[1] for _ in (0, 1)) for n in (2, 10))
    return (many - few) / 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[60, 61, 62])
    parser.add_argument("--delays", type=int, nargs="*", default=[20, 30])
    parser.add_argument("--steps", type=int, default=700, help="of training after flossing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    where = arguments.delays, arguments.seeds
    plain, floss, penalty, joint, _ = WAYS.values()
    task = cost(0, 1, plain, *where)
    each = {"floss": cost(1, 0, floss, *where), "penalty": cost(1, 0, penalty, *where)}
    beside = cost(0, 1, joint, *where)
    print(f"seconds a step: task {task:.3f}, both {beside:.3f}, {each}", file=sys.stderr)
    before = FLOSSED * each["floss"]
    counts = [
        (0, round(before / task) + arguments.steps),
        (FLOSSED, arguments.steps),
        (max(1, round(before / each["penalty"])), arguments.steps),
        (0, round((before + arguments.steps * task) / beside)),
        (FLOSSED // 2, round((before / 2 + arguments.steps * task) / beside)),
    ]
    print(f"| | steps before | task steps | {' | '.join(f'd = {d}' for d in arguments.delays)} | seconds |")
    print("|---|---|---|" + "---|" * (len(arguments.delays) + 1))
    for (name, schedule), (first, steps) in zip(WAYS.items(), counts, strict=True):
        found, taken = run(schedule(first, steps), *where)
        rows = [" ".join(f"{z:.2f}".lstrip("0") for z in row) for row in found.tolist()]
        print(f"| {name} | {first} | {steps} | {' | '.join(rows)} | {taken:.0f} |", flush=True)


if __name__ == "__main__":
    main()
