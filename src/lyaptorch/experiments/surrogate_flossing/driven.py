"""Random binary networks driven by bits: control of exponents (2a, 2b), gradients (appendices F, G)."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch.analysis import condition_number
from lyaptorch.cells import BinaryCell, unroll
from lyaptorch.experiments.check import Checks, at_least, near, where
from lyaptorch.experiments.figure import Results, Scales, Study, coordinates
from lyaptorch.experiments.gradient_flossing.spectra import dimensions_left, selected, spectra
from lyaptorch.experiments.surrogate_flossing.random_binary import (
    BITS,
    NATS,
    TITLE,
    TRANSIENT,
    RandomNetworks,
    bits,
    copies,
    exponents,
    figure,
    growth,
    random_networks,
    random_states,
)
from lyaptorch.plots.primitives import BESIDE, PALETTE, bundle, footnote, letter, level, single
from lyaptorch.record import Given, Record


class Control(RandomNetworks):
    """Surrogate flossing of random binary networks driven by bits; W, V and the sharpness are trained.

    The paper names neither learning rate nor steps: the rate is ours, the steps are those of Gradient
    Flossing.

    Attributes:
        ks: one group for each number of exponents and each initial sharpness.
        epochs: flossing steps.
        steps: of each scan.
        tangent_transient: of each scan.
        lr: learning rate.
        clip: largest norm of a gradient.
        measure: steps over which the spectra are measured before and after.
    """

    ks: tuple[int, ...] = (1,)
    networks: int = 9
    epochs: int = 150
    steps: int = 55
    tangent_transient: int = 16
    lr: float = 3e-3
    clip: float | None = 1.0
    measure: int = 1000

    def run(self, study: Study) -> Results:
        """`exponents (group, network, floss_epoch, index)`, spectra around it, and the final sharpness."""
        # one ensemble holds all groups, each with its own k
        groups = [(g, k) for g in self.sharpness for k in self.ks]
        ids, group = copies(len(groups), self.networks)
        g, k = (torch.tensor(values) for values in zip(*groups, strict=True))
        # a parameter, so that flossing trains it
        cell = random_networks(study, self.hidden_size, nn.Parameter(g[group][..., None, None]), ids)
        inputs = bits(study, ids, self.measure, "measure")
        before = exponents(cell, inputs)
        record = study.floss(
            cell,
            BITS,
            k=k[group],
            epochs=self.epochs,
            steps=self.steps,
            tangent_transient=self.tangent_transient,
            lr=self.lr,
            clip=self.clip,
            member_ids=ids,
        )
        nats, dims = {"units": "nats per step"}, ("group", "network", "rank")
        during = record["exponents"].reshape(*ids.shape, self.epochs, -1)
        # the one argument of the surrogate slope is its sharpness
        final = cell.activation.arguments[0].detach()[..., 0, 0]
        variables: dict[str, Given] = {
            "exponents": (("group", "network", "floss_epoch", "index"), during, nats),
            "before": (dims, before, nats),
            "after": (dims, exponents(cell, inputs), nats),
            "final_sharpness": (("group", "network"), final),
        }
        return variables, {"sharpness": (("group",), [g for g, _ in groups]), "k": (("group",), k)}


@single
def first_exponent(record: Record, axes: list[Axes]) -> None:
    """lambda_1 against flossing epochs, a colour for each sharpness."""
    (panel,) = axes
    level(panel)
    for group, g in enumerate(record["sharpness"]):
        rows = record["exponents"][group, :, :, 0]
        bundle(panel, rows, PALETTE[group], f"$g = {g:g}$", alpha=0.25, linewidth=1.8)
    panel.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {NATS}", title="Control of $\\lambda_1$")
    panel.legend(**BESIDE)
    letter(panel, "A")
    footnote(panel, f"n = {rows.shape[0]} networks, each thin", "thick: mean")


@figure(
    "fig2a",
    "the first surrogate exponent against flossing epochs, for sharpness 0.5 to 20",
    cost=("1 s", "2 s", "30 s"),
    smoke={"networks": 2, "hidden_size": 12, "epochs": 5, "measure": 50},
    small={"networks": 5, "measure": 500},
    draw=first_exponent,
)
class Fig2a(Control):
    """The first surrogate exponent against flossing epochs."""

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 20.0)

    def claims(self, record: Record) -> Checks:
        """From its mean-field value lambda_1 comes to 0 where g is small; the larger g, the less."""
        close = partial(near, tolerance=0.05, source=f"{TITLE}, figure 2a")
        least = partial(at_least, source=f"{TITLE}, section 4")
        before, after = (record[name][:, :, 0].mean(-1) for name in ("before", "after"))
        sharpness = record["sharpness"].tolist()
        for g, first, last in zip(sharpness, before, after, strict=True):
            if g == 1.0:
                said = {
                    "kind": "question",
                    "because": "It is read off the figure: mean-field theory says it.",
                }
                yield close("g 1 before", "g = 1: mean lambda_1 before flossing", -0.49, first, **said)
            if g <= 1.0:
                sentence = f"g = {g:g}: mean lambda_1 after {self.epochs} flossing epochs"
                # where it was there before, flossing has nothing to show
                last = where(abs(first) > 0.05, last)
                yield close(f"g {g:g} after", sentence, 0.0, last, part_of="small g")
        left = after / before
        # the null: where flossing moves no network at all, large g are no exception
        moves = left.min() < 0.5
        sentence = "mean lambda_1 after / before flossing: smallest increase from one g to the next"
        # two that have both arrived are alike
        step = np.diff(left).min(initial=np.inf)
        yield least("slower", sentence, 0.0, where(len(left) > 1 and moves, step), 0.05, part_of="large g")
        far = [share for g, share in zip(sharpness, left, strict=True) if g >= 5]
        sentence = "smallest mean lambda_1 after / before flossing, g >= 5 (paper: no convergence)"
        rest = where(far and moves, min(far, default=math.nan))
        yield least("large g", sentence, 0.5, rest, part_of="large g")


@figure(
    "fig2b",
    "the surrogate spectrum after flossing k = 1, 16, 32 exponents, sharpness 1",
    cost=("3 s", "10 s", "5 min"),
    smoke={"networks": 2, "hidden_size": 40, "epochs": 3, "steps": 20, "measure": 50},
    small={"networks": 3, "measure": 500},
    draw=spectra,
)
class Fig2b(Control):
    """The whole surrogate spectrum after flossing k exponents; more epochs than figure 2a (ours)."""

    ks: tuple[int, ...] = (1, 16, 32)
    epochs: int = 500

    def run(self, study: Study) -> Results:
        """Without the exponents over epochs, which are most of its numbers: the figure shows spectra."""
        variables, known = super().run(study)
        return {name: values for name, values in variables.items() if name != "exponents"}, known

    def claims(self, record: Record) -> Checks:
        """In the median network the first k exponents are within .1 of 0, and no others are."""
        for k, before, after in zip(record["k"].tolist(), record["before"], record["after"], strict=True):
            yield from selected(k, before, after, f"{TITLE}, figure 2b")
        yield from dimensions_left(record)


class Driven(RandomNetworks):
    """Random binary networks driven by bits, of which gradients and exponents are measured.

    Attributes:
        horizons: numbers of steps that a gradient travels.
        measure: steps over which exponents are measured.
    """

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0)
    networks: int = 20
    horizons: tuple[int, ...] = tuple(range(20, 201, 20))
    measure: int = 4000

    scales: ClassVar[Scales] = {
        "smoke": {"networks": 3, "hidden_size": 16, "horizons": (5, 10, 15), "measure": 50},
        "small": {},
    }
    measured: ClassVar[str]
    slope: ClassVar[str]
    difference: ClassVar[str]

    def driven(self, study: Study, k: int) -> tuple[BinaryCell, Tensor, Tensor, Tensor]:
        """The networks, inputs `(t, *e, 1, 1)`, states before them, and the first k exponents `(*e, k)`."""
        cell, ids = self.cell(study, self.hidden_size, self.networks)
        inputs, h0 = bits(study, ids, max(self.measure, *self.horizons)), random_states(study, cell, ids)
        return cell, inputs, h0, exponents(cell, inputs[: 2 * TRANSIENT + self.measure], k=k, h0=h0)

    def results(self, grown: Tensor, expected: Tensor) -> Results:
        """`measured (group, network, horizon)` and its theoretical `slope (group, network)`."""
        variables = {
            self.measured: (("group", "network", "horizon"), grown),
            self.slope: (("group", "network"), expected),
        }
        return variables, {"sharpness": (("group",), self.sharpness), **coordinates(horizon=self.horizons)}

    def claims(self, record: Record) -> Checks:
        """What is measured grows as theory says, within the error over networks."""
        from scipy import stats

        exact = {"kind": "identity", "because": "It follows from what an exponent is, within its error."}
        sure = partial(near, source=f"theory ({TITLE}, appendix {self.figure[-1]})", **exact)
        sharpness = record["sharpness"].tolist()
        for group, g in enumerate(sharpness):
            # what is measured is rate T + constant, and the constant depends on the vectors that were taken
            slopes = np.polyfit(record["horizon"], record[self.measured][group].T, 1)[0]
            away = slopes - record[self.slope][group]
            # networks are independent, horizons of one network are not; by chance one run in a hundred has
            # a group beyond this quantile
            sure_of_all = stats.t.ppf(1 - 0.01 / (2 * len(sharpness)), len(away) - 1)
            error = sure_of_all * away.std(ddof=1) / math.sqrt(len(away))
            # an error as large as half of the rate could not tell growth from none
            told = error < 0.5 * abs(record[self.slope][group].mean())
            sentence = f"g = {g:g}: {self.difference}, mean over networks (tolerance: 99% confidence)"
            yield sure(f"g {g:g}", sentence, 0.0, where(told, away.mean()), error)


@figure(
    "appF",
    "norm of the gradient with respect to h0 against exp(lambda_1 T)",
    cost=("1 s", "1 s", "2 min"),
    small={"networks": 12, "horizons": (20, 40, 60, 80, 100, 120), "measure": 1500},
    draw=growth("log_norm", "lambda1", r"$\log |dL/dh_0|$", r"$\lambda_1 T$"),
)
class AppF(Driven):
    """The norm of a gradient with respect to the initial state against the steps it travelled."""

    measured, slope = "log_norm", "lambda1"
    difference = "[slope of log |dL/dh0| against T] − lambda_1"

    def run(self, study: Study) -> Results:
        """Logarithms of norms, and lambda_1."""
        cell, inputs, h0, rates = self.driven(study, 1)
        with torch.no_grad():
            start = unroll(cell, inputs[:TRANSIENT], h0)[-1]
        # h0 is the state after the transient
        start.requires_grad_()
        states = unroll(cell, inputs[TRANSIENT : TRANSIENT + max(self.horizons)], start)
        # any will do: backwards, too, all vectors turn to the one that grows with lambda_1
        cotangent = torch.linspace(-1, 1, self.hidden_size, dtype=torch.float64)
        rows = []
        for horizon in self.horizons:
            loss = (states[horizon - 1] * cotangent).sum()
            # one unrolling serves all horizons
            (gradient,) = torch.autograd.grad(loss, start, retain_graph=True)
            rows.append(torch.linalg.vector_norm(gradient[..., 0, :], dim=-1).log())
        return self.results(torch.stack(rows, -1), rates[..., 0])


@figure(
    "appG",
    "condition number of m tangent directions against exp((lambda_1 - lambda_m) T)",
    cost=("1 s", "1 s", "10 min"),
    smoke={"m": 4},
    small={"networks": 8, "horizons": (200, 300, 400, 500, 600), "measure": 1500},
    draw=growth("log_kappa", "spread", r"$\log \kappa_m$", r"$(\lambda_1 - \lambda_m) T$"),
)
class AppG(Driven):
    """The condition number of the long-term surrogate Jacobian against its steps.

    Horizons are long, because singular values repel each other until their exponents have parted.

    Attributes:
        m: how many tangent directions.
    """

    m: int = 10
    horizons: tuple[int, ...] = tuple(range(200, 1001, 100))

    measured, slope = "log_kappa", "spread"
    difference = "[slope of log kappa_m against T] − (lambda_1 − lambda_m)"

    def run(self, study: Study) -> Results:
        """Logarithms of condition numbers, and lambda_1 - lambda_m."""
        cell, inputs, h0, rates = self.driven(study, self.m)
        given, draws = inputs[: TRANSIENT + max(self.horizons)], study.generator()
        # the horizons are among the multiples of what divides them all
        when = {"transient": TRANSIENT, "every": math.gcd(*self.horizons)}
        found = condition_number(cell, given, k=self.m, h0=h0, generator=draws, **when)
        wanted = [found.times.tolist().index(horizon) for horizon in self.horizons]
        log_kappa = found.log_kappa[wanted][..., 0].movedim(0, -1)
        return self.results(log_kappa, rates[..., 0] - rates[..., -1])
