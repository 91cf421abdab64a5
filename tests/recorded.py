"""A stand-in for CUDA graphs on any device: operators are recorded once, and replayed on the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from lyaptorch import _checks
from lyaptorch.training import epochs

READING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique_dim", "_unique2"}


class NotCapturableError(RuntimeError):
    """As CUDA says it: whoever reads a number back cannot be captured."""


class Recorder(TorchDispatchMode):
    """Remembers every operator with its tensors; refuses those that read numbers back to the host.

    Nothing that is recorded has happened: when it ends, what was written to is as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []
        self.fresh: set[int] = set()
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        refuse(function, args, kwargs)
        for tensor in written(function, args, kwargs):
            self.keep(tensor)
        out = function(*args, **kwargs)
        outputs = [z for z in tree_flatten(out)[0] if isinstance(z, Tensor)]
        owned = any(r.alias_info is not None for r in function._schema.returns)
        self.calls.append((function, args, kwargs, [] if owned else outputs))
        self.fresh |= {memory(z) for z in outputs} if not owned else set()
        return out

    def keep(self, tensor: Tensor) -> None:
        """Its value, if it is about to be overwritten and was there before."""
        if memory(tensor) not in self.fresh:
            with _disable_current_modes():
                self.before.append((tensor.detach(), tensor.detach().clone()))

    def forget(self) -> None:
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, outputs in self.calls:
            again = [z for z in tree_flatten(function(*args, **kwargs))[0] if isinstance(z, Tensor)]
            for z, new in zip(outputs, again, strict=False):
                if not z._is_zerotensor():
                    z.copy_(new)


def memory(tensor: Tensor) -> int:
    """Where it lies; a zero that autograd only pretends to have lies nowhere."""
    return 0 if tensor._is_zerotensor() else tensor.untyped_storage().data_ptr()


def refuse(function: Any, args: Any, kwargs: Any) -> None:
    name = function.overloadpacket.__name__
    if name in READING:
        raise NotCapturableError(f"operation not permitted when stream is capturing: {name}")
    if name.startswith("index") and any(
        isinstance(z, Tensor) and z.dtype in (torch.bool, torch.uint8) for z in tree_flatten(args[1])[0]
    ):
        raise NotCapturableError("operation not permitted when stream is capturing: an index by a mask")


def written(function: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operator writes to."""
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[i] if i < len(args) else None)
            yield from (z for z in tree_flatten(value)[0] if isinstance(z, Tensor))


recording: list[Recorder] = []


def graph(epoch: Callable[[], epochs.Row]) -> Callable[[], epochs.Row]:
    """As `epochs.graph`."""
    recorder = Recorder()
    recording.append(recorder)
    try:
        with recorder:
            row = epoch()
    finally:
        recording.pop()
        with torch.no_grad():
            recorder.forget()

    def replay() -> epochs.Row:
        recorder.replay()
        return {name: value.clone() for name, value in row.items()}

    return replay


@contextmanager
def stand_in(monkeypatch: Any) -> Iterator[list[Any]]:
    """Everywhere is like on a GPU; gives the graphs that were recorded."""
    recorded: list[Any] = []

    def counted(epoch: Callable[[], epochs.Row]) -> Callable[[], epochs.Row]:
        replay = graph(epoch)
        recorded.append(replay)
        return replay

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "capturable", lambda device: True)
        patch.setattr(epochs, "aside", lambda epoch: epoch())
        patch.setattr(epochs, "graph", counted)
        patch.setattr(_checks, "can_look", lambda: not recording)
        yield recorded


def launched(kernel: Any) -> Any:
    """A Triton kernel whose launches are recorded, too."""

    class Launch:
        def __getitem__(self, grid: Any) -> Callable[..., None]:
            def run(*args: Any, **kwargs: Any) -> None:
                def again(*_: Any, **__: Any) -> tuple[()]:
                    with _disable_current_modes():
                        kernel[grid](*args, **kwargs)
                    return ()

                again()
                if recording:
                    recording[-1].calls.append((again, (), {}, []))

            return run

    return Launch()


class OneDevice(TorchDispatchMode):
    """Refuses operators that read numbers back, and those that cross from the host to a device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        refuse(function, args, kwargs)
        out = function(*args, **kwargs)
        name, tensors = function.overloadpacket.__name__, tree_flatten((args, kwargs, out))[0]
        copies = name in ("lift_fresh", "_to_copy", "copy_")
        # a number of the host may stand in a sum, but not be copied
        devices = {z.device.type for z in tensors if isinstance(z, Tensor) and (copies or z.dim())}
        if len(devices) > 1 or name == "lift_fresh":
            raise NotCapturableError(f"{name} brings together {sorted(devices)}")
        return out


class NoKernel:
    """In the place of a Triton kernel: launched, it does nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None
