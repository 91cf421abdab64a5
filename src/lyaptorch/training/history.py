"""History of a run: its rows, as variables of a Record, and what it took."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lyaptorch import _checks
from lyaptorch._units import Clock
from lyaptorch.training.checkpoint import SPENT, clocks
from lyaptorch.training.metrics import METRICS

RATES = ("exponents", "spectrum")
"""What is measured per step, and recorded per unit of time."""
UNITS = {"floss_loss": "(nats per step)^2"}
DIMS = {
    "floss_loss": ("floss_epoch",),
    "at_epoch": ("floss_epoch",),
    "exponents": ("floss_epoch", "index"),
    **dict.fromkeys(("measured_at", *METRICS, "test_loss", "test_accuracy"), ("measurement",)),
    **dict.fromkeys(("singular_values", "spectrum"), ("measurement", "rank")),
}
"""Dimensions of a variable after `member`; `epoch` where nothing stands here."""
PRESENT = {"epoch": "loss", "floss_epoch": "floss_loss", "measurement": "measured_at"}
"""By dimension, what every member has that took part in a step."""


class Rows:
    """Rows in one block, which doubles when it is full; where their last dimensions differ, padded with NaN.

    A tensor for each row would lie between the large ones of its step, and keep the heap from joining them
    again: a training of thousands of steps then grows by gigabytes.

    Args:
        values: the first rows `(steps, ...)`.
    """

    def __init__(self, values: Tensor) -> None:
        self._block, self._count = values.detach(), len(values)

    @property
    def values(self) -> Tensor:
        """All rows `(steps, ...)`."""
        return self._block[: self._count]

    def append(self, row: Tensor) -> None:
        """Add a row."""
        if self._count == len(self._block) or row.shape != self._block.shape[1:]:
            old = self.values
            # twice as many and 16: to append n rows copies fewer than n
            shape = [max(sizes) for sizes in zip(row.shape, old.shape[1:], strict=True)]
            self._block = row.new_full((2 * self._count + 16, *shape), torch.nan)
            _first(self._block[: self._count], old)[...] = old
        # what is kept must not keep the graph from which it came, step after step
        row, to = row.detach(), self._block[self._count]
        (to if to.shape == row.shape else _first(to, row)).copy_(row)
        self._count += 1


class History:
    """Rows of named values of the members; NaN where one did not take part.

    Args:
        ensemble: `*e` of all members.
    """

    def __init__(self, ensemble: tuple[int, ...]) -> None:
        self.ensemble = ensemble
        self.rows: dict[str, Rows] = {}
        self.totals: dict[str, Tensor] = {}
        self._start = clocks()

    def add(self, values: dict[str, Tensor], mask: Tensor) -> None:
        """One step's values `(count, ...)` of the members where `mask` is true."""
        everybody = all_of(mask)
        for name, value in values.items():
            row = value if value.device.type == "cpu" else value.detach().cpu()
            # who did not take part has a NaN in this row, which `_own_epochs` leaves out again
            if not everybody:
                shape = (*self.ensemble, *row.shape[1:])
                full = torch.full(shape, torch.nan, dtype=row.dtype, device="cpu")
                full[mask] = row
                row = full
            if name not in self.rows:
                self.rows[name] = Rows(row.new_empty(0, *row.shape))
            self.rows[name].append(row)

    def count(self, name: str, amount: int | Tensor, mask: Tensor) -> None:
        """Add an amount, one for all or one for each, to the totals of the members where the mask is true."""
        if name not in self.totals:
            self.totals[name] = torch.zeros(self.ensemble, dtype=torch.float64, device="cpu")
        total = self.totals[name]
        if all_of(mask):
            total += _checks.numbers(amount, total.dtype) if isinstance(amount, Tensor) else amount
        else:
            total[mask] += _checks.numbers(amount, total.dtype).reshape(-1)

    def mark(self, name: str, value: Tensor, mask: Tensor) -> None:
        """Note a value `(count,)` of some members; NaN of those for whom none was ever noted."""
        unknown = torch.full(self.ensemble, torch.nan, dtype=torch.float64, device="cpu")
        self.totals.setdefault(name, unknown)[mask] = value.to(unknown)

    def last(self, name: str, steps: int) -> Tensor:
        """The values `*e` of the last of so many steps; NaN for who took no part in it, or of none."""
        if not steps or name not in self.rows:
            return torch.full(self.ensemble, torch.nan, dtype=torch.float64, device="cpu")
        return self.rows[name].values[-1].double()

    def variables(self, time_step: float = 1.0) -> dict[str, Any]:
        """For a Record: members flattened into one dimension, each with its own epochs in a row.

        Exponents, kept per step, are recorded per unit of time, of which a step takes `time_step`.
        """
        clock = Clock(time_step)
        units = UNITS | dict.fromkeys(RATES, clock.rate)
        none = torch.zeros(math.prod(self.ensemble), 0, dtype=torch.float32, device="cpu")
        out: dict[str, Any] = dict.fromkeys(("loss", "accuracy"), (("member", "epoch"), none))
        stacked = {
            name: rows.values.flatten(1, len(self.ensemble)) if self.ensemble else rows.values[:, None]
            for name, rows in self.rows.items()
        }
        # a resumed run reads its rows in another order
        for name, rows in sorted(stacked.items()):
            if rows.dim() > 2 and rows.isnan().all():
                # flossed by penalties alone
                continue
            dims = ("member", *DIMS.get(name, ("epoch",)))
            values = _own_epochs(rows, ~stacked[PRESENT[dims[1]]].isnan())
            values = clock.per_time(values) if name in RATES else values
            out[name] = (dims, values, {"units": units[name]}) if name in units else (dims, values)
        for name, total in sorted(self.totals.items()):
            out[name] = (("member",), total.reshape(-1))
        return out

    def tensors(self) -> dict[str, Tensor]:
        """To be saved."""
        rows = {f"history.{name}": rows.values for name, rows in self.rows.items()}
        totals = {f"total.{name}": total for name, total in self.totals.items()}
        return {**rows, **totals, SPENT: clocks() - self._start}

    def load(self, saved: dict[str, Tensor]) -> None:
        """From what `tensors` returned."""
        for name, value in saved.items():
            kind, _, own = name.partition(".")
            if kind == "history":
                self.rows[own] = Rows(value)
            elif kind == "total":
                self.totals[own] = value
        # as if it had begun so much earlier; one of earlier versions does not tell
        self._start -= saved.get(SPENT, torch.nan)


@lru_cache(maxsize=4)
def all_of(mask: Tensor) -> bool:
    """Whether everybody takes part; asked once, because masks are replaced and none is written into."""
    return bool(mask.all())


@lru_cache(maxsize=4)
def any_of(mask: Tensor) -> bool:
    """Whether somebody does; likewise."""
    return bool(mask.any())


def _first(block: Tensor, like: Tensor) -> Tensor:
    """The first columns of a block, as many as another tensor has."""
    return block[..., : like.shape[-1]] if like.dim() else block


def _own_epochs(rows: Tensor, took_part: Tensor) -> Tensor:
    """`(steps, members, ...)` to `(members, epochs, ...)`: steps without a member are left out for it."""
    if took_part.all():
        return rows.movedim(0, 1)
    # members that are flossed or stopped on their own have other epochs: column e of one is its own epoch e,
    # whatever step of the run that was
    own = [rows[there, member] for member, there in enumerate(took_part.unbind(1))]
    return pad_sequence(own, batch_first=True, padding_value=torch.nan)
