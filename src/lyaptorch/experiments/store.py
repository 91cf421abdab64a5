"""A store of the parts of a figure: what is there, and making what is not, in any number of processes."""

from __future__ import annotations

import fcntl
import functools
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median

from lyaptorch._files import host_of, run_path, to_json
from lyaptorch.experiments.figure import RATE, Figure
from lyaptorch.experiments.parts import SEEDS, fits, missing, name_of, parts, tuples, with_networks
from lyaptorch.experiments.thinning import thinned
from lyaptorch.record import NewerError, Record
from lyaptorch.training.checkpoint import begin, checkpoints_of, cost

LARGEST = 1e30
"""Of what a part can have taken, in seconds or operations."""


@dataclass(frozen=True)
class Store:
    """The folder of a figure's parts.

    Attributes:
        figure: the whole.
        folder: RECORDS/PAPER/FIGURE.
        seeds: parts of a figure that is not cut.
    """

    figure: Figure
    folder: Path
    seeds: int = SEEDS

    @classmethod
    def below(cls, records: Path, figure: Figure, seeds: int | None = None) -> Store:
        """That of a figure below the folder of all; with so many networks or seeds, if they are given."""
        folder = records / figure.paper / figure.figure
        if seeds is None:
            return cls(figure, folder)
        return cls(with_networks(figure, seeds), folder, seeds)

    def path(self, part: Figure) -> Path:
        """Where a part is, or will be."""
        return self.folder / f"{name_of(part)}.nc"

    def look(self) -> tuple[list[Record], dict[Path, str]]:
        """The parts that are there, and why other Records in the folder are refused."""
        found, refused = self._found()
        return list(found.values()), refused

    def _found(self) -> tuple[dict[Path, Record], dict[Path, str]]:
        """The same with where they are."""
        found, refused = {}, {}
        # of a figure that is cut parts of other seeds are those of another whole
        mine = f"seed{self.figure.seed}-*.nc" if self.figure.cut else "seed*.nc"
        seeds = {part.seed for part in parts(self.figure, self.seeds)}
        for path in sorted(self.folder.glob(mine)):
            record = _read(path, self.figure)
            if isinstance(record, Record):
                if record.config["seed"] in seeds:
                    found[path] = record
            else:
                refused[path] = record
        return found, refused

    def missing(self) -> list[Figure]:
        """The parts that are still to be made."""
        return missing(self.figure, self.look()[0], self.seeds)

    def make(self, part: Figure, show_progress: bool | None = None) -> Path | None:
        """Make a part, or what is left of it after a kill; return where it is.

        None where another process is at it. A Record that is damaged, or lacks networks, is replaced.

        Raises:
            ValueError: if the folder cannot be written, or a Record of other settings or of a newer lyaptorch
                is there.
        """
        path = run_path(self.folder, name_of(part))
        digest = hashlib.sha256(to_json("part", asdict(part)).encode()).hexdigest()[:12]
        checkpoint = path.with_name(f".{path.stem}-{digest}.checkpoint")
        with _taken(path) as mine:
            if not mine:
                return None
            # another process may have made it since this one looked
            if not self._there(path, part):
                start = begin(checkpoint)
                record = thinned(part.raw(show_progress, checkpoint))
                record.save(path, host={**cost(start), "operations": part.operations()})
            # after the Record is there: killed in between, the next call finds the part done
            for left in checkpoints_of(checkpoint):
                left.unlink(missing_ok=True)
        return path

    def _there(self, path: Path, part: Figure) -> bool:
        """Whether a part is done."""
        try:
            record = Record.load(path)
        except NewerError:
            raise
        except ValueError:
            return False
        if not fits(record, part) or record.config.get("seed") != part.seed:
            raise ValueError(_other(path, part))
        # of a part that has grown since the first networks alone may be there
        return not part.cut or not missing(part, [record])

    def seconds(self, part: Figure, rough: float) -> float:
        """What a part will take on one core: its operations by the rate at which others were made.

        Args:
            part: of the figure.
            rough: seconds of the whole figure, of one whose operations are not known.
        """
        work = part.operations()
        # a rate is one, whatever other part of the figure it is of
        hosts = _costs(self.folder.glob("*.nc"))
        if work is None:
            known = [host["seconds"] for host in hosts if "seconds" in host]
            return median(known) if known else rough / len(parts(self.figure, self.seeds))
        rates = [h["operations"] / h["seconds"] for h in hosts if {"operations", "seconds"} <= h.keys()]
        return work / (median(rates) if rates else RATE)

    def spent(self) -> tuple[float | None, float | None]:
        """Seconds that its parts took together, of all cores and on the clock; None where nobody knows."""
        hosts = _costs(self._found()[0])
        cpu, clock = ([h[name] for h in hosts if name in h] for name in ("cpu_seconds", "seconds"))
        return sum(cpu) if cpu else None, sum(clock) if clock else None


def _costs(paths: Iterable[Path]) -> list[dict[str, float]]:
    """What Records took, as far as the files beside them say so in numbers above 0."""
    numbers = (int, float)
    return [
        {k: float(v) for k, v in host.items() if isinstance(v, numbers) and 0 < v < LARGEST}
        for host in map(host_of, paths)
    ]


@functools.lru_cache(maxsize=128)
def _loaded(path: Path, inode: int, size: int, written: int) -> Record:
    """The Record of a file that is still the same; what is done with a figure reads its parts many times."""
    return Record.load(path)


def _read(path: Path, figure: Figure) -> Record | str:
    """The Record of a part, or why it is none of this figure's."""
    try:
        stat = path.stat()
        record = _loaded(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except (ValueError, OSError) as error:
        return str(error)
    if not fits(record, figure) or not isinstance(record.config.get("seed"), int):
        return _other(path, figure)
    # a copy is no further network, whatever it is called
    known = {field.name for field in fields(figure)}
    own = {name: tuples(value) for name, value in record.config.items() if name in known}
    try:
        name = name_of(replace(figure, **own))
    except (TypeError, ValueError, IndexError):
        # how many there are may be no number
        return _other(path, figure)
    return record if path.stem == name else f"cannot use {path}: it is a copy of {name}; move it away"


def _other(path: Path, figure: Figure) -> str:
    return f"cannot use {path}: it is no part of {figure.paper} {figure.figure} as it is now; move it away"


@contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Hold the lock of a part; whether it was free. That of a killed process is."""
    lock = path.with_name(f".{path.stem}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            # no locks on this file system: two may make the same part, and write the same Record
            pass
        try:
            yield True
        finally:
            # one who opened the file before it went looks whether the part is done
            with suppress(OSError):
                lock.unlink()
