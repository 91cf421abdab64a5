"""`lyap train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.output import checkpoint_path, save, show
from lyaptorch.experiments import mean_field_gain
from lyaptorch.flossing import SCHEDULES, FlossPhase
from lyaptorch.tasks import make_task
from lyaptorch.train import PRESETS, evaluate
from lyaptorch.train import train as run_training


def train(
    task: Annotated[str, tyro.conf.Positional],
    /,
    *,
    delay: int = 30,
    items: int = 5,
    schedule: str = "pre",
    preset: str = "gf2023",
    seeds: int = 3,
    hidden_size: int = 80,
    gain: float | Literal["mean-field"] = 1.0,
    weights: str = "gaussian",
    epochs: int = 1000,
    floss_epochs: int = 500,
    k: int = 75,
    floss_clip: float | None = None,
    batch: int = 16,
    length: int = 300,
    lr: float = 1e-3,
    seed: int = 0,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Train networks on a task, with or without flossing; resumes where it was killed.

    Args:
        task: temporal_xor, spatial_xor, delayed_copy or recall.
        delay: Longest lag of the task.
        items: Bits to remember in the recall task.
        schedule: none, pre, during, episodes, periodic, adaptive or joint.
        preset: Published setting: gf2023.
        seeds: Independent networks, trained at once.
        hidden_size: Units n.
        gain: Scale of the initial recurrent weights; mean-field tunes it so that theory puts lambda_1 at 0.
        weights: gaussian, orthogonal, identity, uniform or shifted_mean.
        epochs: Training steps.
        floss_epochs: Flossing steps of an episode.
        k: Exponents flossed.
        floss_clip: Largest norm of a flossing gradient; none, as published, when missing.
        batch: Trajectories of a training step.
        length: Steps of a trial.
        lr: Learning rate of the task.
        seed: Determines everything.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    options = {key: value for key, value in locals().items() if key not in ("runs", "json")}
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    name = f"train-{task}-{schedule}"
    path, start = run_path(runs, name), time.monotonic()
    what = make_task(task, delay=delay, items=items)
    plan = SCHEDULES[_checks.choice("schedule", schedule, SCHEDULES)]
    phases = plan(epochs, FlossPhase(floss_epochs, k=k, clip=floss_clip))
    model = PRESETS[_checks.choice("preset", preset, PRESETS)](
        what,
        hidden_size=hidden_size,
        gain=mean_field_gain(what) if gain == "mean-field" else gain,
        weights=weights,
        rows=batch,
        ensemble=(seeds,),
        generator=torch.Generator().manual_seed(seed),
    )
    checkpoint = checkpoint_path(runs, name, options)
    record = run_training(
        model,
        what,
        phases,
        batch=batch,
        length=length,
        lr=lr,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=checkpoint,
        show_progress=False if json else None,
    )
    loss, accuracy = evaluate(model, what, batch=batch, length=length)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds, checkpoint)
    table = Table(title=f"{task}, delay {delay}, schedule {schedule}, {epochs} epochs")
    for column in ("network", "loss", "accuracy"):
        table.add_column(column, justify="right")
    for i in range(seeds):
        table.add_row(str(i), f"{loss[i]:.4f}", f"{accuracy[i]:.3f}")
    summary = {"loss": loss.tolist(), "accuracy": accuracy.tolist()}
    show(json, summary, [table], path, figure, seconds)
