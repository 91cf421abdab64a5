"""Decays that differ between units (figure 5), and residuals inside the non-linearity (figure 6)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import fading_memory, gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Checks, at_least, at_most, where
from lyaptorch.experiments.figure import Along, Results, Study, numbers, stacked
from lyaptorch.experiments.weak_coupling.edge import nearest
from lyaptorch.experiments.weak_coupling.image_runs import (
    CHANCE,
    SOMETHING,
    Conditions,
    ImageRun,
    ahead,
    best_scores,
    earlier,
    learning_curves,
    scores_of,
    seeded,
    steps_of,
)
from lyaptorch.experiments.weak_coupling.rotations import BESIDE
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, figure, network
from lyaptorch.plots.primitives import GREY, PALETTE, letters, level, picture, scores
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import SequentialImages
from lyaptorch.tasks.batch import Draw


@picture(5, width=3.0)
def spreads(record: Record, axes: list[Axes]) -> None:
    """Accuracy, exponents, fading memory, gradients and Hessian, a colour for each spread of the decays."""
    accuracy, spectra, memory, norms, hessian = axes
    learning_curves(accuracy, record, 0, "Learning")
    for i, name in enumerate(record["condition"]):
        color = PALETTE[i % len(PALETTE)]
        spectra.plot(record["exponents"][i].mean(0), "o-", color=color, markersize=3)
        memory.semilogy(record["fading_memory"][i].mean(0), color=color, label=rf"$\delta = {name}$")
        norms.semilogy(record["gradient_norm"][i].mean(0), color=color)
        hessian.semilogy(np.abs(record["hessian"][i]).mean(0), "o-", color=color, markersize=3)
    spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
    memory.set(xlabel="steps", ylabel="perturbation left", title="Fading memory")
    norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
    hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
    memory.legend()
    # as the paper has them: accuracy, the spectrum of memory, gradients, Hessian
    letters(axes, "AB CD")
    seeded(axes[0], record)


@figure(
    "fig5",
    "heterogeneous decays around a subcritical one: accuracy, exponents, gradients",
    cost=("5 s", "5 min"),
    smoke={"spreads": (0.0, 0.04), "rank": 2, "eigenvalues": 1, "hessian_steps": 2, "sample": 2},
    small={
        "learning_rates": (3e-3, 1e-2),
        "spreads": (0.0, 0.04, 0.1),
        "seeds": 3,
        "iterations": 2500,
        "measure_every": 250,
        "eigenvalues": 5,
        "hessian_steps": 12,
        "sample": 16,
    },
    draw=spreads,
    cut=(Along("seed", "seeds"), Along("condition", "spreads"), Along("lr", "learning_rates")),
)
class Fig5(ImageRun):
    """Decays drawn from U(r - delta, r + delta) around a subcritical r.

    Attributes:
        decay: r.
        spreads: delta, one group of networks for each.
        rank: exponents measured, of networks before training.
        eigenvalues: leading ones of the Hessian, of networks before training.
        hessian_steps: of the Lanczos iteration.
        sample: images of gradients and curvature.
    """

    iterations: int = 23_400
    decay: float = 0.95
    spreads: tuple[float, ...] = (0.0, 0.02, 0.04, 0.06, 0.1)
    rank: int = 16
    eigenvalues: int = 10
    hessian_steps: int = 30
    sample: int = 64

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """A spread for each; the same draws, scaled."""
        n = self.hidden_size
        # U(-1, 1), the same for all spreads: groups differ by delta alone, and lambda_1 rises with it
        drawn = 2 * Stream(self.seed, "decays").uniform((n,), member_ids=ids) - 1
        decays = self.decay + torch.tensor(self.spreads)[:, None, None] * drawn
        couplings = torch.full_like(decays, self.coupling)
        return [f"{d:g}" for d in self.spreads], torch.zeros(*decays.shape[:-1], n // 2), decays, couplings

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """Before training: exponents, the fading of a perturbation, gradients over time, the Hessian."""
        ids = numbers(self.first, self.seeds).expand(len(self.spreads), -1)
        cell = self.cell(study, conditions, ids)
        x = SequentialImages(self.images).inputs(Draw(self.seed, 400, stream="measure"))
        # one input for all, so that only the networks differ
        inputs = x[:, None, None].expand(-1, *cell.ensemble, -1, -1)
        with torch.no_grad():
            k = min(self.rank, self.hidden_size)
            exponents = lyapunov_spectrum(cell, inputs, k=k, tangent_transient=100).exponents[..., 0, :]
        curve = fading_memory(cell, inputs[:200])[..., 0].movedim(0, -1)
        dims = ("condition", "seed")
        return {
            "exponents": ((*dims, "rank"), exponents, {"units": "nats per step"}),
            "fading_memory": ((*dims, "step"), curve),
            **self._curvature(study, cell, ids),
        }

    def _curvature(self, study: Study, cell: ResidualCell, ids: Tensor) -> dict[str, Any]:
        """In float64, because gradients of supercritical networks grow exponentially."""
        task = SequentialImages(self.images)
        model = network(study, cell, task, ids).double()
        batch = task.draw(
            Draw(self.seed, task.length, self.sample, member_ids=ids, stream="test", dtype=torch.float64)
        )

        def loss(states: Tensor) -> Tensor:
            return model.score(batch, states)[0]

        # curvature over W, which has n^2 entries
        k, norms = min(self.eigenvalues, self.hidden_size**2), gradient_norms(cell, batch.inputs, loss)
        found = hessian_spectrum(cell, batch.inputs, loss, k=k, steps=self.hessian_steps)
        return {
            "gradient_norm": (("condition", "seed", "time"), norms.mean(-1).movedim(0, -1)),
            "hessian": (("condition", "seed", "index"), found.eigenvalues),
        }

    def claims(self, record: Record) -> Checks:
        """Heterogeneity lengthens memory; a moderate one helps, a strong one makes learning unstable."""
        leading = record["exponents"][..., 0].mean(-1)
        # logarithms, because gradients and curvature of the groups differ by decades
        norms = np.log(record["gradient_norm"]).mean(1)
        curvature = np.log(np.abs(record["hessian"][..., 0])).mean(-1)
        names = [str(name) for name in record["condition"]]
        least = partial(at_least, source=f"{AUTHORS}, section 4.3")
        arriving, rise = norms[:, 0] - norms[:, -1], "smallest increase from one spread to the next"
        for key, sentence, values in (
            ("exponents", f"mean lambda_1 before training: {rise}", leading),
            ("gradient", f"log (|dL/dh_s| at the first / last step) before training: {rise}", arriving),
            ("curvature", f"log |leading Hessian eigenvalue| before training: {rise}", curvature),
        ):
            yield least(key, sentence, 0.0, np.diff(values).min() if len(values) > 1 else np.nan)
        yield from self._trained_claims(record, names)

    def _trained_claims(self, record: Record, names: list[str]) -> Checks:
        """A moderate spread is better than none, and than the strongest; seed by seed, which start alike."""
        least = partial(at_least, source=f"{AUTHORS}, section 4.3")
        of, steps = scores_of(record), steps_of(record)
        # r + delta < 1: no unit's memory grows
        moderate = [name for name in names if 0 < float(name) < 1 - self.decay]
        known = max(rows.mean() for rows in of.values()) > SOMETHING
        # their mean: the best of several would be better than a single one by luck alone
        for rows in (of, steps):
            rows.update({"moderate": np.mean([rows[name] for name in moderate], 0)} if moderate else {})
        for key, other, words in (("moderate", "0", "none"), ("strongest", names[-1], "strongest")):
            sentence = f"accuracy, moderate spreads (r + delta < 1) − {words} (mean)"
            yield least(key, sentence, 0.0, where(known, ahead(of, "moderate", (other,))))
        sentence = "task steps to minimal performance, no spread − moderate spreads (mean)"
        gain = earlier(steps, record["measured_at"][-1], "moderate", ("0",))
        yield least("efficiency", sentence, 0.0, gain)


KINDS = ("A", "B")


@picture(lambda record: 2 * len(record["permuted"]))
def sides(record: Record, axes: list[Axes]) -> None:
    """Best accuracy of kinds A and B against r, and against the angle at r = 1."""
    r, multiples, label = record.config["decays"], record.config["multiples"], "best test accuracy"
    for order, permuted in enumerate(record["permuted"]):
        left, right = axes[2 * order : 2 * order + 2]
        for i, kind in enumerate(record["kind_name"]):
            # over learning rates, of each seed
            best = np.nan_to_num(record["best_accuracy"][i, order]).max(1)
            # the angle 0 is not trained again: it is r = 1
            at_rest = best[r.index(1.0)] if 1.0 in r else np.full(best.shape[-1], np.nan)
            turned = np.concatenate([at_rest[None], best[len(r) : len(r) + len(multiples)]])
            right.axhline(best[-1].mean(), color=PALETTE[i], linestyle="--", linewidth=1)
            scores(left, r, best[: len(r)], PALETTE[i], f"kind {kind}", alpha=0.4)
            scores(right, [0.0, *multiples], turned, PALETTE[i], alpha=0.4)
        title = "permuted" if permuted else "in order"
        left.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
        left.set(xlabel="$r$", ylabel=label, title=f"Decay, {title}", ylim=(0, 1.03))
        right.set(xlabel=r"angle / $\omega_0$", ylabel=label, title=f"Rotation, {title}", ylim=(0, 1.03))
        level(left, CHANCE)
        level(right, CHANCE)
        right.plot([], [], "--", color=GREY, label="heterogeneous, mean")
        right.legend()
        left.legend()
    letters(axes, "AB")
    seeded(axes[0], record)


@figure(
    "fig6",
    "kinds A and B: accuracy against r, and against the angle of a rotation",
    cost=("3 s", "2 min"),
    smoke={"decays": (0.9, 1.0, 1.1), "multiples": (1.0,)},
    small={
        "learning_rates": (1e-2,),
        "batch": 32,
        "iterations": 2500,
        "measure_every": 250,
        "decays": (0.95, 0.99, 1.0, 1.01, 1.05),
        "multiples": (0.5, 1.0, 1.5),
    },
    draw=sides,
)
class Fig6(ImageRun):
    """Kinds A, phi(A h) + eps phi(a), and B, phi(A h + eps a): over decays r, and over angles at r = 1.

    Attributes:
        decays: r of networks without rotation.
        multiples: angles of networks with r = 1, relative to the characteristic frequency; 0 is r = 1 above.
    """

    iterations: int = 23_400
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05)
    multiples: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """First the decays, then the angles, then informed heterogeneity, as in `images`."""
        decays = torch.tensor([*self.decays, *[1.0] * len(self.multiples)])
        angles = spectrum.frequency * torch.tensor([*[0.0] * len(self.decays), *self.multiples])
        names = [f"r = {d:g}" for d in self.decays] + [f"{m:g} w0" for m in self.multiples]
        names, *even = self.common(names, decays, angles, ids)
        drawn = residuals.informed(spectrum, self.hidden_size, **study.ensemble(ids))
        w, r, eps = (
            torch.cat([z, own[None]])
            for z, own in zip(even, (drawn.angles, drawn.decays, drawn.couplings), strict=True)
        )
        return [*names, "heterogeneous"], w, r, eps

    def operations(self) -> float:
        """Of both kinds."""
        return len(KINDS) * super().operations()

    def run(self, study: Study) -> Results:
        """As `ImageRun.run`, each variable with a dimension `kind` in front."""
        parts = [self.trained(study.part(kind), kind) for kind in KINDS]
        variables = stacked("kind", [variables for variables, _ in parts])
        return variables, {**parts[0][1], "kind_name": (("kind",), list(KINDS))}

    def claims(self, record: Record) -> Checks:
        """A wants r < 1 and B r > 1, and B minds the angle more; heterogeneity does as well as the best."""
        r, spans, learned = np.array(self.decays), [], []
        least = partial(at_least, source=f"{AUTHORS}, section 4.4")
        # of digits in order
        for kind, accuracy in zip(KINDS, best_scores(record)[:, 0], strict=True):
            by_decay, turned, drawn = np.split(accuracy, [len(r), len(r) + len(self.multiples)])
            below, above = by_decay[r < 1].max(), by_decay[r > 1].max()
            of = f"kind {kind}: best accuracy"
            better, worse = (below, above) if kind == "A" else (above, below)
            words = "r < 1 − r > 1" if kind == "A" else "r > 1 − r < 1"
            # who has not learned to tell digits does so on neither side
            known = by_decay.max() >= MINIMAL[False]
            yield least(f"kind {kind} side", f"{of}, {words}", 0.0, where(known, better - worse))
            # as many near the edge as at the ends: the best of more would be better by luck alone
            ends, inner = max(by_decay[0], by_decay[-1]), max(by_decay[nearest(r)], default=np.nan)
            sentence = f"{of}, r nearest 1 − smallest and largest r"
            yield least(f"kind {kind} edge", sentence, 0.0, where(known, inner - ends))
            at = dict(zip(self.multiples, turned.tolist(), strict=True))
            beside = max((at[m] for m in (0.5, 1.5) if m in at), default=np.nan)
            learned.append(turned.max() >= MINIMAL[False])
            sentence = f"{of}, w0 − better of {BESIDE}"
            yield least(f"kind {kind} rotation", sentence, 0.0, where(learned[-1], at[1.0] - beside))
            lag = max(by_decay.max(), turned.max()) - drawn[0]
            sentence, source = f"{of}, homogeneous residuals − heterogeneous", f"{AUTHORS}, section 4.4"
            yield at_most(
                f"kind {kind} heterogeneity", sentence, 0.05, where(learned[-1], lag), source=source
            )
            # among rotations, as in figure 4
            spans.append(np.ptp(turned))
        told = where(all(learned), spans[1] - spans[0])
        sentence = "range of accuracy over rotation angles, kind B − kind A"
        yield least("sensitivity", sentence, 0.0, told)
