"""How many digits of stored public exponents this library finds from the same equations.

    python benchmarks/public_spectra.py

- Random networks: the leading exponent in theory, of `lt.theory.leaky_mean_field`, against the data of
  rnn-lyapunov 1.0.0 (D. G. Clark, Lyapunov spectrum of random neural networks; `c` and `c_checks` of
  `data/max_exponent_operator.json`, written on 7 October 2026).
- Flows: the spectrum of trajectories, against the two estimates that dysts stores with its equations, if it
  is installed (`pip install --no-deps dysts`: only its file of parameters is read), and a published value.

Digits are -log10 of the difference over the stored value.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import lyaptorch as lt

EDGES = {
    (1.5, 0.5): 0.045913219299766,
    (1.5, 0.25): 0.04633010058559235,
    (3.0, 0.5): 0.21612370471089096,
    (3.0, 0.25): 0.2254014581468737,
    (10.0, 0.5): 0.7162405871517115,
    (10.0, 0.25): 0.6801711507927277,
    (2.0, 1.0): 0.15472422983134979,
    (3.0, 1.0): 0.3102493151452507,
    (20.0, 1.0): 1.1938721081078238,
}
"""The upper edge of the spectrum by gain and time step, nats per unit of time."""
TRAJECTORIES, BEFORE = 64, 0.4
"""Trajectories at once, and the share of their time before anything is measured."""

Numbers = Mapping[str, float]
Field = Callable[[Numbers, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def lorenz(p: Numbers, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lorenz (1963)."""
    return p["sigma"] * (y - x), x * (p["rho"] - z) - y, x * y - p["beta"] * z


def roessler(p: Numbers, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roessler (1976)."""
    return -y - z, x + p["a"] * y, p["b"] + z * (x - p["c"])


def thomas(p: Numbers, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thomas (1999)."""
    return (
        -p["a"] * x + p["b"] * y.sin(),
        -p["a"] * y + p["b"] * z.sin(),
        -p["a"] * z + p["b"] * x.sin(),
    )


def halvorsen(p: Numbers, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Halvorsen, after Sprott (2010)."""
    a, b = p["a"], p["b"]
    return (
        -a * x - b * (y + z) - y.square(),
        -a * y - b * (z + x) - z.square(),
        -a * z - b * (x + y) - x.square(),
    )


FLOWS: dict[str, tuple[Field, float, float, float]] = {
    "Lorenz": (lorenz, 0.01, 80.0, 0.9056),
    "Rossler": (roessler, 0.05, 400.0, 0.0714),
    "Thomas": (thomas, 0.02, 200.0, math.nan),
    "Halvorsen": (halvorsen, 0.01, 80.0, math.nan),
}
"""Equations, time step, time of each trajectory, and lambda_1 of Sprott (2003) at the usual parameters."""


def digits(found: float, stored: float) -> float:
    """How many agree; 16 where all do."""
    return 16.0 if found == stored else -math.log10(abs(found - stored) / abs(stored))


def summed(g: float) -> float:
    """The exponent at time step 1 by sums over 400 001 points: log(g^2 E[1 / cosh^4 h]) / 2."""
    z = torch.linspace(-12, 12, 400_001)
    weights = torch.exp(-z.square() / 2)
    weights, q = weights / weights.sum(), torch.tensor(g * g)
    for _ in range(300):
        q = g * g * (weights * torch.tanh(q.sqrt() * z).square()).sum()
    return 0.5 * (g * g * (weights / (q.sqrt() * z).cosh().pow(4)).sum()).log().item()


def networks() -> None:
    """Theory of random networks, line by line."""
    print("| g | time step | stored | lyaptorch | digits | dense sum |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for (g, leak), stored in EDGES.items():
        found = lt.theory.leaky_mean_field(g, leak).lambda_max.item()
        dense = f"{summed(g):.10f}" if leak == 1 else ""
        agree = digits(found, stored)
        print(f"| {g:g} | {leak:g} | {stored:.10f} | {found:.10f} | {agree:.1f} | {dense} |")


def exponents(field: Field, numbers: Numbers, start: Tensor, dt: float, time: float) -> tuple[Tensor, Tensor]:
    """Means and standard errors `(3,)` over trajectories, nats per unit of time."""
    flow = lt.Flow(lambda x, h: torch.stack(field(numbers, *h.unbind(-1)), -1), dt=dt)
    h = start + 1e-3 * torch.randn(TRAJECTORIES, 3, generator=torch.Generator().manual_seed(0))
    steps = round(time / dt)
    none, before = torch.zeros(steps, TRAJECTORIES, 1), round(BEFORE / 2 * steps)
    spec = lt.lyapunov_spectrum(flow, none, h0=h, transient=before, tangent_transient=before)
    return spec.exponents.mean(0), spec.exponents.std(0) / math.sqrt(TRAJECTORIES)


def flows() -> None:
    """Spectra of flows, line by line; nothing without dysts."""
    package = importlib.util.find_spec("dysts")
    if package is None or package.submodule_search_locations is None:
        print("\ndysts is not installed, so that its flows are left out")
        return
    path = Path(package.submodule_search_locations[0]) / "data/chaotic_attractors.json"
    stored = json.loads(path.read_text())
    print("\n| flow | stored spectrum | stored lambda_1 | published | lyaptorch | digits of lambda_1 |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name, (field, dt, time, published) in FLOWS.items():
        entry = stored[name]
        start = torch.tensor(entry["initial_conditions"], dtype=torch.float64)
        found, error = exponents(field, entry["parameters"], start, dt, time)
        others = entry["lyapunov_spectrum_estimated"], entry["maximum_lyapunov_estimated"], published
        known = [other for other in (max(others[0]), *others[1:]) if not math.isnan(other)]
        agree = (f"{digits(found[0].item(), other):.1f}" for other in known)
        spectra = (" ".join(f"{value:.4f}" for value in spectrum) for spectrum in (others[0], found.tolist()))
        first, own = spectra
        book = "" if math.isnan(published) else f"{published}"
        row = [name, first, f"{others[1]:.4f}", book, f"{own} (± {error[0]:.4f})", ", ".join(agree)]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    networks()
    flows()
