"""Random binary networks without input: surrogate spectra, figure 1b."""

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
from lyaptorch.cells import BinaryCell
from lyaptorch.experiments.check import THEORY, Check, Checks, at_most, claimed, near, where
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.plots.primitives import (
    BESIDE,
    BLUE,
    PALETTE,
    Picture,
    bundle,
    footnote,
    letters,
    picture,
    single,
)
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
EDGE: dict[str, Any] = {
    "kind": "question",
    "source": "theory",
    "because": "The law is that of large n: the last exponents of one network lie off it by about a nat.",
}
"""Of checks of the whole spectrum of networks of finite size."""
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
        footnote(panel, f"n = {record[name].shape[1]} networks, each thin", "thick: mean")

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
    spectra.legend(**BESIDE)
    first.semilogx(sharpness, record["lambda1"], "o", color=BLUE, alpha=0.4, markersize=3)
    first.semilogx(sharpness, record["theory"], "--", color="black", label="mean field")
    first.set(xlabel="sharpness $g$", ylabel=rf"$\lambda_1$ {NATS}", title="First exponent")
    first.legend()
    letters(axes, "B ")
    n = record.config["spectrum_networks"]
    of = f"mean of n = {n}" if n > 1 else "one network"
    said = f"spectra: {of}; first exponents: {record['lambda1'].shape[1]} networks, each"
    footnote(spectra, said, "dashed: free probability, mean field; dotted: equation 6")


@figure(
    "fig1b",
    "surrogate spectra of binary networks for several sharpnesses, with their theory",
    cost=("1 s", "25 s", "1 hour"),
    smoke={
        "sharpness": (1.0, 5.0),
        "hidden_size": 60,
        "networks": 2,
        "steps": 60,
        "spectrum_size": 20,
        "spectrum_networks": 3,
        "spectrum_steps": 40,
    },
    small={
        "sharpness": (0.5, 1.0, 2.0, 5.0, 10.0),
        "networks": 4,
        "steps": 500,
        "spectrum_size": 400,
        "spectrum_networks": 3,
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
    networks: int = 4
    steps: int = 2000
    spectrum_size: int = 1000
    spectrum_networks: int = 1
    spectrum_steps: int = 300

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
        """The first exponent is that of mean-field theory, the spectrum that of free probability, or eq 6."""
        for group, g in enumerate(record["sharpness"].tolist()):
            if g <= 10:
                measured, expected = record["lambda1"][group].mean(), record["theory"][group]
                sentence = f"g = {g:g}: mean lambda_1, n = {self.hidden_size} (theory: mean field)"
                yield near(f"g {g:g} lambda_1", sentence, expected, measured, 0.02, **THEORY)
            if g <= 5:
                yield self._law(record, group, g)
                away = record["spectrum"][group] - record["free"][group]
                # beyond float64 exponents are dead
                for key, share, what, kind in (
                    ("all", 1.0, "all", EDGE),
                    ("most", 0.99, "first 99%", THEORY),
                ):
                    part = away[: round(share * len(away))]
                    part = part[np.isfinite(part)]
                    sentence = (
                        f"g = {g:g}: rms difference between simulation and free-probability theory, "
                        f"{what} of {len(away)} exponents (finite ones)"
                    )
                    rms, bound = np.sqrt((part**2).mean()), 0.02 if g <= 2 else 0.04
                    yield at_most(f"g {g:g} {key}", sentence, bound, rms, **kind)
        # of each law and of what was simulated, the share that is lost altogether
        cut, dead = ((~np.isfinite(record[name])).mean(-1) for name in ("triangle", "spectrum"))
        away, source = np.abs(cut - dead).max(), f"{TITLE}, appendix C, equation 6"
        sentence = "share of exponents at −inf: largest |equation 6 − simulation| over g"
        # where all is lost it is not a cut
        told = where(np.isfinite(record["spectrum"]).any(), away)
        yield at_most("eq 6 cut", sentence, 0.05, told, source=source)
        middle = np.median(record["spectrum"], -1)
        sentence = "median exponent: largest change from one g to the next larger (paper: falls)"
        source = f"{TITLE}, section 2"
        step = np.diff(middle[np.argsort(record["sharpness"])]).max(initial=-np.inf)
        yield at_most("median", sentence, 0.0, where(len(middle) > 1, step), source=source)

    def _law(self, record: Record, group: int, g: float) -> Check:
        """Equation 6 against what was simulated, well inside of its cut."""
        law, found = record["triangle"][group], record["spectrum"][group]
        inside = np.flatnonzero(np.isfinite(law) & np.isfinite(found))
        inside = inside[: round(0.9 * len(inside))]
        off = law[inside] - found[inside]
        sentence = (
            f"g = {g:g}: rms difference between simulation and equation 6, leading 90% of the exponents "
            "finite in both"
        )
        said, rms = claimed(f"{TITLE}, appendix C, equation 6", "eq 6"), np.sqrt((off**2).mean())
        return at_most(f"g {g:g} eq 6", sentence, 0.1, rms, **said)

    def _exponents(self, study: Study, n: int, networks: int, steps: int, k: int) -> Tensor:
        cell, ids = self.cell(study, n, networks)
        inputs = torch.zeros(steps + 2 * UNDRIVEN, 1, 1, dtype=torch.float64)
        return exponents(cell, inputs, UNDRIVEN, k=k, h0=random_states(study, cell, ids))
