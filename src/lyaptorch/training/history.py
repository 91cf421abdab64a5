"""History of a run: its rows, as variables of a Record, and checkpoints from which it goes on."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lyaptorch import _checks, kernels
from lyaptorch._files import replace_file, sealed, to_json, unsealed
from lyaptorch._renames import current_config
from lyaptorch._units import Clock
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
        return {**rows, **{f"total.{name}": total for name, total in self.totals.items()}}

    def load(self, saved: dict[str, Tensor]) -> None:
        """From what `tensors` returned."""
        for name, value in saved.items():
            kind, _, own = name.partition(".")
            if kind == "history":
                self.rows[own] = Rows(value)
            elif kind == "total":
                self.totals[own] = value


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


FORMAT, VERSION = "lyaptorch checkpoint", 1
AGAIN = "delete it to start again"


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts atomically, as safetensors with a checksum behind."""
    from safetensors.torch import save

    head = {"format": FORMAT, "version": VERSION, "environment": environment(), "facts": facts}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, sealed(save(whole, {"lyaptorch": to_json("checkpoint", head)})))


def load_checkpoint(
    path: Path, config: dict[str, Any], start: dict[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote for a run of this configuration and, where it is told, this `start`.

    Raises:
        ValueError: if the file is damaged, from another program, a newer version, or another run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    body = unsealed(path, "checkpoint", AGAIN)
    try:
        # safetensors: 8 bytes that tell the length of a JSON head, which names the tensors, and our metadata
        length = int.from_bytes(body[:8], "little")
        head = dict(json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["lyaptorch"]))
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot load {path}: it is no checkpoint, {error!r}; {AGAIN}") from error
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        raise ValueError(
            f"cannot load {path}: it must be {FORMAT!r} version {VERSION}, got {head.get('format')!r} "
            f"{head.get('version')!r}; update lyaptorch, or {AGAIN}"
        )
    known, facts = head.get("environment"), head.get("facts")
    written = facts.get("config") if isinstance(facts, dict) else None
    if not isinstance(known, dict) or not isinstance(facts, dict) or not isinstance(written, dict):
        raise ValueError(f"cannot load {path}: it is no checkpoint, it has no run; {AGAIN}")
    written = current_config("train", written)
    # one of earlier versions does not tell how its cell was made
    if isinstance(model := written.get("model"), dict):
        written["model"] = {"settings": config.get("model", {}).get("settings"), **model}
    differing = [key for key in config if written.get(key) != json.loads(json.dumps(config[key]))]
    if differing:
        raise ValueError(
            f"cannot resume from {path}: it is of a run with another {', '.join(differing)}; run with the "
            f"same configuration, or {AGAIN}"
        )
    changed = {k: (known.get(k), now) for k, now in environment().items() if known.get(k) != now}
    # one of earlier versions tells nothing of its start. In another environment, or on another device, the
    # initial state of the same network may differ by round-off, which a hundred steps have made large
    begun: Any = facts.get("start", start)
    if start and not changed and begun != start and begun["device"] == start["device"]:
        raise ValueError(
            f"cannot resume from {path}: its run began with other weights; make the network again as it was "
            f"then, from the same seed, or {AGAIN}"
        )
    if changed:
        what = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
        warnings.warn(f"resuming in another environment ({what}): equal to round-off only", stacklevel=3)
    return tensors, facts


def start_of(state: dict[str, Tensor], device: torch.device) -> dict[str, Any]:
    """What tells a network about to be trained from another one."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"weights": digest.hexdigest(), "device": name}


def environment() -> dict[str, Any]:
    """What must be equal for a resumed run to be equal to the bit."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.available()["cpu"].detail,
    }
