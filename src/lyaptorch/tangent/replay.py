"""One pushforward recorded as a flat list of tensor operations, and replayed without what led to it.

Forward mode takes a small step apart into some hundred operations, and finds them anew at every step. They
are the same ones unless the step looks at numbers; a step that does is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lyaptorch import _checks

LARGEST = 1 << 12
"""Numbers in a frame above which arithmetic takes longer than finding out which operations to do."""
LEAST = 16
"""Steps below which recording does not pay."""
UNFIT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
LOOKS = {"numpy", "tolist", "item", "data_ptr", "untyped_storage", "storage", "__array__", "__bool__"}
LOOKS |= {"__complex__", "__contains__", "__dlpack__", "__float__", "__index__", "__int__", "__format__"}
LOOKS |= {"__repr__", "__reduce_ex__", "__deepcopy__"}
"""Methods by which numbers leave torch, where no operation tells of it."""

aten = torch.ops.aten
SAME = {getattr(aten, name).default for name in ("alias", "detach", "expand", "view", "_to_copy")}
"""Operations that often change nothing."""
QUICK = {"abs", "add", "addmm", "bmm", "cat", "clone", "cos", "div", "exp", "log", "mm", "mul", "neg"}
QUICK |= {"pow", "relu", "rsub", "select", "sigmoid", "sign", "sin", "sqrt", "square", "squeeze"}
QUICK |= {"stack", "sub", "tanh", "transpose", "unbind", "unsqueeze", "where"}
"""Operations that torch offers by the same name with the same arguments, at half the cost of a call."""
LAYOUTS = 8
"""More than these show that layouts change all the time."""
TRIALS = 2
"""Calls at which a recording is compared with what it stands for."""
ABOUT_MEMORY = {aten._has_same_storage_numel.default, aten.is_same_size.default, aten.promote_types.default}
"""Operations that answer from shapes and dtypes alone."""

Pushforward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _LookError(Exception):
    """The step depends on numbers in another way than by operations on tensors."""


@dataclass(frozen=True)
class _Operation:
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Tensor, ...]
    single: bool

    @property
    def writes(self) -> bool:
        """Whether it changes an argument in place."""
        return bool(self.function._schema.is_mutable)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below forward mode; holds all tensors, so that none is taken for another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in ABOUT_MEMORY:
            return result
        if func is aten.lift_fresh.default:
            # a literal, which the step may write to
            args = (args[0].clone(),)
        several = tuple(result) if isinstance(result, tuple | list) else (result,)
        if UNFIT.intersection(func.tags) or not all(isinstance(z, Tensor) for z in several):
            raise _LookError
        self.operations.append(_Operation(func, args, kwargs, several, isinstance(result, Tensor)))
        return result


class _Blind(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below forward mode, none of which may tell numbers to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        several = result if isinstance(result, tuple | list) else (result,)
        told = not all(isinstance(z, Tensor) for z in several) and func not in ABOUT_MEMORY
        if told or UNFIT.intersection(func.tags):
            raise _LookError
        return result


class _NoLook(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in LOOKS:
            raise _LookError
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def blind(pushforward: Pushforward, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor] | None:
    """What `pushforward` gives, if it gets there without a look at numbers; else None.

    Only then it does for trajectories side by side what it does for each.
    """
    try:
        with _NoLook(), _Blind():  # type: ignore[no-untyped-call]
            return pushforward(x, h, Q)
    except Exception:  # a step may refuse to be watched in any way
        return None


@torch.no_grad()
def record(pushforward: Pushforward, x: Tensor, h: Tensor, Q: Tensor) -> Pushforward | None:
    """A function that does for arguments of these shapes what `pushforward` does, or None.

    Tensors that the step closes over are held, not copied: what is done to them later is seen.
    """
    recorder = _Recorder()
    try:
        with _NoLook(), recorder:
            after = pushforward(x, h, Q)
    except Exception:  # a step may refuse to be watched in any way
        return None
    return _Script((x, h, Q)).compiled(recorder.operations, after)


class Replay:
    """A pushforward without gradient: recorded at its first call, compared at the next two, then replayed.

    Each layout of the arguments in memory has a recording of its own, so that results are the same to the
    last bit. Where they are not, and where a step cannot be recorded, it is called as ever.
    """

    def __init__(self, pushforward: Pushforward, steps: int) -> None:
        self.pushforward, self.given_up = pushforward, steps < LEAST
        self.scripts: dict[Any, Pushforward] = {}
        self.calls: dict[Any, int] = {}

    def __call__(self, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and D Q."""
        if self.given_up or torch.is_grad_enabled() or not _checks.can_look():
            return self.pushforward(x, h, Q)
        # by layout and not by shape alone: products round differently in another layout
        layout = x.stride(), h.stride(), Q.stride(), Q.shape
        calls = self.calls.get(layout, 0)
        if calls > TRIALS:
            return self.scripts[layout](x, h, Q)
        after = self.pushforward(x, h, Q)
        self.calls[layout] = calls + 1
        if calls:
            again = self.scripts[layout](x, h, Q)
            # a step that draws, counts or branches differs here; once it has, nothing of it is trusted
            self.given_up = not all(torch.equal(a, b) for a, b in zip(again, after, strict=True))
            return after
        plain = Q.numel() <= LARGEST and type(h) is Tensor and type(Q) is Tensor
        script = record(self.pushforward, x, h, Q) if plain and len(self.scripts) < LAYOUTS else None
        self.given_up = script is None
        if script is not None:
            self.scripts[layout] = script
        return after


class _Script:
    """Straight-line Python for recorded operations; what changes nothing, or nobody reads, is left out."""

    def __init__(self, given: tuple[Tensor, ...]) -> None:
        self.arguments = [f"given{i}" for i in range(len(given))]
        self.names = {id(z): name for z, name in zip(given, self.arguments, strict=True)}
        self.constants: dict[str, Any] = {}

    def compiled(self, operations: list[_Operation], after: tuple[Tensor, ...]) -> Pushforward:
        targets = [z for op in operations if op.writes for z in tree_leaves(op.args)]
        written = {_storage(z) for z in targets if isinstance(z, Tensor)}
        lines: list[tuple[bool, list[str], str, set[str]]] = []
        for i, op in enumerate(operations):
            if _changes_nothing(op, written):
                self.names[id(op.results[0])] = self._text(op.args[0], set())
                continue
            used: set[str] = set()
            function, args = _quicker(op)
            call = [self._constant(function, used), *(self._text(z, used) for z in args)]
            call += [f"{key}={self._text(z, used)}" for key, z in op.kwargs.items()]
            results = [f"value{i}_{j}" for j in range(len(op.results))]
            self.names.update(zip(map(id, op.results), results, strict=True))
            target = results[0] if op.single else f"({', '.join(results)},)"
            lines.append((op.writes, results, f"{target} = {call[0]}({', '.join(call[1:])})", used))
        # backwards from the results: what nobody reads is not done, unless it writes
        needed: set[str] = set()
        body = [f" return {', '.join(self._text(z, needed) for z in after)}"]
        for writes, results, line, used in reversed(lines):
            if writes or needed.intersection(results):
                needed |= used
                body.append(f" {line}")
        source = "\n".join([f"def replay({', '.join(self.arguments)}):", *reversed(body)])
        exec(source, self.constants)
        replay: Pushforward = self.constants["replay"]
        return replay

    def _text(self, value: Any, used: set[str]) -> str:
        """An argument as source."""
        if isinstance(value, tuple | list):
            return f"[{', '.join(self._text(z, used) for z in value)}]"
        if isinstance(value, Tensor) and id(value) in self.names:
            used.add(self.names[id(value)])
            return self.names[id(value)]
        return self._constant(value, used)

    def _constant(self, value: Any, used: set[str]) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name


def _changes_nothing(op: _Operation, written: set[int]) -> bool:
    if op.function not in SAME:
        return False
    a, b = op.args[0], op.results[0]
    alike = (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
    return alike and not written.intersection((_storage(a), _storage(b)))


def _quicker(op: _Operation) -> tuple[Any, tuple[Any, ...]]:
    """The same operation by the way that torch calls fastest."""
    # a literal tensor is lifted once only, and may be written to
    if op.function is aten.lift_fresh.default:
        return torch.clone, op.args
    name, _, overload = op.function.__name__.partition(".")
    if op.function.namespace != "aten" or name not in QUICK:
        return op.function, op.args
    args, like = op.args, op.results[0]
    if overload == "Tensor" and len(args) == 2 and isinstance(args[1], int | float):
        # torch makes a tensor of a number at every call
        plain = isinstance(args[0], Tensor) and args[0].dim() > 0 and args[0].dtype == like.dtype
        if plain and like.is_floating_point():
            args = args[0], torch.tensor(args[1], dtype=torch.float64, device="cpu")
    return getattr(torch, name), args


def _storage(z: Tensor) -> int:
    return int(z.untyped_storage()._cdata)
