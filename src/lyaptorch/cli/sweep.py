"""`lyap sweep`."""

from __future__ import annotations

import functools
import json as json_module
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.table import Table

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.output import resumable, save, show
from lyaptorch.experiments.trainings import alike, check_run, cost, train_runs
from lyaptorch.plots.pages import duration
from lyaptorch.record import Record
from lyaptorch.sweep import Plan, Processes, Ray, Serial, Workers, axis, gather, grid, run_id
from lyaptorch.sweep import sweep as run_sweep

NAME = "train"
"""Of what a sweep of the command line does."""


def sweep(
    config: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    over: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    seeds: int = 3,
    group: int = 20,
    workers: int = 1,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 3,
    dry_run: bool = False,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Train networks over a grid of settings; finished runs are never repeated, the same command resumes.

    Networks that can be trained at once share an ensemble: those that differ in delay, k, lr, gain,
    floss_clip and seed alone.

    Args:
        config: A TOML or JSON file of what `lyap train` takes, such as task = "temporal_xor".
        over: A setting and its values, delay=10:80:10 (both ends included) or k=1,16,75; may be repeated.
        seeds: Independent networks at each point of the grid.
        group: Most networks of an ensemble.
        workers: Processes on this machine.
        address: Ray cluster instead: local to start one here, auto, host:port or ray://host:port.
        cpus: CPUs of an ensemble on Ray.
        gpus: GPUs of an ensemble on Ray.
        retries: How often an ensemble is started again whose process or machine died.
        dry_run: Say what would be done and what it would cost, from a few measured steps.
        runs: Folder; the Records of ensembles go to its folder sweep.
        json: Print one JSON object instead of tables.
        threads: Threads of torch in each process; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    common, axes = _settings(config), _axes(over, _checks.integer("seeds", seeds, 1))
    configs = [check_run(point) for point in grid(common, axes)]
    common = {key: value for key, value in configs[0].items() if key not in axes}
    name = f"sweep-{config.stem}-{run_id(NAME, {'config': common, 'axes': axes})[:8]}"
    settings: dict[str, Any] = {"name": NAME, "together": alike, "most": group}
    if dry_run:
        _announce(Plan.of(configs, runs / "sweep", **settings), len(configs), workers, json)
        return
    path, start = run_path(runs, name), time.monotonic()
    with resumable(lambda: _begun(Plan.of(configs, runs / "sweep", **settings))):
        plan = run_sweep(
            functools.partial(train_runs, threads=threads),
            configs,
            runs / "sweep",
            workers=_workers(workers, address, cpus, gpus, retries),
            show_progress=False if json else None,
            **settings,
        )
    record = gather(plan, common, axes, name=NAME)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds, fresh=False)
    summary = {"runs": len(configs), "accuracy": record["final_accuracy"].tolist()}
    show(json, summary, [_table(config.stem, record)], path, figure, seconds)


def _settings(path: Path) -> dict[str, Any]:
    """What a TOML or JSON file holds."""
    read = {".toml": tomllib.loads, ".json": json_module.loads}
    if path.suffix not in read:
        raise ValueError(
            f"a configuration must be a file .toml or .json, got {path}; write task = ... into one"
        )
    try:
        settings = read[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}; correct it") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold names and values, got {type(settings).__name__}; write an object")
    return settings


def _axes(over: tuple[str, ...], seeds: int) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for name, values in (*map(axis, over), ("network", list(range(seeds)))):
        if name in axes:
            raise ValueError(
                f"an axis must be given once, got {name} twice; join its values, or drop --over network"
            )
        axes[name] = values
    return axes


def _workers(count: int, address: str | None, cpus: float, gpus: float, retries: int) -> Workers:
    _checks.integer("workers", count, 1)
    if address is None:
        return Serial() if count == 1 else Processes(count, retries)
    if count > 1:
        raise ValueError(
            f"Ray decides how many workers there are, got --workers {count}; drop it or --address"
        )
    return Ray(address, cpus, gpus, retries)


def _begun(plan: Plan) -> bool:
    """Whether anything of it is on the disk."""
    return bool(plan.finished) or any(any(plan.folder.glob(f".{group.id}.*")) for group in plan.todo)


def _announce(plan: Plan, runs: int, workers: int, json: bool) -> None:
    """Print what is to be done, and its cost."""
    known: dict[tuple[str, int, int], float] = {}
    seconds = 0.0
    for group in plan.todo:
        # a pack costs what its largest k does
        key = (alike(group.configs[0]), len(group.ids), max(c["k"] for c in group.configs))
        if key not in known:
            known[key] = cost(group.configs)
        seconds += known[key]
    sizes = [len(group.ids) for group in plan.todo]
    facts = {
        "runs": runs,
        "finished": len(plan.finished),
        "ensembles": len(sizes),
        "seconds": seconds,
    }
    if json:
        print(json_module.dumps(facts))
        return
    print(f"{runs} runs, {facts['finished']} of them finished; {sum(sizes)} to do, in {len(sizes)} ensembles")
    with_all = f"{duration(seconds / workers)} with {workers} worker{'s' * (workers > 1)}"
    print(f"about {duration(seconds)} of computing, {with_all}")


def _table(title: str, record: Record) -> Table:
    """Accuracy at each point, over networks."""
    axes = {name: values for name, values in record.config["axes"].items() if name != "network"}
    table = Table(title=f"{title}: accuracy")
    for column in (*axes, "mean", "least", "most"):
        table.add_column(column, justify="right")
    rows = record["final_accuracy"]
    for index in np.ndindex(*rows.shape[:-1]):
        point = [str(values[i]) for values, i in zip(axes.values(), index, strict=True)]
        own = rows[index]
        table.add_row(*point, *(f"{value:.3f}" for value in (own.mean(), own.min(), own.max())))
    return table
