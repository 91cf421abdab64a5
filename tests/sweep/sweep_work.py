"""What sweeps of the tests do; importable by worker processes."""

from __future__ import annotations

import math
import os
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from lyaptorch.record import Record
from lyaptorch.sweep import Config


def square(
    configs: Sequence[Config], checkpoint: Path, *, log: Path | None = None, seconds: float = 0.0
) -> Record:
    """x^2 of each run, after a while; leaves a file in `log` for each run that was begun and was done."""
    for word in ("begun", "done"):
        if log is not None:
            for config in configs:
                (log / f"{word}-{config['x']}-{os.getpid()}-{uuid.uuid4().hex}").touch()
        if word == "begun":
            time.sleep(seconds)
    values = [float(config["x"]) ** 2 for config in configs]
    curves = [[math.sin(config["x"] + i) for i in range(5)] for config in configs]
    return Record("square", {}, {"y": (("member",), values), "curve": (("member", "epoch"), curves)})


def mortal(configs: Sequence[Config], checkpoint: Path, *, deaths: int) -> Record:
    """For x = 1 dies of a signal that nobody can catch, the first times; for x = 2 fails."""
    if any(config["x"] == 2 for config in configs):
        raise FloatingPointError("the loss is not finite")
    before = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if before < deaths and configs[0]["x"] == 1:
        checkpoint.write_text(str(before + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return square(configs, checkpoint)


def begun(log: Path) -> list[int]:
    """Which runs were begun, as often as they were."""
    return sorted(int(path.name.split("-")[1]) for path in log.glob("begun-*"))
