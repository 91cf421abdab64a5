"""Adaptive surrogate flossing of binary networks on the delayed XOR: figure 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lyaptorch.cells import BinaryCell
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, Schedule
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import OneHotXOR
from lyaptorch.tasks.batch import Task
from lyaptorch.training import Model, Readout, evaluate, train
from lyaptorch.training.model import settled_state

CONDITIONS = ("none", "adaptive")
"""When networks are flossed in figure 3."""


def binary_network(
    task: Task,
    n: int,
    rows: int,
    ensemble: tuple[int, ...],
    ids: Tensor,
    seed: int,
    *,
    floss_sharpness: bool,
    sharpness: Tensor | None = None,
    input_scale: Tensor | None = None,
    readout_scale: float = 1.0,
) -> Model:
    """Binary networks with a trained initial state.

    W ~ N(0, 1/n), V ~ N(0, 1), b ~ U(0, 0.1); a readout with weights N(0, 1/n). The bias and the scale of the
    readout are ours: the paper prints neither.

    Args:
        task: what they are to learn.
        n: units.
        rows: of the initial state.
        ensemble: `*e`.
        ids: of the networks, `*e`.
        seed: determines everything.
        floss_sharpness: whether flossing trains the sharpness.
        sharpness: `*e`, 1 when missing.
        input_scale: factor of V, `*e`, 1 when missing.
        readout_scale: factor of the readout's weights.
    """
    generator = torch.Generator().manual_seed(seed)
    g = (torch.ones(ensemble) if sharpness is None else sharpness)[..., None, None].clone()
    cell = BinaryCell(
        task.input_size,
        n,
        sharpness=nn.Parameter(g) if floss_sharpness else g,
        ensemble=ensemble,
        member_ids=ids,
        generator=generator,
    )
    if input_scale is not None:
        with torch.no_grad():
            cell.weight_ih.mul_(input_scale[..., None, None])
    readout = Readout(
        n,
        task.output_size,
        scale=readout_scale * n**-0.5,
        ensemble=ensemble,
        member_ids=ids,
        generator=generator,
    )
    h0 = settled_state(cell, rows, member_ids=ids, generator=generator)
    return Model(cell, readout, h0=h0, loss=task.loss)


@dataclass(frozen=True)
class Fig3:
    """Accuracy and |dL/dh0| of binary networks on the one-hot XOR: no flossing against adaptive flossing.

    As in the paper, flossing trains W, V, b and the sharpness, which starts at 1, and episodes that end in a
    sharper surrogate come whenever lambda_1 or |dL/dW| is too large. Ours, because the paper's numbers are
    missing or did not learn the task: the target below 0, the bounds of lambda_1, a lower one among them,
    which count from the start, k, all rates and lengths, the scales of the input weights and of the readout.
    Networks that are not flossed have the sharpness and the input weights with which they learn best.

    Attributes:
        delays: longest lags.
        seeds: networks for each delay and condition.
        epochs: task steps.
        floss_epochs: flossing steps before training.
        episode_epochs: flossing steps of the episodes during training.
        k: exponents flossed.
        target: exponent to reach.
        clip: largest norm of a flossing gradient.
        bounds: of lambda_1, outside of which there is an episode.
        factor: of the sharpness, when lambda_1 is above its bounds or |dL/dW| above 1.
        check_every: task epochs between two looks at lambda_1.
        lr: learning rate of the task.
        late: task steps at that rate.
        late_lr: learning rate of the task from then on.
        input_scale: standard deviation of the input weights of networks that are flossed.
        plain_input_scale: the same of those that are not.
        plain_sharpness: their sharpness.
        readout_scale: standard deviation of the readout's weights, in units of 1 / sqrt(n).
        every: task epochs between measurements of the gradient.
        hidden_size: n.
        batch: trajectories of a task step.
        extra: steps of a trial beyond the delay.
        seed: determines everything.
    """

    delays: tuple[int, ...] = (10, 12, 14, 16, 18, 20, 22, 24, 26)
    seeds: int = 9
    epochs: int = 3001
    floss_epochs: int = 500
    episode_epochs: int = 10
    k: int = 8
    target: float = -0.08
    clip: float = 1.0
    bounds: tuple[float, float] = (-0.1, -0.05)
    factor: float = 1.05
    check_every: int = 10
    lr: float = 2e-3
    late: int = 2000
    late_lr: float = 1e-3
    input_scale: float = 2.0
    plain_input_scale: float = 1.0
    plain_sharpness: float = 0.7
    readout_scale: float = 0.01
    every: int = 50
    hidden_size: int = 80
    batch: int = 64
    extra: int = 200
    seed: int = 0

    figure: ClassVar[str] = "fig3"
    shows: ClassVar[str] = "adaptive surrogate flossing against none: accuracy and |dL/dh0| over delays"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "delays": (2, 4),
            "seeds": 2,
            "epochs": 15,
            "late": 10,
            "floss_epochs": 4,
            "episode_epochs": 2,
            "every": 5,
            "check_every": 5,
            "hidden_size": 12,
            "batch": 4,
            "extra": 10,
        },
        "small": {"delays": (14, 18), "seeds": 8},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "3 s", "small": "13 min", "paper": "1 hour"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy (condition, delay, seed, epoch)`, `final_accuracy`, `gradient_norm`, `sharpness`."""
        shape = (len(CONDITIONS), len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        flossed = torch.tensor([False, True])[:, None, None].expand(shape)
        task = OneHotXOR(torch.tensor(self.delays)[None, :, None].expand(shape))
        model = binary_network(
            task,
            self.hidden_size,
            1,
            shape,
            ids,
            self.seed,
            floss_sharpness=True,
            sharpness=torch.where(flossed, 1.0, self.plain_sharpness),
            input_scale=torch.where(flossed, self.input_scale, self.plain_input_scale),
            readout_scale=self.readout_scale,
        )
        length = max(self.delays) + self.extra
        record = train(
            model,
            task,
            self._schedule(flossed),
            batch=self.batch,
            length=length,
            lr=self.lr,
            metrics=("initial_gradient_norm",),
            metrics_every=self.every,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
            unstable="mark",
            checkpoint=checkpoint,
            show_progress=show_progress,
        )
        _, final = evaluate(
            model,
            task,
            batch=self.batch,
            length=length,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
        )
        dims = ("condition", "delay", "seed")
        norms = record["initial_gradient_norm"]
        variables = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final_accuracy": (dims, final),
            "gradient_norm": ((*dims, "measurement"), norms.reshape(*shape, -1)),
            "sharpness": (dims, model.state_dict()["cell.activation.sharpness"][..., 0, 0]),
        }
        coordinates = {
            "condition": (("condition",), np.array(CONDITIONS)),
            "delay": (("delay",), np.array(self.delays)),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def _schedule(self, who: Tensor) -> Schedule:
        """What is done, for those networks that are flossed."""
        pre = FlossPhase(self.floss_epochs, k=self.k, target=self.target, clip=self.clip, who=who)
        lowest, highest = self.bounds
        floss, fit = adaptive(
            self.epochs,
            pre,
            episode_epochs=self.episode_epochs,
            check_every=self.check_every,
            at=(),
            after=0,
            lowest=lowest,
            highest=highest,
            factor=self.factor,
        )
        early = replace(fit, epochs=min(self.late, self.epochs))
        return floss, early, replace(fit, epochs=self.epochs - early.epochs, lr=self.late_lr)

    def checks(self, record: Record) -> list[Check]:
        """D = 14 is solved with and without flossing, d = 18 with it alone; gradients arrive with it."""
        found, delays = [], record["delay"].tolist()
        if 14 in delays:
            for condition, final in zip(
                CONDITIONS, record["final_accuracy"][:, delays.index(14)], strict=True
            ):
                sentence = f"d = 14, {condition}: median accuracy"
                found.append(at_least(sentence, 0.95, float(np.median(final))))
        if 18 in delays:
            none, flossed = record["final_accuracy"][:, delays.index(18)]
            solved = float((flossed >= 0.95).mean())
            found += [
                at_least("d = 18, adaptive: share of networks that reach 95%", 0.5, solved),
                at_least("d = 18, adaptive: mean accuracy", 0.8, float(flossed.mean())),
                at_most("d = 18, none: best accuracy", 0.6, float(none.max())),
            ]
        norms = record["gradient_norm"][:, -1]
        # as in the paper, averaged over epochs; the mean of logarithms, because the norms span decades
        apart = np.diff(np.nanmean(np.log10(np.maximum(norms, 1e-30)), (1, 2)))
        sentence = f"d = {delays[-1]}: log10 of |dL/dh0| with flossing over without"
        return [*found, at_least(sentence, 4.0, float(apart[0]))]
