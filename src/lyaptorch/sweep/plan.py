"""`Plan`, `sweep` and `gather`: runs done and to do, their execution, and results over the axes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lyaptorch._files import run_path
from lyaptorch._shown import progress
from lyaptorch.record import NewerError, Record
from lyaptorch.sweep.grid import Axes, Config, Group, grid, packs, run_id
from lyaptorch.sweep.workers import Serial, Workers

Function: TypeAlias = Callable[[Sequence[Config], Path], Record]
"""`(configurations of a pack, file for a checkpoint) -> Record`; of several with a dimension `member`."""


@dataclass(frozen=True)
class Plan:
    """What a sweep has done and has to do.

    Attributes:
        folder: where the Records are.
        finished: by the id of each finished run of the sweep, its Record and its place in there.
        todo: packs of the others.
        refused: why Records in the folder cannot be read; their runs, if they are of this sweep, are to do.

    Example:
        >>> Plan(Path("runs"), {}, []).todo
        []
    """

    folder: Path
    finished: dict[str, tuple[Record, int]]
    todo: list[Group]
    refused: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        configs: Sequence[Config],
        folder: Path | str,
        *,
        name: str,
        together: Callable[[Config], str] | None = None,
        most: int = 20,
    ) -> Plan:
        """Look what is there; arguments as those of `sweep`.

        Raises:
            ValueError: if a Record in the folder is of a newer lyaptorch.
        """
        folder, known, refused = Path(folder), {}, []
        for path in sorted(folder.glob("*.nc")):
            try:
                record = Record.load(path)
            except NewerError:
                raise
            except ValueError as error:
                refused.append(str(error))
                continue
            ids = record.config.get("sweep", {}).get("ids", [])
            known.update({run: (record, i) for i, run in enumerate(ids)})
        groups = packs(name, configs, together, most)
        mine = {run: known[run] for group in groups for run in group.ids if run in known}
        # packs of all runs, then what is left of each: what is finished moves no run to another pack
        left = [group.without(frozenset(mine)) for group in groups]
        return cls(folder, mine, [group for group in left if group.ids], tuple(refused))


def sweep(
    function: Function,
    configs: Sequence[Config],
    folder: Path | str,
    *,
    name: str,
    together: Callable[[Config], str] | None = None,
    most: int = 20,
    workers: Workers = Serial(),  # noqa: B008
    show_progress: bool | None = None,
) -> Plan:
    """Execute all runs that have no Record in `folder` yet, and write one Record for each pack of runs.

    Kill it at any instant, and the same call ends with the same Records: a Record is written atomically, by
    this process alone, when its pack is done; which runs share a pack follows from the configurations. A run
    is named by its configuration, so a larger grid does only what is new.

    Cost that of the runs, and some milliseconds for each pack.

    Args:
        function: executes a pack; it can be pickled, and is told the file of its checkpoint, to use or not.
        configs: of the runs, see `grid`.
        folder: where Records and checkpoints go.
        name: of what the function does, a part of the ids of runs.
        together: runs for which it gives the same text may share an ensemble; each is alone when missing.
        most: runs of a pack.
        workers: `Serial()`, `Processes(count)` or `Ray(address)`.
        show_progress: None shows a bar on a terminal.

    Returns:
        The plan, with all runs finished.

    Raises:
        ValueError: if the folder cannot be written, a Record in it is of a newer lyaptorch, or runs failed;
            the others are done and saved.

    Example:
        >>> import tempfile
        >>> def square(configs, checkpoint):
        ...     return Record("square", {}, {"x": (("member",), [c["x"] ** 2 for c in configs])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = sweep(square, [{"x": x} for x in (1, 2, 3)], folder, name="square")
        ...     sorted(int(record["x"][i]) for record, i in done.finished.values())
        [1, 4, 9]
    """
    # asked now: a folder that cannot be written would be found out after the first pack's hours
    run_path(folder, "pack")
    folder = Path(folder).absolute()
    plan = Plan.of(configs, folder, name=name, together=together, most=most)
    # packs that were saved by a process that was killed before it tidied up
    done = {record.config["sweep"]["pack"] for record, _ in plan.finished.values()}
    _forget(folder, done)
    failed: list[tuple[Group, Exception]] = []
    with progress("sweeping", len(plan.todo), show_progress) as advance:
        for group, result in workers.execute(functools.partial(_work, function, folder), plan.todo):
            if isinstance(result, Exception):
                failed.append((group, result))
            else:
                record, seconds = _labelled(result[0], name, group), result[1]
                # before the checkpoint goes: killed in between, the next call finds the pack finished
                host = {} if seconds is None else {"seconds": seconds}
                record.save(folder / f"{group.id}.nc", host=host)
                _checkpoint(folder, group).unlink(missing_ok=True)
                done.add(group.id)
                plan.finished.update({run: (record, i) for i, run in enumerate(group.ids)})
            advance(f"{len(plan.finished)} of {len(configs)} runs")
    # once, not after each pack: a look into a folder of thousands takes as long as to write a Record
    _forget(folder, done)
    if failed:
        group, error = failed[0]
        count = sum(len(group.ids) for group, _ in failed)
        raise ValueError(
            f"{count} of {len(configs)} runs failed, the others are saved; the first with "
            f"{type(error).__name__}: {error} (it was {dict(group.configs[0])})"
        ) from error
    return Plan(plan.folder, plan.finished, [], plan.refused)


def _work(function: Function, folder: Path, group: Group) -> tuple[Record, float | None]:
    """What a worker does: the Record of a pack, and the seconds it took; None if it was begun before."""
    checkpoint, start = _checkpoint(folder, group), time.monotonic()
    begun = checkpoint.exists()
    record = function(group.configs, checkpoint)
    return record, None if begun else time.monotonic() - start


def _checkpoint(folder: Path, group: Group) -> Path:
    return folder / f".{group.id}.checkpoint"


def _labelled(record: Any, name: str, group: Group) -> Record:
    """The Record with its runs' ids and configurations.

    Raises:
        ValueError: if the function returned something else, or not one member for each run.
    """
    if not isinstance(record, Record):
        raise ValueError(
            f"the function of a sweep must return a Record, got {type(record).__name__}; return one"
        )
    of_members = [v for v in record.variables.values() if "member" in v.dims]
    lengths = {v.values.shape[v.dims.index("member")] for v in of_members}
    if lengths - {len(group.ids)} or (len(group.ids) > 1 and not lengths):
        need = f"the Record of a pack must have {len(group.ids)} members"
        raise ValueError(f"{need}, got {sorted(lengths)}; give each run one")
    configs = [dict(config) for config in group.configs]
    label = {"name": name, "pack": group.id, "ids": group.ids, "configs": configs}
    return Record(record.kind, {**record.config, "sweep": label}, record.variables, record.coordinates)


def _forget(folder: Path, packs: Container[str]) -> None:
    """Remove what finished packs or their killed writers left behind: checkpoints, drafts."""
    for path in folder.glob(".*"):
        if path.name.split(".")[1] in packs:
            path.unlink(missing_ok=True)


def gather(
    plan: Plan, config: Config, axes: Axes, *, name: str, names: Sequence[str] | None = None
) -> Record:
    """One Record of a sweep, its variables `(*axes, ...)`; NaN where a run is not finished.

    Cost of reading each Record once.

    Args:
        plan: of a sweep.
        config: what all runs have in common.
        axes: what is varied, as for `grid`.
        name: of the sweep.
        names: of variables; when missing, those with one number for each run.

    Returns:
        A Record of kind "sweep" with the values of each axis as a coordinate.

    Example:
        >>> import tempfile
        >>> def square(configs, checkpoint):
        ...     return Record("square", {}, {"y": (("member",), [c["x"] ** 2 for c in configs])})
        >>> axes = {"x": [1, 2, 3]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plan = sweep(square, grid({}, axes), folder, name="square")
        ...     gather(plan, {}, axes, name="square")["y"].tolist()
        [1, 4, 9]
    """
    found = [plan.finished.get(run_id(name, point)) for point in grid(config, axes)]
    values = [{} if entry is None else _values(*entry, names) for entry in found]
    shape = tuple(len(v) for v in axes.values())
    variables: dict[str, Any] = {}
    for key in sorted({key for row in values for key in row}):
        dims, first = next(row[key] for row in values if key in row)
        missing = (dims, np.full(first.shape, np.nan))
        # runs come in the order of the grid, the last axis fastest: that of reshape
        stacked = np.stack([row.get(key, missing)[1] for row in values])
        variables[key] = ((*axes, *dims), stacked.reshape(*shape, *first.shape))
    coordinates = {key: ((key,), np.array(_plain(list(column)))) for key, column in axes.items()}
    common = {key: value for key, value in config.items() if key not in axes}
    varied = {key: list(column) for key, column in axes.items()}
    return Record("sweep", {"name": name, "config": common, "axes": varied}, variables, coordinates)


def _values(
    record: Record, index: int, names: Sequence[str] | None
) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """The variables of one run, without `member`."""
    own = {}
    for key, v in record.variables.items():
        if key not in names if names is not None else v.dims not in ((), ("member",)):
            continue
        if "member" in v.dims:
            at = v.dims.index("member")
            own[key] = (tuple(d for d in v.dims if d != "member"), np.asarray(v.values.take(index, at)))
        else:
            own[key] = (v.dims, v.values)
    return own


def _plain(values: list[Any]) -> list[Any]:
    """Numbers, or all as text."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return values
    return [str(v) for v in values]
