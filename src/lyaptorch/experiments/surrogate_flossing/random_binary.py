"""Random binary networks without input: surrogate spectra and Jacobians, figures 1b and 1d."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch._types import Number
from lyaptorch.cells import BinaryCell, unroll
from lyaptorch.experiments.check import THEORY, Checks, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.plots.primitives import BLUE, GREY, PALETTE, Picture, bundle, picture, single
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.tasks.batch import Draw
from lyaptorch.theory import binary_mean_field, free_probability_spectrum, gaussian_states, triangle_law

figure = partial(declare, "surrogate-flossing")
"""Declares a figure of this paper."""
TITLE = "Surrogate Gradient Flossing"
"""What sources of checks begin with."""
NATS = "(nats per step)"
TRANSIENT = 50
"""Steps before, and again while, the frame settles; without input fewer."""
UNDRIVEN = 20
BITS = DelayedCopy(1, binary=True)
"""Whose inputs are bits."""


def copies(*shape: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Ids of networks, from `first` on along the last dimension alone, and their places along the first."""
    place = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return torch.arange(first, first + shape[-1]).expand(shape), place.expand(shape)


def random_networks(study: Study, n: int, sharpness: Number, ids: Tensor) -> BinaryCell:
    """The networks `ids` of n units without bias, with one input channel, in float64."""
    return BinaryCell(1, n, sharpness=sharpness, bias=False, **study.ensemble(ids)).double()


def random_states(study: Study, cell: BinaryCell, ids: Tensor) -> Tensor:
    """Their states before the first step, N(0, 1)."""
    shape = (1, cell.state_size)
    return Stream(study.seed, "h0").normal(shape, member_ids=ids, dtype=torch.float64)


def bits(study: Study, ids: Tensor, steps: int, stream: str = "task") -> Tensor:
    """One trajectory of bits for each network, with both transients in front of the steps."""
    steps += 2 * TRANSIENT
    return BITS.inputs(Draw(study.seed, steps, member_ids=ids, stream=stream, dtype=torch.float64))


@torch.no_grad()
def exponents(cell: BinaryCell, inputs: Tensor, transient: int = TRANSIENT, **more: Any) -> Tensor:
    """The exponents `(*e, k)` after a transient of the state and one of the frame."""
    spectrum = lyapunov_spectrum(cell, inputs, transient=transient, tangent_transient=transient, **more)
    return spectrum.exponents[..., 0, :]


class RandomNetworks(Figure):
    """Groups of random binary networks.

    Attributes:
        sharpness: g, initially; one group of networks for each.
        networks: in each group.
        hidden_size: n.
    """

    sharpness: tuple[float, ...] = (1.0,)
    networks: int = 10
    hidden_size: int = 80

    def cell(self, study: Study, n: int, networks: int) -> tuple[BinaryCell, Tensor]:
        """So many networks of n units for each sharpness, and their ids."""
        ids, group = copies(len(self.sharpness), networks)
        return random_networks(study, n, torch.tensor(self.sharpness)[group], ids), ids


def growth(name: str, slope: str, ylabel: str, theory: str) -> Picture:
    """A picture of `name` over the steps for each sharpness, with its theoretical slope."""

    @single
    def draw(record: Record, axes: list[Axes]) -> None:
        (panel,) = axes
        steps = record["horizon"]
        look: dict[str, Any] = {"marker": "o", "alpha": 0.2, "thin": 0.6, "linewidth": 1.5}
        for group, g in enumerate(record["sharpness"]):
            rows, color = record[name][group], PALETTE[group]
            bundle(panel, rows, color, f"$g = {g:g}$", x=steps, **look)
            line = rows.mean() + record[slope][group].mean() * (steps - steps.mean())
            label = "" if group else theory
            panel.plot(steps, line, "--", color="black", linewidth=0.9, label=label)
        panel.set(xlabel="steps $T$", ylabel=ylabel)
        panel.legend()

    return draw


@picture(2, width=4.4, height=3.4)
def laws(record: Record, axes: list[Axes]) -> None:
    """Spectra with free probability (dashed) and triangle law (dotted); the first exponent against g."""
    spectra, first = axes
    n, sharpness = record["spectrum"].shape[-1], record["sharpness"]
    x = (np.arange(n) + 0.5) / n
    for group, g in enumerate(sharpness):
        color = PALETTE[group % len(PALETTE)]
        spectra.plot(x, record["spectrum"][group], color=color, linewidth=1.6, label=f"$g = {g:g}$")
        spectra.plot(x, record["free"][group], color="black", linewidth=0.8, linestyle="--")
        spectra.plot(x, record["triangle"][group], color=color, linewidth=0.8, linestyle=":")
    spectra.set(xlabel="$i/n$", ylabel=rf"$\lambda_i$ {NATS}", ylim=(-12, 0.5), title="Surrogate spectra")
    spectra.legend()
    first.semilogx(sharpness, record["lambda1"], "o", color=BLUE, alpha=0.4, markersize=3)
    first.semilogx(sharpness, record["theory"], "--", color="black", label="mean field")
    first.set(xlabel="sharpness $g$", ylabel=rf"$\lambda_1$ {NATS}", title="First exponent")
    first.legend()


@picture(3)
def columns(record: Record, axes: list[Axes]) -> None:
    """The Jacobian as a picture, its columns by slope, and the share of active columns."""
    matrix, slopes, share = axes
    logs = np.log10(np.maximum(np.abs(record["jacobian"]), 1e-12))
    drawn = matrix.imshow(logs, cmap="magma", vmin=-8, vmax=0, interpolation="nearest")
    matrix.figure.colorbar(drawn, ax=matrix, label=r"$\log_{10} |D_{ij}|$")
    matrix.set(xlabel="$j$", ylabel="$i$", title="Surrogate Jacobian")
    rank = (np.arange(len(record["slopes"])) + 0.5) / len(record["slopes"])
    slopes.semilogy(rank, np.maximum(record["slopes"], 1e-30), color=BLUE)
    slopes.axvline(record["expected"][0], color=GREY, linestyle=":")
    slopes.set(xlabel="columns, sorted", ylabel=r"$\phi'_g(h_j)$", title="Slopes")
    share.plot(record["active"], color=BLUE, label="simulation")
    share.plot(record["expected"], color="black", linestyle="--", label="theory")
    share.set(xlabel="step", ylabel="share with $|h| < 1/g$", title="Active columns", ylim=(0, None))
    share.legend()


@figure(
    "fig1b",
    "surrogate spectra of binary networks for several sharpnesses, with their theory",
    cost=("1 s", "25 s", "3 hours"),
    smoke={
        "sharpness": (1.0, 5.0),
        "hidden_size": 60,
        "networks": 2,
        "steps": 60,
        "spectrum_size": 20,
        "spectrum_steps": 40,
    },
    small={
        "sharpness": (0.5, 1.0, 2.0, 5.0, 10.0),
        "networks": 4,
        "steps": 500,
        "spectrum_size": 400,
        "spectrum_steps": 200,
    },
    draw=laws,
)
class Fig1b(RandomNetworks):
    """Surrogate spectra of binary networks without input, for several sharpnesses, and their theory.

    Networks for the first exponent may be larger than those for the whole spectrum, which costs n times more.

    Attributes:
        steps: over which the first exponent is measured.
        spectrum_size: n, for the spectrum.
        spectrum_networks: whose spectra are averaged.
        spectrum_steps: over which the spectrum is measured.
    """

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    hidden_size: int = 1000
    steps: int = 2000
    spectrum_size: int = 1000
    spectrum_networks: int = 3
    spectrum_steps: int = 500

    def run(self, study: Study) -> Results:
        """`lambda1 (sharpness, network)`, `spectrum`, `free`, `triangle (sharpness, rank)`, `theory`."""
        g = torch.tensor(self.sharpness, dtype=torch.float64)
        # a step costs n^2 for one exponent, n^3 for all
        first = self._exponents(study, self.hidden_size, self.networks, self.steps, 1)[..., 0]
        n = self.spectrum_size
        spectra = self._exponents(study, n, self.spectrum_networks, self.spectrum_steps, n)
        field = binary_mean_field(g)
        # free probability multiplies n slopes with a Gaussian matrix; h ~ N(0, 1), because the units are
        # +-1 and W ~ N(0, 1/n), so that h has the variance n (1/n) 1 = 1
        h, weights = gaussian_states(torch.ones((), dtype=torch.float64))
        cell = self.cell(study, 1, 1)[0]
        slopes = cell.activation.slope(h.expand(len(g), 1, 1, -1))[:, 0, 0]
        free = [free_probability_spectrum(n, own, weights=weights) for own in slopes]
        # of a standard normal h: P(|h| < 1/g) = erf(1 / (sqrt(2) g))
        active = torch.erf(1 / (math.sqrt(2) * g))
        triangle = list(map(partial(triangle_law, n), field.lambda_max.tolist(), active.tolist()))
        nats, dims = {"units": "nats per step"}, ("group", "rank")
        variables = {
            "lambda1": (("group", "network"), first, nats),
            "spectrum": (dims, spectra.sort(-1, descending=True).values.mean(1), nats),
            "free": (dims, torch.stack(free), nats),
            "triangle": (dims, torch.stack(triangle), nats),
            "theory": (("group",), field.lambda_max, nats),
        }
        return variables, {"sharpness": (("group",), g)}

    def claims(self, record: Record) -> Checks:
        """The first exponent is that of mean-field theory, the spectrum that of free probability."""
        for group, g in enumerate(record["sharpness"].tolist()):
            if g <= 10:
                measured, expected = record["lambda1"][group].mean(), record["theory"][group]
                sentence = f"g = {g:g}: lambda_1 of n = {self.hidden_size}"
                yield near(f"g {g:g} lambda_1", sentence, expected, measured, 0.02, **THEORY)
            if g <= 5:
                away = record["spectrum"][group] - record["free"][group]
                # the last exponents of a finite network feel its edge, and beyond float64 they are dead
                for key, share, what in (("all", 1.0, "all"), ("most", 0.99, "the first 99%")):
                    part = away[: round(share * len(away))]
                    part = part[np.isfinite(part)]
                    sentence = f"g = {g:g}: rms distance from free probability, {what} of n = {len(away)}"
                    rms, bound = np.sqrt((part**2).mean()), 0.02 if g <= 2 else 0.04
                    yield at_most(f"g {g:g} {key}", sentence, bound, rms, **THEORY)

    def _exponents(self, study: Study, n: int, networks: int, steps: int, k: int) -> Tensor:
        cell, ids = self.cell(study, n, networks)
        inputs = torch.zeros(steps + 2 * UNDRIVEN, 1, 1, dtype=torch.float64)
        return exponents(cell, inputs, UNDRIVEN, k=k, h0=random_states(study, cell, ids))


@figure(
    "fig1d",
    "the column-sparse surrogate Jacobian of a binary network, and its active columns",
    cost=("1 s", "1 s", "5 s"),
    smoke={"hidden_size": 100, "networks": 2, "steps": 10, "shown": 20},
    small={"networks": 5},
    draw=columns,
)
class Fig1d(Figure):
    """The surrogate Jacobian W diag(sech^2(g h)): most of its columns are nearly zero.

    Attributes:
        sharpness: g.
        hidden_size: n.
        networks: whose columns are counted.
        steps: over which they are counted.
        shown: rows and columns in the picture.
    """

    sharpness: float = 10.0
    hidden_size: int = 1000
    networks: int = 10
    steps: int = 100
    shown: int = 80

    def run(self, study: Study) -> Results:
        """`jacobian (row, column)` of one step, and the shares `active`, `expected (step)` of columns."""
        n, ids = self.hidden_size, torch.arange(self.networks)
        cell = random_networks(study, n, self.sharpness, ids)
        h0 = random_states(study, cell, ids)
        with torch.no_grad():
            inputs = torch.zeros(UNDRIVEN + self.steps, self.networks, 1, 1, dtype=torch.float64)
            states = unroll(cell, inputs, h0)[UNDRIVEN:]
            slopes = cell.activation.slope(states)
            # D = W diag(phi'(h)): slopes scale columns, and those with |h_j| > 1/g are nearly zero
            jacobian = (cell.weight_hh * slopes[-1])[0, : self.shown, : self.shown]
        acting = states.abs() < 1 / self.sharpness
        expected = math.erf(1 / (math.sqrt(2) * self.sharpness))
        ordered = slopes[-1, 0, 0].sort(descending=True).values
        variables = {
            "jacobian": (("row", "column"), jacobian),
            "active": (("step",), acting.double().mean((1, 2, 3))),
            "expected": (("step",), torch.full((self.steps,), expected, dtype=torch.float64)),
            "slopes": (("rank",), ordered),
        }
        return variables, {}

    def claims(self, record: Record) -> Checks:
        """The share of columns with |h| < 1/g is that of a standard normal h."""
        expected, measured = record["expected"][0], record["active"].mean()
        yield near("active", "share of active columns, |h| < 1/g", expected, measured, 0.01, **THEORY)
