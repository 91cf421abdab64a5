"""`lyap spectrum`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.table import Table
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch._random import Stream
from lyaptorch.cells import Cell, ElmanCell, RateCell, as_cell
from lyaptorch.cli.output import save, show
from lyaptorch.record import Record
from lyaptorch.tangent import Spectrum, lyapunov_spectrum
from lyaptorch.tasks import TASKS, Recall, Task

CELLS: dict[str, Callable[..., Cell]] = {"rate": RateCell, "elman": ElmanCell}
SHOWN = 12
"""Most exponents in the table; all are in the Record."""


def spectrum(
    target: Annotated[str, tyro.conf.Positional] = "",
    /,
    *,
    cell: str = "rate",
    n: int = 80,
    gain: float = 1.0,
    activation: str = "tanh",
    weights: str = "",
    inputs: str = "noise",
    channels: int = 1,
    input_scale: float = 1.0,
    delay: int = 10,
    items: int = 1,
    steps: int = 1000,
    trajectories: int = 1,
    transient: int = 100,
    tangent_transient: int = 100,
    interval: int | Literal["auto"] = 1,
    k: int | None = None,
    dt: float | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    seed: int = 0,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Measure the Lyapunov spectrum of a network, with error bars.

    Args:
        target: `module:name` or `file.py:name` of a cell, a torch module, a function `step(x, h)`, or a
            function without arguments that makes one of these; empty to take a cell by the flags below.
        cell: rate or elman.
        n: State size; for a module or function of your own, the size of its state.
        gain: Scale of the initial recurrent weights.
        activation: tanh, relu or linear.
        weights: gaussian, uniform, orthogonal, identity or shifted_mean; empty for the cell's default.
        inputs: noise, zero, the name of a task, or a .npy file of shape (t, m) or (t, b, m).
        channels: Input channels of noise and zero.
        input_scale: The inputs are multiplied by this.
        delay: Delay of a task.
        items: Bits that recall, a task, has to remember.
        steps: Steps counted; with a .npy file, all that it holds beyond the transients.
        trajectories: Trajectories of noise or a task.
        transient: First steps, of the state only.
        tangent_transient: Next steps, of state and tangent vectors, not counted.
        interval: Steps between reorthonormalisations, or auto.
        k: How many exponents; all when missing.
        dt: Time per step; missing, that of a Flow, 1 for all others.
        dtype: Floating type; a module of your own must have it, too.
        seed: Of weights, inputs and frame.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    for name, count in (("steps", steps), ("trajectories", trajectories), ("channels", channels)):
        _checks.integer(name, count, 1)
    for name, count in (("transient", transient), ("tangent_transient", tangent_transient)):
        _checks.integer(name, count, 0)
    path, start = run_path(runs, "spectrum"), time.monotonic()
    kind, total = getattr(torch, dtype), transient + tangent_transient + steps
    task = _task(inputs, delay, items)
    channels = task.input_size if task else channels
    network = _load(target) if target else _make(cell, n, channels, gain, activation, weights, seed)
    evolving = as_cell(network).to(kind)
    wanted = evolving.input_size or channels
    x = _inputs(task or inputs, total, trajectories, wanted, seed).to(kind) * input_scale
    h0 = None if evolving.state_size else torch.zeros(x.shape[1], n, dtype=kind)
    with torch.no_grad():
        measured = lyapunov_spectrum(
            evolving,
            x,
            k=k,
            h0=h0,
            transient=transient,
            tangent_transient=tangent_transient,
            interval=interval,
            dt=dt,
            generator=torch.Generator().manual_seed(seed),
        )
    config = {
        "target": target or cell,
        "inputs": inputs,
        "shape": list(x.shape),
        "transient": transient,
        "tangent_transient": tangent_transient,
        "interval": measured.interval,
        "dt": measured.dt,
        "dtype": dtype,
        "seed": seed,
    }
    if not target:
        config |= {"n": n, "gain": gain, "activation": activation, "weights": weights}
    record = Record("spectrum", config, *_variables(measured))
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds)
    show(json, _summary(measured), [_table(measured)], path, figure, seconds)


def _make(cell: str, n: int, channels: int, gain: float, activation: str, weights: str, seed: int) -> Cell:
    options: dict[str, Any] = {"weights": weights} if weights else {}
    generator = torch.Generator().manual_seed(seed)
    make = CELLS[_checks.choice("cell", cell, CELLS)]
    return make(channels, n, gain=gain, activation=activation, generator=generator, **options)


def _load(target: str) -> Any:
    """What `module:name` or `file.py:name` names; a function without arguments is called."""
    where, colon, name = target.rpartition(":")
    if not colon:
        raise ValueError(f"target must be module:name or file.py:name, got {target!r}")
    try:
        found = getattr(_module(where), name)
    except (ImportError, AttributeError, OSError) as error:
        raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    if isinstance(found, nn.Module) or not callable(found):
        return found
    needed = [
        p
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if needed:
        return found
    try:
        return found()
    except Exception as error:  # whatever the user's function raises
        raise ValueError(
            f"{target}() failed: {error!r}; it must make the network without arguments"
        ) from error


def _module(where: str) -> ModuleType:
    """A module by its name, or by its file whatever other module has that name."""
    if not where.endswith(".py"):
        sys.path.insert(0, "")
        return importlib.import_module(where)
    path = Path(where).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"_lyap_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _task(name: str, delay: int, items: int) -> Task | None:
    """The task called so; None for other inputs."""
    if name.endswith(".npy") or name in ("noise", "zero"):
        return None
    _checks.choice("inputs", name, {"noise", "zero", "a .npy file", *TASKS})
    task: Task = Recall(items, delay) if TASKS[name] is Recall else TASKS[name](delay)
    return task


def _inputs(spec: str | Task, total: int, trajectories: int, channels: int, seed: int) -> Tensor:
    nobody = torch.zeros((), dtype=torch.int64)
    if not isinstance(spec, str):
        return spec.inputs(seed, members=nobody, epoch=0, batch=trajectories, length=total)
    if spec.endswith(".npy"):
        return _file(Path(spec), channels)
    shape = (total, trajectories, channels)
    if spec == "zero":
        return torch.zeros(shape)
    return Stream(seed, "noise").normal(shape, members=nobody)


def _file(path: Path, channels: int) -> Tensor:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}; it must be a .npy file of numbers") from error
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} must hold numbers of shape (t, m) or (t, b, m), got {array.dtype} {array.shape}"
        )
    if array.shape[-1] != channels:
        raise ValueError(f"{path} must hold {channels} channels (its last dimension), got {array.shape}")
    return torch.from_numpy(array.astype(np.float64))


def _variables(measured: Spectrum) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables and coordinates; running estimates thinned to a few hundred moments."""
    running = measured.running()
    thin = torch.unique(torch.linspace(0, len(running) - 1, 200).long())
    elapsed = measured.growth.steps.cumsum(0)[thin] * measured.dt
    dims, nats = ("trajectory", "index"), {"units": "nats per unit of time"}
    variables = {
        "exponents": (dims, measured.exponents, nats),
        "stderr": (dims, measured.stderr(), nats),
        "reliable": (dims, measured.reliable),
        "running": (("trajectory", "elapsed", "index"), running[thin].movedim(0, 1), nats),
    }
    return variables, {"elapsed": (("elapsed",), elapsed.double())}


def _summary(measured: Spectrum) -> dict[str, Any]:
    return {
        "interval": measured.interval,
        "exponents": measured.exponents.tolist(),
        "stderr": measured.stderr().tolist(),
        "reliable": measured.reliable.tolist(),
        "kaplan_yorke": measured.kaplan_yorke().tolist(),
        "entropy": measured.entropy().tolist(),
    }


def _table(measured: Spectrum) -> Table:
    unit = "step" if measured.dt == 1.0 else "unit of time"
    b, k = measured.exponents.shape
    table = Table(title=f"Lyapunov spectrum, mean of {b} trajectories" if b > 1 else "Lyapunov spectrum")
    for name in ("i", f"λ (nats per {unit})", "± error", ""):
        table.add_column(name, justify="right")
    value, reliable = measured.exponents.mean(0), measured.reliable.all(0)
    # trajectories driven by different inputs are independent samples of the same network
    error = measured.stderr().square().mean(0).div(b).sqrt()
    head = range(k) if k <= SHOWN else [*range(SHOWN // 2), *range(k - SHOWN // 2, k)]
    for i in head:
        if k > SHOWN and i == k - SHOWN // 2:
            table.add_row("…", "…", "…", "")
        note = "" if reliable[i] else "lost to round-off, or dead"
        table.add_row(str(i + 1), f"{value[i]:+.4f}", f"{error[i]:.2g}", note)
    dimension, entropy = measured.kaplan_yorke().mean(), measured.entropy().mean()
    table.caption = (
        f"Kaplan-Yorke dimension {dimension:.2f}, entropy rate ≤ {entropy:.4f}; interval {measured.interval}"
    )
    return table
