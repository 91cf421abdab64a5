"""What a state holds of what came before: memory capacity over lags, and whether it resolves time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch._brief import brief
from lyaptorch.analysis.memory import Recalled, recall
from lyaptorch.cells import Cell, Depth

PROBE = 0.5
"""Size of the probe, in standard deviations of the inputs, whose variance it raises by a quarter."""
LEAST, PER_UNIT = 4000, 40
"""Counted steps, and for each number of the state: a fit then adds at most 5% of error, to be divided out."""
MOST = 1 << 23
"""Most numbers of all counted states together."""
TWO = 2.0
"""Numbers that it takes to tell two times apart: one number is a sum, whatever its weights."""


@dataclass(frozen=True)
class Memory:
    """Memory capacity of the run that is diagnosed, as `analysis.memory_capacity` measures it.

    Attributes:
        shares: `(T + 1,)`, R^2 after 0, 1, ..., T steps of a probe on the inputs, T the horizon; empty where
            it was not measured.
        error: standard error of one share where little is remembered, from probes still to come.
        common: what such shares have in common.
        steps: counted states.
        why: why it was not measured, else empty.
    """

    shares: Tensor
    error: float = 0.0
    common: float = 0.0
    steps: int = 0
    why: str = ""

    __repr__ = brief

    @property
    def at_horizon(self) -> float:
        """R^2 at lag T."""
        return float(self.shares[-1])

    @property
    def total(self) -> float:
        """The sum over lags 0 to T."""
        return float(self.shares.sum())

    @property
    def older(self) -> Tensor:
        """The shares at lags above T / 2."""
        return self.shares[(len(self.shares) + 1) // 2 :]

    @property
    def held(self) -> float:
        """Their sum: how many numbers the state holds of what came between T / 2 and T steps ago."""
        return float(self.older.sum())

    @property
    def held_error(self) -> float:
        """Standard error of that, at most."""
        if not self.steps:
            return 0.0
        # the scatter of chance, what its lags have in common, and that of a share r of N samples,
        # 2 sqrt(r / N): of lags on their own it is 2 sqrt(sum r / N) in the sum
        chance = len(self.older) ** 0.5 * self.error + len(self.older) * self.common
        return float(chance + 2 * (max(self.held, 0.0) / self.steps) ** 0.5)

    @property
    def sure(self) -> float:
        """The same, or 0 where it does not stand above chance."""
        return self.held if self.held > 2 * self.held_error else 0.0

    @property
    def needed(self) -> float:
        """How many numbers tell two times apart; of fewer than four lags half as many as there are."""
        return min(TWO, len(self.older) / 2)

    @property
    def integrates(self) -> bool:
        """Whether it surely holds fewer: its readouts blur all of the older half of the horizon together."""
        return self.reached and self.held + 2 * self.held_error < self.needed

    @property
    def resolves(self) -> bool:
        """Whether it surely holds as many."""
        return self.reached and self.held - 2 * self.held_error >= self.needed

    @property
    def reached(self) -> bool:
        """Whether it was measured, and the probe reaches the state at all."""
        return bool((self.shares > 5 * self.error).any()) if len(self.shares) else False


@torch.no_grad()
def remembered(
    cell: Cell, inputs: Tensor, h: Tensor, ends: Tensor | None, horizon: int, seed: int = 0
) -> Memory:
    """The memory of a run over its horizon.

    Args:
        cell: who ran.
        inputs: `(t, *e, b, m)`, of one network.
        h: the state before them.
        ends: steps of each trajectory, where they differ.
        horizon: T.
        seed: of the probe.
    """
    n = h.shape[-1] - cell.travelling
    steps, none = min(max(LEAST, PER_UNIT * (n + 1)), MOST // n), inputs.new_empty(0)
    if steps < 4 * (n + 1):
        return Memory(none, why=f"not enough steps: {n} units take at least {4 * (n + 1)} states")
    if steps * (horizon + 1) > 2 * MOST:
        return Memory(none, why=f"a horizon of {horizon} steps takes more lags than fit into memory")
    if isinstance(cell, Depth):
        return Memory(none, why="its inputs are the numbers of its blocks, to which nothing can be added")
    ends = None if ends is None else ends.flatten()
    try:
        found: Recalled = recall(cell, horizon + 1, inputs, h, ends, steps, 0, PROBE, seed)
    except FloatingPointError:
        return Memory(none, why="the state overflows")
    except (IndexError, RuntimeError, ValueError) as error:
        # a step of the user's own may look things up by its inputs
        return Memory(none, why=f"it does not run with a probe added to its inputs ({error})")
    chance = found.chance.flatten()
    return Memory(found.share.flatten(), found.error().item(), abs(chance.mean().item()), found.steps)


def told(memory: Memory, steps: str, half: str) -> str:
    """In words, of a horizon and half of it as such."""
    if memory.why:
        return f"Memory capacity: not measured, {memory.why}."
    added = f"white noise ({PROBE:g} standard deviations of the inputs)"
    probe = f"Memory: {added} was added to the inputs; a linear readout"
    if not memory.reached:
        return (
            f"{probe} recovers none of it at any lag (± {2 * memory.error:.1%}): it does not reach the state."
        )
    share, error = memory.at_horizon, 2 * memory.error
    if share > error:
        # of the best readout the answer to one step is R^2 high and R^2 in squares: it is 1 / R^2 wide
        end = f"recovers {share:.1%} ± {error:.1%} of it after {steps}, smeared over {1 / share:.2g} steps"
    else:
        end = f"recovers no more of it than by chance after {steps} (± {error:.1%})"
    held = f"{memory.held:.2g} ± {2 * memory.held_error:.1g}"
    if not (memory.integrates or memory.resolves):
        # an error falls with the root of the steps
        gap = max(abs(memory.held - memory.needed), 1e-2)
        more = int(memory.steps * (2 * memory.held_error / gap) ** 2)
        held += f" (too near to {memory.needed:g} to say whether it tells when; {more:.2g} states would do)"
    return (
        f"{probe} {end}. Memory capacity (R² summed over lags): {memory.total:.2g} numbers; of lags above "
        f"{half}, {held}."
    )
