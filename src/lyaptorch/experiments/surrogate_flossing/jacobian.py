"""The Jacobian of LIF networks, analytic against autodiff: figure 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import LIFCell, unroll
from lyaptorch.cells.spiking import ORDERS, RESET_GRADS
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.checks import Check, at_most
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum

MODES = [(grad, order) for order in ORDERS for grad in RESET_GRADS]
"""The six conventions."""


@dataclass(frozen=True)
class Fig4:
    """Analytic and automatic Jacobians of a spiking network in the six conventions, and their exponents.

    Attributes:
        hidden_size: neurons; the state has twice as many entries.
        channels: of Poisson input.
        input_rate: of each, in Hz.
        steps: over which Jacobians are compared.
        measure: steps over which exponents are measured.
        seed: determines everything.
    """

    hidden_size: int = 40
    channels: int = 40
    input_rate: float = 25.0
    steps: int = 50
    measure: int = 2000
    seed: int = 0

    figure: ClassVar[str] = "fig4"
    shows: ClassVar[str] = "the LIF Jacobian, analytic against autodiff, in six conventions"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"hidden_size": 5, "steps": 10, "measure": 30},
        "small": {"measure": 500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "2 s", "paper": "3 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`jacobian_error`, `product_error (mode)` and `spectrum (mode, rank)`."""
        shared_id, p = torch.zeros((), dtype=torch.int64), self.input_rate * 2e-3
        x = Stream(self.seed, "inputs").uniform(
            (self.measure + self.steps, 1, self.channels), member_ids=shared_id, dtype=torch.float64
        )
        inputs = (x < p).double()
        rows = [self._mode(inputs, grad, order) for grad, order in MODES]
        first, product, spectra = zip(*rows, strict=True)
        variables: dict[str, Any] = {
            "jacobian_error": (("mode",), np.array(first)),
            "product_error": (("mode",), np.array(product)),
            "spectrum": (("mode", "rank"), torch.stack(spectra), {"units": "nats per step"}),
        }
        coordinates = {"mode": (("mode",), np.array([f"{grad}, {order}" for grad, order in MODES]))}
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """The step's Jacobian is that of autodiff, and its products are what backpropagation computes."""
        found = []
        for mode, step, product in zip(
            record["mode"], record["jacobian_error"], record["product_error"], strict=True
        ):
            found.append(
                at_most(f"{mode}: largest entry of analytic - automatic Jacobian", 1e-14, float(step))
            )
            sentence = f"{mode}: backpropagation through {self.steps} steps - product, relative"
            found.append(at_most(sentence, 1e-12, float(product)))
        return found

    def _mode(self, inputs: Tensor, grad: str, order: str) -> tuple[float, float, Tensor]:
        """Errors of a step and of a product, and the exponents."""
        n = self.hidden_size
        cell = LIFCell(self.channels, n, reset_grad=grad, order=order).double()
        fluctuation_driven(
            cell, input_rate=self.input_rate, generator=torch.Generator().manual_seed(self.seed)
        )
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
