"""Computation of exponents: the QR step (figure 15) and convergence (figure 16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray

from lyaptorch._random import Stream
from lyaptorch.analysis import step_jacobians
from lyaptorch.cells import RateCell, random_frame
from lyaptorch.experiments.check import Check, at_most, near, slopes
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import PAPER
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, geometric_mean, picture, style
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.qr import qr
from lyaptorch.tasks import Noise


def qr_steps(record: Record) -> Picture:
    """A column for each step: the frame Q (grey), D Q (blue) and the next Q (orange), for n = 2 and 3."""
    steps = record.config["steps"]
    with style():
        figure = Picture(figsize=(2.6 * steps, 5.2), layout="constrained")
        for row, n in enumerate((2, 3)):
            for s in range(steps):
                keywords: dict[str, Any] = {"projection": "3d"} if n == 3 else {"aspect": "equal"}
                axes = figure.add_subplot(2, steps, row * steps + s + 1, **keywords)
                for vectors, color in (
                    (record[f"frames{n}"][s], GREY),
                    (record[f"evolved{n}"][s], BLUE),
                    (record[f"frames{n}"][s + 1], ORANGE),
                ):
                    for edge in _edges(vectors):
                        axes.plot(*edge, color=color, linewidth=0.7, alpha=0.6)
                    for vector in vectors.T:
                        axes.plot(*np.stack([0 * vector, vector], 1), color=color, linewidth=1.8)
                if row == 0:
                    axes.set_title(f"step {s + 1}")
                axes.set(xticks=[], yticks=[])
                if n == 3:
                    axes.set(zticks=[])
        for color, name in ((GREY, "$Q_s$"), (BLUE, "$D_s Q_s$"), (ORANGE, "$Q_{s+1}$")):
            figure.axes[0].plot([], [], color=color, label=name)
        figure.axes[0].legend()
    return figure


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
    deviation = running.std(1, ddof=1)
    spread = geometric_mean(deviation, -1)
    right.loglog(time, spread, color=BLUE, linewidth=1.6, label="all exponents")
    right.loglog(time, deviation[:, 0], color=ORANGE, label=r"$\lambda_1$")
    right.loglog(time, spread[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
    right.set(xlabel="steps", ylabel="standard deviation", title="Spread")
    right.legend()


@declare(
    PAPER,
    "fig15",
    "the QR step, drawn for two and three units",
    cost=("1 s", "1 s", "1 s"),
    smoke={"steps": 2},
    small={"steps": 3},
    draw=qr_steps,
)
@dataclass(frozen=True)
class Fig15(Figure):
    """A frame, what one step makes of it, and its orthonormalisation, in two and three dimensions.

    Attributes:
        steps: drawn one beside the other.
        gain: of the weights.
    """

    steps: int = 4
    gain: float = 1.5

    def run(self, study: Study) -> Results:
        """For n = 2 and 3: `frames (step, axis, vector)`, `evolved`, D Q, and `factors`, R."""
        variables: dict[str, Given] = {}
        shared_id = torch.zeros((), dtype=torch.int64)
        for n in (2, 3):
            cell = RateCell(1, n, gain=self.gain, generator=study.generator()).double()
            inputs = Noise().inputs(
                self.seed, member_ids=shared_id, epoch=0, batch=1, length=self.steps, dtype=torch.float64
            )
            Q = random_frame(n, n, Stream(self.seed, "frame"), shared_id, dtype=torch.float64)
            frames, evolved, factors = [Q], [], []
            for D in step_jacobians(cell, inputs)[:, 0].detach():
                evolved.append(D @ frames[-1])
                Q, R, _ = qr(evolved[-1])
                frames.append(Q)
                factors.append(R)
            axes = (f"axis{n}", f"vector{n}")
            variables |= {
                f"frames{n}": (("frame", *axes), torch.stack(frames)),
                f"evolved{n}": (("step", *axes), torch.stack(evolved)),
                f"factors{n}": (("step", *axes), torch.stack(factors)),
            }
        return variables, {}

    def checks(self, record: Record) -> list[Check]:
        """Frames are orthonormal, and volumes are the products of the diagonals."""
        found = []
        for n in (2, 3):
            frames, evolved, factors = (record[f"{name}{n}"] for name in ("frames", "evolved", "factors"))
            off = np.abs(frames.swapaxes(-1, -2) @ frames - np.eye(n)).max()
            sentence = f"n = {n}: |Q^T Q - 1|"
            found.append(
                at_most(f"n {n} orthonormal", sentence, 1e-13, off, kind="identity", source="theory")
            )
            volume = np.abs(np.linalg.det(evolved)).prod()
            diagonal = np.diagonal(factors, axis1=-2, axis2=-1).prod()
            sentence = f"n = {n}: growth of volume is the product of R_ii"
            key, tolerance = f"n {n} volume", 1e-12 * float(volume)
            found.append(near(key, sentence, volume, diagonal, tolerance, kind="identity", source="theory"))
        return found


@declare(
    PAPER,
    "fig16",
    "convergence of the exponents over time, from several initial states",
    cost=("1 s", "10 s", "3 min"),
    smoke={"hidden_size": 16, "states": 4, "steps": 300, "transient": 50, "points": 20},
    small={"hidden_size": 40, "steps": 3000},
    draw=convergence,
)
@dataclass(frozen=True)
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
        shape, shared_id = (self.states, self.hidden_size), torch.zeros((), dtype=torch.int64)
        h0 = Stream(self.seed, "h0").normal(shape, member_ids=shared_id, dtype=torch.float64)
        length = 2 * self.transient + self.steps
        inputs = Noise().inputs(
            self.seed, member_ids=shared_id, epoch=0, batch=self.states, length=length, dtype=torch.float64
        )
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell, inputs, h0=h0, transient=self.transient, tangent_transient=self.transient
            )
        kept = np.unique(np.geomspace(1, self.steps, self.points).round().astype(int))
        variables: dict[str, Given] = {
            "running": (("time", "state", "index"), spectrum.running()[kept - 1], {"units": "nats per step"})
        }
        return variables, {"time": (("time",), kept)}

    def checks(self, record: Record) -> list[Check]:
        """The spread over initial states falls like t^-1/2."""
        time, spread = record["time"], record["running"].std(1, ddof=1)
        late = time >= self.steps / 100
        power = float(slopes(np.log(time[late]), np.log(spread[late]).mean(-1)))
        end = record["running"][-1, :, 0].std(ddof=1)
        falls = "spread over initial states, power of t"
        return [
            near("power", falls, -0.5, power, 0.15, kind="identity", source="theory"),
            at_most("end", "spread of lambda_1 at the end", 0.02, end, source="Gradient Flossing, figure 16"),
        ]


def _edges(vectors: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """The edges of the parallelotope that the columns span, each `(axis, 2)`."""
    n = vectors.shape[1]
    edges = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for corner in np.ndindex(*[2] * len(others)):
            start = vectors[:, others] @ np.array(corner, dtype=float)
            edges.append(np.stack([start, start + vectors[:, i]], 1))
    return edges
