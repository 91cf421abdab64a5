"""Trials of suggestions on copies of the network that is diagnosed; its user's call, to be made again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._padded import Padded
from lyaptorch.cells import Cell, Stacked, as_cell, copied
from lyaptorch.diagnosis.blocks import own_rates, silence
from lyaptorch.diagnosis.findings import blocking_parts
from lyaptorch.diagnosis.measure import Measurements
from lyaptorch.diagnosis.memory import Memory, remembered
from lyaptorch.diagnosis.trajectories import run
from lyaptorch.tangent import lyapunov_spectrum, mean_over_trajectories
from lyaptorch.tangent.growth import untold

RNN = "torch.nn.utils.rnn"
"""Where torch keeps what packs sequences."""
TRIAL, ALIGN = 300, 50
"""Steps of a trial on a copy, and how many of them are not counted."""


@dataclass(frozen=True)
class Suggestion:
    """One thing to try.

    Attributes:
        title: what to do, in a few words.
        reason: why, with numbers.
        code: the lines of Python that do it; `inputs` is what was diagnosed, `lt` lyaptorch.
        expected: lambda_1 of a copy of the network that was changed so, or the growth within the part that
            kills, as the diagnosis reports them; None where it was not tried.
        held: how many numbers the state of that copy held of what was older than half of the horizon.
    """

    title: str
    reason: str
    code: str
    expected: float | None = None
    held: float | None = None


@dataclass(frozen=True)
class Trial:
    """The network as its user has it, and the run that was diagnosed.

    Attributes:
        network: what `diagnose` was given.
        cell: the same as a cell.
        name: what the user calls it.
        inputs: `(t, *e, b, m)`.
        h: the state before them.
        measured: what was measured of it.
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

    def changed(self, change: Callable[[Any], None]) -> Trial:
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
            assignment = self.measured.parts.assignment[:, self.blocking[:1]]
            # a network of another size, in place of this one, has no such part
            if self.blocking and len(assignment) == self.h.shape[-1]:
                return own_rates(self.cell, self.inputs, self.h, assignment, self.steps).item()
            shortest = int(self.steps.min())
            # the first vector needs some e^-(lambda_1 - lambda_2) t to turn into the first direction: ALIGN
            # steps are not counted, or half of them where the run is shorter
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

    def memory(self) -> Memory:
        """What its state holds over the horizon."""
        return remembered(self.cell, self.inputs, self.h, self.steps, self.measured.horizon)

    def silence(self) -> Tensor:
        """The share of moments `(n,)` at which each variable is silent."""
        return silence(self.cell, run(self.cell, self.inputs, self.h, self.steps), moments=4)

    def layers(self) -> list[tuple[Cell, range]]:
        """The cells that stand on one another, and where each has its state."""
        if not isinstance(self.cell, Stacked):
            return [(self.cell, range(self.h.shape[-1]))]
        ends = list(accumulate(cell.state_size for cell in self.cell.layers))
        return [(cell, range(b - cell.state_size, b)) for cell, b in zip(self.cell.layers, ends, strict=True)]

    def blocking_cells(self) -> list[Cell]:
        """The layers that kill, else all."""
        layers = [cell for cell, _ in self.layers()]
        apart = isinstance(self.cell, Stacked) and self.cell.layered
        return [layers[i] for i in self.blocking] if apart and self.blocking else layers


def cell_of(network: Any) -> Any:
    """A model's cell; anything else itself."""
    inner = getattr(network, "cell", None)
    return inner if isinstance(inner, Cell) and hasattr(network, "initial_state") else network


@dataclass(frozen=True)
class Given:
    """The arguments of a call, which `inputs`, `lengths`, `h0` and `groups` stand for.

    Attributes:
        others: all but network and inputs, by name, as Python.
        packed: whether the inputs were a PackedSequence.
        ragged: whether lengths were given.
        axes: of the inputs.
    """

    others: dict[str, str]
    packed: bool
    ragged: bool
    axes: int

    @property
    def plain(self) -> bool:
        """Whether the inputs are one tensor, all of whose steps count."""
        return not (self.packed or self.ragged)

    def floss(self) -> list[str]:
        """What `lt.floss` needs to know of it."""
        return [f"{name}={name}" for name in ("h0", "lengths") if name in self._named()]

    def again(self, network: str) -> str:
        """The same diagnosis in float64."""
        wide = self._named() | ({"h0": "h0.double()"} if self.others.get("h0") == "h0" else {})
        return _call(f"{network}.double()", "inputs.double()", wide)

    def longer(self, network: str) -> str:
        """The same diagnosis of every sequence four times in a row."""
        others, inputs = self._named(), f"inputs.repeat(4, {', '.join('1' * (self.axes - 1))})"
        if self.packed:
            rows = f"[x.repeat(4, 1) for x in {RNN}.unpack_sequence(inputs)]"
            inputs = f"{RNN}.pack_sequence({rows}, enforce_sorted=False)"
        elif self.ragged:
            rows = "[x[:t].repeat(4, 1) for x, t in zip(inputs.unbind(1), lengths)]"
            inputs = f"{RNN}.pad_sequence({rows})"
            others |= {"lengths": "4 * torch.as_tensor(lengths)"}
        return _call(network, inputs, others)

    def stronger(self) -> str:
        """Twice the inputs."""
        return "inputs = inputs._replace(data=2 * inputs.data)" if self.packed else "inputs = 2 * inputs"

    def chunks(self, size: int) -> str:
        """The inputs in chunks, with the lengths of those."""
        if self.plain:
            return f"chunks = inputs.split({size})"
        padded = f"{RNN}.pad_packed_sequence(inputs)" if self.packed else "inputs, torch.as_tensor(lengths)"
        return (
            f"padded, left = {padded}\nchunks = padded.split({size})\n"
            f"chunk_lengths = [(left - {size} * i).clamp(0, {size}) for i in range(len(chunks))]"
        )

    def _named(self) -> dict[str, str]:
        return self.others | ({"lengths": "lengths"} if self.ragged else {})


def given(numbers: dict[str, Any], objects: dict[str, Any], found: Padded, packed: bool) -> Given:
    """What was given: numbers are told as they are, objects by their names; None is left out."""
    others = {name: name for name, value in objects.items() if value is not None}
    others |= {name: repr(value) for name, value in numbers.items() if value is not None}
    return Given(others, packed, found.lengths is not None and not packed, found.inputs.dim())


def _call(network: str, inputs: str, others: dict[str, str]) -> str:
    return f"print(lt.diagnose({network}, {inputs}{''.join(f', {k}={v}' for k, v in others.items())}))"
