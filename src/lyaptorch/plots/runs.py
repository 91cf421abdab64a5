"""The page of a folder of Records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, Protocol

from matplotlib.figure import Figure

from lyaptorch._brief import tally
from lyaptorch.plots import html
from lyaptorch.plots.html import Section
from lyaptorch.record import Record

VERSIONS = ("lyaptorch", "torch", "python", "platform", "host", "threads", "time")


class Checked(Protocol):
    """A claim of a figure, and what came of it."""

    @property
    def sentence(self) -> str:
        """The claim."""

    @property
    def bound(self) -> str:
        """What is expected, with its side."""

    @property
    def measured(self) -> float:
        """What came out."""

    @property
    def outcome(self) -> str:
        """Whether it holds."""

    @property
    def kind(self) -> str:
        """Claim, identity, timing or question."""


class Entry(NamedTuple):
    """A Record of the page.

    Attributes:
        name: of its file.
        record: itself.
        drawn: its figure, if it has one.
        checks: what the figure claims.
        host: seconds, versions and other volatile facts.
    """

    name: str
    record: Record
    drawn: Figure | None
    checks: Sequence[Checked]
    host: Mapping[str, Any]


def runs_page(title: str, entries: Sequence[Entry], unreadable: Sequence[tuple[str, str]] = ()) -> str:
    """One self-contained page: every Record with its figure, checks, configuration, cost and versions.

    Args:
        title: of the page.
        entries: the Records.
        unreadable: names of files that cannot be read, and why.
    """
    checks = [check for entry in entries for check in entry.checks]
    seconds = sum(_seconds(entry) for entry in entries)
    lead = f"{len(entries)} Record{'s' * (len(entries) != 1)}, {duration(seconds)} of computing"
    if checks:
        lead += f"; of {len(checks)} checks {tally(check.outcome for check in checks)}"
    sections = [Section("Records", _contents(entries))]
    if unreadable:
        sections.append(Section("Not readable", html.bullets(f"{name}: {why}" for name, why in unreadable)))
    sections += [Section(entry.name, _body(i, entry)) for i, entry in enumerate(entries)]
    return html.frame(title, sections, lead=html.paragraph(f"{lead}."))


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _contents(entries: Sequence[Entry]) -> str:
    rows = []
    for i, entry in enumerate(entries):
        facts = [entry.record.kind]
        if entry.checks:
            facts.append(f"of {len(entry.checks)} checks {tally(check.outcome for check in entry.checks)}")
        if "seconds" in entry.host:
            facts.append(duration(_seconds(entry)))
        rows.append(f'<li><a href="#record{i}">{escape(entry.name)}</a>: {escape(", ".join(facts))}</li>')
    return f"<ul>{''.join(rows)}</ul>"


def _body(number: int, entry: Entry) -> str:
    record, parts = entry.record, [f'<div id="record{number}"></div>']
    if entry.drawn is not None:
        sizes = [(name, " by ".join(map(str, v.values.shape))) for name, v in record.variables.items()]
        numbers = html.table(("variable", "size"), sizes)
        alt = f"The figure of {entry.name}, a Record of {record.kind}."
        parts.append(html.figure(entry.drawn, f"f{number}", alt, "", numbers))
    else:
        parts.append(html.paragraph("This version of lyaptorch draws no figure of it."))
    if entry.checks:
        rows = [(c.sentence, c.bound, c.measured, c.outcome, c.kind) for c in entry.checks]
        parts.append(html.table(("check", "expected", "measured", "outcome", "kind"), rows))
    settings = html.table(("setting", "value"), [(key, str(value)) for key, value in record.config.items()])
    parts.append(f"<details><summary>Configuration</summary>{settings}</details>")
    facts = [(key, str(entry.host[key])) for key in VERSIONS if key in entry.host]
    if "seconds" in entry.host:
        facts.insert(0, ("cost", duration(_seconds(entry))))
    if facts:
        table = html.table(("fact", "value"), facts)
        parts.append(f"<details><summary>Cost and versions</summary>{table}</details>")
    return "".join(parts)


def _seconds(entry: Entry) -> float:
    seconds = entry.host.get("seconds", 0.0)
    return float(seconds) if isinstance(seconds, int | float) else 0.0
