"""Networks that the command line names: by a word with settings, or as `module:name` of the user's Python."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
import tyro
from rich.text import Text
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._padded import padded
from lyaptorch._random import Stream
from lyaptorch.cells import Cell, ElmanCell, GRUCell, LSTMCell, RateCell, as_cell
from lyaptorch.cli.files import described, is_file, read
from lyaptorch.diagnosis.trial import cell_of
from lyaptorch.tasks import TASKS, Recall, Task
from lyaptorch.tasks.batch import Draw

CELLS: dict[str, Callable[..., Cell]] = {
    "rate": RateCell,
    "elman": ElmanCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
}
GATED = ("lstm", "gru")
DEFAULT_STEPS, DEFAULT_TRANSIENT = 1000, 100


class Driven(NamedTuple):
    """A network and what drives it, ready to be measured.

    Attributes:
        network: as the user has it.
        cell: the same as a cell.
        inputs: `(t, b, m)`.
        h0: first state, or None.
        transient: first steps, of the state only.
        tangent_transient: next steps, not counted.
        said: how a file was read and what of it is counted; empty for other inputs.
    """

    network: Any
    cell: Cell
    inputs: Tensor
    h0: Tensor | None
    transient: int
    tangent_transient: int
    said: str

    def counts(self) -> dict[str, int]:
        """What a script is told of the steps."""
        counted = len(self.inputs) - self.transient - self.tangent_transient
        return {"transient": self.transient, "tangent_transient": self.tangent_transient, "counted": counted}

    def lines(self) -> list[Text]:
        """What a person is told of a file."""
        return [Text(self.said)] if self.said else []


@dataclass(frozen=True)
class Subject:
    """A network and what drives it.

    Attributes:
        target: `module:name` or `file.py:name` of a cell, a torch module, a function `step(x, h)`, or a
            function without arguments that makes one of these; `file.py:whole.rnn` of a part; empty to take a
            cell by the flags below.
        cell: rate, elman, lstm or gru.
        n: Units; for a module or function of your own, the size of its state.
        gain: Scale of the initial recurrent weights.
        activation: tanh, relu or linear; of rate and elman.
        weights: gaussian, uniform, orthogonal, identity or shifted_mean; empty for the cell's default.
        inputs: noise, zero, the name of a task, or a file .npy, .npz, .pt or .csv of shape (t, m) or
            (t, b, m), or (t,) for one channel; of several arrays name one, as data.npz:name.
        channels: Input channels of noise and zero.
        input_scale: The inputs are multiplied by this.
        delay: Delay of a task.
        items: Bits that recall, a task, has to remember.
        steps: Steps counted; 1000 when missing, or all that a file holds beyond the transients.
        trajectories: Trajectories of noise or a task.
        transient: First steps, of the state only; 100 when missing, of a file a tenth of it at most.
        tangent_transient: Next steps, of state and tangent vectors, not counted; 100 when missing, of a
            file a tenth of the rest at most.
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
    steps: int | None = None
    trajectories: int = 1
    transient: int | None = None
    tangent_transient: int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0

    def prepare(self) -> Driven:
        """Load or make the network, and its inputs."""
        least = {"steps": 1, "transient": 0, "tangent_transient": 0, "trajectories": 1, "channels": 1}
        for name, low in least.items():
            if getattr(self, name) is not None:
                _checks.integer(name, getattr(self, name), low)
        kind, from_file = getattr(torch, self.dtype), is_file(self.inputs)
        task = None if from_file else _task(self.inputs, self.delay, self.items)
        channels = task.input_size if task else self.channels
        network = load(self.target) if self.target else self._make(channels)
        cell = as_cell(cell_of(network)).to(kind)
        channels = cell.input_size or channels
        if from_file:
            x = read(self.inputs, channels)
            transient, tangent = self._transients(len(x))
            x, said = self._cut(x, transient + tangent)
            said += f"; transients {transient} + {tangent}, counted {len(x) - transient - tangent}"
        else:
            transient, tangent = self._transients(10 * DEFAULT_STEPS)
            total = transient + tangent + (self.steps or DEFAULT_STEPS)
            x, said = self._draw(task, total, channels), ""
        x = x.to(kind) * self.input_scale
        h0 = None if cell.state_size else torch.zeros(x.shape[1], self.n, dtype=kind)
        return Driven(network, cell, x, h0, transient, tangent, said)

    def config(self, driven: Driven) -> dict[str, Any]:
        """What a Record says of it."""
        made = () if self.target else ("n", "gain", "activation", "weights")
        own = {name: getattr(self, name) for name in ("inputs", "dtype", "seed", *made)}
        own |= {name: getattr(driven, name) for name in ("transient", "tangent_transient")}
        return {"target": self.target or self.cell, "shape": list(driven.inputs.shape), **own}

    def _transients(self, t: int) -> tuple[int, int]:
        """As given; else 100 steps each, but at most a tenth of what there is."""
        first = min(DEFAULT_TRANSIENT, t // 10) if self.transient is None else self.transient
        left = max(0, t - first)
        next_ = self.tangent_transient
        return first, min(DEFAULT_TRANSIENT, left // 10) if next_ is None else next_

    def _cut(self, x: Tensor, uncounted: int) -> tuple[Tensor, str]:
        """The steps of a file that are asked for, and how it was read."""
        said, t = described(self.inputs, x), len(x)
        if self.steps is None or t <= uncounted:
            return x, said
        if t < uncounted + self.steps:
            raise ValueError(
                f"steps must be an integer in 1..{t - uncounted} for {self.inputs}, which holds {t} steps, "
                f"{uncounted} of them transients, got {self.steps}; drop --steps to take all"
            )
        return x[: uncounted + self.steps], said

    def arguments(self, driven: Driven) -> dict[str, Any]:
        """What `lyapunov_spectrum` and `diagnose` are called with, beside the network."""
        own = {name: getattr(driven, name) for name in ("inputs", "h0", "transient", "tangent_transient")}
        return {**own, "generator": self._generator()}

    def _generator(self) -> torch.Generator:
        # a new one for weights and for the frame: neither may depend on what the other has drawn
        return torch.Generator().manual_seed(self.seed)

    def _draw(self, task: Task | None, total: int, channels: int) -> Tensor:
        """Inputs `(total, b, m)` of a task, or noise, or zeros."""
        if task is not None:
            return padded(task.inputs(Draw(self.seed, total, self.trajectories))).inputs
        shape = (total, self.trajectories, channels)
        if self.inputs == "zero":
            return torch.zeros(shape)
        return Stream(self.seed, "noise").normal(shape, member_ids=torch.tensor(0))

    def _make(self, channels: int) -> Cell:
        make = CELLS[_checks.choice("cell", self.cell, CELLS)]
        options: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if self.cell not in GATED:
            options["activation"] = self.activation
        elif self.activation != "tanh":
            raise ValueError(f"activation must be tanh for a cell {self.cell!r}, got {self.activation!r}")
        return make(channels, self.n, gain=self.gain, generator=self._generator(), **options)


def _task(name: str, delay: int, items: int) -> Task | None:
    """The task called so; None for other inputs."""
    if name in ("noise", "zero"):
        return None
    _checks.choice("inputs", name, {"noise", "zero", "a file .npy, .npz, .pt or .csv", *TASKS})
    task: Task = Recall(items, delay) if TASKS[name] is Recall else TASKS[name](delay)
    return task


def load(target: str) -> Any:
    """What `module:name`, `file.py:name` or `file.py:name.part` names.

    A function without arguments, or a class, is called: at the end, and where a part of what it makes is
    named.

    Raises:
        ValueError: if there is no such name, or the user's code fails.
    """
    where, colon, names = target.rpartition(":")
    if not colon:
        raise ValueError(f"target must be module:name or file.py:name, got {target!r}")
    try:
        found: Any = _module(where)
    except (ImportError, OSError) as error:
        raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    except Exception as error:  # whatever the user's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" in line {last.lineno} of {last.filename}"
        raise ValueError(f"cannot load {target}: {type(error).__name__}: {error}{at}; correct it") from error
    for name in names.split("."):
        made = found if hasattr(found, name) else _made(found, target)
        try:
            found = getattr(made, name)
        except AttributeError as error:
            raise ValueError(f"cannot load {target}: {error}; check the module and the name") from error
    return _made(found, target)


def _made(found: Any, target: str) -> Any:
    """What a function without arguments, or a class, makes; all else as it is."""
    if isinstance(found, nn.Module) or not callable(found):
        return found
    parameters = inspect.signature(found).parameters.values()
    # a function that needs arguments is a step; keyword-only ones no step is ever given
    if any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters):
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
