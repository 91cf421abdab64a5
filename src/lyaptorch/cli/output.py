"""Options that commands share, the job that ends in a Record, and the answer as text or JSON."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
import tyro
from rich.console import Console, RenderableType
from rich.text import Text
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._files import host_facts, run_path, to_json
from lyaptorch._shown import printable
from lyaptorch.kernels import available
from lyaptorch.record import Record
from lyaptorch.training.checkpoint import begin, checkpoints_of, cost
from lyaptorch.training.epochs import keep_pages

Quiet: TypeAlias = Annotated[bool, tyro.conf.arg(aliases=("-q",)), tyro.conf.FlagCreatePairsOff]
Verbose: TypeAlias = Annotated[bool, tyro.conf.arg(aliases=("-v",)), tyro.conf.FlagCreatePairsOff]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Who reads has gone: the command line is told, where rich would end as with a bug."""
        raise BrokenPipeError


@dataclass(frozen=True)
class Output:
    """Where Records are, and how a command answers.

    Attributes:
        runs: Folder of Records, figures and pages.
        json: Print one JSON object instead of tables.
        quiet: Print nothing, errors and JSON aside.
        verbose: Say on stderr what runs it, from what it resumes, and where an error arose.
    """

    runs: Path = Path("runs")
    json: bool = False
    quiet: Quiet = False
    verbose: Verbose = False

    @property
    def talks(self) -> bool:
        """Whether people read what it prints."""
        return not (self.json or self.quiet)

    @property
    def show_progress(self) -> bool | None:
        """A bar on a terminal, where people read."""
        return None if self.talks else False

    def note(self, text: str) -> None:
        """Say on stderr what only some want to know."""
        if self.verbose:
            print(f"lyap: {printable(text)}", file=sys.stderr, flush=True)

    def answer(self, facts: Mapping[str, Any], parts: Iterable[RenderableType]) -> None:
        """Print the facts as one JSON object, or the parts: tables, texts, and lines as they are."""
        if self.json:
            print(json.dumps(_finite(facts), allow_nan=False))
        if not self.talks:
            return
        console = _Console()
        for part in parts:
            # a line may be a path or code to copy: wrapped, or with [..] read as markup, it would be neither
            if isinstance(part, str):
                console.print(printable(part), highlight=False, soft_wrap=True, markup=False)
            else:
                console.print(part, soft_wrap=isinstance(part, Text))

    def conclude(
        self,
        facts: Mapping[str, Any],
        parts: Iterable[RenderableType],
        files: Mapping[str, Path],
        seconds: float | None,
    ) -> None:
        """Answer, and say where the files are and what they took, if that is known."""
        written = {name: str(path) for name, path in files.items()}
        lines = [f"{name.capitalize()} {path}" for name, path in written.items()]
        took = None if seconds is None else round(seconds, 1)
        told = [] if seconds is None else [f"{seconds:.0f} s"]
        self.answer({**facts, **written, "seconds": took}, [*parts, *lines, *told])


@dataclass(frozen=True)
class Work(Output):
    """The same of a command that computes.

    Attributes:
        threads: Threads of torch in each process; small networks are fastest with one.
    """

    threads: int = 1

    def prepare(self) -> None:
        """Let torch and the memory of this process work as asked for."""
        # before anything is computed: sums depend on how many threads share them
        torch.set_num_threads(_checks.threads(self.threads))
        keep_pages()

    def job(self, name: str, options: Mapping[str, Any] | None = None) -> Job:
        """Begin what will end in a Record; a command with the same options finds its checkpoint again."""
        self.prepare()
        # a checkpoint of other settings must never be resumed, so its name holds a digest of them all
        digest = hashlib.sha256(to_json("options", dict(options or {})).encode()).hexdigest()[:12]
        path, checkpoint = run_path(self.runs, name), self.runs / f".{name}-{digest}.checkpoint"
        job = Job(self, path, checkpoint, begin(checkpoint))
        self.note(f"{host_facts()}; kernels: {available()['cpu'].detail}")
        self.note(f"resumes from {', '.join(map(str, job.checkpoints())) or 'nothing'}; {job.path}")
        return job


Outputs: TypeAlias = Annotated[Output, tyro.conf.arg(name="")]
Works: TypeAlias = Annotated[Work, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Job:
    """A command at work.

    Attributes:
        output: how it answers.
        path: where its Record goes.
        checkpoint: how the names of its checkpoints begin; an experiment has one for each of its trainings.
        start: when it began, by the clocks.
    """

    output: Output
    path: Path
    checkpoint: Path
    start: Tensor

    def checkpoints(self) -> list[Path]:
        """Those that there are."""
        return checkpoints_of(self.checkpoint)

    def save(self, record: Record, *, fresh: bool = True) -> tuple[Path, float | None]:
        """Write the Record at the next free name and remove the checkpoints; return where, and the seconds.

        They count what led to the checkpoints from which it went on; None where nobody knows.

        If not `fresh`, an equal Record that is there already stays, with what it cost.
        """
        path, taken = self.path, cost(self.start)
        if fresh or not path.exists() or Record.load(path) != record:
            # a sweep, which alone is not fresh, has its work done by others: they say what it cost them
            path = record.save(path, host=taken if fresh else {}, fresh=fresh)
        # only now: killed before, it still has what it needs to resume
        for done in self.checkpoints():
            done.unlink(missing_ok=True)
        return path, taken.get("seconds")

    def conclude(
        self,
        record: Record,
        facts: Mapping[str, Any],
        parts: Iterable[RenderableType],
        *,
        files: Sequence[str] = ("figure",),
        fresh: bool = True,
    ) -> None:
        """Save the Record, with its figure or page beside it, and answer."""
        path, seconds = self.save(record, fresh=fresh)
        page = path.with_suffix(".html")
        written = {name: draw(record, path) if name == "figure" else record.save(page) for name in files}
        self.output.conclude(facts, parts, {"record": path, **written}, seconds)


@contextmanager
def resumable(kept: Callable[[], object]) -> Iterator[None]:
    """An interrupt in here says that the same command resumes, if anything was kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        # what is known better further inside, such as that the Record is saved, is told in its place
        said = ("the same command resumes",) if kept() else ()
        raise KeyboardInterrupt(*(interrupt.args or said)) from None


def draw(record: Record, path: Path, ends: Sequence[str] = (".png",)) -> Path:
    """Draw the Record at `path` beside it, in files of these ends; return where the last is.

    Raises:
        ValueError: if that fails; it says that the Record is there.
    """
    try:
        return [record.save(path.with_suffix(end)) for end in ends][-1]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the Record is saved as {path}") from None
    except Exception as error:  # matplotlib raises almost any type
        reason = str(error) if type(error) is ValueError else repr(error)
        raise ValueError(
            f"the Record is saved as {path}, but its figure cannot be drawn: {reason}; when that is mended, "
            f"lt.Record.load({str(path)!r}).plot() draws it"
        ) from error


def _finite(value: Any) -> Any:
    """The same with None for inf and NaN, which JSON cannot hold: a dead exponent, an unknown error."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
