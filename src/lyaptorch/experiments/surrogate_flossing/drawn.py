"""What a surrogate is and does, drawn (figures 1a, 1c), and the surrogate Jacobian (figure 1d)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import BinaryCell, RateCell, unroll
from lyaptorch.experiments.check import THEORY, Checks, at_least, at_most, near, slopes
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.surrogate_flossing.random_binary import (
    UNDRIVEN,
    figure,
    random_networks,
    random_states,
)
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, footnote, letters, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum


@picture(3)
def ideas(record: Record, axes: list[Axes]) -> None:
    """The sign and what is taken for its slope; the error over one angle of the weights; products."""
    units, errors, products = axes
    units.plot(record["x"], np.sign(record["x"]), color="black", linewidth=1.2, label="sgn")
    for group, g in enumerate(record["sharpness"]):
        color = PALETTE[group]
        units.plot(record["x"], record["slope"][group], color=color, label=rf"$\phi'_g$, $g = {g:g}$")
        products.semilogy(np.exp(record["log_norm"][group]), color=color, label=f"$g = {g:g}$")
    units.set(xlabel="$h$", title="A unit and its slope")
    for name, color, row in zip(("binary", "tanh"), (BLUE, ORANGE), record["error"], strict=True):
        errors.plot(record["angle"], row, color=color, linewidth=0.9, label=name)
    errors.set(xlabel="angle of the weights", ylabel="loss", title="Error landscape")
    products.axhline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    products.set(xlabel="steps", ylabel=r"$|D_t \cdots D_1 q|$", title="Surrogate products")
    for panel in axes:
        panel.legend()
    letters(axes, "AAC")
    footnote(units, "one network")


@figure(
    "fig1ac",
    "a binary unit and its surrogate, its error landscape, and products of surrogate Jacobians",
    cost=("1 s", "1 s", "1 s"),
    smoke={"hidden_size": 10, "points": 60, "horizon": 8, "steps": 12},
    small={"points": 200},
    draw=ideas,
)
class Fig1ac(Figure):
    """The loss of binary networks jumps; of surrogate Jacobians some products vanish, others explode.

    Weights W_0 cos(a) + W_1 sin(a) have the same law at every angle a. The error is that of a random readout
    of the last state; its smooth twin has tanh in the place of the sign.

    Attributes:
        sharpness: g.
        gain: of the weights of products, which explode where g is small.
        hidden_size: n.
        points: angles.
        largest: of the angles.
        horizon: steps of the error landscape.
        steps: of the products.
    """

    sharpness: tuple[float, ...] = (0.25, 1.0, 5.0)
    gain: float = 1.2
    hidden_size: int = 80
    points: int = 400
    largest: float = 0.3
    horizon: int = 20
    steps: int = 60

    def run(self, study: Study) -> Results:
        """`slope (group, place)`, `error (kind, angle_index)` and `log_norm (group, step)`."""
        x = torch.linspace(-3, 3, 121, dtype=torch.float64)
        g = torch.tensor(self.sharpness, dtype=torch.float64)
        ids = torch.zeros(len(g), dtype=torch.int64)
        cell = random_networks(study, self.hidden_size, g, ids)
        # a slope of its own for each network: one trajectory and as many units as places
        slope = cell.activation.slope(x.expand(len(g), 1, -1))[:, 0]
        with torch.no_grad():
            cell.weight_hh.mul_(self.gain)
            inputs = torch.zeros(self.steps, 1, 1, dtype=torch.float64)
            found = lyapunov_spectrum(cell, inputs, k=1, h0=random_states(study, cell, ids))
            # log|D_t ... D_1 q| is the sum of the growth of a first column
            growth = found.growth.log_r[..., 0, 0].cumsum(0)
        angles = torch.linspace(0, self.largest, self.points, dtype=torch.float64)
        variables: dict[str, Any] = {
            "slope": (("group", "place"), slope),
            "error": (("kind", "point"), self._errors(study, angles)),
            "log_norm": (("group", "step"), growth.mT),
        }
        known = coordinates(kind=("binary", "tanh"))
        along = {"x": (("place",), x), "angle": (("point",), angles), "sharpness": (("group",), g)}
        return variables, {**known, **along}

    @torch.no_grad()
    def _errors(self, study: Study, angles: Tensor) -> Tensor:
        """The loss `(kind, angle)` of binary networks, and of others that differ in nothing but the sign."""
        n, ids = self.hidden_size, torch.zeros(len(angles), dtype=torch.int64)
        binary = random_networks(study, n, 1.0, ids)
        smooth = RateCell(1, n, bias=False, **study.ensemble(ids)).double()
        first, second = (random_networks(study, n, 1.0, torch.tensor([i])).weight_hh for i in (0, 1))
        turn = angles[:, None, None]
        inputs = torch.zeros(self.horizon, 1, 1, dtype=torch.float64)
        readout = torch.linspace(-1, 1, n, dtype=torch.float64) / n

        def error(cell: BinaryCell | RateCell) -> Tensor:
            cell.weight_hh.copy_(first * turn.cos() + second * turn.sin())
            last = unroll(cell, inputs, random_states(study, binary, ids))[-1, :, 0]
            return ((last * readout).sum(-1) - 1).square()

        return torch.stack([error(cell) for cell in (binary, smooth)])

    def claims(self, record: Record) -> Checks:
        """The slope peaks at 1; the loss jumps; products vanish where g is large and explode where small."""
        peak = record["slope"].max(-1)
        sentence = "peak of the surrogate slope (g at which it is farthest from 1)"
        yield near("peak", sentence, 1.0, peak[np.abs(peak - 1).argmax()], 1e-12, **THEORY)
        jumps = np.abs(np.diff(record["error"])).max(-1)
        sentence = "largest change of the loss between neighbouring angles, binary / smooth network"
        # the smooth twin's largest step falls with the distance of angles, a jump does not
        yield at_least("rugged", sentence, 10.0, jumps[0] / jumps[1], **THEORY)
        rates = slopes(np.arange(record["log_norm"].shape[-1]), record["log_norm"])
        weights = f"weights of standard deviation {self.gain:g} / sqrt(n)"
        explodes, vanishes = (
            f"log growth per step of a product of surrogate Jacobians, g = {g:g}, {weights}"
            for g in (self.sharpness[0], self.sharpness[-1])
        )
        yield at_least("explodes", explodes, 0.0, rates[0], **THEORY)
        yield at_most("vanishes", vanishes, 0.0, rates[-1], **THEORY)


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
    letters(axes, "D")
    footnote(matrix, "D and slopes: one network", f"share: of n = {record.config['networks']} networks")


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
        sentence = "share of active columns, |h| < 1/g (theory: standard normal h)"
        yield near("active", sentence, expected, measured, 0.01, **THEORY)
