"""Cell: a recurrent step together with what it does to perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lyaptorch._types import Frame, Input, InputFrame, Inputs, State
from lyaptorch.cells.form import AnyForm, Form
from lyaptorch.cells.gate_form import GateForm
from lyaptorch.cells.initial import remember
from lyaptorch.cells.products import by_forward_mode, by_reverse_mode, graph_leaves, repeat_batch
from lyaptorch.cells.unfused import unfused

BY_HAND = ("pushforward", "_push")
"""What may tell the pushforward of a step."""
ADVICE = "the dynamics overflow; lower the gain or the inputs, or use float64"


class Cell(nn.Module):
    """What evolves: `h' = step(x, h)`, input first, state second, as in `torch.nn.*Cell`.

    A subclass writes `step`. It may write `pushforward` (else one forward-mode product is used), or
    return a `Form`, which brings both with it, and a hand-written adjoint. What stands for a step (a form, a
    pushforward by hand) is not inherited by a class that writes another `step`: its products are derived.

    Raises:
        TypeError: when a subclass is defined that writes `forward`, which is `step` by another name.

    Attributes:
        input_size: m.
        state_size: n, the size of the whole state.
        ensemble: the leading dimensions `*e` of every parameter; `()` for one network. Those of an
            `Activation` broadcast against states `(*e, b, n)`.
        per_member: names of the buffers that have these dimensions, too.
        readable: which entries of the state a readout sees; all, unless the cell has hidden ones (of an
            LSTM's (h, c) it is h).
        batch_first: whether the module it was made of takes batches first, which no function here does.
        layered: whether the `parts` are layers, each with units of its own.
        travelling: how many numbers at the end of the state belong to no tangent space, such as positions and
            flags: a step hands them on, frames are zero there, and n less these is the most exponents.
        nilpotent: how many exponents, the last ones, are exactly -inf on any inputs, because so many entries
            of the state are places of shift registers, such as a convolution has.
        alone: whether the step computes with the weights of one network at a time.
        unproven: whether `step` is still to be probed before its first trajectory.
        unfused: whether the probe found that derivatives need torch's fused kernels switched off.
        reverse_mode: whether the probe found that forward mode cannot be used at all.
        ran: the modules that ran when it was probed, and whether each was in training mode then.
        time_step: time per step; exponents are per unit of this time.
        advice: what an error says when the state overflows.
        titles: of a cell made of a module, that module's names of its parameters, by the cell's.
        channels: what an error says of inputs of another size.

    Example:
        >>> class Decay(Cell):
        ...     def step(self, x, h):
        ...         return 0.5 * h + x
        >>> h, DQ = Decay(2, 2).pushforward(torch.zeros(1, 2), torch.ones(1, 2), torch.eye(2)[None])
        >>> DQ[0]
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """

    time_step: float = 1.0
    per_member: tuple[str, ...] = ()
    alone: bool = False
    layered: bool = False
    travelling: int = 0
    nilpotent: int = 0
    advice: str = ADVICE
    titles: Mapping[str, str] = MappingProxyType({})
    channels: str = "the last dimension is m"
    ingredients: ClassVar[tuple[str, ...]] = ("step",)
    """Methods that say what the step is; a class that writes one anew has another step."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if _depth(cls, "forward") < cls.__mro__.index(Cell):
            raise TypeError(
                f"{cls.__name__} defines forward(x, h), which of a Cell is its step by another name; define "
                "step(x, h)"
            )
        # What tells the products of an OLDER step is not inherited: whatever is defined higher up than the
        # newest step (for `form`: than the newest step or pushforward) falls back to what `Cell` derives.
        step, push = _depth(cls, *cls.ingredients), _depth(cls, *BY_HAND)
        for name, also, least in (
            ("leaves", "", step),
            ("last", "", step),
            ("pushforward", "_push", step),
            ("pushforward_with_input", "_push", min(step, push)),
            ("form", "", min(step, push)),
            ("multiplicity", "", min(step, push)),
        ):
            if _depth(cls, name, also) > least:
                setattr(cls, name, getattr(Cell, name))

    def __new__(cls, *arguments: Any, **settings: Any) -> Any:
        """Remembers how it was made, for `Stacked`."""
        cell = super().__new__(cls)
        remember(cell, arguments, settings)
        return cell

    def __init__(self, input_size: int, state_size: int, ensemble: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.input_size, self.state_size, self.ensemble = input_size, state_size, tuple(ensemble)
        self.unproven = type(self).pushforward is Cell.pushforward
        self.unfused = self.reverse_mode = self.batch_first = False
        self.ran: frozenset[tuple[nn.Module, bool]] = frozenset()
        self.readable = slice(None)

    def parts(self) -> dict[str, slice]:
        """The slices of the state that have names, such as an LSTM's h and c; empty where none has."""
        return {}

    def registers(self) -> Tensor | None:
        """Which entries of the state `(n,)` are places of shift registers, where a cell knows."""
        return None

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """What the gates of a gated cell let through, in 0..1, `(*e, b, units)` each by name."""
        return {}

    @property
    def multiplicity(self) -> int:
        """How often each exponent is there, because D is A (x) 1 with an identity of this size.

        A random frame is then that of A, n / multiplicity rows, which `pushforward` takes beside those of n;
        each of its columns stands for so many of the spectrum.
        """
        return 1

    @property
    def output_size(self) -> int:
        """How many numbers a readout sees."""
        return len(range(self.state_size)[self.readable])

    def step(self, x: Input, h: State) -> State:
        """The next state."""
        raise NotImplementedError(f"{type(self).__name__} must define step(x, h)")

    def last(self, inputs: Inputs, h: State) -> State:
        """The state after all `inputs (t, *e, b, m)`; without gradient a cell may have a faster way to it."""
        for x in inputs:
            h = self.step(x, h)
        return h

    def forward(self, x: Input, h: State) -> State:
        """The same as `step`."""
        return self.step(x, h)

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q, the tangent vectors Q one step later. Cost O(b k) steps."""
        mode = by_reverse_mode if self.reverse_mode else by_forward_mode
        with unfused() if self.unfused else nullcontext():
            return mode(self.step, x, h, Q)

    def guard(self, copies: bool) -> bool:
        """Hand copies, or not, to steps that may write into what they get; whether there are such within."""
        return True in [part.guard(copies) for part in self.children() if isinstance(part, Cell)]

    def embedded(self, inputs: Any) -> Any:
        """Inputs as the step takes them, of those that a user has, such as token ids; here the same."""
        return inputs

    def rest(self, x: Input) -> State:
        """The state `(*e, b, n)` before the first input x `(*e, b, m)` where no other is given: zero.

        Raises:
            ValueError: by cells that do not know how large their state is.
        """
        if self.state_size == 0:
            raise ValueError(
                "h0 must be given for a function or module, whose state size comes from it, got None"
            )
        return x.new_zeros(*self.ensemble, x.shape[-2], self.state_size)

    def pushforward_with_input(self, x: Input, h: State, X: InputFrame, Q: Frame) -> tuple[State, Frame]:
        """The next state and dh'/dx X + D Q: what tangent vectors of input and state become."""
        b, k = Q.shape[-3], Q.shape[-1]
        primals = (repeat_batch(x, k), repeat_batch(h, k))
        tangents = (X.mT.flatten(-3, -2), Q.mT.flatten(-3, -2))
        result: tuple[Tensor, Tensor] = torch.func.jvp(self.step, primals, tangents)  # type: ignore[assignment]
        after, pushed = (torch.unflatten(y, -2, (b, k)) for y in result)
        return after[..., 0, :], pushed.mT

    def meet(self, state: Any, front: tuple[int, ...]) -> None:
        """Be shown a state, and the dimensions `(*e, b)` of the inputs, before it is packed."""

    def packed(self, state: Any, front: tuple[int, ...]) -> Tensor | None:
        """A state that it was shown, packed; None where there is none."""
        if state is None:
            return None
        self.meet(state, front)
        return self.pack(state)

    def pack(self, state: Any) -> Tensor:
        """A state as one tensor `(*e, b, n)`, from that or from the parts that `unpack` gives.

        Raises:
            ValueError: if it is neither.
        """
        if not isinstance(state, Tensor):
            raise ValueError(
                f"the state of this {type(self).__name__} must be one tensor (*e, b, n), "
                f"got a {type(state).__name__}; concatenate its parts along the last dimension"
            )
        return state

    def unpack(self, h: Tensor) -> Any:
        """A state `(*e, b, n)` in the structure that `pack` takes it from; here the tensor itself."""
        return h

    def form(self) -> AnyForm | None:
        """The step as data, where it has such a shape."""
        return None

    def gate_form(self) -> GateForm | None:
        """The step of a network with gates as data, for whole sequences; such a cell has no `form`."""
        return None

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """The tensors with `requires_grad` that the step depends on, in the cell or closed over."""
        own = [p for p in [*self.parameters(), *self.buffers()] if p.requires_grad and p.is_leaf]
        return list({id(p): p for p in (*own, *graph_leaves(self.step, x, h))}.values())

    def tensors(self) -> list[Tensor]:
        """Every floating parameter and buffer: they share one dtype and device with the state."""
        return [p for p in [*self.parameters(), *self.buffers()] if p.is_floating_point()]

    def titled(self) -> dict[str, Tensor]:
        """Its parameters by the names that their owner gave them."""
        return {self.titles.get(name, name): p for name, p in self.named_parameters()}

    def extra_repr(self) -> str:
        """Sizes, as `print(cell)` shows them."""
        tail = f", ensemble={self.ensemble}" if self.ensemble else ""
        return f"{self.input_size}, {self.state_size}{tail}"


def _depth(cls: type, *names: str) -> int:
    """How far up among the ancestors of a class one of these is defined first."""
    return next(i for i, ancestor in enumerate(cls.__mro__) if any(name in vars(ancestor) for name in names))


class FormCell(Cell):
    """A cell that is wholly described by its `Form`.

    Example:
        >>> import lyaptorch as lt
        >>> class Half(lt.cells.FormCell):
        ...     def __init__(self, n):
        ...         super().__init__(1, n, ())
        ...         self.W, self.V = (torch.nn.Parameter(0.5 * torch.eye(n, m)) for m in (n, 1))
        ...     def form(self):
        ...         return lt.cells.Form(self.W, self.V, (), None, None)
        >>> spec = lt.lyapunov_spectrum(Half(3), torch.zeros(10, 1, 1), k=3, backend="torch")
        >>> spec.exponents.detach().exp().round(decimals=4)
        tensor([[0.5000, 0.5000, 0.5000]])
    """

    def __init_subclass__(cls, **settings: Any) -> None:
        # of a class with another step, `form` says that there is none; what it builds on has one still
        if "form" in vars(cls):
            cls._described = cls.form
        super().__init_subclass__(**settings)

    def form(self) -> Form:
        """The step as data."""
        raise NotImplementedError(f"{type(self).__name__} must define form()")

    _described = form

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """The tensors with `requires_grad` that the step depends on; an activation may hold computed ones."""
        return [p for p in [*self.parameters(), *self.buffers()] if p.requires_grad]

    def step(self, x: Input, h: State) -> State:
        """The next state."""
        form = self._described()
        return form.step(form.drive(x), h)

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q. Cost O(b n^2 k)."""
        form = self._described()
        return form.pushforward(form.drive(x), h, Q)

    def pushforward_with_input(self, x: Input, h: State, X: InputFrame, Q: Frame) -> tuple[State, Frame]:
        """The next state and dh'/dx X + D Q. Cost O(b n (n + m) k)."""
        form = self._described()
        return form.pushforward(form.drive(x), h, Q, X)
