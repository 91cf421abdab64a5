"""The network that is being diagnosed, and copies of it on which suggestions are put to trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch.analysis.given import Given
from lyaptorch.analysis.runs import run
from lyaptorch.cells import Cell, Stacked, as_cell, copied
from lyaptorch.diagnosis.blocks import own_rates, silence
from lyaptorch.diagnosis.findings import blocking_parts
from lyaptorch.diagnosis.measure import Measurements
from lyaptorch.tangent import lyapunov_spectrum, mean_over_trajectories
from lyaptorch.tangent.growth import untold

TRIAL, ALIGN = 300, 50
"""Steps of a trial on a copy, and how many of them are not counted."""

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Suggestion:
    """One thing to try.

    Attributes:
        title: what to do, in a few words.
        reason: why, with numbers.
        code: the lines of Python that do it; `inputs` is what was diagnosed, `lt` lyaptorch.
        expected: lambda_1 of a copy of the network that was changed so, or the growth within the part that
            kills, as the diagnosis reports them; None where it was not tried.
    """

    title: str
    reason: str
    code: str
    expected: float | None = None


@dataclass(frozen=True)
class Trial:
    """The network as its user has it, and the run that was diagnosed.

    Attributes:
        network: what `diagnose` was given.
        cell: the same as a cell.
        name: what the user calls it.
        inputs: `(t, *e, b, m)`.
        h: the state before them.
        signs: what was measured.
        steps: `(*e, b)`, those of each trajectory.
        given: what the user gave `diagnose`, as Python, so that it can be asked again.
    """

    network: Any
    cell: Cell
    name: str
    inputs: Tensor
    h: Tensor
    measured: Measurements
    steps: Tensor
    given: Given

    def trained(self) -> list[Tensor]:
        """What has a gradient in the step."""
        return self.cell.leaves(self.inputs[0], self.h)

    def reported(self, per_step: float) -> float:
        """A rate as the diagnosis reports it."""
        return self.measured.clock.per_time(per_step)

    def told(self, per_step: float) -> str:
        """The same in words."""
        return f"{self.reported(per_step):+.3g}"

    def path(self, parameter: Tensor | None) -> str | None:
        """Where in the network a parameter is, in dots; None where it is not."""
        if parameter is None or not isinstance(self.network, nn.Module):
            return None
        return next((path for path, p in self.network.named_parameters() if p is parameter), None)

    def spell(self, path: str) -> str:
        """That path as Python."""
        plain = all(part.isidentifier() for part in path.split("."))
        return f"{self.name}.{path}" if plain else f'{self.name}.get_parameter("{path}")'

    @property
    def cell_name(self) -> str:
        """The cell, or what makes one, as Python."""
        return self.name if cell_of(self.network) is self.network else f"{self.name}.cell"

    def changed(self, change: Change) -> Trial:
        """A copy of the network with the change, on the first `TRIAL` steps."""
        network = copied(self.network)
        with torch.no_grad():
            change(network)
        return replace(self, network=network, cell=as_cell(cell_of(network))).briefly()

    def briefly(self) -> Trial:
        """The first `TRIAL` steps of the run."""
        return replace(self, inputs=self.inputs[:TRIAL], steps=self.steps.clamp_max(TRIAL))

    @property
    def blocking(self) -> list[int]:
        """The layers or groups that kill the signal."""
        return blocking_parts(self.measured)

    @property
    def worst_part(self) -> tuple[str, float]:
        """What is to be brought close to 0, per step: the growth within a part that kills, else lambda_1."""
        parts, clock = self.measured.parts, self.measured.clock
        if self.blocking:
            first = self.blocking[0]
            return f"the growth within {parts.names[first]}", clock.per_step(parts.rates[first].item())
        return "λ₁", clock.per_step(self.measured.lambda1)

    def rate(self) -> float:
        """That, measured, per step; inf where the copy overflows."""
        try:
            if self.blocking:
                assignment = self.measured.parts.assignment[:, self.blocking[:1]]
                return own_rates(self.cell, self.inputs, self.h, assignment, self.steps).item()
            shortest = int(self.steps.min())
            # what dies in a trial is nothing to warn of
            with untold():
                found = lyapunov_spectrum(
                    self.cell,
                    self.inputs,
                    k=1,
                    h0=self.h,
                    lengths=None if shortest == len(self.inputs) else self.steps.flatten(),
                    tangent_transient=min(ALIGN, shortest // 2),
                    dt=1.0,
                )
            return mean_over_trajectories(found.exponents).mean().item()
        except FloatingPointError:
            return math.inf

    def silence(self) -> Tensor:
        """The share of moments `(n,)` at which each variable is silent."""
        return silence(self.cell, run(self.cell, self.inputs, self.h, self.steps), moments=4)

    def layers(self) -> list[tuple[Cell, range]]:
        """The cells that stand on one another, and where each has its state."""
        if not isinstance(self.cell, Stacked):
            return [(self.cell, range(self.h.shape[-1]))]
        found, start = [], 0
        for cell in self.cell.layers:
            found.append((cell, range(start, start + cell.state_size)))
            start += cell.state_size
        return found

    def blocking_cells(self) -> list[Cell]:
        """The layers that kill, else all."""
        layers = [cell for cell, _ in self.layers()]
        return [layers[i] for i in self.blocking] if self.cell.layered and self.blocking else layers


def cell_of(network: Any) -> Any:
    """A model's cell; anything else itself."""
    inner = getattr(network, "cell", None)
    return inner if isinstance(inner, Cell) and hasattr(network, "initial_state") else network
