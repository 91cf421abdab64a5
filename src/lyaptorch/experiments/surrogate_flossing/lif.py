"""Spiking networks: convergence of their exponents (figures 7, 8), and cost (table 1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, LIFCell, random_frame, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import THEORY, Checks, at_most, beyond_chance, near, slopes
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing import cost
from lyaptorch.experiments.gradient_flossing.cost import Sizes
from lyaptorch.experiments.surrogate_flossing.random_binary import NATS, TITLE, copies, figure
from lyaptorch.experiments.surrogate_flossing.spiking_training import Spiking
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, footnote, geometric_mean, letters, picture
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import SpikingXOR

WEIGHTS = ("random", "fixed")
"""Every realisation has weights of its own, or all have those of the first."""


@picture(3)
def convergence(record: Record, axes: list[Axes]) -> None:
    """Running estimates of a few exponents, weights random or fixed, and the scatter of all of them."""
    time, running = record["time"], record["running"]
    n = running.shape[-1]
    # what is compared has one scale
    axes[1].sharey(axes[0])
    for panel, weights, rows, mean in zip(axes, record["weights"], running, (BLUE, ORANGE), strict=False):
        for color, i in zip(PALETTE, np.linspace(0, n - 1, 6).round().astype(int), strict=True):
            panel.semilogx(time, rows[:, :, i], color=color, linewidth=0.7, alpha=0.6)
            panel.plot([], [], color=color, label=rf"$\lambda_{{{i + 1}}}$")
        panel.set(xlabel="steps", ylabel=rf"$\lambda_i$ {NATS}", title=f"{weights} weights")
        scatter = geometric_mean(rows.std(1, ddof=1), -1)
        axes[2].loglog(time, scatter, color=mean, label=f"{weights} weights")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes[2].loglog(time, scatter[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
    axes[2].set(xlabel="steps", ylabel="standard deviation", title="Scatter")
    axes[2].legend()
    letters(axes, "AB ")
    counted = f"n = {running.shape[2]} realisations, each a line"
    footnote(axes[0], counted, "scatter: geometric mean of all exponents")


@figure(
    "fig7",
    "convergence of the exponents of LIF networks, sharpness 1, weights random or fixed",
    cost=("1 s", "1 s", "2 s"),
    smoke={"hidden_size": 5, "networks": 3, "steps": 60, "transient": 10, "channels": 5, "points": 12},
    small={"networks": 16},
    draw=convergence,
)
class Fig7(Figure):
    """Running estimates of all exponents of LIF networks with surrogate sharpness 1.

    Realisations differ in input, initial state and frame, and in the weights unless these are fixed. Weights
    are drawn for the fluctuation-driven regime; the reset is ignored in the Jacobian, as in the paper. The
    Poisson input and the transient are ours, because the paper names neither.

    Attributes:
        sharpness: g of the fast-sigmoid surrogate.
        hidden_size: neurons; there are twice as many exponents.
        networks: realisations, with random and with fixed weights.
        steps: counted, of 2 ms.
        transient: of state and frame, each, not counted.
        channels: of Poisson input.
        input_rate: of each, in Hz.
        points: times at which the estimates are kept, evenly spaced in their logarithm.
    """

    sharpness: float = 1.0
    hidden_size: int = 64
    networks: int = 10
    steps: int = 750
    transient: int = 100
    channels: int = 64
    input_rate: float = 25.0
    points: int = 24

    def network(self, ids: Tensor) -> LIFCell:
        """Networks; those of equal numbers have equal weights."""
        study, surrogate = Study(self.seed), surrogates.fast_sigmoid(self.sharpness)
        whose: dict[str, Any] = {"reset_grad": "ignore", **study.ensemble(ids)}
        cell = LIFCell(self.channels, self.hidden_size, surrogate=surrogate, **whose).double()
        draws = study.generator()
        return fluctuation_driven(cell, input_rate=self.input_rate, member_ids=ids, generator=draws)

    def run(self, study: Study) -> Results:
        """`running (weights, time, network, index)` and `time`."""
        own, weights = copies(len(WEIGHTS), self.networks)
        # with fixed weights all are network 0
        cell = self.network(own * (1 - weights))
        n = cell.state_size
        length = 2 * self.transient + self.steps
        uniform = Stream(self.seed, "inputs").uniform((length, 1, self.channels), member_ids=own)
        inputs = (uniform < self.input_rate * cell.dt).double().movedim(-3, 0)
        # potentials up to the threshold, currents around 0
        h0 = Stream(self.seed, "h0").uniform((1, n), member_ids=own, dtype=torch.float64)
        h0[..., self.hidden_size :] -= 0.5
        frame = random_frame(n, n, Stream(self.seed, "frame"), own, dtype=torch.float64).unsqueeze(-3)
        transients: dict[str, Any] = {"transient": self.transient, "tangent_transient": self.transient}
        with torch.no_grad():
            spectrum = lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, **transients)
        kept = np.unique(np.geomspace(1, self.steps, self.points).round().astype(int))
        # the estimate after t steps stands at t - 1
        running = spectrum.running()[kept - 1].squeeze(-2).movedim(0, 1)
        dims = ("weights", "time", "network", "index")
        variables = {"running": (dims, running, {"units": "nats per step"})}
        return variables, coordinates(weights=WEIGHTS, time=kept.tolist())

    def claims(self, record: Record) -> Checks:
        """Fixed weights scatter less, and their scatter falls like t^-1/2."""
        time, scatter = record["time"], record["running"].std(2, ddof=1)
        random, fixed = scatter[:, -1]
        # the power is that of late times: early estimates hold few independent steps
        late = time >= self.steps / 10
        power = slopes(np.log(time[late]), np.log(scatter[1, late]).mean(-1))
        # geometric, so that an exponent of large scatter does not outweigh the others
        ratio, first = np.exp(np.log(fixed / random).mean()), fixed[0] / random[0]
        less = partial(at_most, source=f"{TITLE}, figures 7 and 8", part_of="scatter")
        chance = shuffled_ratios(record["running"][:, -1])
        scatter = "standard deviation of exponents over realisations, fixed"
        sentence = f"{scatter} / random weights (geometric mean over exponents)"
        yield less("scatter", sentence, 1.0, beyond_chance(ratio, geometric_mean(chance, -1)))
        sentence = "standard deviation of lambda_1 over realisations, fixed / random weights"
        yield less("scatter lambda_1", sentence, 1.0, beyond_chance(first, chance[:, 0]))
        # means over t steps, whose correlations die out, scatter as t^-1/2
        sentence = f"{scatter} weights: fitted power of t (mean over exponents)"
        yield near("power", sentence, -0.5, power, 0.15, **THEORY)


def shuffled_ratios(last: NDArray[np.floating], times: int = 1000) -> NDArray[np.floating]:
    """Ratios of scatter `(times, index)` where it does not matter whose weights are fixed.

    Of `last (weights, network, index)`, networks are dealt anew to both groups, less the mean of theirs.
    """
    away = np.concatenate(list(last - last.mean(1, keepdims=True)))
    draws, half = np.random.default_rng(0), last.shape[1]
    dealt = away[np.stack([draws.permutation(len(away)) for _ in range(times)])]
    first, second = (dealt[:, part].std(1, ddof=1) for part in (slice(half), slice(half, None)))
    return np.asarray(second / first)


@figure("fig8", "convergence of the exponents of LIF networks, sharpness 20")
class Fig8(Fig7):
    """Figure 7 with surrogate sharpness 20."""

    sharpness: float = 20.0


@figure(
    "table1",
    "measured cost of LIF, Jacobian and QR steps against size; share of training spent flossing",
    cost=("2 s", "2 s", "1 min"),
)
class Table1(cost.Table1):
    """Table 1 of Gradient Flossing for LIF networks, whose state has two numbers for each neuron.

    The share of flossing is that in the training of the figure `spiking`, because the paper trains no
    spiking network.
    """

    task_epochs: int = 1500
    floss_epochs: int = 300

    share: ClassVar[tuple[float, float]] = (0.1, 0.0)

    def network(self, sizes: Sizes) -> tuple[Cell, Tensor, Tensor]:
        """A LIF network of n / 2 neurons, driven by noise from state 0."""
        generator = Study(self.seed).generator()
        # potentials and currents
        cell = LIFCell(1, sizes.n // 2, reset_grad="ignore", generator=generator)
        inputs = torch.randn(sizes.t, sizes.b, 1, generator=generator)
        return cell, inputs, torch.zeros(sizes.b, sizes.n)

    def training(self, flosses: int, fits: int) -> Callable[[], object]:
        """Flossing steps, then task steps, of a new network as the figure `spiking` has it."""
        setting, task = Spiking(seed=self.seed), SpikingXOR(80)
        schedule = (FlossPhase(flosses, k=setting.k, steps=setting.steps, interval=1), FitPhase(fits))
        model = setting.model(task, torch.tensor(0))
        study = Study(self.seed, show_progress=False)
        return partial(study.train, model, task, schedule, batch=setting.batch, steps=task.period)
