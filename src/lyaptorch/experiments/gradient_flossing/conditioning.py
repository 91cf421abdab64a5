"""The condition number of the long-term Jacobian: figures 2a, 2b and 2c."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import condition_number, usable_dimensions
from lyaptorch.cells import RateCell
from lyaptorch.experiments.check import OURS, THEORY, Checks, at_least, at_most, claimed, near, slopes, where
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.noise_driven import NATS, NoiseDriven
from lyaptorch.experiments.gradient_flossing.setting import bundles, figure
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    bundle,
    footnote,
    letter,
    picture,
    quartiles,
    single,
)
from lyaptorch.record import Given, Record

GROUPS = ("random", "flossed")
COLORS = (BLUE, ORANGE)
PAPER_BITS = 256
PER_DECADE = 1 / np.log(10)
"""From natural logarithms to decimal ones."""
GAP = "lambda_1 − lambda_n"
"""In sentences."""
HALF = 1e4
"""The condition number from which on it is that of some arithmetic: half precision has three digits."""
BELOW: dict[str, Any] = {
    **OURS,
    "because": "The paper takes kappa from noise or round-off, and long times; 60 steps are few.",
}
"""Of checks at smaller ones."""


def networks(record: Record) -> str:
    """How many each curve stands for, in words."""
    return f"n = {record.config['networks']} networks each"


@picture(width=5.0, height=3.4)
def over_time(record: Record, axes: list[Axes]) -> None:
    """log10 kappa against time: measured, predicted, and with too few bits."""
    (panel,), time, limit = axes, record["time"], PAPER_BITS * np.log10(2)
    for group, color in enumerate(COLORS):
        gap = record["exponents"][group, :, 0] - record["exponents"][group, :, -1]
        rows, name = record["log_kappa"][group] * PER_DECADE, str(record["group"][group])
        quartiles(panel, rows, color, time)
        bundle(panel, rows, color, name, x=time, linewidth=1.8)
        panel.plot(time, gap.mean() * time * PER_DECADE, ":", color=color, linewidth=1.4)
        few, label = record["log_kappa_paper_bits"][group] * PER_DECADE, f"{PAPER_BITS} bits, first network"
        panel.plot(time, few, "x", color=GREY, markersize=4, label=None if group else label)
    panel.plot([], [], ":", color=GREY, label=r"$(\lambda_1 - \lambda_n)\, t$")
    panel.axhline(limit, color=GREY, linewidth=0.7)
    panel.annotate(f"$2^{{{PAPER_BITS}}}$", (time[0], limit), va="bottom", color=GREY)
    panel.set(xlabel="steps $t$", ylabel=r"$\log_{10} \kappa$", title="Long-term Jacobian")
    panel.legend()
    letter(panel, "A")
    footnote(panel, networks(record), "thick: means; bands: 25 to 75%; thin: each")


@single
def dimensions(record: Record, axes: list[Axes]) -> None:
    """Usable dimensions against the condition number that is acceptable."""
    (panel,), kappa = axes, record["kappa"]
    measured, formula = record["usable_measured"], record["usable"].mean(1)
    bundles(panel, measured, record["group"], x=kappa, marker="o", linewidth=1.8)
    for row, color in zip(formula, COLORS, strict=True):
        panel.plot(kappa, row, ":", color=color, linewidth=1.4)
    panel.plot([], [], ":", color=GREY, label="from the exponents")
    panel.set(xscale="log", xlabel=r"acceptable $\kappa$", ylabel="dimensions")
    panel.set_title(f"Usable after {record.config['horizon']} steps")
    panel.legend()
    letter(panel, "B")
    footnote(panel, networks(record), "thick: means; bands: 25 to 75%; thin: each")


@picture(width=4.0, height=3.4)
def rates(record: Record, axes: list[Axes]) -> None:
    """Measured against predicted rate of every network."""
    (panel,) = axes
    for i, (size, gap, rate) in enumerate(zip(record["size"], record["gap"], record["rate"], strict=True)):
        panel.plot(gap, rate, "o", color=PALETTE[i % len(PALETTE)], markersize=3.5, label=f"$n = {size}$")
    ends = np.quantile([record["gap"], record["rate"]], (0, 1))
    panel.plot(ends, ends, color=GREY, linewidth=0.8)
    label, title = rf"$\lambda_1 - \lambda_n$ {NATS}", "Every network its own"
    panel.set(xlabel=label, ylabel=r"$\log \kappa\, /\, t$", title=title)
    panel.legend()
    letter(panel, "C")
    footnote(panel, networks(record), "dots: each network")


@figure(
    "fig2a",
    "condition number of the long-term Jacobian over time, flossed or not, and predicted",
    cost=("5 s", "25 s", "10 min"),
    smoke={"networks": 3, "hidden_size": 8, "epochs": 20, "steps": 80, "measure": 500, "horizon": 20},
    small={"networks": 6, "epochs": 200},
    draw=over_time,
)
class Fig2a(NoiseDriven):
    """The condition number against time, with and without flossing all exponents, and what exponents predict.

    Attributes:
        horizon: t, factors of the long-term Jacobian.
        every: steps between two points.
        kappas: acceptable condition numbers of figure 2b.
    """

    epochs: int = 1000
    batch: int = 1
    measure: int = 8000
    horizon: int = 60
    every: int = 5
    kappas: tuple[float, ...] = (1e1, 1e2, 1e4, 1e7, 1e12, 1e16)

    def run(self, study: Study) -> Results:
        """`log_kappa (group, network, time)`, `exponents (group, network, rank)`, ..."""
        shape = (len(GROUPS), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        cell = self.cell(ids, 1.0)
        # one ensemble for both groups: at a rate of 0 the random networks stay as they are
        flossed = torch.tensor([0.0, 1.0])[:, None].expand(shape)
        self.floss(study, cell, ids, k=torch.full(shape, self.hidden_size), lr=self.lr * flossed)
        inputs = self.noise(ids, 100 + self.horizon, epoch=1)
        found = condition_number(cell, inputs, transient=100, every=self.every)
        # exponents come in the order of the frame's columns, in which flossing may leave a later one larger
        exponents = self.spectrum(cell, ids).sort(-1, descending=True).values
        enough, paper, bits = zip(*(self._first(cell, inputs, group) for group in range(2)), strict=True)
        usable = [usable_dimensions(exponents, self.horizon, kappa) for kappa in self.kappas]
        # what the Jacobian of that many steps does, which the exponents of a long run foretell
        ordered = found.log_singular_values[-1, ..., 0, :]
        left = ordered[..., :1] - ordered
        measured = [(left <= math.log(kappa)).sum(-1) for kappa in self.kappas]
        dims, alone = ("group", "network", "time"), ("group", "time")
        variables: dict[str, Given] = {
            "log_kappa": (dims, found.log_kappa[..., 0].movedim(0, -1), {"units": "nats"}),
            "log_kappa_enough_bits": (alone, torch.stack(enough)),
            "log_kappa_paper_bits": (alone, torch.stack(paper)),
            "bits": (("group",), np.array(bits)),
            "exponents": (("group", "network", "rank"), exponents, {"units": "nats per step"}),
            "usable": (("group", "network", "kappa"), torch.stack(usable, -1)),
            "usable_measured": (("group", "network", "kappa"), torch.stack(measured, -1)),
        }
        return variables, coordinates(group=GROUPS, time=found.times.tolist(), kappa=self.kappas)

    def _first(self, cell: RateCell, inputs: Tensor, group: int) -> tuple[Tensor, Tensor, int]:
        """The first network of a group, multiplied out with enough bits, and with the paper's."""
        # products with bits cost Python's arithmetic n^2 m times a step: one network stands for its group
        alone = self.cell(torch.tensor([0]), 1.0)
        with torch.no_grad():
            for own, all_of_them in zip(alone.parameters(), cell.parameters(), strict=True):
                own.copy_(all_of_them[group, :1])
        enough, paper = (
            condition_number(alone, inputs[:, group, :1], transient=100, every=self.every, bits=bits)
            for bits in ("auto", PAPER_BITS)
        )
        return enough.log_kappa[:, 0, 0], paper.log_kappa[:, 0, 0], enough.bits

    def claims(self, record: Record) -> Checks:
        """Log kappa grows at lambda_1 - lambda_n; enough bits agree with float64; 256 saturate."""
        gap = record["exponents"][..., 0] - record["exponents"][..., -1]
        # log kappa(t) = (lambda_1 - lambda_n) t + O(1); of the slope the constant is no part
        slope = slopes(record["time"], record["log_kappa"])
        for i, group in enumerate(record["group"]):
            # both are of the same network, so that the error of the mean is that of their difference. What is
            # O(1) settles as the directions part, in 1 / gap steps, and may change by 1 in so short a time
            error = 2 * (slope[i] - gap[i]).std(ddof=1) / math.sqrt(self.networks) + 1 / self.horizon
            sentence = (
                f"{group}: mean slope of log kappa per step (theory: {GAP}; "
                f"tolerance 2 standard errors + 1 nat / {self.horizon} steps)"
            )
            yield near(f"{group} slope", sentence, gap[i].mean(), slope[i].mean(), error, **THEORY)
            enough, plain = record["log_kappa_enough_bits"][i, -1], record["log_kappa"][i, 0, -1]
            sentence = (
                f"{group}: log kappa at the last step, from QR factors in float64 "
                "(expected: product in sufficient precision)"
            )
            yield near(f"{group} enough bits", sentence, enough, plain, 1e-3, **THEORY)
            # rounding to p bits leaves a floor of 2^-p sigma_1 times a constant under sigma_n, so that
            # log kappa stops at p ln 2 and a constant
            most, limit = record["log_kappa_paper_bits"][i].max(), PAPER_BITS * math.log(2)
            sentence = (
                f"{group}: largest log kappa of the product in {PAPER_BITS} bits (limit: {PAPER_BITS} ln 2)"
            )
            yield at_most(f"{group} few bits", sentence, limit, most, 15.0, **THEORY)
        random, flossed = record["log_kappa"][..., -1].mean(1)
        sentence = "flossed: mean log kappa at the last step (bound: half that of the random networks)"
        source = "Gradient Flossing, figure 2a"
        yield at_most("flossed over random", sentence, random / 2, flossed, source=source)
        # a factor that is exponential in time has a logarithm that is proportional to it
        time, (more, less) = record["time"], record["log_kappa"].mean(1)
        half = np.abs(time - time[-1] / 2).argmin()
        gain = (more - less)[[half, -1]]
        twice = time[-1] / time[half]
        sentence = (
            "difference in mean log kappa, random − flossed: last step / half the time "
            "(theory: ratio of the times)"
        )
        ratio = where(gain[0] > 0, gain[1] / gain[0])
        follows = {**THEORY, "because": "It follows from the two slopes above, wherever they differ."}
        yield near("exponential gain", sentence, twice, ratio, 0.2 * twice, **follows)


@figure(
    "fig2b",
    "usable gradient dimensions at a given condition number, flossed or not",
    cost=("5 s", "25 s", "10 min"),
    draw=dimensions,
    measured_by="fig2a",
)
class Fig2b(Fig2a):
    """How many gradient directions are left at a given condition number."""

    def claims(self, record: Record) -> Checks:
        """Flossing leaves more at every condition number, and as many as the exponents say."""
        source, measured = "Gradient Flossing, figure 2b", record["usable_measured"]
        for kappa, random, flossed in zip(record["kappa"], *measured.mean(1), strict=True):
            sentence = f"kappa = {kappa:.0e}: mean usable dimensions, flossed (bound: random networks + 1)"
            # where all are usable in random networks, too, there are no more to gain
            room = random + 1 <= self.hidden_size
            more = where(room, flossed)
            said = claimed(source, "more dimensions")
            yield at_least(f"kappa {kappa:.0e}", sentence, random + 1, more, **said)
        for group, found, expected in zip(record["group"], measured, record["usable"], strict=True):
            off = np.abs(found - expected).mean(0)
            for kappa, away in zip(record["kappa"], off, strict=True):
                sentence = (
                    f"{group}, kappa = {kappa:.0e}: mean absolute error of the usable dimensions "
                    "predicted from the exponents"
                )
                # the paper's kappa is the level of noise or of round-off, and its times are long
                said = claimed(source, "foretold") if kappa >= HALF else BELOW
                # where all arrive, and are foretold to, nothing is told
                full = (expected[:, record["kappa"] == kappa] == self.hidden_size).all()
                yield at_most(f"{group} foretold {kappa:.0e}", sentence, 2.0, where(not full, away), **said)


@figure(
    "fig2c",
    "condition number of single networks of finite size, measured against predicted",
    cost=("5 s", "1 s", "5 min"),
    smoke={"networks": 3, "sizes": (4, 8), "horizon": 20, "trajectories": 2, "measure": 500},
    small={"sizes": (8, 16, 32), "measure": 4000},
    draw=rates,
)
class Fig2c(NoiseDriven):
    """Measured against predicted condition number of single networks of several sizes.

    Attributes:
        sizes: n of each group.
        horizon: t.
        trajectories: of each network, over which log kappa is averaged.
    """

    measure: int = 8000
    sizes: tuple[int, ...] = (8, 16, 32, 64)
    horizon: int = 60
    trajectories: int = 8

    def run(self, study: Study) -> Results:
        """`rate (size, network)`, log kappa_n(t) / t, and `gap (size, network)`, lambda_1 - lambda_n."""
        ids = torch.arange(self.networks)
        rates, gaps = [], []
        for n in self.sizes:
            cell = self.cell(ids, 1.0, n)
            inputs = self.noise(ids, 100 + self.horizon, self.trajectories, epoch=1)
            found = condition_number(cell, inputs, transient=100)
            rates.append(found.log_kappa[-1].mean(-1) / self.horizon)
            exponents = self.spectrum(cell, ids)
            gaps.append(exponents.amax(-1) - exponents.amin(-1))
        dims, nats = ("size", "network"), {"units": "nats per step"}
        variables = {"rate": (dims, torch.stack(rates), nats), "gap": (dims, torch.stack(gaps), nats)}
        return variables, coordinates(size=self.sizes)

    def claims(self, record: Record) -> Checks:
        """The exponents predict the condition number of each network, sizes apart."""
        for n, gap, rate in zip(record["size"], record["gap"], record["rate"], strict=True):
            both = np.corrcoef(gap, rate)[0, 1]
            said = claimed("Gradient Flossing, figure 2c", "predicted")
            sentence = f"n = {n}: correlation over networks of log kappa / t with {GAP}"
            yield at_least(f"n {n} correlation", sentence, 0.7, both, **said)
            sentence, expected = f"n = {n}: mean log kappa / t (theory: {GAP})", gap.mean()
            # log kappa / t = lambda_1 - lambda_n + O(1) / t: a tenth is for the O(1)
            yield near(f"n {n} mean", sentence, expected, rate.mean(), 0.1 * expected, **THEORY)
