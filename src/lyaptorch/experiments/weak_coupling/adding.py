"""The adding problem: exponents, gradients and curvature over r (figure 2), and errors (table 1)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import best_so_far, gradient_norms, hessian_spectrum, iterations_to
from lyaptorch.cells import Cell, ElmanCell, ResidualCell, residuals, unroll
from lyaptorch.experiments.check import Checks, at_least, at_most
from lyaptorch.experiments.figure import Results, Study
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, Trained, figure, network, uniform
from lyaptorch.plots.primitives import PALETTE, bundle, level, picture, single
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Adding
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Adam


@picture(4)
def responses(record: Record, axes: list[Axes]) -> None:
    """Trajectories, exponents, gradients over time and Hessian eigenvalues; a colour for each r."""
    states, spectra, norms, hessian = axes
    for i, r in enumerate(record["r"]):
        color = PALETTE[i % len(PALETTE)]
        states.plot(record["trajectory"][i], color=color, linewidth=0.8)
        spectra.axhline(np.log(r), color=color, linestyle=":", linewidth=0.8)
        spectra.plot(record["before"][i], color=color, label=f"$r = {r:g}$")
        spectra.plot(record["after"][i], color=color, linestyle="--", linewidth=0.8)
        norms.semilogy(record["gradient_norm"][i], color=color)
        hessian.semilogy(np.abs(record["hessian"][i]), "o-", color=color, markersize=3)
    states.set(xlabel="step", ylabel="state", title="Trajectories", yscale="symlog")
    spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
    norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
    hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
    spectra.legend(title="dashed: trained")


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
        theory = partial(at_most, kind="identity", source=f"{AUTHORS}, equation 13")
        source = f"{AUTHORS}, section 4.1"
        for i, r in enumerate(self.decays):
            name, rate = f"r = {r:g}", math.log(r)
            off = np.abs(record["before"][i] - rate).max()
            norms = np.log(record["gradient_norm"][i])
            # |dL/dh_s| = |D^T ... D^T dL/dh_T| is about r^(T - s): backwards in time the slope is log r
            slope = np.polyfit(np.arange(len(norms)), norms[::-1], 1)[0]
            largest, error = max(0.1 * abs(rate), bound), abs(slope - rate)
            drift = np.abs(record["after"][i] - record["before"][i]).max()
            sentence = f"{name}: the gradient changes by log r a step, to 10% or 0.6 eps"
            moved = f"{name}: training moves no exponent by more than 0.05"
            yield theory(f"r {r:g} exponents", f"{name}: exponents are log r, to 0.6 eps / r", bound / r, off)
            yield theory(f"r {r:g} gradient", sentence, largest, error)
            yield at_most(f"r {r:g} training", moved, 0.05, drift, source=source)
        leading = np.abs(record["hessian"][:, 0])
        factor = (leading[1:] / leading[:-1]).min()
        sentence = "the leading Hessian eigenvalue grows with r: its least factor"
        yield at_least("curvature", sentence, 1.0, factor, source=source)


# who always answers the mean is wrong by the deviation of a sum of two U(0, 1), of variance 1/12 each
MEAN_PREDICTOR = (1 / 6) ** 0.5
NETWORKS = ("homogeneous", "heterogeneous", "Elman")


@single
def errors(record: Record, axes: list[Axes]) -> None:
    """Error over task steps, a line for each network, a colour for each kind."""
    (panel,) = axes
    for name, curves, color in zip(record["network_name"], record["test_loss"], PALETTE, strict=False):
        bundle(panel, curves, color, str(name), x=record["measured_at"], thick=np.median)
    level(panel, MEAN_PREDICTOR)
    panel.set(xlabel="task step", ylabel="RMS error", title="Adding problem", ylim=(0, 0.8))
    panel.legend()


@figure(
    "table1",
    "adding problem: homogeneous and heterogeneous residuals, Elman network; RMS error",
    cost=("1 s", "4 min", "15 min"),
    smoke={
        "length": 10,
        "seeds": 2,
        "hidden_size": 6,
        "batch": 4,
        "iterations": 4,
        "settling": 2,
        "measure_every": 2,
    },
    small={"seeds": 2, "iterations": 15_000},
    draw=errors,
)
class Table1(Trained):
    """RMS error on the adding problem, and the task steps until it falls below 0.3.

    The paper trains by gradient descent for 150 epochs; Adam, whose rates are ours, is faster. The last steps
    at a tenth of the rate settle what it stirs up.

    Attributes:
        length: steps of a sequence.
        seeds: networks of each kind.
        iterations: task steps.
        settling: further task steps at a tenth of the rate.
        lr: of Adam.
        elman_lr: that of the Elman networks.
        clip: largest norm of the whole gradient.
        decay: of the homogeneous residual.
        decays: range of the heterogeneous ones.
        couplings: range of the heterogeneous eps.
        measure_every: task steps between two tests.
        threshold: RMS of minimal performance; the paper's is lost.
    """

    length: int = 200
    seeds: int = 5
    hidden_size: int = 32
    batch: int = 32
    iterations: int = 20_000
    settling: int = 4000
    lr: float = 5e-3
    elman_lr: float = 1e-3
    clip: float = 1.0
    decay: float = 0.998
    decays: tuple[float, float] = (0.99, 1.0)
    coupling: float = 0.06
    couplings: tuple[float, float] = (0.02, 0.1)
    measure_every: int = 500
    threshold: float = 0.3

    def run(self, study: Study) -> Results:
        """`test_loss (network, seed, measurement)`, `best_loss`, `iterations_to_minimal`."""
        n, ids, shape = self.hidden_size, torch.arange(self.seeds), (len(NETWORKS), self.seeds)
        decays = uniform(self.seed, "decays", n, *self.decays, ids)
        couplings = uniform(self.seed, "couplings", n, *self.couplings, ids)
        # homogeneous and heterogeneous residuals are one ensemble
        residual = ResidualCell(
            2,
            n,
            residual=residuals.decay(torch.stack([torch.full_like(decays, self.decay), decays])),
            coupling=torch.stack([torch.full_like(couplings, self.coupling), couplings]),
            **study.ensemble(ids.expand(2, -1)),
        )
        curves, at = self._train(study, "residual", residual, self.lr)
        elman = ElmanCell(2, n, **study.ensemble(ids[None]))
        curves = np.concatenate([curves, self._train(study, "Elman", elman, self.elman_lr)[0]])
        dims, names = ("member", "measurement"), ("network", "seed")
        measured = {"test_loss": (dims, curves), "measured_at": (dims, np.broadcast_to(at, curves.shape))}
        whole = Record("train", {}, measured)
        until = iterations_to(whole, self.threshold, "test_loss").reshape(shape)
        variables = {
            "test_loss": ((*names, "measurement"), curves.reshape(*shape, -1)),
            "best_loss": (names, best_so_far(whole, "test_loss")[:, -1].reshape(shape)),
            # -1: never
            "iterations_to_minimal": (names, np.nan_to_num(until, nan=-1.0)),
        }
        known = (("network",), list(NETWORKS))
        return variables, {"network_name": known, "measured_at": (("measurement",), at)}

    def _train(self, study: Study, name: str, cell: Cell, lr: float) -> tuple[Any, Any]:
        """Test losses `(member, measurement)` and when they were measured; in two stages."""
        ids, task = torch.arange(self.seeds).expand(cell.ensemble), Adding(self.length)
        model, losses, at = network(study, cell, task, ids), [], []
        stages = ((self.iterations, lr, 0), (self.settling, lr / 10, self.iterations))
        for stage, (iterations, rate, before) in enumerate(stages):
            record = self.fit(
                # with a seed of its own, or the second would see the batches of the first again
                study.part(name, stage, seed=self.seed + stage),
                model,
                task,
                ids,
                iterations,
                lr=rate,
                optimizer=Adam(),
                clip=self.clip,
                clip_mode="global",
                metrics_every=self.measure_every,
                test_batches=10,
            )
            losses.append(record["test_loss"])
            at.append(np.nanmax(record["measured_at"], 0) + before)
        return np.concatenate(losses, 1), np.concatenate(at)

    def claims(self, record: Record) -> Checks:
        """Residual networks add, an Elman network stays at the mean."""
        homogeneous, heterogeneous, elman = record["best_loss"]
        low = partial(at_most, source=f"{AUTHORS}, table 1")
        sentence = "RMS of Elman networks, the best one: near the mean's 0.408"
        source = f"{AUTHORS}, section 4.4"
        yield low("homogeneous", "RMS of homogeneous residuals, median", 0.1, np.median(homogeneous))
        yield low("heterogeneous", "RMS of heterogeneous residuals, median", 0.1, np.median(heterogeneous))
        yield at_least("Elman", sentence, MEAN_PREDICTOR, elman.min(), 0.05, source=source)
