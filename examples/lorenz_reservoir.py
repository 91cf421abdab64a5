"""A reservoir that learns Lorenz-63: its exponents while it is driven, and once its loop is closed.

A random network reads the three variables; ridge regression finds the readout that forecasts them one step
ahead. Draws docs/images/lorenz_reservoir.png and prints a table:

    python examples/lorenz_reservoir.py
    python examples/lorenz_reservoir.py --training 2000 --steps 4000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import lyaptorch as lt
from lyaptorch.cells import unroll
from lyaptorch.testing import SYSTEMS

N, DT, RIDGE = 300, 0.02, 1e-14
FORGOTTEN, AHEAD = 200, 1000
"""Steps until the reservoir has forgotten its start, and those of the forecast."""
FIGURE = Path(__file__).parents[1] / "docs/images/lorenz_reservoir.png"


def lorenz(steps: int) -> Tensor:
    """The three variables `(steps, 1, 3)` at steps of DT, each of mean 0 and size 1."""
    system = SYSTEMS["lorenz"]
    states = unroll(lt.Flow(system.field, dt=DT), torch.zeros(steps + 1000, 1, 0), system.start())[1000:]
    return (states - states.mean(0)) / states.std(0)


def reservoir() -> lt.ElmanCell:
    """h' = tanh(W h + V x + b); a spectral radius of .4 forgets a start within a few steps."""
    generator = torch.Generator().manual_seed(1)
    cell = lt.ElmanCell(3, N, weights="gaussian", gain=0.4, generator=generator).double()
    with torch.no_grad():
        cell.weight_ih.uniform_(-0.3, 0.3, generator=generator)
        cell.bias_ih.uniform_(-1.0, 1.0, generator=generator)
        cell.bias_hh.zero_()
    return cell


def fitted(states: Tensor, targets: Tensor) -> lt.Readout:
    """The affine readout of states `(t, 1, n)` that is nearest to the targets: ridge regression."""
    X, Y = torch.cat([states, torch.ones_like(states[..., :1])], -1)[:, 0], targets[:, 0]
    squares = X.mT @ X + RIDGE * len(X) * torch.eye(X.shape[-1])
    weights = torch.linalg.solve(squares, X.mT @ Y).mT
    readout = lt.Readout(N, 3).double()
    with torch.no_grad():
        readout.weight.copy_(weights[:, :-1])
        readout.bias.copy_(weights[:, -1])
    return readout


def row(name: str, rates: Tensor, errors: Tensor | None = None) -> None:
    told = [f"{rate:8.3f}" for rate in rates.tolist()]
    if errors is not None:
        told = [f"{rate} ± {error:.3f}" for rate, error in zip(told, errors.tolist(), strict=True)]
    print(f"{name:<12}", *told)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--training", type=int, default=10_000, help="steps that the readout is fitted to")
    parser.add_argument("--steps", type=int, default=100_000, help="of the closed loop")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # small products: threads would only wait
    u = lorenz(options.training + AHEAD + 1)
    learned, unseen = u[: options.training + 1], u[options.training + 1 :]
    cell = reservoir()
    # the state after input u_s is to tell u_{s+1}
    states = unroll(cell, learned[:-1], torch.zeros(1, N))[FORGOTTEN:]
    readout = fitted(states, learned[FORGOTTEN + 1 :])
    error = (readout(states) - learned[FORGOTTEN + 1 :]).square().mean().sqrt()
    print(f"one step ahead the readout is off by {error:.1e} of a standard deviation")

    driven = lt.lyapunov_spectrum(cell, learned, k=6, tangent_transient=FORGOTTEN, dt=DT)
    loop = lt.closed_loop(cell, readout)
    none = torch.zeros(options.steps, 1, 0)
    closed = lt.lyapunov_spectrum(loop, none, k=6, h0=driven.final_state, tangent_transient=500, dt=DT)
    print("exponents per unit of time")
    row("driven", driven.exponents[0], driven.stderr()[0])
    row("closed", closed.exponents[0], closed.stderr()[0])
    row("Lorenz", torch.tensor(SYSTEMS["lorenz"].exponents))

    forecast = readout(torch.cat([driven.final_state[None], unroll(loop, none[:AHEAD], driven.final_state)]))
    forecast = forecast[: len(unseen)]
    apart = (forecast - unseen).norm(dim=-1).flatten() > 1
    print(f"the forecast holds for {DT * (int(apart.int().argmax()) if apart.any() else AHEAD):.1f} units")

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    time = DT * torch.arange(len(unseen))
    left.plot(time, unseen[:, 0, 0], color="#777777", label="Lorenz")
    left.plot(time, forecast[:, 0, 0], color="#0072B2", linewidth=1, label="closed loop")
    left.set(xlabel="time since the loop was closed", ylabel="first variable", xlim=(0, DT * AHEAD))
    left.legend(loc="lower left", fontsize=7, frameon=False, ncols=2)
    places = torch.arange(1, 7)
    right.plot(places, driven.exponents[0], "s", color="#D55E00", label="driven: conditional")
    right.plot(places, closed.exponents[0], "o", color="#0072B2", label="closed")
    right.plot(places[:3], SYSTEMS["lorenz"].exponents, "+", color="black", markersize=12, label="Lorenz")
    right.axhline(0, color="#777777", linewidth=0.5)
    right.set(xlabel="index", ylabel="exponent per unit of time")
    right.legend(loc="lower left", fontsize=7, frameon=False, bbox_to_anchor=(0.0, 0.05))
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)


if __name__ == "__main__":
    main()
