"""Epochs of a phase: one by one, or recorded once as a CUDA graph and replayed between two looks."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

Row: TypeAlias = dict[str, Tensor]
"""What an epoch tells of every member, by name."""

WARMUPS = 2
"""Epochs that run one by one before one is recorded: kernels are compiled, libraries get their workspace."""
BETWEEN = 100
"""Epochs between two looks on a GPU; elsewhere looking costs nothing."""
LOSSES = ("loss", "floss_loss")


class Epochs:
    """The epochs of a phase. On a GPU the first ones run one by one, and all others as a graph.

    A graph decides nothing on the host. What it cannot decide it leaves as a NaN in a loss or in the state;
    then the state goes back to where the replay began, and the epochs run again one by one, with all errors
    that they have to raise.

    Args:
        epoch: changes `state` in place, from nothing but tensors, and returns a row.
        state: what it changes.
        constant: what else it depends on, constant within a graph: another one needs another graph.
    """

    def __init__(
        self, epoch: Callable[[], Row], state: Iterable[Tensor], constant: Callable[[], object] = bool
    ) -> None:
        self.epoch, self.state, self.constant = epoch, list(state), constant
        self.capturing, self.alone = capturable(self.state[0].device), WARMUPS
        self._replay: Callable[[], Row] | None = None
        self._recorded_with: object = None

    def run(self, count: int) -> Iterator[Row]:
        """The rows of the next `count` epochs, on the host; they run while it is iterated to its end."""
        alone = min(count, self.alone) if self.capturing else count
        for _ in range(alone):
            yield on_host(aside(self.epoch) if self.capturing else self.epoch())
        self.alone -= alone
        if count > alone:
            yield from self._captured(count - alone)

    @torch.no_grad()
    def _captured(self, count: int) -> Iterator[Row]:
        # all that an epoch changes, so that a replay that went wrong never happened: parameters, moments,
        # counts. What it reads besides (seed, ids, phase) is constant while the graph lives
        before = [z.clone() for z in self.state]
        rows = self._replayed(count)
        if rows is not None:
            yield from rows
            return
        for z, old in zip(self.state, before, strict=True):
            z.copy_(old)
        for _ in range(count):
            with torch.enable_grad():
                row = self.epoch()
            yield on_host(row)
        if self.capturing:
            self._give_up(
                "numbers call for decisions that it cannot take, such as which tangent vectors died"
            )

    def _replayed(self, count: int) -> list[Row] | None:
        """The rows of so many replays; None where there is no graph, or what it did is not sound."""
        if (now := self.constant()) != self._recorded_with:
            self._replay, self._recorded_with = None, now
        if self._replay is None:
            try:
                with torch.enable_grad():
                    self._replay = graph(self.epoch)
            except RuntimeError as error:
                self._give_up(str(error).splitlines()[0])
                return None
        rows = [self._replay() for _ in range(count)]
        stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        # one read of the host for all replays: a NaN spreads into the state, or shows in a loss at the latest
        doubtful = [*self.state, *(stacked[name] for name in LOSSES if name in stacked)]
        if not torch.stack([torch.isfinite(z).all() for z in doubtful]).all():
            return None
        fetched = on_host(stacked)
        return [{name: values[i] for name, values in fetched.items()} for i in range(count)]

    def _give_up(self, reason: str) -> None:
        self.capturing = False
        warnings.warn(f"epochs run one by one from here on, not as a CUDA graph: {reason}", stacklevel=2)


def capturable(device: torch.device) -> bool:
    """Whether what runs there can be recorded."""
    return device.type == "cuda"


def between_looks(device: torch.device) -> int:
    """How many epochs pass between two looks, if nobody says."""
    return BETWEEN if capturable(device) else 1


def on_host(row: Row) -> Row:
    """In memory of the host."""
    return {
        name: value if value.device.type == "cpu" and not value.requires_grad else value.detach().cpu()
        for name, value in row.items()
    }


def aside(epoch: Callable[[], Row]) -> Row:
    """Run an epoch on a stream beside the usual one, as it must be before it is recorded."""
    side, usual = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        row = epoch()
    usual.wait_stream(side)
    return row


def graph(epoch: Callable[[], Row]) -> Callable[[], Row]:
    """A function that replays `epoch`, which is recorded here and not run.

    Raises:
        RuntimeError: if it reads a number back to the host, or else cannot be recorded.
    """
    # random numbers are functions of the epoch, a tensor that the epoch itself advances: each replay draws
    # its own, which a generator's state, baked into a graph, would not
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        row = epoch()

    def replay() -> Row:
        recorded.replay()
        # the next replay writes to the same memory
        return {name: value.clone() for name, value in row.items()}

    return replay


TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""The names that mallopt of glibc has for the free memory that is kept, and for arrays with own pages."""


def keep_pages() -> None:
    """Let this process keep what it frees, where the C library is glibc.

    It gives large arrays back to the system otherwise, and those of the next step come as fresh pages, which
    in a training of 32 networks took a third of the time. For processes that train and end, not for a
    program that imports the library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
