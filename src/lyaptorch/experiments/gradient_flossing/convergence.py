"""Figure 16: how exponents converge over time, from several initial states."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch._random import Stream
from lyaptorch.cells import RateCell
from lyaptorch.experiments.check import THEORY, Checks, at_most, near, slopes
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.setting import figure
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, footnote, geometric_mean, letter, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Noise
from lyaptorch.tasks.batch import Draw


def scatter(record: Record) -> NDArray[np.floating]:
    """Standard deviation over initial states `(time, index)`; NaN of exponents that died in one, -inf."""
    running = record["running"]
    alive = np.isfinite(running).all((0, 1))
    return np.asarray(np.where(alive, running, np.nan).std(1, ddof=1))


@picture(2, width=3.6)
def convergence(record: Record, axes: list[Axes]) -> None:
    """Running estimates of a few exponents from each initial state, and their spread."""
    left, right = axes
    time, running = record["time"], record["running"]
    k = running.shape[-1]
    for color, i in zip(PALETTE, sorted({0, k // 4, k // 2, k - 1}), strict=False):
        left.semilogx(time, running[:, :, i], color=color, linewidth=0.7, alpha=0.6)
        left.plot([], [], color=color, label=rf"$\lambda_{{{i + 1}}}$")
    left.set(xlabel="steps", ylabel="running estimate (nats per step)", title="Several initial states")
    left.legend()
    deviation = scatter(record)
    spread = geometric_mean(deviation, -1)
    right.loglog(time, spread, color=BLUE, linewidth=1.6, label="all exponents")
    right.loglog(time, deviation[:, 0], color=ORANGE, label=r"$\lambda_1$")
    right.loglog(time, spread[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
    right.set(xlabel="steps", ylabel="standard deviation", title="Spread")
    right.legend()
    letter(left, "A")
    letter(right, "B")
    footnote(left, f"n = {record.config['states']} initial states of one network", "thin: each")


@figure(
    "fig16",
    "convergence of the exponents over time, from several initial states",
    cost=("1 s", "10 s", "3 min"),
    smoke={"hidden_size": 16, "states": 4, "steps": 300, "transient": 50, "points": 20},
    small={"hidden_size": 40, "steps": 3000},
    draw=convergence,
)
class Fig16(Figure):
    """Running estimates of the exponents of one network from several initial states.

    Every state is driven by noise of its own: with a common input trajectories of a stable network meet, and
    the estimates with them. That, and the gain, are ours, because the paper names neither.

    Attributes:
        hidden_size: n.
        gain: of the weights.
        states: initial states.
        steps: counted.
        transient: of state and frame, each, not counted.
        points: times at which the estimates are kept, evenly spaced in their logarithm.
    """

    hidden_size: int = 80
    gain: float = 1.0
    states: int = 10
    steps: int = 10_000
    transient: int = 200
    points: int = 60

    def run(self, study: Study) -> Results:
        """`running (time, state, index)` and `time`."""
        cell = RateCell(1, self.hidden_size, gain=self.gain, bias=False, generator=study.generator()).double()
        shared_id, double = torch.zeros((), dtype=torch.int64), torch.float64
        shape, length = (self.states, self.hidden_size), 2 * self.transient + self.steps
        h0 = Stream(self.seed, "h0").normal(shape, member_ids=shared_id, dtype=double)
        inputs = Noise().inputs(Draw(self.seed, length, self.states, dtype=double))
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell, inputs, h0=h0, transient=self.transient, tangent_transient=self.transient
            )
        # early times are dense on a logarithmic scale, and several round to the same step
        kept = np.unique(np.geomspace(1, self.steps, self.points).round().astype(int))
        running = (("time", "state", "index"), spectrum.running()[kept - 1], {"units": "nats per step"})
        return {"running": running}, coordinates(time=kept.tolist())

    def claims(self, record: Record) -> Checks:
        """The spread over initial states falls like t^-1/2."""
        time, spread = record["time"], scatter(record)
        # a running estimate is the mean of t local exponents, which scatters like t^-1/2 once t is many of
        # their correlation times
        late = time >= self.steps / 100
        power = slopes(np.log(time[late]), np.log(geometric_mean(spread[late], -1)))
        falls = "standard deviation of running exponents over initial states: fitted power of t"
        source = "Gradient Flossing, figure 16"
        yield near("power", falls, -0.5, power, 0.15, **THEORY)
        end = f"standard deviation of lambda_1 over initial states after {self.steps} steps"
        yield at_most("end", end, 0.02, spread[-1, 0], source=source)
