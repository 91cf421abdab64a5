"""Input suppresses chaos: lambda_1 of random tanh networks against the strength of their input."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import RateCell
from lyaptorch.experiments.beyond.learners import figure
from lyaptorch.experiments.check import THEORY, Checks, at_least, at_most, near, where
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.plots.primitives import footnote, level, look, picture
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Noise
from lyaptorch.tasks.batch import Draw
from lyaptorch.theory import critical_input, gaussian_states, tanh_mean_field

NOISE = ("private", "common")
"""Whether each unit has a white input of its own, or all the same one with weights N(0, s^2)."""


@picture(lambda record: len(record["noise"]), width=3.9)
def suppression(record: Record, axes: list[Axes]) -> None:
    """lambda_1 against the strength of the input, a panel for each kind of input; lines are theory."""
    for i, (kind, panel) in enumerate(zip(record["noise"], axes, strict=True)):
        level(panel)
        for j, gain in enumerate(record["gain"]):
            s, color, label = record["strength"], look(j)[0], f"$g = {gain:g}$"
            panel.plot(s, record["theory"][i, j], color=color, linewidth=1.4, label=label)
            panel.plot(s, record["lambda_1"][i, j], "o", color=color, alpha=0.5, markersize=3)
        panel.set(xlabel="strength of the input $s$", ylabel=r"$\lambda_1$ (nats per step)")
        panel.set_title(f"{kind} noise")
    axes[0].legend()
    counted = f"n = {record['lambda_1'].shape[-1]} networks of {record.config['hidden_size']} units"
    footnote(axes[0], counted, "dots: each", "lines: theory")


@figure(
    "input-suppresses-chaos",
    "lambda_1 against the strength of the input: mean-field theory and simulation",
    cost=("1 s", "20 s", "2 min"),
    smoke={"strengths": (0.0, 1.0, 3.0), "hidden_size": 30, "networks": 1, "transient": 20, "steps": 60},
    small={"hidden_size": 400, "transient": 100, "steps": 600},
    draw=suppression,
)
class InputSuppressesChaos(Figure):
    """lambda_1 of h' = W tanh(h) + input against the standard deviation s of the input, and theory.

    Theory for private noise is `tanh_mean_field`. Common noise x_t makes the variance of the units follow
    it, q' = g^2 E[tanh^2(sqrt q z)] + s^2 x_t^2, and lambda_1 is the mean over time of
    1/2 log(g^2 E[sech^4(sqrt q z)]).

    Attributes:
        gains: g.
        strengths: s.
        hidden_size: n.
        networks: for each gain, strength and kind of noise.
        transient: steps that are not counted.
        steps: that are.
    """

    gains: tuple[float, ...] = (1.5, 2.0, 3.0)
    strengths: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
    hidden_size: int = 500
    networks: int = 3
    transient: int = 200
    steps: int = 2000

    def run(self, study: Study) -> Results:
        """`lambda_1 (noise, gain, strength, network)`, `theory (noise, gain, strength)`, `critical`."""
        g, s = (torch.tensor(values, dtype=torch.float64) for values in (self.gains, self.strengths))
        private = tanh_mean_field(g[:, None], s).lambda_max
        measured = torch.stack([self._simulate(kind, study) for kind in NOISE])
        nats = {"units": "nats per step"}
        variables: dict[str, Given] = {
            "lambda_1": (("noise", "gain", "strength", "network"), measured, nats),
            "theory": (("noise", "gain", "strength"), torch.stack([private, self._driven(g, s)]), nats),
            "critical": (("gain",), critical_input(g)),
        }
        return variables, coordinates(noise=NOISE, gain=self.gains, strength=self.strengths)

    def claims(self, record: Record) -> Checks:
        """Chaos without input, order beyond the critical strength, and theory in between."""
        for i, kind in enumerate(NOISE):
            error = record["lambda_1"][i].mean(-1) - record["theory"][i]
            for j, gain in enumerate(self.gains):
                name, key = f"{kind} input, g = {gain:g}", f"{kind} g {gain:g}"
                silent = float(record["lambda_1"][i, j, 0].mean())
                sentence = f"{name}: mean lambda_1 without input"
                yield at_least(f"{key} chaos", sentence, 0.0, silent, **THEORY)
                # 20% beyond, because at finite n lambda_1 crosses 0 with a spread
                critical = record["critical"][j]
                beyond = record["strength"] > critical * 1.2
                if kind == "private":
                    # where no strength that was tried is beyond it, nothing is told
                    top = float(record["lambda_1"][i, j, beyond].max(initial=-np.inf))
                    top = where(beyond.any(), top)
                    sentence = f"{name}: largest lambda_1 at s > 1.2 x the critical {critical:.2f}"
                    yield at_most(f"{key} order", sentence, 0.0, top, **THEORY)
                # networks differ from theory, and from each other, by terms of order n^(-1/2)
                off, away = float(np.abs(error[j]).max()), 0.5 / self.hidden_size**0.5
                sentence = f"{name}: largest |mean lambda_1 − theory| over s"
                yield near(f"{key} theory", sentence, 0.0, off, away, **THEORY)

    @torch.no_grad()
    def _simulate(self, kind: str, study: Study) -> Tensor:
        """lambda_1 `(gain, strength, network)` of one ensemble."""
        n = self.hidden_size
        shape = (len(self.gains), len(self.strengths), self.networks)
        # the same weights and inputs at every gain and strength
        ids = torch.arange(self.networks).expand(shape)
        channels = n if kind == "private" else 1
        gain = torch.tensor(self.gains)[:, None, None].expand(shape)
        cell = RateCell(channels, n, gain=gain, bias=False, **study.ensemble(ids))
        s = torch.tensor(self.strengths)[None, :, None, None, None]
        cell.weight_ih.copy_(s * (torch.eye(n) if kind == "private" else cell.weight_ih))
        # a view: inputs of every gain and strength would take that much more memory
        inputs = self._noise(channels)[:, None, None].expand(-1, *shape, -1, -1)
        h0 = Stream(self.seed, "h0").normal((1, n), member_ids=ids)
        spectrum = lyapunov_spectrum(cell, inputs, k=1, h0=h0, transient=self.transient)
        return spectrum.exponents[..., 0, 0].double()

    def _noise(self, channels: int, dtype: torch.dtype | None = None) -> Tensor:
        """Inputs of all networks, `(t, network, 1, channels)`."""
        ids, length = torch.arange(self.networks), self.transient + self.steps
        return Noise(channels).inputs(Draw(self.seed, length, member_ids=ids, dtype=dtype))

    def _driven(self, g: Tensor, s: Tensor) -> Tensor:
        """lambda_1 `(gain, strength)` of infinitely many units that share their input; mean over inputs."""
        x = self._noise(1, torch.float64)
        # (step, strength, network)
        power = (s[:, None] * x[:, None, :, 0, 0]).square()
        gain = g.square()[:, None, None]
        q, total = torch.ones(len(g), len(s), self.networks, dtype=torch.float64), torch.zeros(())
        z, weights = gaussian_states(torch.ones((), dtype=torch.float64))
        for step in range(len(x)):
            h = q.sqrt().unsqueeze(-1) * z
            if step >= self.transient:
                # tanh' = sech^2; W D scales a random direction by g sqrt(E[sech^4]) for large n
                total = total + 0.5 * (gain * (h.cosh().pow(-4) * weights).sum(-1)).log()
            q = gain * (h.tanh().square() * weights).sum(-1) + power[step]
        return (total / self.steps).mean(-1)
