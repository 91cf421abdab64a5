"""Files: what a name asks for, and writing that leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

SEAL = b"\nlyaptorch record, sha256 of all bytes before this line: "
HEAP = re.compile(rb"GCOL\x01\0\0\0")
"""What a global heap of HDF5 begins with."""
AGAIN = "restore it from a copy or run again"
ELSEWHERE = "pass another folder (on the command line: --runs)"


def to_json(name: str, value: object, indent: int | None = None) -> str:
    """Return `value` as JSON with sorted keys, or raise."""
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True, indent=indent)
    except (TypeError, ValueError, RecursionError) as error:
        need = f"{name} must hold dicts, lists, text, finite numbers, booleans and None, as JSON does"
        raise ValueError(f"{need}, got {error}; convert it with str(), float() or .tolist()") from error


def host_facts() -> dict[str, Any]:
    """Return what differs between equal runs."""
    facts: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    facts |= {"host": platform.node(), "platform": platform.platform(), "threads": torch.get_num_threads()}
    facts |= {"python": platform.python_version(), "torch": torch.__version__}
    # run from a source tree that nobody installed
    with contextlib.suppress(metadata.PackageNotFoundError):
        facts["lyaptorch"] = metadata.version("lyaptorch")
    return facts


def host_of(path: Path) -> dict[str, Any]:
    """Return what the side file of the Record at `path` says; nothing if there is none that can be read."""
    try:
        facts = json.loads(path.with_suffix(".host.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def run_path(runs: Path | str, name: str) -> Path:
    """Return the file `<name>.nc` in the folder `runs`, where `Record.save(..., fresh=True)` will write.

    Call it before the long work: what would keep a Record from being written there is raised here.

    Raises:
        ValueError: if `name` is no plain file name, or the folder cannot be created or written.
        ModuleNotFoundError: if xarray or h5netcdf is missing.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{,99}", name):
        raise ValueError(f"name must be letters, digits or _.+-, got {name!r:.120}; put folders into runs")
    for module in ("xarray", "h5netcdf"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"a Record is written by {module}; pip install xarray 'h5netcdf[h5py]'")
    return writable_folder(Path(runs)) / f"{name}.nc"


def writable_folder(folder: Path) -> Path:
    """Return the folder, made and written to for a test, or raise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"cannot write to the folder {folder}, got {error}; {ELSEWHERE}") from error


def replace_file(path: Path, data: bytes, *, fresh: bool = False) -> None:
    """Write atomically: the draft stands in the same folder, and vanishes on any failure.

    Raises:
        FileExistsError: if `fresh` and the file exists; two processes cannot both write it.
        ValueError: if it cannot be written.
    """
    # named after the file, so that who removes it finds what a killed process left
    draft = path.with_name(f".{path.name.removeprefix('.')[:150]}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            # or after a power cut the name may be there before the data is
            os.fsync(file.fileno())
        if fresh:
            _link(draft, path)
        else:
            draft.replace(path)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(f"cannot write {path}, got {error}; {_advice(error)}") from error
    finally:
        draft.unlink(missing_ok=True)


def _advice(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"make the folder, or {ELSEWHERE}"
    if isinstance(error, IsADirectoryError):
        return f"name a file, or {ELSEWHERE}"
    return ELSEWHERE if isinstance(error, PermissionError) else f"free space or {ELSEWHERE}"


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name unless that is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # no hard links on this file system: take the name first, then replace what stands there
        path.open("xb").close()
        draft.replace(path)


def sealed(body: bytes) -> bytes:
    """Append a checksum line; HDF5 ignores what stands after its own end."""
    return body + SEAL + hashlib.sha256(body).hexdigest().encode()


def unsealed(path: Path, what: str = "Record", do: str = AGAIN) -> bytes:
    """Return the HDF5 bytes if they are whole: on one flipped bit the HDF5 library may hang."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot load {path}: got {error}; check the path") from error
    body, seal, _ = data.rpartition(SEAL)
    if not seal:
        raise ValueError(f"cannot load {path}: no {what} or cut off: no checksum at its end; {do}")
    if data != sealed(body):
        raise ValueError(f"cannot load {path}: it is damaged, its bytes and checksum disagree; {do}")
    return body


NO_VALUES = b"This is a netCDF dimension but not a netCDF variable"
"""How netCDF marks a dataset that stands for a dimension alone."""


def _ends(body: bytes, start: int) -> bool:
    """Whether the objects of a global heap of HDF5 fill it; at a free one of size 0 HDF5 never comes back."""
    at, end = start + 16, start + int.from_bytes(body[start + 8 : start + 16], "little")
    while at + 16 <= end <= len(body):
        number, size = (int.from_bytes(body[at + i : at + i + n], "little") for i, n in ((0, 2), (8, 8)))
        if number == 0:
            return at + size == end
        at += 16 + -(-size // 8) * 8
    return at <= end <= len(body)


def _text(dataset: Any, body: bytes) -> int:
    """The bytes that texts of variable length claim: HDF5 asks for them before it looks where they are."""
    import h5py  # type: ignore[import-untyped]

    kind = dataset.id.get_type()
    text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
    if not dataset.size or not (text or kind.get_class() == h5py.h5t.VLEN):
        return 0
    if dataset.chunks is not None:
        raise ValueError("it must hold text in one piece, got chunks; do not trust it")
    # each is a length of 4 bytes, an address of 8 and an index of 4; of what was never written there are none
    start = dataset.id.get_offset() or len(body)
    held = body[start : start + 16 * dataset.size]
    return sum(int.from_bytes(held[i : i + 4], "little") for i in range(0, len(held), 16))


def refuse_objects(body: bytes) -> None:
    """Raise unless the file holds numbers and text only, and all of them, before any value is read.

    A checksum proves no good intent: out of bytes of an opaque type tagged NUMPY:|O, h5py makes pointers to
    Python objects; links, virtual and external data reach into other files.
    """
    import h5py

    if not all(_ends(body, found.start()) for found in re.finditer(HEAP, body)):
        raise ValueError("it must hold heaps that end, got one that does not; do not trust it")

    def plain(kind: Any) -> bool:
        if kind.get_class() == h5py.h5t.VLEN:
            return plain(kind.get_super())
        if kind.get_class() == h5py.h5t.COMPOUND:
            return all(plain(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
        return kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.REFERENCE)

    def has_values(dataset: Any) -> bool:
        name = dataset.attrs.get("NAME")
        return not (isinstance(name, bytes) and name.startswith(NO_VALUES))

    with h5py.File(io.BytesIO(body), "r") as file:
        fine = all(isinstance(file.get(name, getlink=True), h5py.HardLink) for name in file)
        data = list(file.values()) if fine else []
        fine = fine and all(isinstance(d, h5py.Dataset) and not (d.is_virtual or d.external) for d in data)
        kinds = [d.id.get_type() for d in data] if fine else []
        for ident in (file.id, *(d.id for d in data)):
            kinds += [h5py.h5a.open(ident, index=i).get_type() for i in range(h5py.h5a.get_num_attrs(ident))]
        if not fine or not all(plain(kind) for kind in kinds):
            raise ValueError("it must hold numbers and text only, got a type or link beyond; do not trust it")
        # what was never written costs no bytes, and memory when it is read; a dimension without values is not
        read = filter(has_values, data)
        claimed = sum(d.size * max(1, d.id.get_type().get_size()) + _text(d, body) for d in read)
        if claimed > len(body):
            raise ValueError(
                f"it must hold the {claimed} bytes that it claims, got {len(body)}; do not trust it"
            )


FORMATS = {".nc": "the Record", ".html": "the page", ".png": "the figure", ".pdf": "the figure"}
FORMATS |= {".svg": "the figure"}
DPI = 200
"""Dots per inch of a figure in a file."""
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
"""What keeps the time out of a figure's file: equal Records give equal pictures."""


def with_format(path: Path | str, default: str) -> Path:
    """Return `path`, with the suffix `default` where it names no format, or raise for an unknown one.

    Digits after a dot are part of a name, as in gain-0.5.
    """
    path = Path(path)
    if path.suffix.lower() in FORMATS:
        return path
    if re.fullmatch(r"\.[A-Za-z]\w*", path.suffix):
        known = ", ".join(f"{suffix} ({what})" for suffix, what in FORMATS.items())
        raise ValueError(f"a file must end in one of {known}, got {path.name!r}; rename it")
    return path.with_name(f"{path.name}{default}")


def save_shown(path: Path, page: Callable[[], str], plot: Callable[[], Any]) -> Path:
    """Write the page or the figure of a Record, as the suffix of `path` says; return the path.

    Raises:
        ValueError: for a figure of what has none, or if the file cannot be written.
    """
    if path.suffix.lower() == ".html":
        data = page().encode()
    else:
        # in memory first: what fails while it is drawn leaves the old file
        drawing = io.BytesIO()
        kind = path.suffix[1:].lower()
        plot().savefig(drawing, format=kind, dpi=DPI, metadata=UNDATED[kind])
        data = drawing.getvalue()
    writable_folder(path.parent)
    replace_file(path, data)
    return path
