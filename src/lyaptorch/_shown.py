"""Results that a Record holds wholly: they are drawn, saved and shown as that Record."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

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
