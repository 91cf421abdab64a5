"""Figures of papers in the old style: none is left."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from lyaptorch.record import Record

PAPERS: dict[str, Callable[[Record], Figure]] = {}
