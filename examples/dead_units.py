"""What a dead unit looks like: rectified units whose bias is too low are silent, and so are their exponents.

Draws docs/images/dead_units.png and prints how many exponents are -inf, before and after the units are woken:

    python examples/dead_units.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import lyaptorch as lt

N, STEPS, SILENT = 40, 300, 14
FIGURE = Path(__file__).parents[1] / "docs/images/dead_units.png"


def network(silent: int) -> lt.ElmanCell:
    """Rectified units with a bias of 1; the first `silent` have one so low that no input reaches them."""
    cell = lt.ElmanCell(1, N, activation="relu", weights=lt.weights.orthogonal(0.3))
    with torch.no_grad():
        cell.bias_hh.zero_()
        cell.bias_ih.fill_(1.0)
        cell.bias_ih[:silent] = -10.0
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    inputs = 0.3 * torch.randn(STEPS, 1, 1, generator=torch.Generator().manual_seed(0))
    dead, awake = network(SILENT), network(0)
    spectra = {}
    for name, cell in (("14 units dead", dead), ("woken", awake)):
        spectra[name] = lt.lyapunov_spectrum(cell, inputs, k=N, transient=50).exponents[0].detach()
        print(f"{name}: {int(spectra[name].isinf().sum())} of {N} exponents are -inf")

    states = lt.cells.unroll(dead, inputs, torch.zeros(1, N)).detach()
    D = lt.analysis.step_jacobians(dead, inputs)[-1, 0].detach()
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(states[-60:, 0].mT.numpy(), aspect="auto", cmap="Greys", interpolation="nearest")
    left.set(title="States", xlabel="step", ylabel="unit")
    size = float(D.abs().max())
    middle.imshow(D.numpy(), cmap="RdBu", vmin=-size, vmax=size, interpolation="nearest")
    middle.set(title="Jacobian of a step", xlabel="unit before", ylabel="unit after")
    floor = min(float(rates[rates.isfinite()].min()) for rates in spectra.values()) - 1
    for (name, rates), color in zip(spectra.items(), ("#D55E00", "#0072B2"), strict=True):
        places, lost = torch.arange(1, N + 1), rates.isinf()
        right.plot(places[~lost], rates[~lost], "o", markersize=3, color=color, label=name)
        right.plot(places[lost], torch.full((int(lost.sum()),), floor), "x", markersize=4, color=color)
    right.axhline(0, color="#777777", linewidth=0.5)
    right.set(title="Exponents, crosses at $-\\infty$", xlabel="index", ylabel="nats per step")
    right.legend(fontsize=7, frameon=False)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)


if __name__ == "__main__":
    main()
