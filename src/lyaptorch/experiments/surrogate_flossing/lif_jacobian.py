"""The Jacobian of spiking networks, analytic against autodiff (figure 4)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import LIFCell, unroll
from lyaptorch.cells.spiking import ORDERS, RESET_GRADS
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import Checks, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.surrogate_flossing.random_binary import NATS, figure
from lyaptorch.plots.primitives import BLUE, ORANGE, PALETTE, footnote, letters, picture
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum

MODES = [(grad, order) for order in ORDERS for grad in RESET_GRADS]
"""The six conventions."""
PUBLISHED = ("ignore", "sequential")
"""That of the paper's equations 11 to 14."""


@picture(5, width=3.4, height=3.2)
def conventions(record: Record, axes: list[Axes]) -> None:
    """The Jacobian, analytic and automatic, and their difference; errors and spectra of the conventions."""
    *matrices, errors, spectra = axes
    for panel, name, matrix in zip(matrices, record["matrix"], record["jacobian"], strict=True):
        # the difference as in the paper, by powers of 2; 0 is left white
        small = name == "difference"
        shown = np.log2(np.where(matrix == 0, np.nan, np.abs(matrix))) if small else matrix
        drawn = panel.imshow(shown, cmap="magma" if small else "RdBu_r", interpolation="nearest")
        if not small:
            largest = np.abs(matrix).max()
            drawn.set_clim(-largest, largest)
        panel.figure.colorbar(drawn, ax=panel, label=r"$\log_2 |\Delta D_{ij}|$" if small else "$D_{ij}$")
        panel.set(xlabel="$j$", ylabel="$i$", title=str(name))
    place = np.arange(len(record["mode"]))
    # on a logarithmic axis 0 would be missing
    step, product = (np.maximum(record[name], 1e-18) for name in ("jacobian_error", "product_error"))
    errors.semilogy(place, step, "o", color=BLUE, label="one step")
    errors.semilogy(place, product, "o", color=ORANGE, label="product, relative")
    errors.set_xticks(place, record["mode"], rotation=30, ha="right", fontsize=7)
    errors.set(ylabel="largest deviation", title="Analytic against autodiff")
    errors.legend()
    for i, mode in enumerate(record["mode"]):
        spectra.plot(record["spectrum"][i], color=PALETTE[i], linewidth=1.2, label=mode)
    spectra.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {NATS}", title="Spectra by convention")
    spectra.legend(fontsize=6)
    letters(axes, "ABC  ")
    footnote(errors, "one network", "A to C: reset ignored, sequential, the last step that is compared")


@figure(
    "fig4",
    "the LIF Jacobian, analytic against autodiff, in six conventions",
    cost=("2 s", "2 s", "3 min"),
    smoke={"hidden_size": 5, "steps": 10, "measure": 30},
    small={"measure": 500},
    draw=conventions,
)
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
        """`jacobian_error`, `product_error (mode)`, `spectrum (mode, rank)`, `jacobian (matrix, ...)`."""
        shape = (self.measure + self.steps, 1, self.channels)
        x = Stream(self.seed, "inputs").uniform(shape, member_ids=0, dtype=torch.float64)
        # a spike in a step of 2 ms
        inputs = (x < self.input_rate * 2e-3).double()
        rows = [self._mode(study, inputs, grad, order) for grad, order in MODES]
        first, product, spectra, matrices = zip(*rows, strict=True)
        variables: dict[str, Given] = {
            "jacobian": (("matrix", "row", "column"), matrices[MODES.index(PUBLISHED)]),
            "jacobian_error": (("mode",), first),
            "product_error": (("mode",), product),
            "spectrum": (("mode", "rank"), torch.stack(spectra), {"units": "nats per step"}),
        }
        return variables, coordinates(
            mode=[f"{grad}, {order}" for grad, order in MODES],
            matrix=("analytic", "autodiff", "difference"),
        )

    def claims(self, record: Record) -> Checks:
        """The step's Jacobian is that of autodiff, and its products are what backpropagation computes."""
        because = "Both are the same derivative: they differ only if the code is wrong."
        exact = partial(at_most, kind="identity", source="autodiff", because=because)
        errors, over = (record["jacobian_error"], record["product_error"]), f"{self.steps} steps"
        for mode, step, product in zip(record["mode"], *errors, strict=True):
            sentence = f"{mode}: largest |analytic − autodiff| Jacobian entry ({over})"
            yield exact(f"{mode}, step", sentence, 1e-14, step)
            sentence = (
                f"{mode}: relative difference, gradient by backpropagation vs by product of Jacobians "
                f"({over})"
            )
            yield exact(f"{mode}, product", sentence, 1e-12, product)

    def _mode(
        self, study: Study, inputs: Tensor, grad: str, order: str
    ) -> tuple[float, float, Tensor, Tensor]:
        """Errors of a step and of a product, the exponents, and the Jacobians of the last step."""
        n = self.hidden_size
        cell = LIFCell(self.channels, n, reset_grad=grad, order=order).double()
        fluctuation_driven(cell, input_rate=self.input_rate, generator=study.generator())
        h = torch.zeros(1, 2 * n, dtype=torch.float64)
        product = eye = torch.eye(2 * n, dtype=torch.float64).unsqueeze(0)
        worst = 0.0
        with torch.no_grad():
            for x in inputs[: self.steps]:
                after, D = cell.pushforward(x, h, eye)
                # of the only row, over the only row: (2n, 1, 2n) without its middle
                automatic = torch.func.jacrev(lambda y, x=x: cell.step(x, y)[0])(h)[:, 0]
                difference = D[0] - automatic
                worst = max(worst, float(difference.abs().max()))
                h, product = after, D @ product
            spectrum = lyapunov_spectrum(cell, inputs[self.steps :], h0=h, tangent_transient=10)
        h0 = torch.zeros_like(h).requires_grad_()
        cotangent = torch.linspace(-1, 1, 2 * n, dtype=torch.float64)
        last = unroll(cell, inputs[: self.steps], h0)[-1]
        (gradient,) = torch.autograd.grad((cotangent * last).sum(), h0)
        # dL/dh0 = (D_T ... D_1)^T dL/dh_T
        expected = cotangent @ product[0]
        away = float((gradient[0] - expected).abs().max() / expected.abs().max())
        # in a finite time the frame need not have them in order
        exponents = spectrum.exponents[0].sort(descending=True).values
        return worst, away, exponents, torch.stack([D[0], automatic, difference])
