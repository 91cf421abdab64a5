"""The Jacobian of LIF networks, analytic against autodiff: figure 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import LIFCell, unroll
from lyaptorch.cells.spiking import ORDERS, RESET_GRADS
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import Check, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.surrogate_flossing.networks import NATS, PAPER
from lyaptorch.plots.primitives import BLUE, ORANGE, PALETTE, picture
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum

MODES = [(grad, order) for order in ORDERS for grad in RESET_GRADS]
"""The six conventions."""


@picture(2, width=4.6, height=3.4)
def conventions(record: Record, axes: list[Axes]) -> None:
    """Errors of the analytic Jacobian, and the spectra of the six conventions."""
    errors, spectra = axes
    place = np.arange(len(record["mode"]))
    for name, color, label in (
        ("jacobian_error", BLUE, "one step"),
        ("product_error", ORANGE, "product, relative"),
    ):
        errors.semilogy(place, np.maximum(record[name], 1e-18), "o", color=color, label=label)
    errors.set_xticks(place, record["mode"], rotation=30, ha="right", fontsize=7)
    errors.set(ylabel="largest deviation", title="Analytic against autodiff")
    errors.legend()
    for i, mode in enumerate(record["mode"]):
        spectra.plot(record["spectrum"][i], color=PALETTE[i], linewidth=1.2, label=mode)
    spectra.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {NATS}", title="Spectra by convention")
    spectra.legend(fontsize=6)


@declare(
    PAPER,
    "fig4",
    "the LIF Jacobian, analytic against autodiff, in six conventions",
    cost=("2 s", "2 s", "3 min"),
    smoke={"hidden_size": 5, "steps": 10, "measure": 30},
    small={"measure": 500},
    draw=conventions,
)
@dataclass(frozen=True)
class Fig4(Figure):
    """Analytic and automatic Jacobians of a spiking network in the six conventions, and their exponents.

    Attributes:
        hidden_size: neurons; the state has twice as many entries.
        channels: of Poisson input.
        input_rate: of each, in Hz.
        steps: over which Jacobians are compared.
        measure: steps over which exponents are measured.
    """

    hidden_size: int = 40
    channels: int = 40
    input_rate: float = 25.0
    steps: int = 50
    measure: int = 2000

    def run(self, study: Study) -> Results:
        """`jacobian_error`, `product_error (mode)` and `spectrum (mode, rank)`."""
        shared_id, p = torch.zeros((), dtype=torch.int64), self.input_rate * 2e-3
        x = Stream(self.seed, "inputs").uniform(
            (self.measure + self.steps, 1, self.channels), member_ids=shared_id, dtype=torch.float64
        )
        inputs = (x < p).double()
        rows = [self._mode(inputs, grad, order, study.generator()) for grad, order in MODES]
        first, product, spectra = zip(*rows, strict=True)
        variables: dict[str, Given] = {
            "jacobian_error": (("mode",), np.array(first)),
            "product_error": (("mode",), np.array(product)),
            "spectrum": (("mode", "rank"), torch.stack(spectra), {"units": "nats per step"}),
        }
        return variables, {"mode": (("mode",), np.array([f"{grad}, {order}" for grad, order in MODES]))}

    def checks(self, record: Record) -> list[Check]:
        """The step's Jacobian is that of autodiff, and its products are what backpropagation computes."""
        exact: dict[str, Any] = {"kind": "identity", "source": "autodiff"}
        found = []
        for mode, step, product in zip(
            record["mode"], record["jacobian_error"], record["product_error"], strict=True
        ):
            sentence = f"{mode}: largest entry of analytic - automatic Jacobian"
            found.append(at_most(f"{mode}, step", sentence, 1e-14, step, **exact))
            sentence = f"{mode}: backpropagation through {self.steps} steps - product, relative"
            found.append(at_most(f"{mode}, product", sentence, 1e-12, product, **exact))
        return found

    def _mode(
        self, inputs: Tensor, grad: str, order: str, generator: torch.Generator
    ) -> tuple[float, float, Tensor]:
        """Errors of a step and of a product, and the exponents."""
        n = self.hidden_size
        cell = LIFCell(self.channels, n, reset_grad=grad, order=order).double()
        fluctuation_driven(cell, input_rate=self.input_rate, generator=generator)
        h = torch.zeros(1, 2 * n, dtype=torch.float64)
        product = eye = torch.eye(2 * n, dtype=torch.float64).unsqueeze(0)
        worst = 0.0
        with torch.no_grad():
            for x in inputs[: self.steps]:
                after, D = cell.pushforward(x, h, eye)
                automatic = torch.func.jacrev(lambda y, x=x: cell.step(x, y)[0])(h)[:, 0]
                worst = max(worst, float((D[0] - automatic).abs().max()))
                h, product = after, D @ product
            spectrum = lyapunov_spectrum(cell, inputs[self.steps :], h0=h, tangent_transient=10)
        h0 = torch.zeros_like(h).requires_grad_()
        cotangent = torch.linspace(-1, 1, 2 * n, dtype=torch.float64)
        last = unroll(cell, inputs[: self.steps], h0)[-1]
        (gradient,) = torch.autograd.grad((cotangent * last).sum(), h0)
        expected = cotangent @ product[0]
        away = float((gradient[0] - expected).abs().max() / expected.abs().max())
        return worst, away, spectrum.exponents[0].sort(descending=True).values
