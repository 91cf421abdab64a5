"""The network that a command works on, and the inputs that drive it, by flags."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._padded import padded
from lyaptorch._random import Stream
from lyaptorch.analysis.patient import cell_of
from lyaptorch.cells import Cell, ElmanCell, GRUCell, LSTMCell, RateCell, as_cell
from lyaptorch.tasks import TASKS, Recall, Task

CELLS: dict[str, Callable[..., Cell]] = {
    "rate": RateCell,
    "elman": ElmanCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
}
GATED = ("lstm", "gru")


class Driven(NamedTuple):
    """A network as the user has it, the same as a cell, its inputs `(t, b, m)` and first state (or None)."""

    network: Any
    cell: Cell
    inputs: Tensor
    h0: Tensor | None


@dataclass(frozen=True)
class Subject:
    """A network and what drives it.

    Attributes:
        target: `module:name` or `file.py:name` of a cell, a torch module, a function `step(x, h)`, or a
            function without arguments that makes one of these; empty to take a cell by the flags below.
        cell: rate, elman, lstm or gru.
        n: Units; for a module or function of your own, the size of its state.
        gain: Scale of the initial recurrent weights.
        activation: tanh, relu or linear; of rate and elman.
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
        dtype: Floating type; a module of your own must have it, too.
        seed: Of weights, inputs and frame.
    """

    target: tyro.conf.Positional[str] = ""
    cell: str = "rate"
    n: int = 80
    gain: float = 1.0
    activation: str = "tanh"
    weights: str = ""
    inputs: str = "noise"
    channels: int = 1
    input_scale: float = 1.0
    delay: int = 10
    items: int = 1
    steps: int = 1000
    trajectories: int = 1
    transient: int = 100
    tangent_transient: int = 100
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0

    def prepare(self) -> Driven:
        """Load or make the network, and its inputs."""
        for name in ("steps", "trajectories", "channels"):
            _checks.integer(name, getattr(self, name), 1)
        for name in ("transient", "tangent_transient"):
            _checks.integer(name, getattr(self, name), 0)
        kind, total = getattr(torch, self.dtype), self.transient + self.tangent_transient + self.steps
        task = _task(self.inputs, self.delay, self.items)
        channels = task.input_size if task else self.channels
        network = _load(self.target) if self.target else self._make(channels)
        cell = as_cell(cell_of(network)).to(kind)
        x = _inputs(task or self.inputs, total, self.trajectories, cell.input_size or channels, self.seed)
        x = x.to(kind) * self.input_scale
        h0 = None if cell.state_size else torch.zeros(x.shape[1], self.n, dtype=kind)
        return Driven(network, cell, x, h0)

    def config(self, inputs: Tensor) -> dict[str, Any]:
        """What a Record says of it."""
        names = ["inputs", "transient", "tangent_transient", "dtype", "seed"]
        names += [] if self.target else ["n", "gain", "activation", "weights"]
        own = {name: getattr(self, name) for name in names}
        return {"target": self.target or self.cell, "shape": list(inputs.shape), **own}

    def generator(self) -> torch.Generator:
        """Of the frame."""
        return torch.Generator().manual_seed(self.seed)

    def _make(self, channels: int) -> Cell:
        make = CELLS[_checks.choice("cell", self.cell, CELLS)]
        options: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if self.cell not in GATED:
            options["activation"] = self.activation
        elif self.activation != "tanh":
            raise ValueError(f"activation must be tanh for a cell {self.cell!r}, got {self.activation!r}")
        return make(channels, self.n, gain=self.gain, generator=self.generator(), **options)


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
        return padded(spec.inputs(seed, members=nobody, epoch=0, batch=trajectories, length=total)).inputs
    if spec.endswith(".npy"):
        return _file(Path(spec), channels)
    shape = (total, trajectories, channels)
    if spec == "zero":
        return torch.zeros(shape)
    return Stream(seed, "noise").normal(shape, members=nobody)


def _file(path: Path, channels: int) -> Tensor:
    try:
        # mapped, not read: a file that claims a terabyte is refused before memory is asked for
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy raises almost any type on a malformed header
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
