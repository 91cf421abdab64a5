"""`lyap train` and `lyap demo`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.output import checkpoint_path, has, resumable, save, show
from lyaptorch.experiments import Demo, Training, train_networks
from lyaptorch.record import Record
from lyaptorch.training import evaluate
from lyaptorch.training.epochs import keep_pages


def train(
    config: Annotated[tyro.conf.PositionalRequiredArgs[Training], tyro.conf.arg(name="")],
    *,
    seeds: int = 3,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Train networks on a task, with or without flossing; resumes where it was killed.

    Args:
        config: What is trained, and how.
        seeds: Independent networks, trained at once.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    keep_pages()
    _checks.integer("seeds", seeds, 1)
    name = f"train-{config.task}-{config.schedule}"
    path, start = run_path(runs, name), time.monotonic()
    checkpoint = checkpoint_path(runs, name, {**asdict(config), "seeds": seeds, "threads": threads})
    with resumable(has(checkpoint)):
        found = train_networks([config] * seeds, range(seeds), checkpoint, False if json else None)
        record, model, task = found
        scores = evaluate(model, task, batch=config.batch, steps=config.length)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds, checkpoint)
    title = f"{config.task}, delay {config.delay}, schedule {config.schedule}, {config.epochs} epochs"
    table = Table(title=title)
    for column in ("network", "loss", "accuracy"):
        table.add_column(column, justify="right")
    for i in range(seeds):
        table.add_row(str(i), f"{scores['loss'][i]:.4f}", f"{scores['accuracy'][i]:.3f}")
    summary = {name: scores[name].tolist() for name in ("loss", "accuracy")}
    show(json, summary, [table], path, figure, seconds)


def demo(
    config: Annotated[Demo, tyro.conf.arg(name="")] = Demo(),  # noqa: B008
    *,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """See flossing make an untrainable network trainable, in about a minute; resumes where it was killed.

    Copies of the same networks, plain and preflossed, learn the XOR of two bits up to `delay` steps ago.

    Args:
        config: The experiment.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    path, start = run_path(runs, "demo"), time.monotonic()
    checkpoint = checkpoint_path(runs, "demo", asdict(config))
    with resumable(has(checkpoint)):
        record = config.run(False if json else None, checkpoint)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds, checkpoint)
    show(json, _summary(record), [_table(record)], path, figure, seconds)


def _summary(record: Record) -> dict[str, object]:
    flossed = record["flossed"]
    return {
        "plain_accuracy": record["final_accuracy"][~flossed].round(4).tolist(),
        "flossed_accuracy": record["final_accuracy"][flossed].round(4).tolist(),
        "plain_lambda_1": record["spectrum"][~flossed, 0].round(4).tolist(),
        "flossed_lambda_1": record["spectrum"][flossed, 0].round(4).tolist(),
    }


def _table(record: Record) -> Table:
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
