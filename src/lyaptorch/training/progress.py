"""Progress on long work: a bar where somebody watches, nothing elsewhere."""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Advance: TypeAlias = Callable[[str], None]
"""Call once per step with what to show beside the bar."""

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
    # rich draws from Python's own generator, which is the user's
    drawn = random.getstate()
    try:
        with _bar(title, total) as advance:
            yield advance
    finally:
        random.setstate(drawn)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, text="")
        pending, last = 0, 0.0

        def advance(text: str) -> None:
            nonlocal pending, last
            pending += 1
            if time.monotonic() - last > REFRESH:
                bar.update(task, advance=pending, text=text)
                pending, last = 0, time.monotonic()

        yield advance
        bar.update(task, advance=pending)
