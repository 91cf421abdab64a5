"""Processor time of a step of a spiking network, of its tangent vectors and of QR: table 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lyaptorch.cells import Cell, LIFCell
from lyaptorch.experiments.figure import declare
from lyaptorch.experiments.gradient_flossing import cost
from lyaptorch.experiments.gradient_flossing.cost import Sizes
from lyaptorch.experiments.study import Study
from lyaptorch.experiments.surrogate_flossing.networks import PAPER
from lyaptorch.experiments.surrogate_flossing.spiking import Spiking
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import SpikingXOR


@declare(
    PAPER,
    "table1",
    "measured cost of LIF, Jacobian and QR steps against sizes, share of flossing",
    cost=("2 s", "2 s", "1 min"),
    smoke=cost.Table1.scales["smoke"],
    small=cost.Table1.scales["small"],
    draw=cost.seconds,
)
@dataclass(frozen=True)
class Table1(cost.Table1):
    """Table 1 of Gradient Flossing for LIF networks, whose state has two numbers for each neuron.

    The share of flossing is that in the training of the figure `spiking`, because the paper trains no
    spiking network.
    """

    task_epochs: int = 1500
    floss_epochs: int = 300

    def network(self, sizes: Sizes) -> tuple[Cell, Tensor, Tensor]:
        """A LIF network of n / 2 neurons, driven by noise from state 0."""
        generator = self._seeds()
        cell = LIFCell(1, sizes.n // 2, reset_grad="ignore", generator=generator)
        inputs = torch.randn(sizes.t, sizes.b, 1, generator=generator)
        return cell, inputs, torch.zeros(sizes.b, sizes.n)

    def training(self, flosses: int, fits: int) -> Callable[[], object]:
        """Flossing steps, then task steps, of a new network as the figure `spiking` has it."""
        setting, task = Spiking(seed=self.seed), SpikingXOR(80)
        schedule = (FlossPhase(flosses, k=setting.k, steps=setting.steps), FitPhase(fits))
        model = setting.model(task, torch.tensor(0))
        study = Study(self.seed, show_progress=False)
        return partial(study.train, model, task, schedule, batch=setting.batch, length=task.period)
