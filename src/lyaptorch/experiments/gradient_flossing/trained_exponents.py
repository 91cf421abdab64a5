"""Exponents of trained networks (figure 13), and of networks flossed from several initial frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.check import (
    OURS,
    Checks,
    WithinChance,
    at_least,
    at_most,
    beyond_error,
    typical,
)
from lyaptorch.experiments.figure import Results, Study
from lyaptorch.experiments.gradient_flossing.comparisons import CHANCE, SOLVED
from lyaptorch.experiments.gradient_flossing.delays import Fig4d
from lyaptorch.experiments.gradient_flossing.setting import (
    DIMS,
    figure,
    number,
)
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    ORANGE,
    finite_mean,
    footnote,
    letter,
    level,
    picture,
    scores,
)
from lyaptorch.record import Record


@picture(lambda record: 2 * len(record.config["indices"]), width=3.2)
def exponents(record: Record, axes: list[Axes]) -> None:
    """Exponents against delay for each index: filled where solved, hollow where not; means; the fit."""
    indices, delays = record.config["indices"], record["delay"]
    solved = record["final_accuracy"] >= SOLVED
    groups = ((solved, ORANGE, ORANGE, "solved"), (~solved, BLUE, "none", "not solved"))
    for i, index in enumerate(indices):
        panel, logarithmic = axes[2 * i : 2 * i + 2]
        values = record["exponents"][..., index - 1]
        level(panel)
        for chosen, color, face, label in groups:
            # networks of all conditions together: what is compared is success, however it came about
            rows = np.where(chosen, values, np.nan).transpose(1, 0, 2).reshape(len(delays), -1)
            look: dict[str, Any] = {"face": face, "alpha": 0.6, "size": 4.0, "thick": finite_mean}
            scores(panel, delays, rows, color, label, **look)
            scores(logarithmic, delays, np.where(rows < 0, -rows, np.nan), color, **look)
        name = rf"\lambda_{{{index}}}"
        panel.set(xlabel="delay", ylabel=f"${name}$ (nats per step)", title="After training")
        every = np.broadcast_to(delays[:, None], solved.shape)[solved]
        power, _, factor = power_law(every, values[solved])
        if np.isfinite(power):
            law = rf"$-{factor:.2g}\, d^{{-{power:.2f}}}$"
            logarithmic.plot(delays, factor * delays**-power, ":", color=GREY, label=law)
            logarithmic.legend()
        # an axis without a dot that is positive cannot be logarithmic
        if (values < 0).any():
            logarithmic.set(xscale="log", yscale="log")
            logarithmic.set_xticks(delays, [str(d) for d in delays])
            logarithmic.set_xticks([], minor=True)
        logarithmic.set(xlabel="delay", ylabel=f"$-{name}$", title="and its power law")
        letter(panel, chr(ord("A") + 2 * i))
        letter(logarithmic, chr(ord("B") + 2 * i))
    axes[0].legend()
    footnote(axes[0], f"{number(record)}, of three conditions", "lines: means; dots: each network")


@figure(
    "fig13",
    "exponents after training on spatial XOR against delay, solved or not (a-d)",
    cost=("2 s", "3 min"),
    smoke={"measure": 60},
    small={"delays": (10, 20, 40), "seeds": 3, "epochs": 1000},
    draw=exponents,
)
class Fig13(Fig4d):
    """lambda_1 and lambda_10 after training on the spatial XOR, flossed or not, against delay.

    Attributes:
        indices: which exponents, from 1.
        measure: steps over which they are measured.
    """

    indices: tuple[int, ...] = (1, 10)
    measure: int = 1000

    def run(self, study: Study) -> Results:
        """That of figure 4d, and `exponents (condition, delay, seed, index)`."""
        variables, networks, _ = self.swept(study)
        values = self.spectrum(*networks, self.measure, max(self.indices)).exponents[..., 0, :]
        variables["exponents"] = ((*DIMS, "index"), values, {"units": "nats per step"})
        return self.compared(variables)

    def claims(self, record: Record) -> Checks:
        """lambda_1 = -c d^-p of flossed networks that solve it; the solved lie above those at chance."""
        final, source = record["final_accuracy"], self.source
        solved, failed, delays = final >= SOLVED, final <= CHANCE, record["delay"]
        yield from self._power_law(record, solved)
        for i in self.indices:
            values = record["exponents"][..., i - 1]
            gaps = [apart(values[:, j], solved[:, j], failed[:, j]) for j in range(len(delays))]
            known = [delay for delay, (gap, _) in zip(delays, gaps, strict=True) if math.isfinite(gap)]
            # of delays of which both are known: the mean, and its error
            gap = typical(np.array([gap for gap, _ in gaps]), np.mean)
            error = math.sqrt(sum(e**2 for _, e in gaps if math.isfinite(e))) / max(len(known), 1)
            over = f"mean over d = {', '.join(map(str, known)) or 'none'}"
            sentence = f"lambda_{i}, networks that solve d − networks at chance ({over})"
            told = gap if abs(gap) > 2 * error else WithinChance(gap)
            yield at_least(f"lambda_{i} above", sentence, 0.0, told, source=source)
            # flossing alone raises exponents: of what success has to do with it only networks tell that
            # were treated alike
            flat = (-1, self.seeds)
            p = stratified(values.reshape(flat), solved.reshape(flat), failed.reshape(flat), self.seed)
            sentence = (
                f"lambda_{i}, networks that solve d > networks at chance, of equal delay and flossing: "
                "p of a permutation test"
            )
            yield at_most(f"lambda_{i}, alike", sentence, 0.05, p if p <= 0.05 else WithinChance(p), **OURS)

    def _power_law(self, record: Record, solved: NDArray[np.bool_]) -> Checks:
        """Of flossed networks; against an exponential, which falls with the delay as well."""
        flossed = solved & (record["condition"] != "none")[:, None, None]
        lambda_1, delays = record["exponents"][..., 0], record["delay"]
        every = np.broadcast_to(delays[:, None], solved.shape)
        power, error, _ = power_law(every[flossed], lambda_1[flossed])
        # the paper's formula is lost: this asks whether it falls, and the next check whether as a power
        of = "|lambda_1| of flossed networks that solve d falls with d"
        sentence = f"{of}: p of a fit c d^-p / its standard error ({error:.2g})"
        yield at_least("power law", sentence, 2.0, power / error, source=self.source)
        # of each network, what is left of its logarithms about both fits to all: x is log d, or d
        fits = flossed & (lambda_1 < 0)
        logs, left = np.log(np.where(fits, -lambda_1, 1.0)), []
        for x in (np.log(every), every.astype(float)):
            enough = fits.sum() > 2 and np.ptp(x[fits]) > 0
            line = np.polyval(np.polyfit(x[fits], logs[fits], 1), x) if enough else np.full(x.shape, np.nan)
            squares, number = np.where(fits, (logs - line) ** 2, 0.0).sum((0, 1)), fits.sum((0, 1))
            left.append(squares[number > 0] / number[number > 0])
        sentence = "mean squared residual of log |lambda_1|, exponential − power law (over networks)"
        yield at_least("power law, exponential", sentence, 0.0, beyond_error(left[1] - left[0]), **OURS)


def stratified(
    values: NDArray[np.floating],
    solved: NDArray[np.bool_],
    failed: NDArray[np.bool_],
    seed: int,
    draws: int = 9999,
) -> float:
    """The share of permutations within rows that put the solved as far above the failed; NaN without both."""
    strata = [
        (row[yes | no], yes[yes | no])
        for row, yes, no in zip(values, solved, failed, strict=True)
        if yes.any() and no.any()
    ]
    if not strata:
        return float("nan")
    generator = np.random.default_rng(seed)

    def above(shuffle: bool) -> float:
        # by ranks: one that has died, at -inf, is the last
        total = 0.0
        for row, yes in strata:
            chosen = generator.permutation(yes) if shuffle else yes
            total += float(row.argsort().argsort()[chosen].sum())
        return total

    found = above(False)
    return (1 + sum(above(True) >= found for _ in range(draws))) / (draws + 1)


def apart(
    values: NDArray[np.floating], solved: NDArray[np.bool_], failed: NDArray[np.bool_]
) -> tuple[float, float]:
    """The mean of what is solved above that of what failed, and its error; NaN without two of both."""
    groups = [z[np.isfinite(z)] for z in (values[solved], values[failed])]
    if min(map(len, groups)) < 2:
        return float("nan"), float("nan")
    one, other = groups
    return float(one.mean() - other.mean()), float(sum(z.var(ddof=1) / len(z) for z in groups) ** 0.5)


def power_law(delays: NDArray[np.integer], exponents: NDArray[np.floating]) -> tuple[float, float, float]:
    """p of lambda = -c d^-p by least squares of the logarithms, its standard error, and c; NaN if too few."""
    # log(-lambda) = log c - p log d: a line of slope -p; an exponent above 0 has no logarithm
    below = exponents < 0
    x, y = np.log(delays[below]), np.log(-exponents[below])
    # the variance of a line through two points is 0 / 0
    if x.size < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan"), float("nan")
    (slope, height), covariance = np.polyfit(x, y, 1, cov=True)
    return float(-slope), float(covariance[0, 0] ** 0.5), float(np.exp(height))
