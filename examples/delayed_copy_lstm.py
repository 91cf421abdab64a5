"""How far back an LSTM learns to look, against the horizon that its spectrum gives before training.

One LSTM for each delay, all trained at once, twice: as torch starts them, and with the gate biases that
`lt.diagnose` advises. Draws docs/images/delayed_copy_lstm.png and prints a table:

    python examples/delayed_copy_lstm.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

import lyaptorch as lt

N, LENGTH, BATCH = 32, 80, 16
DELAYS = (2, 5, 10, 15, 20, 25, 30, 40)
SEEDS = 3
FIGURE = Path(__file__).parents[1] / "docs/images/delayed_copy_lstm.png"


def models(advised: bool) -> lt.Model:
    """`(delay, seed)` LSTMs with the same weights in both conditions."""
    generator = torch.Generator().manual_seed(0)
    ensemble = (len(DELAYS), SEEDS)
    members = torch.arange(SEEDS).expand(ensemble)
    cell = lt.LSTMCell(1, N, ensemble=ensemble, member_ids=members, generator=generator)
    if advised:
        # the line that lt.diagnose gives for this horizon
        cell.bias_hh.data[..., N : 2 * N] = torch.linspace(2, LENGTH, N).log()
    readout = lt.Readout(N, 1, scale=N**-0.5, ensemble=ensemble, member_ids=members, generator=generator)
    return lt.Model(cell, readout)


def alone(model: lt.Model, delay: int, seed: int) -> lt.Model:
    """One of the networks."""
    mask = torch.zeros(model.ensemble, dtype=torch.bool)
    mask[delay, seed] = True
    return model.select(mask)


def thousandth(model: lt.Model, delay: int, seed: int) -> float:
    """After how many steps the best direction has fallen to a thousandth; inf if it grows."""
    inputs = torch.randint(0, 2, (400, 8, 1), generator=torch.Generator().manual_seed(1)).float()
    found = lt.diagnose(alone(model, delay, seed), inputs, k=16, horizon=LENGTH)
    return found.measured.steps_to(1e3)[0].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=800)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    delays = torch.tensor(DELAYS).unsqueeze(-1).expand(-1, SEEDS)
    task = lt.tasks.DelayedCopy(delays)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for advised, name, color in ((False, "as torch starts it", "#0072B2"), (True, "gates opened", "#D55E00")):
        model = models(advised)
        before = [thousandth(model, 0, seed) for seed in range(SEEDS)]
        horizon = sum(before) / SEEDS
        record = lt.train(
            model,
            task,
            (lt.FitPhase(arguments.epochs),),
            batch=BATCH,
            steps=LENGTH,
            lr=3e-3,
            clip=1.0,
            clip_mode="global",
        )
        accuracy = torch.tensor(record["accuracy"])[..., -20:].mean(-1).reshape(delays.shape)
        after = [[thousandth(model, d, seed) for seed in range(SEEDS)] for d in range(len(DELAYS))]
        print(f"{name}: before training 1/1000 is left after {horizon:.0f} steps")
        print("  delay  accuracy (least, mean, most)   1/1000 left after, trained (median)")
        for d, row, steps in zip(DELAYS, accuracy, after, strict=True):
            median = sorted(steps)[SEEDS // 2]
            print(f"  {d:5d}  {row.min():.2f} {row.mean():.2f} {row.max():.2f} {'':15} {median:8.0f}")
        left.plot(DELAYS, accuracy, ".", color=color, alpha=0.5)
        left.plot(DELAYS, accuracy.mean(-1), color=color, label=name)
        if math.isfinite(horizon):
            left.axvline(horizon, color=color, linestyle=":", label="its horizon before training")
        shown = [sorted(steps)[SEEDS // 2] for steps in after]
        right.plot(DELAYS, shown, "o-", color=color, label=name)
    left.set(xlabel="delay", ylabel="accuracy after training", ylim=(0.45, 1.02))
    left.legend(loc="lower left", fontsize=7, frameon=False)
    right.plot(DELAYS, DELAYS, "--", color="#777777", label="the delay")
    right.set(xlabel="delay", ylabel="steps to 1/1000, trained", yscale="log")
    right.legend(loc="center", bbox_to_anchor=(0.6, 0.68))
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure, dpi=130)


if __name__ == "__main__":
    main()
