"""Exponents: the QR step, drawn (figure 15), and their control by flossing (figures 1b, 1c and 1d)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray

from lyaptorch._random import Stream
from lyaptorch.analysis import step_jacobians
from lyaptorch.cells import RateCell, random_frame
from lyaptorch.experiments.check import THEORY, Checks, at_least, at_most, claimed, near, where
from lyaptorch.experiments.figure import Figure, Results, Study
from lyaptorch.experiments.gradient_flossing.noise_driven import NATS, NoiseDriven
from lyaptorch.experiments.gradient_flossing.setting import figure
from lyaptorch.experiments.thinning import stands_for
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    band,
    bundle,
    footnote,
    letter,
    quartiles,
    single,
    style,
)
from lyaptorch.record import Given, Record
from lyaptorch.tangent.qr import qr
from lyaptorch.tasks import Noise
from lyaptorch.tasks.batch import Draw

FRAMES = (
    ("frames", 0, GREY, "$Q_s$"),
    ("evolved", 0, BLUE, "$D_s Q_s$"),
    ("frames", 1, ORANGE, "$Q_{s+1}$"),
)
"""What is drawn of a step: a variable, how many steps later, its colour and its name."""


def qr_steps(record: Record) -> Picture:
    """A column for each step: the frame Q (grey), D Q (blue) and the next Q (orange), for n = 2 and 3."""
    steps = record.config["steps"]
    with style():
        drawn = Picture(figsize=(2.6 * steps, 5.2), layout="constrained")
        for row, n in enumerate((2, 3)):
            # one scale for all steps, or frames of unit vectors would change their size: that of the corner
            # farthest from 0, a sum of columns, of those of one sign where it is largest
            found = np.concatenate([record[f"{name}{n}"] for name, *_ in FRAMES])
            most = 1.05 * max(np.maximum(sign * found, 0).sum(-1).max() for sign in (1, -1))
            for s in range(steps):
                keywords: dict[str, Any] = {"projection": "3d"} if n == 3 else {"aspect": "equal"}
                axes = drawn.add_subplot(2, steps, row * steps + s + 1, **keywords)
                for name, later, color, _ in FRAMES:
                    vectors = record[f"{name}{n}"][s + later]
                    for edge in _edges(vectors):
                        axes.plot(*edge, color=color, linewidth=0.7, alpha=0.6)
                    for vector in vectors.T:
                        axes.plot(*np.stack([0 * vector, vector], 1), color=color, linewidth=1.8)
                sides: dict[str, Any] = {f"{axis}ticks": [] for axis in "xyz"[:n]}
                sides |= {f"{axis}lim": (-most, most) for axis in "xyz"[:n]}
                axes.set(**sides, title="" if row else f"step {s + 1}")
        for _, _, color, label in FRAMES:
            drawn.axes[0].plot([], [], color=color, label=label)
        drawn.axes[0].legend()
    return drawn


def _edges(vectors: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """The edges of the parallelotope that the columns span, each `(axis, 2)`."""
    # a corner is the sum of some columns; an edge leads from it along one that is not among them
    n = vectors.shape[1]
    corners = [(vectors @ np.array(c, dtype=float), c) for c in np.ndindex(*[2] * n)]
    return [np.stack([at, at + vectors[:, i]], 1) for i in range(n) for at, c in corners if not c[i]]


@figure(
    "fig15",
    "the QR step, drawn for two and three units",
    cost=("1 s", "1 s", "1 s"),
    smoke={"steps": 2},
    small={"steps": 3},
    draw=qr_steps,
)
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
            inputs = Noise().inputs(Draw(self.seed, self.steps, dtype=torch.float64))
            frames = [random_frame(n, n, Stream(self.seed, "frame"), shared_id, dtype=torch.float64)]
            evolved, factors = [], []
            for D in step_jacobians(cell, inputs)[:, 0].detach():
                evolved.append(D @ frames[-1])
                # in two passes, because frames are looked at one by one
                Q, R, _ = qr(evolved[-1], method="cholesky2")
                frames.append(Q)
                factors.append(R)
            axes = (f"axis{n}", f"vector{n}")
            variables |= {
                f"frames{n}": (("frame", *axes), torch.stack(frames)),
                f"evolved{n}": (("step", *axes), torch.stack(evolved)),
                f"factors{n}": (("step", *axes), torch.stack(factors)),
            }
        return variables, {}

    def claims(self, record: Record) -> Checks:
        """Frames are orthonormal, and volumes are the products of the diagonals."""
        for n in (2, 3):
            frames, evolved, factors = (record[f"{name}{n}"] for name in ("frames", "evolved", "factors"))
            off = np.abs(frames.swapaxes(-1, -2) @ frames - np.eye(n)).max()
            sentence = f"n = {n}: largest element of |Q^T Q − I|"
            yield at_most(f"n {n} orthonormal", sentence, 1e-13, off, **THEORY)
            # D Q = Q' R and |det Q'| = 1, so |det D Q| = prod_i R_ii in each step
            volume = np.abs(np.linalg.det(evolved)).prod()
            diagonal = np.diagonal(factors, axis1=-2, axis2=-1).prod()
            sentence = f"n = {n}: product of all R_ii (theory: growth of volume)"
            yield near(f"n {n} volume", sentence, volume, diagonal, 1e-12 * float(volume), **THEORY)


@single
def control(record: Record, axes: list[Axes]) -> None:
    """lambda_1 against flossing epochs, a colour for each target."""
    (panel,) = axes
    for group, target in enumerate(record["target"]):
        color = PALETTE[group % len(PALETTE)]
        panel.axhline(target, color=color, linestyle=":", linewidth=0.8)
        rows, label = record["exponents"][group, :, :, 0], f"target {target:+g}"
        quartiles(panel, rows, color)
        bundle(panel, rows, color, label, alpha=0.25, linewidth=1.8, thick=np.median)
    panel.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {NATS}", title="Control of the first exponent")
    panel.legend()
    letter(panel, "B")
    footnote(panel, f"n = {rows.shape[0]} networks each", "thick: medians; bands: 25 to 75%; thin: each")


@single
def squares(record: Record, axes: list[Axes]) -> None:
    """Sum of squares of the first k exponents: median and quartiles over networks."""
    (panel,) = axes
    for group, k in enumerate(record["k"]):
        band(panel, (record["exponents"][group, :, :, :k] ** 2).sum(-1), PALETTE[group], f"$k = {k}$")
    panel.set_yscale("log")
    panel.set(xlabel="flossing epoch", ylabel=r"$\sum_{i \leq k} \lambda_i^2$", title="Flossing k exponents")
    panel.legend()
    letter(panel, "C")
    many, kept = (
        f"n = {record['exponents'].shape[1]} networks each",
        stands_for(record["exponents"].swapaxes(-1, -2)),
    )
    averaged = f"of exponents averaged over {kept} epochs" if kept > 1 else ""
    footnote(panel, many, "lines: medians; bands: 25 to 75%", averaged)


@figure(
    "fig1b",
    "lambda_1 against flossing epochs, for targets -1, -0.5, 0 and a positive one",
    cost=("1 s", "3 s", "20 s"),
    smoke={"networks": 2, "epochs": 10, "steps": 80, "measure": 100},
    small={"networks": 4},
    draw=control,
)
class Fig1b(NoiseDriven):
    """The first exponent against flossing epochs, for several targets.

    Attributes:
        targets: one group of networks for each target of lambda_1 .. lambda_k.
        ks: one group for each number of exponents.
    """

    targets: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.25)
    ks: tuple[int, ...] = (1,)

    @property
    def source(self) -> str:
        """Where the paper makes the claims of this figure."""
        return f"Gradient Flossing, {self.figure.replace('fig', 'figure ')}"

    def run(self, study: Study) -> Results:
        """`exponents (group, network, floss_epoch, index)` and spectra `(group, network, rank)` around it."""
        groups = [(target, k) for target in self.targets for k in self.ks]
        shape = (len(groups), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        # equal ids have equal gains g ~ U(0, 1), too: groups differ by what flossing aims at alone
        cell = self.cell(ids, Stream(self.seed, "gain").uniform((), member_ids=ids))
        before = self.spectrum(cell, ids)
        target, k = (torch.tensor(values) for values in zip(*groups, strict=True))
        targets = target[:, None, None].expand(*shape, 1)
        exponents = self.floss(study, cell, ids, target=targets, k=k[:, None].expand(shape))
        nats, dims = {"units": "nats per step"}, ("group", "network", "rank")
        variables = {
            "exponents": (("group", "network", "floss_epoch", "index"), exponents, nats),
            "before": (dims, before, nats),
            "after": (dims, self.spectrum(cell, ids), nats),
        }
        return variables, {"target": (("group",), target), "k": (("group",), k)}

    def claims(self, record: Record) -> Checks:
        """Every target but the positive one is reached, by networks that were elsewhere."""
        for group, target in enumerate(record["target"].tolist()):
            before, after = (record[name][group, :, 0] for name in ("before", "after"))
            reached = np.median(after)
            sentence = f"median lambda_1 after {self.epochs} flossing epochs, target {target:+.2f}"
            if target <= 0:
                # the null: without flossing it is not there
                away = abs(np.median(before) - target) > 0.05
                reached = where(away, reached)
                said = claimed(self.source, "targets")
                yield near(f"target {target:g}", sentence, target, reached, 0.05, **said)
            else:
                sentence = f"{sentence} (paper: stays at or below 0)"
                # the null: without flossing it is below 0, too, and far from it
                reached = where(reached > -0.1, reached)
                yield at_most(f"target {target:g}", sentence, 0.0, reached, source=self.source)


@figure(
    "fig1c",
    "sum of squares of the first k exponents against flossing epochs, k = 1, 16, 32",
    cost=("1 s", "30 s", "7 min"),
    draw=squares,
)
class Fig1c(Fig1b):
    """The sum of squares of k exponents against flossing epochs."""

    targets: tuple[float, ...] = (0.0,)
    ks: tuple[int, ...] = (1, 16, 32)
    epochs: int = 1000
    batch: int = 1

    def claims(self, record: Record) -> Checks:
        """The sum of squares falls at least a hundredfold for each k."""
        for group, k in enumerate(record["k"]):
            # of the spectra before and after: curves over epochs are means of blocks once they are thinned,
            # and the square of a mean is less than the mean of squares
            before, after = ((record[name][group, :, :k] ** 2).sum(-1) for name in ("before", "after"))
            ratio = float(np.median(before / after))
            sentence = (
                f"k = {k}: sum of the squares of the first k exponents, before / after flossing "
                "(median over networks)"
            )
            yield at_least(f"k {k}", sentence, 100.0, ratio, source=self.source, part_of="falls")
