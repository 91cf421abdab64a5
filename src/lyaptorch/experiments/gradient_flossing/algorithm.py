"""How exponents are computed: the QR step drawn (figure 15) and convergence (figure 16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch._random import Stream
from lyaptorch.analysis import step_jacobians
from lyaptorch.cells import RateCell, random_frame
from lyaptorch.experiments.checks import Check, at_most, near, slopes
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.qr import qr
from lyaptorch.tasks import Noise


@dataclass(frozen=True)
class Fig15:
    """A frame, what one step makes of it, and its orthonormalisation, in two and three dimensions.

    Attributes:
        steps: drawn one beside the other.
        gain: of the weights.
        seed: determines everything.
    """

    steps: int = 4
    gain: float = 1.5
    seed: int = 0

    figure: ClassVar[str] = "fig15"
    shows: ClassVar[str] = "the QR step, drawn for two and three units"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"steps": 2}, "small": {"steps": 3}}
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "1 s", "paper": "1 s"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """For n = 2 and 3: `frames (step, axis, vector)`, `evolved`, D Q, and `factors`, R."""
        variables: dict[str, Given] = {}
        shared_id = torch.zeros((), dtype=torch.int64)
        for n in (2, 3):
            generator = torch.Generator().manual_seed(self.seed)
            cell = RateCell(1, n, gain=self.gain, generator=generator).double()
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
        return Record(f"gradient-flossing {self.figure}", asdict(self), variables)

    def checks(self, record: Record) -> list[Check]:
        """Frames are orthonormal, and volumes are the products of the diagonals."""
        found = []
        for n in (2, 3):
            frames, evolved, factors = (record[f"{name}{n}"] for name in ("frames", "evolved", "factors"))
            off = np.abs(frames.swapaxes(-1, -2) @ frames - np.eye(n)).max()
            found.append(at_most(f"n = {n}: |Q^T Q - 1|", 1e-13, float(off)))
            volume = np.abs(np.linalg.det(evolved)).prod()
            diagonal = np.diagonal(factors, axis1=-2, axis2=-1).prod()
            sentence = f"n = {n}: growth of volume is the product of R_ii"
            found.append(near(sentence, float(volume), float(diagonal), 1e-12 * float(volume)))
        return found


@dataclass(frozen=True)
class Fig16:
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
        seed: determines everything.
    """

    hidden_size: int = 80
    gain: float = 1.0
    states: int = 10
    steps: int = 10_000
    transient: int = 200
    points: int = 60
    seed: int = 0

    figure: ClassVar[str] = "fig16"
    shows: ClassVar[str] = "convergence of the exponents over time, from several initial states"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"hidden_size": 16, "states": 4, "steps": 300, "transient": 50, "points": 20},
        "small": {"hidden_size": 40, "steps": 3000},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "10 s", "paper": "3 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`running (time, state, index)` and `time`."""
        generator = torch.Generator().manual_seed(self.seed)
        cell = RateCell(1, self.hidden_size, gain=self.gain, bias=False, generator=generator).double()
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
        return Record(
            f"gradient-flossing {self.figure}", asdict(self), variables, {"time": (("time",), kept)}
        )

    def checks(self, record: Record) -> list[Check]:
        """The spread over initial states falls like t^-1/2."""
        time, spread = record["time"], record["running"].std(1, ddof=1)
        late = time >= self.steps / 100
        power = slopes(np.log(time[late]), np.log(spread[late]).mean(-1))
        last = record["running"][-1]
        return [
            near("spread over initial states, power of t", -0.5, float(power), 0.15),
            at_most("spread of lambda_1 at the end", 0.02, float(last[:, 0].std(ddof=1))),
        ]
