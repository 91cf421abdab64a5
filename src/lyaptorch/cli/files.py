"""Inputs from a file: .npy, .npz, .pt or .csv, by its name or `file:array`. Nothing in it is executed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""By name; what has no names is called so: an empty text."""


def is_file(spec: str) -> bool:
    """Whether inputs called so come from a file."""
    return _split(spec)[0].suffix in READERS


def read(spec: str, channels: int) -> Tensor:
    """The inputs `(t, b, m)` in a file, float64: of shape (t, m) or (t, b, m), or (t,) for one channel.

    Raises:
        ValueError: if it cannot be read, holds no such numbers, or several arrays and none is named.
    """
    path, name = _split(spec)
    try:
        arrays = READERS[path.suffix](path)
        array = arrays[_chosen(path, name, tuple(arrays))]
    except _ChoiceError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # numpy and torch raise almost any type on a malformed file
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        do = "check the path" if isinstance(error, OSError) else f"it must be a {path.suffix} file of numbers"
        raise ValueError(f"cannot read {path}: {reason}; {do}") from error
    return shaped(array, str(path), channels)


def shaped(array: NDArray[Any], name: str, channels: int) -> Tensor:
    """Inputs `(t, b, m)`, float64, from an array called so.

    Raises:
        ValueError: if it holds no such numbers.
    """
    numbers = array.dtype.kind in "biuf"
    # with more channels a flat array could be one step or one channel: it is refused below
    if array.ndim == 1 and numbers and channels == 1:
        array = array[:, None]
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or not numbers:
        raise ValueError(
            f"{name} must hold numbers of shape (t, m) or (t, b, m), got {array.dtype} {array.shape}; "
            "time first, then trajectories, if any, then channels"
        )
    if array.shape[-1] != channels:
        raise ValueError(
            f"{name} must hold {channels} channels (its last dimension), got {array.shape}; "
            "an array of trajectories of one channel is x[:, :, None]"
        )
    # holds every float32 and every integer up to 2^53; who measures rounds to the dtype that is asked for
    return torch.from_numpy(array.astype(np.float64))


class _ChoiceError(ValueError):
    """Which array is meant cannot be told."""


def _split(spec: str) -> tuple[Path, str]:
    """`file:array` as file and array; the array is empty where none is named."""
    # from the right, and only after a known suffix: folders and drives may have colons, too
    head, colon, name = spec.rpartition(":")
    if colon and Path(head).suffix in READERS:
        return Path(head), name
    return Path(spec), ""


def _chosen(path: Path, name: str, names: tuple[str, ...]) -> str:
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    if names == ("",):
        raise _ChoiceError(f"{path} holds one array without a name, got {path}:{name}; drop the name")
    known = ", ".join(names) or "none"
    got = f"got {path}:{name}" if name else f"got {path} alone"
    raise _ChoiceError(f"{path} holds the arrays {known}, {got}; name one, as {path}:{(*names, 'x')[0]}")


def _npy(path: Path) -> Arrays:
    # mapped, not read: a file that claims a terabyte is refused before memory is asked for
    return {"": np.lib.format.open_memmap(path, mode="r")}


def _npz(path: Path) -> Arrays:
    # without pickles, whose loading runs code; the suffix proves nothing, so what came is looked at
    # from memory, because numpy leaves a file open that is no archive after all
    found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise ValueError("it is no archive of arrays")
    return found


def _pt(path: Path) -> Arrays:
    found = torch.load(path, map_location="cpu", weights_only=True)
    tensors = found if isinstance(found, dict) else {"": found}
    held = {str(key): value.numpy(force=True) for key, value in tensors.items() if isinstance(value, Tensor)}
    if not held:
        raise ValueError(f"it holds no tensor, but {type(found).__name__}")
    return held


def _csv(path: Path) -> Arrays:
    """Rows are steps, columns channels; a first line without a number names them."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().split(",")
    if not any(field.strip() for field in first):
        raise ValueError("its first line is empty")
    return {"": np.loadtxt(path, delimiter=",", ndmin=2, skiprows=int(not any(map(_number, first))))}


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], Arrays]] = {".npy": _npy, ".npz": _npz, ".pt": _pt, ".csv": _csv}
"""By suffix."""
