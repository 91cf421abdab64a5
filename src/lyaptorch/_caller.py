"""Entry to public calls: the caller's modes do not show inside, and are afterwards as they were.

Default dtype and device are not set here, because a network's own step may rely on them: the library names
both wherever it makes a tensor.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

_functorch = torch._C._functorch

R = TypeVar("R")
P = ParamSpec("P")

HALF = (torch.float16, torch.bfloat16)


def measures(function: Callable[P, R]) -> Callable[P, R]:
    """A function that measures, as if the caller had no autocast, no inference mode and no `train()`.

    Networks that are handed over count as in `eval()`; of one in half precision a float32 copy is measured.
    Without a graph where the caller is in inference mode, or the network was made there, or is a copy.
    """
    return _entered(function, grad=False, evaluate=True)


def flosses(function: Callable[P, R]) -> Callable[P, R]:
    """The same of a function that changes a network by gradients, whatever the caller's grad mode."""
    return _entered(function, grad=True, evaluate=True)


def trains(function: Callable[P, R]) -> Callable[P, R]:
    """The same of a function that trains a network as the user left it, in `train()` or `eval()`."""
    return _entered(function, grad=True, evaluate=False)


def _entered(function: Callable[P, R], *, grad: bool, evaluate: bool) -> Callable[P, R]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        if torch.compiler.is_compiling():
            # what is traced has none of the other modes
            device = next((z.device.type for z in given if isinstance(z, Tensor)), "cpu")
            with torch.autocast(device, enabled=False):
                return function(*args, **kwargs)
        if _functorch.peek_interpreter_stack() is not None:
            raise ValueError(
                f"{function.__name__} must be called outside of transforms of torch.func (vmap, grad, jvp "
                "and their kind), got a call inside of one; in place of vmap take an ensemble or more "
                "trajectories, and derivatives of what it returns from torch.autograd.grad"
            )
        with aside(given, grad=grad, evaluate=evaluate) as (lent, half):
            if half:
                args, kwargs = _each(_widened, args), _each(_widened, kwargs)
            if lent or any(isinstance(z, Tensor) and z.is_inference() for z in given):
                args, kwargs = ordinary(args), ordinary(kwargs)
            return function(*args, **kwargs)

    return cast(Callable[P, R], run)


@contextmanager
def aside(given: Iterable[object], *, grad: bool, evaluate: bool) -> Iterator[tuple[bool, bool]]:
    """The caller's modes put aside; gives whether tensors of inference mode, and half precision, are about.

    Args:
        given: what the caller handed over; networks and tensors are looked for in it.
        grad: whether gradients are needed, else it is the caller's choice.
        evaluate: whether networks count as in `eval()`.

    Raises:
        ValueError: if a network that needs gradients was made in inference mode or is in half precision.
    """
    parts: list[nn.Module] = []
    first: list[Tensor] = []
    devices = {"cpu"}
    for one in given:
        if isinstance(one, Tensor):
            devices.add(one.device.type)
            continue
        for module in _modules(one):
            inside = _parts(module)
            parts += inside
            # one parameter tells for its network: all are made together, and there may be thousands
            first += [p for part in inside for p in part._parameters.values() if p is not None][:1]
    devices.update([p.device.type for p in first])
    made, half = any(p.is_inference() for p in first), any(p.dtype in HALF for p in first)
    if grad and (made or half):
        _refuse_training(first)
    lent = torch.is_inference_mode_enabled()
    training = [part for part in parts if part.training] if evaluate else []
    with ExitStack() as stack:
        # the way back first: an interrupt between the two lines must not leave a network in eval()
        stack.callback(_set_training, training, True)
        _set_training(training, False)
        if lent:
            stack.enter_context(torch.inference_mode(False))
        if grad:
            stack.enter_context(torch.enable_grad())
        # of a copy, or in inference mode, no gradient could reach what the caller has
        elif lent or made or half:
            stack.enter_context(torch.no_grad())
        if lent or made:
            stack.enter_context(_Ordinary())
        for device in devices:
            if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield lent or made, half


def _refuse_training(parameters: Sequence[Tensor]) -> None:
    if any(p.is_inference() for p in parameters):
        raise ValueError(
            "a network that is trained must be made outside of torch.inference_mode, got parameters made "
            "inside, which no gradient reaches; make it outside, or load its state_dict into one made there"
        )
    raise ValueError(
        f"a network that is trained must be float32 or float64, got {parameters[0].dtype}, where small steps "
        "are rounded away; call .float() on it, and convert it back afterwards"
    )


def _set_training(parts: list[nn.Module], training: bool) -> None:
    for part in parts:
        # past nn.Module.__setattr__, which costs more than all else here
        part.__dict__["training"] = training


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module and all within it, in a tenth of the time of `modules()`."""
    found, known = [module], {id(module)}
    for part in found:
        for child in part._modules.values():
            if child is not None and id(child) not in known:
                known.add(id(child))
                found.append(child)
    return found


def _modules(given: object) -> list[nn.Module]:
    """The modules in an argument: itself, those of a list, or that whose method it is."""
    if isinstance(given, nn.Module):
        return [given]
    if isinstance(given, list | tuple):
        return [one for one in given if isinstance(one, nn.Module)]
    owner = getattr(given, "__self__", None)
    return [owner] if isinstance(owner, nn.Module) else []


def ordinary(value: Any) -> Any:
    """Tensors of inference mode copied, also within tuples, lists and dicts; all else as it is."""
    return _each(_copied, value)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and _unwrapped(value).is_inference() else value


def _widened(value: Any) -> Any:
    """A float32 copy of what has half precision."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).float()
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """Something done to everything in tuples, lists and dicts."""
    if isinstance(value, tuple | list):
        changed = [_each(change, one) for one in value]
        if all(new is old for new, old in zip(changed, value, strict=True)):
            return value
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    if type(value) is dict:
        return {name: _each(change, one) for name, one in value.items()}
    return change(value)


class _Ordinary(TorchFunctionMode):
    """Copies tensors of inference mode that a network holds or closes over where a gradient passes them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # properties and addresses are asked of the tensor itself
        if torch.is_grad_enabled() and getattr(func, "__name__", "") not in _ASKED:
            args, kwargs = ordinary(args), ordinary(kwargs)
        return func(*args, **kwargs)


_ASKED = ("__get__", "__set__", "data_ptr", "is_inference", "requires_grad_")


def _unwrapped(value: Tensor) -> Tensor:
    """A tensor without the covers of transforms of torch.func, which hide where it was made."""
    while _functorch.is_functorch_wrapped_tensor(value):
        value = _functorch.get_unwrapped(value)
    return value


class Run:
    """What a network's step did beside returning a state, while it was watched by `untouched`.

    Attributes:
        modules: those that ran.
    """

    def __init__(self, network: nn.Module) -> None:
        """Remember the buffers of all its parts, and where they stand."""
        self.modules: list[nn.Module] = []
        self._slots: list[tuple[nn.Module, dict[str, Any]]] = []
        self._held: dict[int, tuple[str, Tensor, Tensor]] = {}
        for part in network.modules():
            self._slots.append((part, dict(part._buffers)))
            self.note(part)

    def note(self, module: nn.Module) -> None:
        """Remember the buffers of a module."""
        for name, buffer in module.named_buffers(recurse=False):
            # those that a transform of torch.func has put in for a while have no value of their own
            if id(buffer) not in self._held and not _functorch.is_functorch_wrapped_tensor(buffer):
                label = f"{name} of {type(module).__name__}"
                self._held[id(buffer)] = label, buffer, buffer.detach().clone()

    def moved(self) -> list[str]:
        """The buffers that changed; they are put back."""
        labels = []
        for part, buffers in self._slots:
            for name, buffer in buffers.items():
                if part._buffers.get(name) is not buffer:
                    labels.append(f"{name} of {type(part).__name__}")
                    part._buffers[name] = buffer
        for label, buffer, value in self._held.values():
            if not torch.equal(buffer, value):
                labels.append(label)
                with torch.no_grad():
                    buffer.copy_(value)
        return labels


@contextmanager
def untouched(network: nn.Module, device: torch.device) -> Iterator[Run]:
    """Buffers of the network and of modules that run inside, and the global generators, are put back."""
    run, thread = Run(network), threading.get_ident()

    def ran(module: nn.Module, _: Any) -> None:
        if threading.get_ident() == thread and module not in run.modules:
            run.modules.append(module)
            run.note(module)

    # every CUDA generator would be copied to the host, with a wait for each device, if none were named
    others = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=others, device_type="cuda"):
        hook = register_module_forward_pre_hook(ran)
        try:
            yield run
        finally:
            hook.remove()
            run.moved()
