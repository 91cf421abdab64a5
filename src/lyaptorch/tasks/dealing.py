"""Tasks of a fixed set of examples: where its files lie, and which a batch shows, dealt or in order."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch.tasks.batch import Draw

TEST = "test"
"""The stream that draws test examples; every other one draws training examples."""


class Stored:
    """Where the files of a task lie: no part of what it is, but its copies need it.

    In a slot, so that it is neither described nor compared.
    """

    __slots__ = ("data_dir",)

    def _keep(self, data_dir: Path | str | None) -> None:
        object.__setattr__(self, "data_dir", None if data_dir is None else Path(data_dir).absolute())

    @property
    def _folder(self) -> Path | None:
        folder: Path | None = self.data_dir  # type: ignore[attr-defined]
        return folder


def dealt(d: Draw, n: int, count: int, what: str) -> Tensor:
    """The places `(*e, count)` of the examples of a batch among all `n`, which are called `what`.

    Every `n // count` epochs a member sees each training example once, in an order of its own, a remainder
    smaller than a batch aside.

    Raises:
        ValueError: if the batch has more than there are.
    """
    if count > n:
        raise ValueError(f"batch must be at most {n}, the number of {what}, got {count}")
    # epoch q * batches + r is minibatch r of pass q: rows r * count, ... of the order drawn for pass q
    batches, when = n // count, _checks.numbers(d.epoch).to(d.device).expand(d.member_ids.shape)
    rows = (when % batches * count).unsqueeze(-1) + torch.arange(count, device=d.device)
    return rows if d.stream == TEST else _order(d, when // batches, n).gather(-1, rows)


def _order(d: Draw, passes: Tensor, n: int) -> Tensor:
    """The order `(*e, n)` in which each member sees the examples in a pass."""
    if not _checks.can_look():
        return Stream(d.seed, d.stream).permutation(n, member_ids=d.member_ids, epoch=passes)
    ids, passes_of = d.member_ids.flatten().tolist(), passes.flatten().tolist()
    shuffled = _shuffled(d.seed, d.stream, tuple(ids), tuple(passes_of), n, d.device)
    return shuffled.reshape(*d.member_ids.shape, n)


@functools.lru_cache(maxsize=2)
def _shuffled(
    seed: int, stream: str, ids: tuple[int, ...], passes: tuple[int, ...], n: int, device: torch.device
) -> Tensor:
    """The same for each of some ids and passes; it serves for many steps."""
    member_ids, epoch = (torch.tensor(z, device=device) for z in (ids, passes))
    return Stream(seed, stream).permutation(n, member_ids=member_ids, epoch=epoch)
