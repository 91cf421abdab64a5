"""Surrogate spectra and Jacobians of random binary networks: figures 1b and 1d."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import BinaryCell, unroll
from lyaptorch.experiments.checks import Check, at_most, near
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.theory import binary_mean_field, free_probability_spectrum, gaussian_states, triangle_law

TRANSIENT = 20
"""Steps before, and again while, the frame settles."""


@dataclass(frozen=True)
class Fig1b:
    """Surrogate spectra of binary networks without input, for several sharpnesses, and their theory.

    Networks for the first exponent are larger than those for the whole spectrum, which costs n times more.

    Attributes:
        sharpness: g, one group of networks for each.
        hidden_size: n, for the first exponent.
        networks: for the first exponent, in each group.
        steps: over which the first exponent is measured.
        spectrum_size: n, for the spectrum.
        spectrum_networks: whose spectra are averaged.
        spectrum_steps: over which the spectrum is measured.
        seed: determines everything.
    """

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    hidden_size: int = 1000
    networks: int = 10
    steps: int = 2000
    spectrum_size: int = 1000
    spectrum_networks: int = 3
    spectrum_steps: int = 500
    seed: int = 0

    figure: ClassVar[str] = "fig1b"
    shows: ClassVar[str] = "surrogate spectra of binary networks for several sharpnesses, with their theory"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "sharpness": (1.0, 5.0),
            "hidden_size": 60,
            "networks": 2,
            "steps": 60,
            "spectrum_size": 20,
            "spectrum_steps": 40,
        },
        "small": {
            "sharpness": (0.5, 1.0, 2.0, 5.0, 10.0),
            "networks": 4,
            "steps": 500,
            "spectrum_size": 400,
            "spectrum_steps": 200,
        },
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "25 s", "paper": "3 hours"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`lambda1 (sharpness, network)`, `spectrum`, `free`, `triangle (sharpness, rank)`, `theory`."""
        g = torch.tensor(self.sharpness, dtype=torch.float64)
        first = self._exponents(self.hidden_size, self.networks, self.steps, 1)[..., 0]
        n = self.spectrum_size
        spectra = self._exponents(n, self.spectrum_networks, self.spectrum_steps, n)
        field = binary_mean_field(g)
        h, weights = gaussian_states(torch.ones((), dtype=torch.float64))
        cell = self._cell(1, 1)
        slopes = cell.activation.slope(h.expand(len(g), 1, 1, -1))[:, 0, 0]
        free = [free_probability_spectrum(n, own, weights=weights) for own in slopes]
        active = torch.erf(1 / (math.sqrt(2) * g))
        triangle = [
            triangle_law(n, top, share)
            for top, share in zip(field.lambda_max.tolist(), active.tolist(), strict=True)
        ]
        nats, dims = {"units": "nats per step"}, ("group", "rank")
        variables: dict[str, Any] = {
            "lambda1": (("group", "network"), first, nats),
            "spectrum": (dims, spectra.sort(-1, descending=True).values.mean(1), nats),
            "free": (dims, torch.stack(free), nats),
            "triangle": (dims, torch.stack(triangle), nats),
            "theory": (("group",), field.lambda_max, nats),
        }
        return Record(
            f"surrogate-flossing {self.figure}", asdict(self), variables, {"sharpness": (("group",), g)}
        )

    def checks(self, record: Record) -> list[Check]:
        """The first exponent is that of mean-field theory, the spectrum that of free probability."""
        found = []
        for group, g in enumerate(record["sharpness"].tolist()):
            if g <= 10:
                measured, expected = float(record["lambda1"][group].mean()), float(record["theory"][group])
                found.append(near(f"g = {g:g}: lambda_1 of n = {self.hidden_size}", expected, measured, 0.02))
            if g <= 5:
                away = record["spectrum"][group] - record["free"][group]
                # the last exponents of a finite network feel its edge, and beyond float64 they are dead
                for share, what in ((1.0, "all"), (0.99, "the first 99%")):
                    part = away[: round(share * len(away))]
                    part = part[np.isfinite(part)]
                    sentence = f"g = {g:g}: rms distance from free probability, {what} of n = {len(away)}"
                    rms = float(np.sqrt((part**2).mean()))
                    found.append(at_most(sentence, 0.02 if g <= 2 else 0.04, rms))
        return found

    def _cell(self, n: int, networks: int) -> BinaryCell:
        ensemble = (len(self.sharpness), networks)
        return BinaryCell(
            1,
            n,
            sharpness=torch.tensor(self.sharpness)[:, None].expand(ensemble),
            bias=False,
            ensemble=ensemble,
            member_ids=torch.arange(networks).expand(ensemble),
            generator=torch.Generator().manual_seed(self.seed),
        ).double()

    @torch.no_grad()
    def _exponents(self, n: int, networks: int, steps: int, k: int) -> Tensor:
        cell = self._cell(n, networks)
        ids = torch.arange(networks).expand(cell.ensemble)
        h0 = Stream(self.seed, "h0").normal((1, n), member_ids=ids, dtype=torch.float64)
        inputs = torch.zeros(steps + 2 * TRANSIENT, 1, 1, dtype=torch.float64)
        spectrum = lyapunov_spectrum(
            cell, inputs, k=k, h0=h0, transient=TRANSIENT, tangent_transient=TRANSIENT
        )
        return spectrum.exponents[..., 0, :]


@dataclass(frozen=True)
class Fig1d:
    """The surrogate Jacobian W diag(sech^2(g h)): most of its columns are nearly zero.

    Attributes:
        sharpness: g.
        hidden_size: n.
        networks: whose columns are counted.
        steps: over which they are counted.
        shown: rows and columns in the picture.
        seed: determines everything.
    """

    sharpness: float = 10.0
    hidden_size: int = 1000
    networks: int = 10
    steps: int = 100
    shown: int = 80
    seed: int = 0

    figure: ClassVar[str] = "fig1d"
    shows: ClassVar[str] = "the column-sparse surrogate Jacobian of a binary network, and its active columns"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"hidden_size": 100, "networks": 2, "steps": 10, "shown": 20},
        "small": {"networks": 5},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "1 s", "paper": "5 s"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`jacobian (row, column)` of one step, and the shares `active`, `expected (step)` of columns."""
        n, ids = self.hidden_size, torch.arange(self.networks)
        cell = BinaryCell(
            1,
            n,
            sharpness=self.sharpness,
            bias=False,
            ensemble=(self.networks,),
            generator=torch.Generator().manual_seed(self.seed),
        ).double()
        h0 = Stream(self.seed, "h0").normal((1, n), member_ids=ids, dtype=torch.float64)
        with torch.no_grad():
            inputs = torch.zeros(TRANSIENT + self.steps, self.networks, 1, 1, dtype=torch.float64)
            states = unroll(cell, inputs, h0)[TRANSIENT:]
            slopes = cell.activation.slope(states)
            jacobian = (cell.weight_hh * slopes[-1])[0, : self.shown, : self.shown]
        acting = states.abs() < 1 / self.sharpness
        expected = math.erf(1 / (math.sqrt(2) * self.sharpness))
        ordered = slopes[-1, 0, 0].sort(descending=True).values
        variables: dict[str, Any] = {
            "jacobian": (("row", "column"), jacobian),
            "active": (("step",), acting.double().mean((1, 2, 3))),
            "expected": (("step",), torch.full((self.steps,), expected, dtype=torch.float64)),
            "slopes": (("rank",), ordered),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables)

    def checks(self, record: Record) -> list[Check]:
        """The share of columns with |h| < 1/g is that of a standard normal h."""
        expected, measured = float(record["expected"][0]), float(record["active"].mean())
        return [near("share of active columns, |h| < 1/g", expected, measured, 0.01)]
