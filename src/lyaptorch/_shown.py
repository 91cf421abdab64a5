"""Display: results as the Record that holds them, and progress on long work."""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lyaptorch._files import with_format

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lyaptorch.record import Record


class Shown:
    """A result with a `record()`, and what follows from that."""

    def record(self) -> Record:
        """The same as a Record."""
        raise NotImplementedError

    def plot(self) -> Figure:
        """Its figure, of matplotlib."""
        return self.record().plot()

    def page(self) -> str:
        """One self-contained page of HTML."""
        return self.record().page()

    def save(self, path: Path | str) -> Path:
        """Write the page (.html), the figure (.png, .pdf, .svg) or the Record (.nc); return the path.

        A name without any of these gets .html.

        Raises:
            ValueError: for another format, or if the file cannot be written.
        """
        return self.record().save(with_format(path, ".html"))

    def _repr_html_(self) -> str:
        return framed(self.page(), type(self).__name__)


def framed(page: str, title: str) -> str:
    """A self-contained page as part of another, such as a notebook; its style stays its own."""
    inside = escape(page, quote=True)
    return f'<iframe srcdoc="{inside}" title="{title}" style="width:100%;height:48em;border:0"></iframe>'


def printable(text: str) -> str:
    """The same with escapes, as repr() has them, for what a terminal would obey and not show."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


Advance: TypeAlias = Callable[[object], None]
"""Call once per step with what to show beside the bar, whose text is only asked for when it is shown."""

REFRESH = 0.1
"""Seconds between two updates of the text."""


@contextmanager
def progress(title: str, total: int, enabled: bool | None) -> Iterator[Advance]:
    """A bar of `total` steps on stderr; `enabled=None` shows it on a terminal, if rich is installed."""
    if enabled is None:
        enabled = sys.stderr.isatty()
    if not enabled or total == 0 or importlib.util.find_spec("rich") is None:
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # rich draws from Python's own generator, which is the user's
    drawn = random.getstate()
    pending, last = 0, 0.0

    def advance(text: object) -> None:
        nonlocal pending, last
        pending += 1
        if time.monotonic() - last > REFRESH:
            bar.update(task, advance=pending, text=str(text))
            pending, last = 0, time.monotonic()

    try:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, text="")
            yield advance
            bar.update(task, advance=pending)
    finally:
        random.setstate(drawn)
