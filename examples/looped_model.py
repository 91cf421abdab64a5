"""A looped model: does the exponent of an instance tell whether the model gets it right?

One block, h' = tanh(W h + V x + b), is run again and again on an instance x, a point of one of two spirals;
after 8 to 16 loops a readout says which. Each instance is a trajectory of its own: lambda_1 over its first 16
loops is compared with right and wrong on points that training never saw, beside chance (who is wrong is
shuffled), what costs nothing (the confidence of the readout, how far the last loop still moved the state),
and lambda_1 of where the loops end. Draws docs/images/looped_model.png and prints a table:

    python examples/looped_model.py
    python examples/looped_model.py --networks 1 --epochs 100
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import lyaptorch as lt

N, SEEN, UNSEEN, LOOPS, SHUFFLES = 48, 200, 2000, 16, 400
FIGURE = Path(__file__).parents[1] / "docs/images/looped_model.png"


def spirals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points `(count, 2)` of two noisy spirals, and which."""
    which = torch.randint(0, 2, (count,), generator=generator).float()
    radius = 0.3 + 2.2 * torch.rand(count, generator=generator)
    angle = math.pi * (1.3 * radius + which)
    points = radius.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)
    return points + 0.12 * torch.randn(count, 2, generator=generator), which


def looped(block: lt.ElmanCell, points: Tensor, loops: int) -> Tensor:
    """The states after the last two of so many loops, `(2, b, n)`."""
    inputs, h0 = points.expand(loops, -1, -1), torch.zeros(len(points), N)
    return lt.cells.unroll(block, inputs, h0, first=loops - 2)


def learned(epochs: int, generator: torch.Generator) -> tuple[lt.ElmanCell, lt.Readout]:
    """A block and a readout, trained on `SEEN` points with 8 to 16 loops."""
    block = lt.ElmanCell(2, N, weights="gaussian", generator=generator)
    readout = lt.Readout(N, 1, scale=0.1, generator=generator)
    with torch.no_grad():
        block.weight_ih.mul_(3)
    points, which = spirals(SEEN, generator)
    parameters = [*block.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(epochs):
        some = torch.randint(SEEN, (64,), generator=generator)
        loops = int(torch.randint(8, LOOPS + 1, (), generator=generator))
        logits = readout(looped(block, points[some], loops)[-1])[:, 0]
        loss = binary_cross_entropy_with_logits(logits, which[some])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return block, readout


def told(score: Tensor, wrong: Tensor) -> float:
    """The chance that a wrong instance has the higher score of a wrong and a right one: 1/2 tells nothing."""
    bad, good = score[wrong].unsqueeze(-1), score[~wrong]
    return float(((bad > good).double() + 0.5 * (bad == good)).mean())


def by_chance(score: Tensor, wrong: Tensor, generator: torch.Generator) -> Tensor:
    """Between which the same lies in 19 of 20 shuffles of who is wrong."""
    shuffled = (wrong[torch.randperm(len(wrong), generator=generator)] for _ in range(SHUFFLES))
    return torch.tensor([told(score, who) for who in shuffled]).quantile(torch.tensor([0.025, 0.975]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    print(
        "network   wrong   told by lambda_1   by chance       by confidence   by the last step   by the end"
    )
    for seed in range(options.networks):
        generator = torch.Generator().manual_seed(seed)
        block, readout = learned(options.epochs, generator)
        points, which = spirals(UNSEEN, generator)
        with torch.no_grad():
            before, after = looped(block, points, LOOPS)
            logits = readout(after)[:, 0]
            first = lt.lyapunov_spectrum(block, points.expand(LOOPS, -1, -1), k=1).exponents[:, 0]
            end = lt.lyapunov_spectrum(block, points.expand(200, -1, -1), k=1, transient=100).exponents[:, 0]
        wrong = (logits > 0) != (which > 0)
        moved = (after - before).norm(dim=-1)
        scores = [told(score, wrong) for score in (first, -logits.abs(), moved, end)]
        low, high = by_chance(first, wrong, generator)
        print(f"{seed:7d} {int(wrong.sum()):7d} {scores[0]:18.2f}   {low:.2f} to {high:.2f} ", end="")
        print(f"{scores[1]:14.2f} {scores[2]:18.2f} {scores[3]:12.2f}")
        fifths = first.argsort().chunk(5)
        right.plot(
            range(1, 6), [100 * float(wrong[i].double().mean()) for i in fifths], "o-", label=str(seed)
        )
        if seed == 0:
            place, size = points.mT.numpy(), float(first.abs().max())
            shown = left.scatter(*place, c=first.numpy(), s=5, cmap="RdBu_r", vmin=-size, vmax=size)
            left.plot(*place[:, wrong.numpy()], "kx", markersize=5, label="wrong")
            figure.colorbar(shown, label=f"lambda_1 over {LOOPS} loops, nats per loop")
    left.set(title="Instances of network 0", xticks=[], yticks=[], aspect="equal")
    left.legend(fontsize=7, loc="upper right")
    right.set(
        title=f"Networks: {options.networks}", xlabel="fifth of the instances by lambda_1", ylabel="% wrong"
    )
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)


if __name__ == "__main__":
    main()
