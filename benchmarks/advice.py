"""Whether the first suggestion of `lt.diagnose` helps: networks trained as they were, and as it says.

Of each kind five networks are diagnosed over the delay of the task, the Python of the first suggestion is run
on a copy, and both are trained on equal batches with equal readouts and budgets. Prints the table of
docs/diagnose.md:

    python benchmarks/advice.py

And whether the gain of a mixing start is to be searched on the inputs, or that of units at rest will do, by
how much is lost at that of rest (`SATURATED` in lyaptorch.diagnosis.changes), for inputs of some strengths:

    python benchmarks/advice.py --gains
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import lyaptorch as lt

N, STEPS, BATCH, LR, EPOCHS = 32, 80, 16, 3e-3, 600
TASKS: dict[str, tuple[Any, int]] = {
    "copy, 20 steps": (lt.tasks.DelayedCopy(20, binary=True), 20),
    "XOR, 14 steps": (lt.tasks.TemporalXOR(14), 14),
}


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[tuple[int, ...]], lt.Cell]]] = {
    "`torch.nn.RNN`, tanh": (lambda: nn.RNN(1, N), lambda e: lt.ElmanCell(1, N, ensemble=e)),
    "`torch.nn.RNN`, ReLU": (
        lambda: nn.RNN(1, N, nonlinearity="relu"),
        lambda e: lt.ElmanCell(1, N, activation="relu", ensemble=e),
    ),
    "`ResidualCell`": (
        lambda: lt.ResidualCell(1, N, generator=torch.Generator().manual_seed(torch.initial_seed())),
        lambda e: lt.ResidualCell(1, N, ensemble=e),
    ),
    "`MinGRUCell`": (
        lambda: lt.cells.MinGRUCell(1, N, generator=torch.Generator().manual_seed(torch.initial_seed())),
        lambda e: lt.cells.MinGRUCell(1, N, ensemble=e),
    ),
    "`torch.nn.GRU`": (lambda: nn.GRU(1, N), lambda e: lt.GRUCell(1, N, ensemble=e)),
    "`torch.nn.LSTM`": (lambda: nn.LSTM(1, N), lambda e: lt.LSTMCell(1, N, ensemble=e)),
    "`torch.nn.LSTM`, two layers": (
        lambda: nn.LSTM(1, N, num_layers=2),
        lambda e: lt.cells.Stacked([lt.LSTMCell(1, N, ensemble=e), lt.LSTMCell(N, N, ensemble=e)]),
    ),
}


def torch_name(name: str, layers: bool) -> str:
    """`layers.1.weight_hh` as torch has it, `weight_hh_l1`."""
    _, i, name = name.split(".") if layers else ("", "0", name)
    return f"{name}_l{i}"


def together(networks: list[Any], made: Callable[[tuple[int, ...]], lt.Cell]) -> lt.Cell:
    """Networks of one kind as one ensemble."""
    cell = made((len(networks),))
    for name, value in [*cell.named_parameters(), *cell.named_buffers()]:
        torchs = isinstance(networks[0], nn.RNNBase)
        theirs = torch_name(name, isinstance(cell, lt.cells.Stacked)) if torchs else name
        value.data = torch.stack([network.state_dict()[theirs] for network in networks])
    return cell


def turning(ensemble: tuple[int, ...]) -> lt.Cell:
    """Residual networks as suggested, whose matrices are still to be filled in."""
    return lt.ResidualCell(1, N, residual=lt.residuals.orthogonal(N), ensemble=ensemble)


def advised(network: Any, horizon: int, inputs: Tensor) -> tuple[Any, str, str]:
    """A copy on which the first suggestion was run, the verdict, and the suggestion's title."""
    found = lt.diagnose(network, inputs, horizon=horizon, name="network")
    if not found.suggestions:
        return network, found.verdict, "nothing"
    scope = {"lt": lt, "torch": torch, "inputs": inputs, "network": copy.deepcopy(network)}
    first = found.suggestions[0]
    exec(first.code, scope)
    return scope.get("cell", scope["network"]), found.verdict, first.title


def accuracies(cell: lt.Cell, task: Any, seeds: list[int], epochs: int) -> Tensor:
    """Of each network after training, over the last twenty batches."""
    ids = torch.tensor(seeds)
    readout = lt.Readout(N, 1, scale=N**-0.5, ensemble=(len(seeds),), member_ids=ids)
    record = lt.train(
        lt.Model(cell, readout),
        task,
        (lt.FitPhase(epochs),),
        batch=BATCH,
        steps=STEPS,
        lr=LR,
        clip=1.0,
        clip_mode="global",
        member_ids=ids,
        unstable="mark",
    )
    return torch.tensor(record["accuracy"])[:, -20:].mean(-1)


def row(kind: str, name: str, seeds: list[int], epochs: int) -> str:
    """A row of the table."""
    (network, ensemble), (task, delay) = KINDS[kind], TASKS[name]
    before, after, words = [], [], []
    for seed in seeds:
        torch.manual_seed(seed)
        before.append(network())
        bits = torch.randint(0, 2, (STEPS, BATCH, 1), generator=torch.Generator().manual_seed(seed)).float()
        changed, verdict, title = advised(before[-1], delay, bits)
        after.append(changed)
        words.append(f"{verdict}: {title[0].lower()}{title[1:]}")
    # networks of one make in one ensemble, which changes no number
    swapped = [
        new is not old and isinstance(new, lt.ResidualCell) for new, old in zip(after, before, strict=True)
    ]
    kept = [i for i, other in enumerate(swapped) if not other]
    replaced = [i for i, other in enumerate(swapped) if other]
    own = together(before + [after[i] for i in kept], ensemble)
    found = accuracies(own, task, seeds + [seeds[i] for i in kept], epochs)
    was, now = found[: len(seeds)], torch.empty(len(seeds))
    now[kept] = found[len(seeds) :]
    if replaced:
        others = together([after[i] for i in replaced], turning)
        now[replaced] = accuracies(others, task, [seeds[i] for i in replaced], epochs)
    better = int((now > was).sum())
    cells = [kind, name, "; ".join(dict.fromkeys(words)), *(listed(z) for z in (was, now))]
    return f"| {' | '.join(cells)} | {better} of {len(seeds)} |"


STRENGTHS, MIXED, HORIZON = (
    (0.5, 1.0, 2.0, 4.0, 8.0),
    ("`torch.nn.RNN`, tanh", "`torch.nn.GRU`", "`torch.nn.LSTM`"),
    30,
)


@torch.no_grad()
def lost(network: Any, bits: Tensor) -> float:
    """Nats that the first direction loses, or gains, over the horizon."""
    rates = lt.lyapunov_spectrum(network, bits, k=1, tangent_transient=STEPS // 2).exponents
    return abs(float(rates.mean())) * HORIZON


def gains(kind: str, strength: float, seeds: list[int], epochs: int) -> str:
    """A row: mixing starts whose gain is that of rest, or searched on inputs of this strength."""
    make, ensemble = KINDS[kind]
    starts: list[list[Any]] = [[], []]
    nats = []
    for seed in seeds:
        torch.manual_seed(seed)
        network = make()
        # inputs so many times as large
        network.weight_ih_l0.data *= strength  # type: ignore[operator, union-attr]
        bits = torch.randint(0, 2, (STEPS, BATCH, 1), generator=torch.Generator().manual_seed(seed)).float()
        for found, inputs in zip(starts, (None, bits), strict=True):
            found.append(copy.deepcopy(network))
            lt.weights.mixing_(found[-1], horizon=HORIZON, inputs=inputs)
            nats.append(f"{lost(found[-1], bits):.1f}")
    task = lt.tasks.DelayedCopy(HORIZON, binary=True)
    learned = accuracies(together([*starts[0], *starts[1]], ensemble), task, 2 * seeds, epochs)
    cells = [kind, f"{strength:g}", " ".join(nats[::2]), " ".join(nats[1::2]), *map(listed, learned.chunk(2))]
    return f"| {' | '.join(cells)} |"


def listed(values: Tensor) -> str:
    """Accuracies without their 0."""
    return " ".join(f"{z:.2f}".lstrip("0") for z in values.tolist())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--gains", action="store_true", help="of mixing starts, instead")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    if arguments.gains:
        print("| network | inputs times | nats lost at rest | searched | accuracy at rest | searched |")
        print("|---|---|---|---|---|---|")
        for kind in MIXED:
            for strength in STRENGTHS:
                print(gains(kind, strength, arguments.seeds, arguments.epochs), flush=True)
        return
    print("| network | task | verdict: first suggestion | accuracy as it was | as suggested | learns more |")
    print("|---|---|---|---|---|---|")
    for kind in arguments.kinds:
        for task in arguments.tasks:
            print(row(kind, task, arguments.seeds, arguments.epochs), flush=True)


if __name__ == "__main__":
    main()
