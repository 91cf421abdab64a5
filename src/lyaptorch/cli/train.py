"""`lyap train`."""

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
from lyaptorch.experiments import Training, train_networks
from lyaptorch.training import evaluate
from lyaptorch.training.allocator import keep_pages


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
        loss, accuracy = evaluate(model, task, batch=config.batch, length=config.length)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds, checkpoint)
    title = f"{config.task}, delay {config.delay}, schedule {config.schedule}, {config.epochs} epochs"
    table = Table(title=title)
    for column in ("network", "loss", "accuracy"):
        table.add_column(column, justify="right")
    for i in range(seeds):
        table.add_row(str(i), f"{loss[i]:.4f}", f"{accuracy[i]:.3f}")
    summary = {"loss": loss.tolist(), "accuracy": accuracy.tolist()}
    show(json, summary, [table], path, figure, seconds)
