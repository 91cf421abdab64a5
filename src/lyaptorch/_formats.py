"""What the name of a file asks for: one rule for everything that has a `save`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lyaptorch._files import replace_file, writable_folder

FORMATS = {".nc": "the Record", ".html": "the page", ".png": "the figure", ".pdf": "the figure"}
FORMATS |= {".svg": "the figure"}


class Saved(Protocol):
    """What can be written in every format: a Record."""

    @property
    def save(self) -> Callable[..., Path]:
        """Write it as netCDF."""

    def page(self) -> str:
        """It as HTML."""

    def plot(self) -> Any:
        """Its figure, of matplotlib."""


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


def save_as(path: Path | str, record: Saved, default: str) -> Path:
    """Write a Record, its page or its figure, as the suffix of `path` says; return the path.

    Raises:
        ValueError: for another format, for a figure of what has none, or if the file cannot be written.
    """
    path = with_format(path, default)
    suffix = path.suffix.lower()
    if suffix == ".nc":
        return record.save(path)
    if suffix == ".html":
        data = record.page().encode()
    else:
        drawing = io.BytesIO()
        record.plot().savefig(drawing, format=suffix[1:])
        data = drawing.getvalue()
    writable_folder(path.parent)
    replace_file(path, data)
    return path
