"""Flossing before training, a penalty on one-step Jacobians before it, and flossing beside it, at like cost.

Rate networks of the setting `gf2023` (80 tanh units, gain 1) learn the binary temporal XOR. The numbers of
steps are such that all ways take about as much processor time, which is printed. Prints the table of
docs/not-learning.md:

    python benchmarks/beside.py
"""

from __future__ import annotations

import argparse
import time

import torch

import lyaptorch as lt

K = 75
BESIDE = 0.1
"""Weight of the flossing loss beside the task's, as of the schedule "joint"."""


def way(before: int, steps: int, penalty: str = "exponents", weight: float = 0.0) -> lt.schedules.Schedule:
    """Steps of a penalty before training, and of training with the flossing loss beside the task's."""
    first = lt.FlossPhase(before, k=K, clip=1.0, penalty=penalty)
    return first, lt.FitPhase(steps, flossing_weight=weight, flossing=lt.FlossPhase(0, k=K))


WAYS: dict[str, lt.schedules.Schedule] = {
    "nothing": way(0, 2020),
    "flossing before training": way(300, 1500),
    "penalty on one-step Jacobians before training": way(25, 1500, penalty="one_step_jacobians"),
    "flossing loss beside the task's": way(0, 800, weight=BESIDE),
    "both: flossing before, and its loss beside": way(150, 740, weight=BESIDE),
}


def row(name: str, delays: list[int], seeds: list[int]) -> str:
    """A row of the table: accuracies over the last 20 batches, network by network, and the processor time."""
    ids = torch.tensor(seeds).expand(len(delays), -1)
    task = lt.tasks.TemporalXOR(torch.tensor(delays).unsqueeze(-1).expand(ids.shape))
    model = lt.presets.gf2023(task, ensemble=tuple(ids.shape), member_ids=ids)
    start = time.process_time()
    record = lt.train(model, task, WAYS[name], member_ids=ids, unstable="mark")
    taken = time.process_time() - start
    accuracy = torch.tensor(record["accuracy"])[..., -20:].mean(-1).reshape(ids.shape)
    listed = [" ".join(f"{z:.2f}".lstrip("0") for z in one) for one in accuracy.tolist()]
    steps = [str(phase.epochs) for phase in WAYS[name]]
    return f"| {' | '.join([name, *steps, *listed, f'{taken:.0f}'])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[60, 61, 62])
    parser.add_argument("--delays", type=int, nargs="*", default=[40])
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    heads = ["", "steps before", "task steps", *(f"d = {d}" for d in arguments.delays), "seconds"]
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    for name in arguments.ways:
        print(row(name, arguments.delays, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
