"""One run's result, in memory and on disk: the only result format of the project."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lyaptorch import _checks

if TYPE_CHECKING:
    import xarray

FORMAT, VERSION = "lyaptorch record", 1
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SEAL = b"\nlyaptorch record, sha256 of all bytes before this line: "
_AGAIN = "restore it from a copy or run again"
_ELSEWHERE = "pass another folder (on the command line: --runs)"


class Variable(NamedTuple):
    """Named dimensions, values, and optionally what they mean: `units`, `long_name`, `comment`."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, str]


Given: TypeAlias = (
    tuple[Sequence[str], ArrayLike | Tensor] | tuple[Sequence[str], ArrayLike | Tensor, Mapping[str, str]]
)
"""What a `Variable` is made from: `(dims, values)` or `(dims, values, attributes)`."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Record:
    """One run's result: named arrays, their coordinates, and the configuration that made them.

    Two Records are equal if kind, configuration, names, dimensions, types and every value are, to the bit;
    one NaN equals another. Values are booleans, integers, float32, float64 or strings.

    Args:
        kind: What made it, such as "train", "spectrum" or "demo".
        config: The whole configuration, as JSON can hold it; tuples become lists.
        variables: For each name `(dims, values)` or `(dims, values, {"units": ...})`. Tensors and arrays are
            copied to the CPU; `dims` is a tuple of names, one for each axis.
        coordinates: The same for coordinates. One named like a dimension labels that dimension.

    Raises:
        ValueError: if dims and shapes disagree, a value has another type, or config is no JSON.

    Example:
        >>> loss = torch.tensor([[0.5, 0.25, 0.125]])
        >>> record = Record("train", {"lr": 0.001}, {"loss": (("member", "epoch"), loss, {"units": "nats"})},
        ...                 {"epoch": (("epoch",), [1, 2, 3])})
        >>> record
        Record('train', variables: loss (member 1, epoch 3) float32; coordinates: epoch (epoch 3) int64)
        >>> record["loss"].min()
        np.float32(0.125)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Record.load(record.save(Path(folder) / "first")) == record
        True
    """

    kind: str
    config: dict[str, Any]
    variables: Mapping[str, Variable]
    coordinates: Mapping[str, Variable]

    def __init__(
        self,
        kind: str,
        config: Mapping[str, Any],
        variables: Mapping[str, Given],
        coordinates: Mapping[str, Given] | None = None,
    ) -> None:
        if not isinstance(config, Mapping):
            raise ValueError(f"config must be a dict, got {type(config).__name__}; use dataclasses.asdict")
        coordinates = coordinates or {}
        twice = sorted(set(variables) & set(coordinates))
        if twice:
            raise ValueError(f"a name is a variable or a coordinate, got both for {twice[0]!r}; rename one")
        object.__setattr__(self, "kind", _text("kind", kind))
        object.__setattr__(self, "config", json.loads(_json("config", config)))
        object.__setattr__(self, "variables", {n: _variable(n, given) for n, given in variables.items()})
        object.__setattr__(self, "coordinates", {n: _variable(n, given) for n, given in coordinates.items()})
        _check_lengths(self.variables, self.coordinates)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the values of a variable or coordinate: a copy, yours to change."""
        entries = {**self.variables, **self.coordinates}
        return entries[_checks.choice("variable or coordinate", name, entries)].values.copy()

    def __contains__(self, name: object) -> bool:
        return name in self.variables or name in self.coordinates

    def __eq__(self, other: object) -> bool:
        return self._digest() == other._digest() if isinstance(other, Record) else NotImplemented

    def __repr__(self) -> str:
        groups = [f"{self.kind!r}"]
        for group, entries in (("variables", self.variables), ("coordinates", self.coordinates)):
            rows = (
                f"{name} ({', '.join(f'{d} {n}' for d, n in zip(v.dims, v.values.shape, strict=True))}) "
                f"{v.values.dtype if v.values.dtype.kind != 'U' else 'str'}"
                for name, v in entries.items()
            )
            groups.append(f"{group}: {', '.join(rows) or 'none'}")
        return f"Record({groups[0]}, {'; '.join(groups[1:])})"

    @property
    def dataset(self) -> xarray.Dataset:
        """The same as an `xarray.Dataset`, with the configuration as one JSON attribute; read-only."""
        import xarray

        attributes = {"format": FORMAT, "format_version": VERSION, "kind": self.kind}
        attributes["config"] = _json("config", self.config)
        return xarray.Dataset(dict(self.variables), dict(self.coordinates), attributes)

    def save(self, path: Path | str, *, host: Mapping[str, Any] | None = None) -> Path:
        """Write netCDF to `path` and volatile facts to `<stem>.host.json` beside it; return the path.

        Either both files are whole or the old ones stay. Equal Records give equal bytes (with the same
        versions of HDF5 and h5netcdf); time, host name, versions and thread count, which differ between
        equal runs, go to the side file.

        Args:
            path: Where to; `.nc` is added when missing, and so are folders.
            host: Further volatile facts, such as wall seconds.

        Raises:
            ValueError: if the folder cannot be written or `host` is no JSON.
        """
        path = _with_suffix(path)
        facts = _json("host", {**_host_facts(), **(host or {})}, indent=2)
        dataset = self.dataset.assign_attrs(checksum=self._digest())
        # xarray's default fill value is NaN, and values equal to the fill value would read as missing
        exact: dict[Any, dict[str, Any]] = {name: {"_FillValue": None} for name in dataset.variables}
        _writable(path.parent)
        try:
            with _atomic(path) as draft, _atomic(path.with_suffix(".host.json")) as side:
                dataset.to_netcdf(draft, engine="h5netcdf", encoding=exact)
                body = draft.read_bytes()
                draft.write_bytes(body + _seal(body))
                side.write_text(facts + "\n", encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"{path} must be a file that can be written, got {error}; free space or {_ELSEWHERE}"
            ) from error
        return path

    @classmethod
    def load(cls, path: Path | str) -> Record:
        """Read what `save` wrote; the bytes and the values are checked, and nothing in it is executed.

        Raises:
            ValueError: if the file is missing, damaged, from another program or from a newer lyaptorch.
        """
        import xarray

        path = path if Path(path).is_file() else _with_suffix(path)
        body = _unseal(Path(path))
        try:
            _refuse_objects(body)
            with xarray.open_dataset(
                io.BytesIO(body), engine="h5netcdf", mask_and_scale=False, decode_times=False
            ) as dataset:
                _check_attributes(dataset.attrs)
                record = cls(
                    dataset.attrs["kind"],
                    json.loads(dataset.attrs["config"]),
                    {str(n): _from_xarray(dataset.variables[n]) for n in dataset.data_vars},
                    {str(n): _from_xarray(dataset.variables[n]) for n in dataset.coords},
                )
                if record._digest() != dataset.attrs["checksum"]:
                    raise ValueError(f"its values do not match its checksum, so it is damaged; {_AGAIN}")
        except ValueError as error:
            raise ValueError(f"cannot load {path}: {error}") from error
        except Exception as error:  # h5py and xarray raise almost any type on a malformed file
            raise ValueError(f"cannot load {path}, it is damaged: {error!r}; {_AGAIN}") from error
        return record

    def _digest(self) -> str:
        """Return a checksum of everything that makes two Records equal; the order of names does not count."""
        groups = (self.variables, self.coordinates)
        entries = [(name, group[name]) for group in groups for name in sorted(group)]
        table = [(n, v.dims, v.values.dtype.str[1:], v.values.shape, dict(v.attributes)) for n, v in entries]
        head = [self.kind, self.config, len(self.variables), table]
        digest = hashlib.sha256(_json("record", head).encode())
        for _, v in entries:
            digest.update(v.values.astype(v.values.dtype.newbyteorder("<"), copy=False).tobytes())
        return f"sha256:{digest.hexdigest()}"


def run_path(runs: Path | str, name: str) -> Path:
    """Return a fresh file in the folder `runs`: `<name>.nc`, or `<name>-2.nc`, `-3`... if that exists.

    Call it before the long work: whatever would keep `Record.save` from writing there is raised here. The
    file is not created, so two runs that start together need different names.

    Raises:
        ValueError: if `name` is no plain file name, or the folder cannot be created or written.
        ModuleNotFoundError: if xarray or h5netcdf is missing.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = run_path(folder, "demo")
        ...     saved = Record("demo", {}, {}).save(first)
        ...     first.name, run_path(folder, "demo").name
        ('demo.nc', 'demo-2.nc')
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{,99}", name) or name.endswith(".nc"):
        raise ValueError(
            f"name must be 1 to 100 letters, digits or any of _.+- without .nc at its end, got {name!r}; "
            f"put folders into runs"
        )
    for module in ("xarray", "h5netcdf"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"a Record is written by {module}; pip install xarray 'h5netcdf[h5py]'")
    runs = _writable(Path(runs))
    path, count = runs / f"{name}.nc", 1
    while path.exists():
        count += 1
        path = runs / f"{name}-{count}.nc"
    return path


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} must be a folder that can be created and written, got {error}; {_ELSEWHERE}"
        ) from error
    return folder


def _with_suffix(path: Path | str) -> Path:
    path = Path(path)
    return path if path.suffix == ".nc" else path.with_name(f"{path.name}.nc")


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """Give a draft in the same folder; it replaces `path` on success and vanishes on any failure."""
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _seal(body: bytes) -> bytes:
    """Return a last line for the file; HDF5 ignores what stands after its own end."""
    return _SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _unseal(path: Path) -> bytes:
    """Return the HDF5 bytes of a whole file: on a flipped bit the HDF5 library itself may hang."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} must be a Record, got {error}; check the path") from error
    if not data.startswith(_HDF5):
        raise ValueError(
            f"{path} must be a netCDF-4 file, got one that starts with {data[:8]!r}; check the path, or {_AGAIN}"
        )
    body = data[: -len(_seal(b""))]
    if data[len(body) :] != _seal(body):
        raise ValueError(
            f"{path} is damaged: its bytes do not match the checksum at its end, so it is cut off, altered or "
            f"by another program than lyaptorch; {_AGAIN}"
        )
    return body


def _refuse_objects(body: bytes) -> None:
    """Raise unless the file holds numbers and text only, before any value is read.

    A seal proves no good intent: from an opaque type tagged NUMPY:|O h5py makes pointers to Python objects
    out of bytes in the file, and links and external storage reach into other files.
    """
    import h5py  # type: ignore[import-untyped]

    def plain(kind: Any) -> bool:
        if kind.get_class() == h5py.h5t.VLEN:
            return plain(kind.get_super())
        if kind.get_class() == h5py.h5t.COMPOUND:
            return all(plain(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
        return kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.REFERENCE)

    with h5py.File(io.BytesIO(body), "r") as file:
        hard = all(isinstance(file.get(name, getlink=True), h5py.HardLink) for name in file)
        items = [file[name] for name in file] if hard else []
        inside = hard and all(
            isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external for item in items
        )
        kinds = [item.id.get_type() for item in items] if inside else []
        for item in (file, *items):
            count = h5py.h5a.get_num_attrs(item.id)
            kinds += [h5py.h5a.open(item.id, index=i).get_type() for i in range(count)]
        if not inside or not all(plain(kind) for kind in kinds):
            raise ValueError(
                "a Record holds numbers and text only, got another type or link; do not trust it"
            )


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    if attributes.get("format") != FORMAT:
        raise ValueError(
            f"format must be {FORMAT!r}, got {attributes.get('format')!r}; open it with the program that wrote it"
        )
    version = attributes.get("format_version")
    if version != VERSION:
        raise ValueError(f"format_version must be {VERSION}, got {version!r}; update lyaptorch")
    for name in ("kind", "config", "checksum"):
        if not isinstance(attributes.get(name), str):
            raise ValueError(f"attribute {name} must be text, got {attributes.get(name)!r}; {_AGAIN}")


def _from_xarray(variable: xarray.Variable) -> Given:
    values = variable.values
    if values.dtype.kind in "OT" and all(isinstance(text, str) for text in values.flat):
        values = values.astype(str)
    return [str(d) for d in variable.dims], values, {str(name): v for name, v in variable.attrs.items()}


def _variable(name: str, given: Given) -> Variable:
    """Return a checked, read-only copy."""
    if not isinstance(given, tuple) or len(given) not in (2, 3) or isinstance(given[0], str):
        raise ValueError(f"{name} must be (dims, values) with dims a tuple of names, got {given!r:.80}")
    dims, attributes = tuple(given[0]), dict(given[2]) if len(given) == 3 else {}
    values = _values(name, given[1])
    for word in (name, *dims):
        if not isinstance(word, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", word):
            raise ValueError(f"a name must be ASCII letters, digits and _, got {word!r}; rename it")
    if len(dims) != values.ndim or len(set(dims)) < len(dims):
        raise ValueError(
            f"{name} must have one dimension name for each of its axes, no name twice, got {dims} for shape "
            f"{values.shape}; name or rename them"
        )
    if name in dims and len(dims) > 1:
        raise ValueError(f"{name} names a dimension and must lie along it alone, got {dims}; rename one")
    for key, text in attributes.items():
        _checks.choice(f"attribute of {name}", key, ("comment", "long_name", "units"))
        _text(f"{key} of {name}", text)
    return Variable(dims, values, attributes)


def _values(name: str, given: ArrayLike | Tensor) -> NDArray[Any]:
    try:
        values = np.array(given.numpy(force=True) if isinstance(given, Tensor) else given, order="C")
    except (TypeError, ValueError) as error:  # bfloat16 and ragged lists have no array
        raise ValueError(
            f"{name} must be a tensor or an array, got {error}; call .float() or pad it"
        ) from error
    kind = values.dtype.kind
    if kind not in "biufU" or (kind == "f" and values.itemsize not in (4, 8)):
        raise ValueError(
            f"{name} must hold booleans, integers, float32, float64 or strings, got {values.dtype}; convert it, "
            f"for example with .float() or .astype(str)"
        )
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind == "f":
        np.copyto(values, np.nan, where=np.isnan(values))  # NaN has many bit patterns, a checksum wants one
    if kind == "U":
        values = values.astype(f"U{max(1, int(np.strings.str_len(values).max(initial=0)))}")
        _text(name, "".join(values.flat) or " ")
    values.flags.writeable = False
    return values


def _check_lengths(*groups: Mapping[str, Variable]) -> None:
    """Raise unless every dimension has one length, and only coordinates are named like a dimension."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, v in ((name, v) for group in groups for name, v in group.items()):
        for dim, length in zip(v.dims, v.values.shape, strict=True):
            known, first = lengths.setdefault(dim, (length, name))
            if known != length:
                raise ValueError(
                    f"dimension {dim} must have one length, got {known} in {first} and {length} in {name}; "
                    f"rename one of the dimensions"
                )
    variables, coordinates = groups
    for name in sorted(lengths.keys() & (variables.keys() | coordinates.keys())):
        if name in variables or coordinates[name].dims != (name,):
            raise ValueError(f"{name} names a dimension and must be a coordinate along it; rename one")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{name} must be text without NUL or lone surrogates, got {value!r:.80}; change it")
    return value


def _json(name: str, value: object, indent: int | None = None) -> str:
    def keys(node: object) -> Iterator[object]:
        if isinstance(node, Mapping):
            yield from node
        children = (
            node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
        )
        for child in children:
            yield from keys(child)

    try:
        odd = [key for key in keys(value) if not isinstance(key, str)]
        if odd:
            raise TypeError(f"the key {odd[0]!r}")
        return json.dumps(value, allow_nan=False, sort_keys=True, indent=indent)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} must hold only what JSON can: dicts with text keys, lists, text, finite numbers, booleans "
            f"and None, got {error}; convert it with str(), float() or .tolist()"
        ) from error


def _host_facts() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    for package in ("lyaptorch", "torch"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts
