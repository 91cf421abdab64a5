"""The adding problem: exponents, gradients and curvature over r (figure 2)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell, residuals, unroll
from lyaptorch.experiments.check import Checks, at_least, at_most, claimed
from lyaptorch.experiments.figure import Results, Study
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, Trained, figure, network
from lyaptorch.plots.primitives import PALETTE, footnote, letters, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Adding
from lyaptorch.tasks.batch import Draw


@picture(5, width=3.1)
def responses(record: Record, axes: list[Axes]) -> None:
    """Trajectories, exponents, Hessian, gradients over time and steps' shares of it; a colour for each r."""
    states, spectra, hessian, norms, shares = axes
    for i, r in enumerate(record["r"]):
        color = PALETTE[i % len(PALETTE)]
        states.plot(record["trajectory"][i], color=color, linewidth=0.8)
        spectra.axhline(np.log(r), color=color, linestyle=":", linewidth=0.8)
        spectra.plot(record["before"][i], color=color, label=f"$r = {r:g}$")
        spectra.plot(record["after"][i], color=color, linestyle="--", linewidth=0.8)
        hessian.semilogy(np.abs(record["hessian"][i]), "o-", color=color, markersize=3)
        norms.semilogy(record["gradient_norm"][i], color=color)
        part = np.abs(record["contributions"][i])
        shares.plot(part / part.sum(), color=color)
        shares.axvline(centre(part), color=color, linestyle=":", linewidth=0.8)
    states.set(xlabel="step", ylabel="state", title="Trajectories", yscale="symlog")
    spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
    hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
    norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
    shares.set(xlabel="step", ylabel="share of the leading eigenvalue", title="Effective learning rates")
    spectra.legend(title="dashed: trained", loc="center right", bbox_to_anchor=(1, 0.72))
    letters(axes, "ABCD ")
    sample = record.config["sample"]
    footnote(
        states,
        "one network for each r",
        f"gradients and Hessian: mean of {sample} sums",
        "dotted: theory, mean step",
    )


def centre(weights: Any) -> Any:
    """The mean step of `weights (..., step)`."""
    return (weights * np.arange(weights.shape[-1])).sum(-1) / weights.sum(-1)


HARDLY: dict[str, Any] = {
    "kind": "question",
    "source": f"{AUTHORS}, section 4.1",
    "because": "The Record does not tell whether they learned; at this rate they hardly do.",
}
"""Of what training leaves as it is."""


@figure(
    "fig2",
    "trajectories, exponents, gradients over time and Hessian, for three residuals",
    cost=("2 s", "2 s", "10 min"),
    smoke={
        "hidden_size": 6,
        "length": 12,
        "sample": 4,
        "eigenvalues": 2,
        "hessian_steps": 6,
        "measure": 60,
        "iterations": 3,
        "batch": 4,
    },
    small={"hidden_size": 32, "sample": 50, "iterations": 300, "batch": 32},
    draw=responses,
)
class Fig2(Trained):
    """Sub-, critical and supercritical residuals r I on the adding problem, before and after training.

    Attributes:
        decays: r.
        length: steps of the adding problem.
        sample: trajectories of gradients and curvature.
        eigenvalues: leading ones of the Hessian.
        hessian_steps: of the Lanczos iteration.
        measure: steps over which exponents are measured.
        iterations: task steps of the training.
        lr: learning rate.
    """

    decays: tuple[float, ...] = (0.95, 1.0, 1.05)
    coupling: float = 0.01
    length: int = 100
    sample: int = 200
    eigenvalues: int = 5
    hessian_steps: int = 20
    measure: int = 1000
    iterations: int = 2000
    lr: float = 1e-3

    def run(self, study: Study) -> Results:
        """Exponents before and after training, gradient norms over time, Hessian eigenvalues."""
        r, task = torch.tensor(self.decays), Adding(self.length)
        ids, turn = torch.zeros(len(r), dtype=torch.int64), residuals.decay(r)
        networks: dict[str, Any] = {"coupling": self.coupling, **study.ensemble(ids)}
        cell = ResidualCell(2, self.hidden_size, residual=turn, **networks).double()
        of: dict[str, Any] = {"member_ids": ids, "dtype": torch.float64}
        # in float64: curvature at r = 0.95 and 1.05 differs by decades
        batch = task.draw(Draw(self.seed, self.length, self.sample, **of))

        def loss(states: Tensor) -> Tensor:
            """Squared error of the mean unit, the same readout for all."""
            return 0.5 * (states[-1].mean(-1, keepdim=True) - batch.targets[-1]).square().mean((-2, -1))

        norms = gradient_norms(cell, batch.inputs, loss).mean(-1)
        curvature = hessian_spectrum(cell, batch.inputs, loss, k=self.eigenvalues, steps=self.hessian_steps)
        with torch.no_grad():
            start = torch.zeros(len(r), self.sample, self.hidden_size, dtype=torch.float64)
            states = unroll(cell, batch.inputs, start)
        # inputs alone may be longer than a trial
        inputs = Adding(2).inputs(Draw(self.seed, self.measure, stream="measure", **of))
        before = self._spectrum(cell, inputs)
        model, last = network(study, cell.float(), task, ids), self.iterations
        self.fit(study, model, task, ids, last, lr=self.lr, metrics_every=last, test_batches=1)
        nats = {"units": "nats per step"}
        variables: dict[str, Any] = {
            "trajectory": (("decay", "step", "unit"), states[:, :, 0, :4].movedim(0, 1)),
            "before": (("decay", "rank"), before, nats),
            "after": (("decay", "rank"), self._spectrum(cell.double(), inputs), nats),
            "gradient_norm": (("decay", "time"), norms.mT),
            "hessian": (("decay", "index"), curvature.eigenvalues),
            "contributions": (("decay", "step"), curvature.contributions[..., 0].mT),
        }
        return variables, {"r": (("decay",), r)}

    @torch.no_grad()
    def _spectrum(self, cell: ResidualCell, inputs: Tensor) -> Tensor:
        return lyapunov_spectrum(cell, inputs, tangent_transient=self.measure // 4).exponents[..., 0, :]

    def claims(self, record: Record) -> Checks:
        """Exponents and the slope of the gradient are log r, and curvature grows with r."""
        # the step's Jacobian is r + eps diag(phi') W; entries of W have the variance 1 / (3n), so by the
        # circular law |z| <= 3^-1/2 = 0.58 for its eigenvalues z, and log|r + eps z| differs from log r by
        # at most 0.58 eps / r, to first order in eps
        bound = 0.6 * self.coupling
        exact = {"because": "It is first-order perturbation theory, with its error."}
        theory = partial(at_most, kind="identity", source=f"{AUTHORS}, equation 13", **exact)
        source = f"{AUTHORS}, section 4.1"
        for i, r in enumerate(self.decays):
            name, rate = f"r = {r:g}", math.log(r)
            off = np.abs(record["before"][i] - rate).max()
            norms = np.log(record["gradient_norm"][i])
            # |dL/dh_s| = |D^T ... D^T dL/dh_T| is about r^(T - s): backwards in time the slope is log r
            slope = np.polyfit(np.arange(len(norms)), norms[::-1], 1)[0]
            largest, error = max(0.1 * abs(rate), bound), abs(slope - rate)
            drift = np.abs(record["after"][i] - record["before"][i]).max()
            sentence = f"{name}: largest |lambda_i − log r| before training (bound: 0.6 eps / r)"
            yield theory(f"r {r:g} exponents", sentence, bound / r, off)
            sentence = f"{name}: |(slope of log |dL/dh_s| per step back) − log r| (bound: 10% or 0.6 eps)"
            yield theory(f"r {r:g} gradient", sentence, largest, error)
            # less than what theory leaves open, which is an eighth of what tells the three residuals apart
            sentence = f"{name}: largest |change| of an exponent in {self.iterations} task steps (0.6 eps)"
            yield at_most(f"r {r:g} training", sentence, bound, drift, **HARDLY)
        leading = np.abs(record["hessian"][:, 0])
        factor = (leading[1:] / leading[:-1]).min()
        sentence = "|leading Hessian eigenvalue|: smallest ratio, next larger r / r"
        yield at_least("curvature", sentence, 1.0, factor, source=source)
        # what arrives at a step is about r^(T - s): early ones count the more, the larger r
        middle, order = centre(np.abs(record["contributions"])), sorted(self.decays)
        shifts = np.diff(middle[np.argsort(self.decays)])
        of = "mean time step, weighted by |contribution| to the leading Hessian eigenvalue: shift"
        same = claimed(f"{AUTHORS}, equation 15", "contributions")
        for less, more, shift in zip(order[:-1], order[1:], shifts, strict=True):
            sentence = f"{of} from r = {less:g} to {more:g} (negative: earlier)"
            yield at_most(f"contributions {more:g}", sentence, 0.0, shift, **same)
