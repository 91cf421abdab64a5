"""Figure 1a: gradients vanish and explode with the product of Jacobians that carries them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import gradient_norms
from lyaptorch.cells import settle
from lyaptorch.experiments.check import THEORY, Checks, at_least, at_most, near, slopes, where
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.noise_driven import NATS, NoiseDriven
from lyaptorch.experiments.gradient_flossing.setting import bundles, figure
from lyaptorch.plots.primitives import GREY, PALETTE, footnote, letter, picture
from lyaptorch.record import Record

DECADES = 1 / math.log(10)
"""From natural logarithms to decimal ones."""


@picture(1, width=5.0, height=3.4)
def back_in_time(record: Record, axes: list[Axes]) -> None:
    """|dL/dh_s| against steps back, and what lambda_1 says."""
    (panel,), back = axes, np.arange(record.config["horizon"] + 1)
    gains, exponents = record["gain"], record["lambda_1"].mean(1)
    names = [
        rf"$g = {gain:g}$, $\lambda_1 = {rate:+.2f}$" for gain, rate in zip(gains, exponents, strict=True)
    ]
    bundles(panel, record["log_norm"] * DECADES, names, x=back, linewidth=1.8)
    for rate, color in zip(exponents, PALETTE, strict=False):
        panel.plot(back, rate * back * DECADES, ":", color=color, linewidth=1.4)
    panel.plot([], [], ":", color=GREY, label=r"$e^{\lambda_1 s}$")
    panel.set(xlabel="steps $s$ back from the loss", ylabel=r"$\log_{10}|dL/dh_{t-s}|\, /\, |dL/dh_t|$")
    panel.set_title("Backpropagation through time")
    panel.legend(fontsize=7)
    letter(panel, "A")
    said = f"n = {record.config['networks']} networks each"
    footnote(panel, said, f"$\\lambda_1$ {NATS}", "thick: means; bands: 25 to 75%; thin: each")


@figure(
    "fig1a",
    "gradients that vanish or explode back in time, and the first exponent (schematic, with numbers)",
    cost=("1 s", "3 s", "3 s"),
    smoke={"networks": 2, "hidden_size": 8, "measure": 100, "horizon": 20},
    small={"measure": 4000},
    draw=back_in_time,
)
class Fig1a(NoiseDriven):
    """Norms of the gradient at earlier and earlier states, for three gains; the paper draws it by hand.

    The error is that of the last state alone, so that the product of all Jacobians carries it.

    Attributes:
        gains: of the recurrent weights; one group of networks for each.
        horizon: steps back.
    """

    hidden_size: int = 80
    gains: tuple[float, ...] = (0.5, 1.5, 4.0)
    horizon: int = 60

    def run(self, study: Study) -> Results:
        """`log_norm (gain, network, back)`, 0 at the last state, and `lambda_1 (gain, network)`."""
        ids = torch.arange(self.networks).expand(len(self.gains), self.networks)
        cell = self.cell(ids, torch.tensor(self.gains)[:, None].expand(ids.shape))
        inputs = self.noise(ids, 100 + self.horizon, epoch=1)
        h0 = torch.zeros(*ids.shape, 1, self.hidden_size, dtype=torch.float64)
        with torch.no_grad():
            h0 = settle(cell, inputs[:100], h0)
        norms = gradient_norms(cell, inputs[100:], lambda states: states[-1].sum(-1), h0=h0)
        logs = (norms / norms[-1]).log().flip(0)[..., 0].movedim(0, -1)
        nats = {"units": "nats per step"}
        variables = {
            "log_norm": (("gain", "network", "back"), logs, {"units": "nats"}),
            "lambda_1": (("gain", "network"), self.spectrum(cell, ids, 1)[..., 0], nats),
        }
        return variables, coordinates(gain=self.gains)

    def claims(self, record: Record) -> Checks:
        """Gradients grow or fade back in time at the rate lambda_1: they vanish or explode with its sign."""
        back = np.arange(self.horizon + 1)
        # the error has to turn into the direction that grows most: the first third is not counted
        late = back >= self.horizon // 3
        for gain, logs, exponents in zip(record["gain"], record["log_norm"], record["lambda_1"], strict=True):
            slope, rate = slopes(back[late], logs[:, late]), exponents.mean()
            error = 3 * (slope - exponents).std(ddof=1) / math.sqrt(self.networks)
            sentence = (
                f"g = {gain:g}: mean slope of log |dL/dh| per step back in time "
                "(theory: lambda_1; tolerance 3 standard errors)"
            )
            yield near(f"g {gain:g} rate", sentence, rate, slope.mean(), error, **THEORY)
        first, last = record["lambda_1"][[0, -1]].mean(1)
        follows: dict[str, Any] = {**THEORY, "because": "It follows from the rates above and their sign."}
        fades, grows = (record["log_norm"][i, :, -1].mean() for i in (0, -1))
        change = f"mean log |dL/dh|, {self.horizon} steps back − last step"
        sentence = f"lambda_1 < 0 (g = {self.gains[0]:g}): {change}"
        yield at_most("vanishes", sentence, -math.log(10), where(first < 0, fades), **follows)
        sentence = f"lambda_1 > 0 (g = {self.gains[-1]:g}): {change}"
        yield at_least("explodes", sentence, math.log(10), where(last > 0, grows), **follows)
