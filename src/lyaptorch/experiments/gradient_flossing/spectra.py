"""Spectra after flossing some exponents: figure 1d, and what those of binary networks share with it."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import usable_dimensions
from lyaptorch.experiments.check import OURS, Checks, at_least, at_most, claimed, near, typical, where
from lyaptorch.experiments.gradient_flossing.exponents import Fig1c
from lyaptorch.experiments.gradient_flossing.noise_driven import NATS
from lyaptorch.experiments.gradient_flossing.setting import bundles, figure
from lyaptorch.plots.primitives import GREY, TINY, Rows, finite_mean, footnote, letter, single
from lyaptorch.record import Record

NEAR = 0.1
"""|lambda| up to which an exponent counts as being at 0; ours."""
FAR, FLOAT32 = 60, 1e7
"""Steps that a gradient travels, and the condition number at which float32 has no digit left."""


@single
def spectra(record: Record, axes: list[Axes]) -> None:
    """The whole spectrum before, and after flossing k exponents."""
    (panel,) = axes
    panel.axhline(0, color=GREY, linewidth=0.8)
    index = np.arange(1, record["after"].shape[-1] + 1)
    # some networks have fewer live directions than others: means are those of what is there
    before = finite_mean(record["before"][0], 0)
    panel.plot(index, before, color=GREY, linewidth=1.4, label="before")
    names = [f"$k = {k}$" for k in record["k"]]
    after = np.where(np.isfinite(record["after"]), record["after"], np.nan)
    bundles(panel, after, names, x=index, alpha=0.25, linewidth=1.8, thick=finite_mean)
    panel.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {NATS}", title="Spectrum after flossing")
    panel.legend()
    letter(panel, record.kind[-1].upper())
    footnote(panel, f"n = {after.shape[1]} networks each", "thick: means; bands: 25 to 75%; thin: each")


@figure(
    "fig1d",
    "the whole spectrum after flossing k = 1, 16, 32 exponents",
    cost=("1 s", "30 s", "7 min"),
    draw=spectra,
    measured_by="fig1c",
)
class Fig1d(Fig1c):
    """The whole spectrum after flossing k exponents."""

    def claims(self, record: Record) -> Checks:
        """The first k exponents are near 0 in the median network, and were not; no others are."""
        for k, before, after in zip(record["k"].tolist(), record["before"], record["after"], strict=True):
            yield from selected(k, before, after, self.source)
        for k, after in zip(record["k"].tolist(), record["after"], strict=True):
            if k < after.shape[1]:
                # one that has died in a network, at -inf, varies without end: of those that live in all
                spread = np.where(
                    np.isfinite(after).all(0), np.where(np.isfinite(after), after, 0.0).std(0), np.nan
                )
                ratio = where(len(after) > 1, typical(spread[k:]) / max(typical(spread[:k]), TINY))
                sentence = (
                    f"k = {k}: standard deviation of lambda_i over networks, after flossing, "
                    f"i > {k} / i <= {k} (medians over i)"
                )
                said = claimed(f"{self.source}, caption", "others vary")
                yield at_least(f"k {k} vary", sentence, 2.0, ratio, **said)
        yield from dimensions_left(record)


def selected(k: int, before: Rows, after: Rows, source: str) -> Checks:
    """Of spectra `(network, rank)` around flossing: the first k come to 0, and no others do."""
    middle, twin = np.median(after, 0), np.median(before, 0)
    # the null: without flossing they are not there
    away = np.abs(twin[:k]).max() > NEAR
    sentence = f"k = {k}: largest |lambda_i|, i <= {k}, of the median spectrum after flossing"
    worst = where(away, np.abs(middle[:k]).max())
    yield at_most(f"k {k} flossed", sentence, NEAR, worst, source=source, part_of=f"k {k}")
    if k < len(middle):
        sentence = f"k = {k}: number of exponents with |lambda_i| <= {NEAR}, median spectrum after flossing"
        number = where(away, (np.abs(middle) <= NEAR).sum())
        # two neighbours of the last one may be on the wrong side of the limit
        yield near(f"k {k} number", sentence, k, number, 2.0, source=source, part_of=f"k {k}")


def dimensions_left(record: Record) -> Checks:
    """What flossing of k exponents does to the dimensions in which a gradient arrives."""
    for k, before, after in zip(record["k"].tolist(), record["before"], record["after"], strict=True):
        known = not np.isnan([before, after]).any()
        spectra = (torch.from_numpy(np.nan_to_num(z, nan=0.0, neginf=-np.inf)) for z in (before, after))
        few, more = (usable_dimensions(z, FAR, FLOAT32).double().mean() for z in spectra)
        sentence = (
            f"k = {k}: usable gradient dimensions, after − before flossing "
            f"({FAR} steps, condition number 1e7; mean over networks)"
        )
        yield at_least(f"k {k} dimensions", sentence, 0.0, where(known, more - few), **OURS)
