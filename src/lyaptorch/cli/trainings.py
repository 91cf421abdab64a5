"""`lyap train`, `demo` and `sweep`: networks trained at once, and over a grid of settings."""

from __future__ import annotations

import functools
import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from lyaptorch import _checks
from lyaptorch.cli.output import Output, Works, resumable
from lyaptorch.cli.tables import tabulated
from lyaptorch.experiments import Demo, Training, train_networks
from lyaptorch.experiments.trainings import alike, check_run, cost, train_runs
from lyaptorch.plots.pages import duration
from lyaptorch.record import Record
from lyaptorch.sweep import Plan, Processes, Ray, Serial, Workers, axis, gather, grid, run_id
from lyaptorch.sweep import sweep as run_sweep
from lyaptorch.training import evaluate

NAME = "train"
"""Of what a sweep of the command line does."""


def train(
    config: Annotated[tyro.conf.PositionalRequiredArgs[Training], tyro.conf.arg(name="")],
    *,
    seeds: int = 3,
    work: Works,
) -> None:
    """Train networks on a task, with or without flossing; resumes where it was killed.

    Args:
        config: What is trained, and how.
        seeds: Independent networks, trained at once.
        work: Where the result goes, and how.
    """
    _checks.integer("seeds", seeds, 1)
    config.check()
    options = {**asdict(config), "seeds": seeds, "threads": work.threads}
    job = work.job(f"train-{config.task}-{config.schedule}", options)
    with resumable(job.checkpoints):
        networks = [config] * seeds, range(seeds)
        record, model, task = train_networks(*networks, job.checkpoint, work.show_progress)
        scores = evaluate(model, task, batch=config.batch, steps=config.length)
    # that of the run holds what was trained, but not how the networks were drawn
    drawn = {name: getattr(config, name) for name in ("preset", "gain", "weights")}
    record = Record(record.kind, {**record.config, **drawn}, record.variables, record.coordinates)
    title = f"{config.task}, delay {config.delay}, schedule {config.schedule}, {config.epochs} epochs"
    rows = [(str(i), f"{scores['loss'][i]:.4f}", f"{scores['accuracy'][i]:.3f}") for i in range(seeds)]
    facts = {name: scores[name].tolist() for name in ("loss", "accuracy")}
    job.conclude(record, facts, [tabulated(("network", "loss", "accuracy"), rows, title)])


def demo(
    config: Annotated[Demo, tyro.conf.arg(name="")] = Demo(),  # noqa: B008
    *,
    work: Works,
) -> None:
    """See flossing make an untrainable network trainable, within a minute; resumes where it was killed.

    Copies of the same networks, plain and preflossed, learn the XOR of two bits up to `delay` steps ago.

    Args:
        config: The experiment.
        work: Where the result goes, and how.
    """
    config.check()
    job = work.job("demo", asdict(config))
    with resumable(job.checkpoints):
        record = config.run(work.show_progress, job.checkpoint)
    facts = {}
    for name, who in (("plain", ~record["flossed"]), ("flossed", record["flossed"])):
        facts[f"{name}_accuracy"] = record["final_accuracy"][who].round(4).tolist()
        facts[f"{name}_lambda_1"] = record["spectrum"][who, 0].round(4).tolist()
    job.conclude(record, facts, [_demo_table(record)])


def _demo_table(record: Record) -> Table:
    config = record.config
    table = Table(
        title=f"Binary temporal XOR, delay {config['delay']}",
        caption=f"λ in nats per step, before training; accuracy after {config['epochs']} epochs",
    )
    ranks = sorted({1, (config["k"] + 1) // 2, config["k"]})
    for name in ("net", "", *(f"λ{rank}" for rank in ranks), "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, (network, on) in enumerate(zip(record["network"], record["flossed"], strict=True)):
        values, errors = record["spectrum"][row], record["spectrum_error"][row]
        table.add_row(
            str(network),
            "flossed" if on else "plain",
            *(f"{values[rank - 1]:+.2f}±{errors[rank - 1]:.2f}" for rank in ranks),
            f"{record['final_accuracy'][row]:.3f}",
            style="bold" if on else "",
            end_section=row == config["seeds"] - 1,
        )
    return table


def sweep(
    config: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    over: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    seeds: int = 3,
    seed: int | None = None,
    group: int = 20,
    workers: int = 1,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = Processes.retries,
    dry_run: bool = False,
    work: Works,
) -> None:
    """Train networks over a grid of settings; finished runs are never repeated, the same command resumes.

    Networks that differ in nothing but delay, k, lr, gain, floss_clip and their random weights are trained
    together, as one ensemble.

    Args:
        config: A TOML or JSON file of what `lyap train` takes, such as task = "temporal_xor".
        over: A setting and its values, delay=10:80:10 (both ends included) or k=1,16,75; may be repeated.
        seeds: Independent networks at each point of the grid.
        seed: Determines everything; that of the file, or 0, when missing.
        group: Maximum number of networks that are trained together.
        workers: Processes on this machine.
        address: Ray cluster instead: local to start one here, auto, host:port or ray://host:port.
        cpus: CPUs reserved for each ensemble on Ray.
        gpus: GPUs reserved for each ensemble on Ray.
        retries: How often an ensemble is started again whose process or machine died.
        dry_run: Say what would be done and what it would cost, from a few measured steps.
        work: Where the result goes, and how; the Records of ensembles go to the folder sweep in there.
    """
    work.prepare()
    _checks.integer("group", group, 1)
    _checks.integer("retries", retries, 0)
    at_once = _workers(workers, address, cpus, gpus, retries)
    common, axes = _settings(config), _axes(over, _checks.integer("seeds", seeds, 1))
    # an axis of seeds, --over seed=1,2, wins over both
    common |= {} if seed is None else {"seed": seed}
    configs = [check_run(point) for point in grid(common, axes)]
    # from a checked run, so that defaults are in it and a new default gives the sweep another name
    common = {key: value for key, value in configs[0].items() if key not in axes}
    settings: dict[str, Any] = {"name": NAME, "together": alike, "most": group}
    if dry_run:
        _announce(Plan.of(configs, work.runs / "sweep", **settings), len(configs), workers, work)
        return
    job = work.job(f"sweep-{config.stem}-{run_id(NAME, {'config': common, 'axes': axes})[:8]}")
    with resumable(lambda: _begun(Plan.of(configs, work.runs / "sweep", **settings))):
        plan = run_sweep(
            functools.partial(train_runs, threads=work.threads),
            configs,
            work.runs / "sweep",
            workers=at_once,
            show_progress=work.show_progress,
            **settings,
        )
    record = gather(plan, common, axes, name=NAME)
    facts = {"runs": len(configs), "accuracy": record["final_accuracy"].tolist(), "refused": plan.refused}
    lines = [f"made again or passed over: {why}" for why in plan.refused]
    job.conclude(record, facts, [_accuracies(config.stem, record), *lines], fresh=False)


def _settings(path: Path) -> dict[str, Any]:
    """What a TOML or JSON file holds."""
    read = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in read:
        raise ValueError(
            f"a configuration must be a file .toml or .json, got {path}; write task = ... into one"
        )
    try:
        settings = read[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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
        if (cpus, gpus) != (1.0, 0.0):
            raise ValueError(
                "--cpus and --gpus are what an ensemble takes on Ray; add --address, or drop them"
            )
        if count > 1:
            return Processes(count, retries)
        if retries != Processes.retries:
            raise ValueError(
                f"--retries is of processes that may die, and there is one worker, got {retries}; "
                "add --workers or --address, or drop it"
            )
        return Serial()
    # on Ray as many ensembles run at once as the cluster has room for
    if count > 1:
        raise ValueError(
            f"Ray decides how many workers there are, got --workers {count}; drop it or --address"
        )
    return Ray(address, cpus, gpus, retries)


def _begun(plan: Plan) -> bool:
    """Whether anything of it is on the disk."""
    return bool(plan.finished) or any(any(plan.folder.glob(f".{group.id}.*")) for group in plan.todo)


def _announce(plan: Plan, runs: int, workers: int, output: Output) -> None:
    """Print what is to be done, and its cost."""
    known: dict[tuple[str, int, int], float] = {}
    seconds = 0.0
    for group in plan.todo:
        # an ensemble flosses as many exponents as the largest of its k, so that is what it costs
        key = (alike(group.configs[0]), len(group.ids), max(c["k"] for c in group.configs))
        if key not in known:
            known[key] = cost(group.configs)
        seconds += known[key]
    ensembles, finished = len(plan.todo), len(plan.finished)
    todo = sum(len(group.ids) for group in plan.todo)
    with_all = f"{duration(seconds / workers)} with {workers} worker{'s' * (workers > 1)}"
    output.answer(
        {
            "runs": runs,
            "finished": finished,
            "ensembles": ensembles,
            "seconds": seconds,
            "refused": plan.refused,
        },
        [
            *(f"to be made again or passed over: {why}" for why in plan.refused),
            f"{runs} runs, {finished} of them finished; {todo} to do, in {ensembles} ensembles",
            f"about {duration(seconds)} of computing, {with_all}",
        ],
    )


def _accuracies(title: str, record: Record) -> Table:
    """Accuracy at each point, over networks."""
    # in the order of the array: a configuration has its names sorted
    dims, known = record.variables["final_accuracy"].dims, record.config["axes"]
    axes = {name: known[name] for name in dims if name != "network"}
    rows, accuracy = [], record["final_accuracy"]
    for index in np.ndindex(*accuracy.shape[:-1]):
        point = [str(values[i]) for values, i in zip(axes.values(), index, strict=True)]
        own = accuracy[index]
        rows.append([*point, *(f"{value:.3f}" for value in (own.mean(), own.min(), own.max()))])
    return tabulated((*axes, "mean", "least", "most"), rows, f"{title}: accuracy")
