"""One run's result, in memory and on disk: the only result format of the project."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from lyaptorch import _checks, _files
from lyaptorch._renames import current_config, current_name
from lyaptorch._shown import framed
from lyaptorch._variables import Given, Variable, check_together, text, variable

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

__all__ = ["Given", "Record", "Variable"]

_FORMAT, _VERSION = "lyaptorch record", 2
SHOWN = 12
"""Most names in the repr of a Record."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Record:
    """One run's result: named arrays, their coordinates, and the configuration that made them.

    `record[name]` is an array, `list(record)` names all, `record.dataset` is the same for xarray.
    Two Records are equal if kind, configuration, names, dimensions, attributes, types and every value are,
    to the bit; one NaN equals another. Values are booleans, integers, float32, float64 or strings.

    Args:
        kind: What made it, such as "train", "spectrum" or "demo".
        config: The whole configuration, as JSON can hold it; tuples become lists, keys text.
        variables: For each name `(dims, values)` or `(dims, values, {"units": ...})`: one dimension name for
            each axis, and a tensor or array, which is copied to the CPU.
        coordinates: The same for coordinates. One named like a dimension labels that dimension.

    Raises:
        ValueError: if dims and shapes disagree, a value has another type, or config is no JSON.

    Example:
        >>> import tempfile, torch
        >>> loss = torch.tensor([[0.5, 0.25, 0.125]])
        >>> record = Record("train", {"lr": 0.001}, {"loss": (("member", "epoch"), loss, {"units": "nats"})},
        ...                 {"epoch": (("epoch",), [1, 2, 3])})
        >>> record
        Record('train': loss (member 1, epoch 3), epoch (epoch 3))
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
        object.__setattr__(self, "kind", text("kind", kind))
        object.__setattr__(self, "config", json.loads(_files.to_json("config", dict(config))))
        object.__setattr__(self, "variables", {n: variable(n, given) for n, given in variables.items()})
        coordinates = {n: variable(n, given) for n, given in (coordinates or {}).items()}
        object.__setattr__(self, "coordinates", coordinates)
        check_together(self.variables, self.coordinates)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the values of a variable or coordinate: a copy, yours to change."""
        entries = self._entries
        return entries[_checks.choice("variable or coordinate", name, entries)].values.copy()

    def keys(self) -> KeysView[str]:
        """The names of all variables, then of all coordinates; so `dict(record)` is all arrays by name."""
        return self._entries.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __bool__(self) -> bool:
        # one without variables is a result, too; len() alone would make it false
        return True

    @property
    def _entries(self) -> dict[str, Variable]:
        return {**self.variables, **self.coordinates}

    def __eq__(self, other: object) -> bool:
        return self._digest() == other._digest() if isinstance(other, Record) else NotImplemented

    def __repr__(self) -> str:
        rows = []
        for name, v in list(self._entries.items())[:SHOWN]:
            axes = (f"{dim} {length}" for dim, length in zip(v.dims, v.values.shape, strict=True))
            rows.append(f"{name} ({', '.join(axes)})")
        more = [f"... {len(self) - SHOWN} more, see list(record)"] if len(self) > SHOWN else []
        return f"Record({self.kind!r}: {', '.join([*rows, *more])})"

    @property
    def dataset(self) -> xarray.Dataset:
        """The same as an `xarray.Dataset`, with the configuration as one JSON attribute; values read-only.

        With it come selection by label, `to_dataframe()`, and all else that xarray has.
        """
        import xarray

        attributes = {"format": _FORMAT, "format_version": _VERSION, "kind": self.kind}
        attributes["config"] = _files.to_json("config", self.config)
        return xarray.Dataset(dict(self.variables), dict(self.coordinates), attributes)

    def save(self, path: Path | str, *, host: Mapping[str, Any] | None = None, fresh: bool = False) -> Path:
        """Write netCDF to `path` and volatile facts to `<stem>.host.json` beside it; return the path.

        If `path` ends in .html, .png, .pdf or .svg: only the page, or the figure.

        A failure leaves the file at `path` as it was. Equal Records give equal bytes (for equal versions of
        HDF5 and h5netcdf); what differs between equal runs, such as the time, goes to the side file.

        Args:
            path: Where to; `.nc` is added when no format is named; missing folders are made.
            host: Further volatile facts, such as wall seconds.
            fresh: Never replace a Record: take `<name>-2.nc`, `-3`, ... if the file exists.

        Raises:
            ValueError: if the folder cannot be written, `host` is no JSON, or for another format.
        """
        path = _files.with_format(path, ".nc")
        if path.suffix.lower() != ".nc":
            return _files.save_shown(path, self.page, self.plot)
        facts = _files.to_json("host", {**_files.host_facts(), **(host or {})}, indent=2)
        dataset = self.dataset.assign_attrs(checksum=self._digest())
        # netCDF through xarray marks NaN as missing by default; here it is a value
        exact: dict[Any, dict[str, Any]] = {name: {"_FillValue": None} for name in dataset.variables}
        # in memory first: when the disk is full, HDF5 does not raise but ends the process
        body = io.BytesIO()
        dataset.to_netcdf(body, engine="h5netcdf", encoding=exact)
        _files.writable_folder(path.parent)
        data, count, name = _files.sealed(body.getvalue()), 1, path.stem
        # a fresh name is taken by writing, not by looking: two processes may end at once
        while fresh:
            try:
                _files.replace_file(path, data, fresh=True)
                break
            except FileExistsError:
                count += 1
                path = path.with_name(f"{name}-{count}.nc")
        # before a Record is replaced: where this cannot be written, the one at `path` is as it was
        _files.replace_file(path.with_suffix(".host.json"), f"{facts}\n".encode())
        if not fresh:
            _files.replace_file(path, data)
        return path

    @classmethod
    def load(cls, path: Path | str) -> Record:
        """Read what `save` wrote; bytes and values are checked, and nothing in the file is executed.

        Raises:
            ValueError: if the file is missing, damaged, from another program or from a newer lyaptorch.
        """
        import xarray

        path = Path(path)
        if not path.is_file() and path.suffix != ".nc":
            path = path.with_name(f"{path.name}.nc")
        # two checksums: that of the bytes, before HDF5 reads them, and that of the values, after
        body = _files.unsealed(path)
        try:
            _files.refuse_objects(body)
            with xarray.open_dataset(
                io.BytesIO(body), engine="h5netcdf", mask_and_scale=False, decode_times=False
            ) as data:
                _check_format(data.attrs)
                entries = {str(name): _from_xarray(v) for name, v in data.variables.items()}
                variables = {name: v for name, v in entries.items() if name not in data.coords}
                coordinates = {name: v for name, v in entries.items() if name in data.coords}
                record = cls(data.attrs["kind"], json.loads(data.attrs["config"]), variables, coordinates)
                if record._digest() != data.attrs["checksum"]:
                    raise ValueError(f"values and checksum disagree, so it is damaged; {_files.AGAIN}")
                if str(data.attrs["format_version"]) != str(_VERSION):
                    record = record._current()
        except Exception as error:  # h5py and xarray raise almost any type on a malformed file
            known = type(error) if type(error) in (ValueError, NewerError) else None
            reason = str(error) if known else f"it is damaged, {error!r}; {_files.AGAIN}"
            raise (known or ValueError)(f"cannot load {path}: {reason}") from error
        return record

    def _current(self) -> Record:
        """The same with the names of today, from those of the first version."""
        variables, coordinates = (
            {
                current_name(name): (tuple(map(current_name, v.dims)), v.values, v.attributes)
                for name, v in group.items()
            }
            for group in (self.variables, self.coordinates)
        )
        return Record(self.kind, current_config(self.kind, self.config), variables, coordinates)

    def plot(self) -> Figure:
        """The figure of this kind of Record, drawn from its data alone.

        Raises:
            ValueError: for a kind of Record that has no figure.
        """
        return _renderers[-1]().figure(self)

    def page(self) -> str:
        """One self-contained page of HTML: the figure, where this kind has one, sizes and configuration."""
        return _renderers[-1]().page(self)

    def _repr_html_(self) -> str:
        return framed(self.page(), f"Record {escape(self.kind)}")

    def _digest(self) -> str:
        """Return a checksum of all that makes two Records equal; the order of names does not count."""
        table, data = [], []
        for group in (self.variables, self.coordinates):
            for name, v in sorted(group.items()):
                little = v.values.astype(v.values.dtype.newbyteorder("<"), copy=False)
                table.append((name, v.dims, v.attributes, little.dtype.str, little.shape))
                data.append(little.tobytes())
        # how many are variables, for the two groups follow each other without a mark
        head = _files.to_json("record", [self.kind, self.config, len(self.variables), table])
        return f"sha256:{hashlib.sha256(head.encode() + b''.join(data)).hexdigest()}"


class NewerError(ValueError):
    """A Record of a newer lyaptorch: it may be whole, and is not to be made again in its place."""


class Renderer(Protocol):
    """Draws Records of every kind."""

    def figure(self, record: Record) -> Figure:
        """Its figure, or ValueError for a kind that has none."""

    def page(self, record: Record) -> str:
        """Its page of HTML."""


def render_with(renderer: Callable[[], Renderer]) -> None:
    """From now on let that which `renderer` gives, when one is first needed, draw all Records.

    Records know nothing of plots: `lyaptorch/__init__.py` brings the two together.
    """
    _renderers.append(renderer)


_renderers: list[Callable[[], Renderer]] = []


def _check_format(attributes: Mapping[str, Any]) -> None:
    needed = {"format", "format_version", "kind", "config", "checksum"}
    if missing := ", ".join(sorted(needed - attributes.keys())):
        raise ValueError(f"it must have the attributes {missing}, got none; {_files.AGAIN}")
    for name, known in (("format", [_FORMAT]), ("format_version", range(1, _VERSION + 1))):
        if str(attributes[name]) not in map(str, known):
            of = " or ".join(map(repr, known))
            raise NewerError(f"{name} must be {of}, got {attributes[name]!s:.80}; update lyaptorch")


def _from_xarray(variable: xarray.Variable) -> Given:
    values = variable.values
    if values.dtype.kind in "OT" and all(isinstance(text, str) for text in values.flat):
        values = values.astype(str)
    return tuple(str(dim) for dim in variable.dims), values, {str(k): v for k, v in variable.attrs.items()}
