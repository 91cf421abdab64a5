"""Networks that the command line names: by a word with settings, or as `module:name` of the user's Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from rich.text import Text
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._padded import padded
from lyaptorch._random import Stream
from lyaptorch.cells import Cell, ElmanCell, GRUCell, LeakyRateCell, LSTMCell, RateCell, as_cell
from lyaptorch.cli.files import is_file, read, shaped
from lyaptorch.cli.loading import load
from lyaptorch.diagnosis.trial import cell_of
from lyaptorch.tasks import TASKS, Recall, Task, make_task
from lyaptorch.tasks.batch import Draw

CELLS: dict[str, Callable[..., Cell]] = {
    "rate": RateCell,
    "leaky": LeakyRateCell,
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
        arguments: of `lyapunov_spectrum` and of `diagnose`: inputs, first state, transients and generator.
        said: how a file was read and what of it is counted; nothing for other inputs.
    """

    network: Any
    cell: Cell
    arguments: dict[str, Any]
    said: list[Text]

    def transients(self) -> dict[str, int]:
        """Steps that are not counted."""
        return {name: self.arguments[name] for name in ("transient", "tangent_transient")}

    def counts(self) -> dict[str, int]:
        """What a script is told of the steps."""
        transients = self.transients()
        return {**transients, "counted": len(self.arguments["inputs"]) - sum(transients.values())}


@dataclass(frozen=True)
class Subject:
    """A network and what drives it.

    Attributes:
        target: `module:name` or `file.py:name` of a cell, a torch module, a function `step(x, h)`, or a
            function without arguments that makes one of these; `file.py:whole.rnn` of a part; empty to take a
            cell by the flags below.
        cell: rate, leaky, elman, lstm or gru.
        n: Units; for a module or function of your own, the size of its state.
        gain: Scale of the initial recurrent weights.
        leak: Fraction of the state that a step replaces (cell leaky).
        activation: tanh, relu or linear; of rate, leaky and elman.
        weights: gaussian, uniform, orthogonal, mixing, identity or shifted_mean; empty for the default.
        inputs: noise, zero, the name of a task, or a file .npy, .npz, .pt or .csv of shape (t, m) or
            (t, b, m), or (t,) for one channel; of several arrays name one, as data.npz:name. Or
            `file.py:name` of a tensor, an array, or a function without arguments that makes one.
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
    leak: float = 0.2
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
        least = {"n": 1, "steps": 1, "transient": 0, "tangent_transient": 0, "trajectories": 1, "channels": 1}
        for name, low in least.items():
            if getattr(self, name) is not None:
                _checks.integer(name, getattr(self, name), low)
        _checks.seed(self.seed)
        kind, from_python = getattr(torch, self.dtype), ".py:" in self.inputs
        given = from_python or is_file(self.inputs)
        task = None if given else _task(self.inputs, self.delay, self.items)
        self._refuse_unused(given, task)
        channels = task.input_size if task else self.channels
        modules: dict[str, ModuleType] = {}
        network = load(self.target, modules) if self.target else self._make(channels)
        cell = as_cell(cell_of(network)).to(kind)
        self._refuse_other_sizes(cell)
        channels = cell.input_size or channels
        if given:
            x = _named(self.inputs, channels, modules) if from_python else read(self.inputs, channels)
            transient, tangent = self._transients(len(x))
            x, read_as = self._cut(x, transient + tangent)
            counted = f"transients {transient} + {tangent}, counted {len(x) - transient - tangent}"
            said = [Text(f"{read_as}; {counted}")]
        else:
            # any length does of which a tenth is at least the default: what is drawn has no end
            transient, tangent = self._transients(10 * DEFAULT_STEPS)
            total = transient + tangent + (self.steps or DEFAULT_STEPS)
            x, said = self._draw(task, total, channels), []
        x = x.to(kind) * self.input_scale
        arguments = {
            "inputs": x,
            # a function does not say how large its state is: --n does
            "h0": None if cell.state_size else torch.zeros(x.shape[1], self.n, dtype=kind),
            "transient": transient,
            "tangent_transient": tangent,
            # a new one, so that the frame is the same whether weights were drawn before or loaded
            "generator": self._generator(),
        }
        return Driven(network, cell, arguments, said)

    def _refuse_unused(self, given: bool, task: Task | None) -> None:
        """Raise for an option that would change nothing, beside another one."""
        of: dict[str, str] = {}
        if self.target:
            words = f"of a network that lyap makes, and {self.target} is given"
            of |= dict.fromkeys(("cell", "gain", "leak", "activation", "weights"), words)
        elif self.cell != "leaky":
            of["leak"] = "of --cell leaky"
        if given:
            words = f"of inputs that lyap draws, and {self.inputs} is given"
            of |= dict.fromkeys(("channels", "trajectories", "delay", "items"), words)
        elif task is None:
            of |= dict.fromkeys(("delay", "items"), f"of a task, and the inputs are {self.inputs}")
        else:
            of["channels"] = f"of noise and zero, and the inputs are {self.inputs}"
            of |= {} if isinstance(task, Recall) else {"items": "of --inputs recall"}
        for name, words in of.items():
            if self._asked(name):
                raise ValueError(f"--{name} is {words}, got {getattr(self, name)}; drop it")

    def _refuse_other_sizes(self, cell: Cell) -> None:
        """Raise for sizes that a network of the user's does not have."""
        for name, own in (("n", cell.state_size), ("channels", cell.input_size)):
            if self.target and own and self._asked(name) and getattr(self, name) != own:
                raise ValueError(
                    f"--{name} must be {own}, that of {self.target}, got {getattr(self, name)}; drop it"
                )

    def _asked(self, name: str) -> bool:
        """Whether an option is not left at its default."""
        return bool(getattr(self, name) != getattr(type(self), name))

    def config(self, driven: Driven) -> dict[str, Any]:
        """What a Record says of it."""
        made = [] if self.target else ["n", "gain", "activation", "weights"]
        made += ["leak"] if made and self.cell == "leaky" else []
        made += ["delay"] if self.inputs in TASKS else []
        made += ["items"] if TASKS.get(self.inputs) is Recall else []
        own = {name: getattr(self, name) for name in ("inputs", "input_scale", "dtype", "seed", *made)}
        shape = list(driven.arguments["inputs"].shape)
        return {"target": self.target or self.cell, "shape": shape, **own, **driven.transients()}

    def _transients(self, t: int) -> tuple[int, int]:
        """As given; else 100 steps each, but at most a tenth of what there is."""
        first = min(DEFAULT_TRANSIENT, t // 10) if self.transient is None else self.transient
        next_ = self.tangent_transient
        return first, min(DEFAULT_TRANSIENT, max(0, t - first) // 10) if next_ is None else next_

    def _cut(self, x: Tensor, uncounted: int) -> tuple[Tensor, str]:
        """The steps of a file that are asked for, and how it was read."""
        t, b, m = x.shape
        said = f"{self.inputs}: steps {t}, trajectories {b}, channels {m}"
        # more trajectories than steps is what a batch-first array looks like when it is read time first
        said += "" if t >= b else "; if time is its second axis, save x.swapaxes(0, 1)"
        # one that ends within the transients is refused where it is measured, which says so better
        if self.steps is None or t <= uncounted:
            return x, said
        if t < uncounted + self.steps:
            raise ValueError(
                f"steps must be an integer in 1..{t - uncounted} for {self.inputs}, which holds {t} steps, "
                f"{uncounted} of them transients, got {self.steps}; drop --steps to take all"
            )
        return x[: uncounted + self.steps], said

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _draw(self, task: Task | None, total: int, channels: int) -> Tensor:
        """Inputs `(total, b, m)` of a task, or noise, or zeros."""
        # noise, too, has the numbers of member 0, as a single network has
        if task is not None:
            return padded(task.inputs(Draw(self.seed, total, self.trajectories))).inputs
        shape = (total, self.trajectories, channels)
        if self.inputs == "zero":
            return torch.zeros(shape)
        return Stream(self.seed, "noise").normal(shape, member_ids=torch.tensor(0))

    def _make(self, channels: int) -> Cell:
        make = CELLS[_checks.choice("cell", self.cell, CELLS)]
        options: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if self.cell == "leaky":
            options["leak"] = self.leak
        if self.cell not in GATED:
            options["activation"] = self.activation
        elif self.activation != "tanh":
            raise ValueError(f"activation must be tanh for a cell {self.cell!r}, got {self.activation!r}")
        return make(channels, self.n, gain=self.gain, generator=self._generator(), **options)


def _task(name: str, delay: int, items: int) -> Task | None:
    """The task called so; None for other inputs."""
    if name in ("noise", "zero"):
        return None
    files = {"a file .npy, .npz, .pt or .csv", "file.py:name"}
    _checks.choice("inputs", name, {"noise", "zero", *files, *TASKS})
    return make_task(name, delay=delay, items=items)


def _named(target: str, channels: int, modules: dict[str, ModuleType]) -> Tensor:
    """Inputs that the user's Python names."""
    found = load(target, modules)
    if isinstance(found, Tensor):
        # numpy knows no bfloat16
        found = (found.double() if found.is_floating_point() else found).numpy(force=True)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{target} must be a tensor or an array, got {type(found).__name__}")
    return shaped(found, target, channels)
