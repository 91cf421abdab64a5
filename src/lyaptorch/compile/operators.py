"""`unroll` and the compiled scan as operators of torch.library: their layout, adjoints and registration.

A form travels as a list of tensors and a line of text, which is all that an operator takes. No tape passes
from one to the other, because its size is the recurrence's own affair: the way back begins with the way
forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch.cells.activation import ACTIVATIONS, Activation
from lyaptorch.cells.form import AnyForm, Form, LIFForm, Ran, Residual
from lyaptorch.cells.surrogates import SURROGATES, Surrogate
from lyaptorch.cells.unroll import Recurrence, serving
from lyaptorch.cells.unroll import trace_with as trace_unroll
from lyaptorch.tangent.adjoint import pull_back
from lyaptorch.tangent.engine import FusedEngine
from lyaptorch.tangent.engine import trace_with as trace_scan

FORM = "Tensor inputs, Tensor h, Tensor frame, Tensor[] tensors, str layout"
SETTINGS = "int[] cuts, bool[] twice, int? cut, str backend"

# torch.compile traces `flatten`: it knows strings, but not json


def flatten(form: AnyForm) -> tuple[list[Tensor], str] | None:
    """All tensors of a form and what else there is of it; None where an activation is the user's own."""
    # the words say which tensors follow: W, V, biases, then A and c or the three constants of neurons, then a
    # sharpness for each surrogate. `unflatten` reads words and tensors in the same order
    functions = form.activations()
    if any(f.known is None for f in functions):
        return None
    arguments = [p for f in functions for p in f.arguments]
    biases = str(len(form.biases))
    if isinstance(form, LIFForm):
        words = ["lif", biases, form.reset, form.reset_grad, form.order, _word(form.spike)]
        return [*form.weights(), *form.constants(), *arguments], " ".join(words)
    residual = form.residual
    kind, phi = ("none", None) if residual is None else (residual.kind, residual.activation)
    coupled = "free" if form.coupling is None else "coupled"
    words = ["form", biases, kind, coupled, _word(form.inner), _word(form.outer), _word(phi)]
    return [*form.weights(), *arguments], " ".join(words)


def unflatten(tensors: Sequence[Tensor], layout: str, wanted: Sequence[bool] | None = None) -> AnyForm:
    """The form given to `flatten`, detached; those of its tensors that are wanted require a gradient."""
    wanted = [False] * len(tensors) if wanted is None else wanted
    # of its own graph: an operator differentiates by its registered adjoint, never through what it was given
    rest = iter([z.detach().requires_grad_(w) for z, w in zip(tensors, wanted, strict=True)])
    name, count, *words = layout.split()
    W, V, *biases = (next(rest) for _ in range(2 + int(count)))
    if name == "lif":
        reset, reset_grad, order, spike = words
        alpha, beta, threshold = (next(rest) for _ in range(3))
        f = _function(spike, rest)
        assert f is not None
        return LIFForm(W, V, tuple(biases), f, alpha, beta, threshold, reset, reset_grad, order)
    kind, coupled, *functions = words
    matrix = None if kind == "none" else next(rest)
    coupling = next(rest) if coupled == "coupled" else None
    inner, outer, phi = (_function(word, rest) for word in functions)
    residual = None if matrix is None else Residual(matrix, kind, phi)  # type: ignore[arg-type]
    return Form(W, V, tuple(biases), inner, outer, residual, coupling)


def _word(f: Activation | None) -> str:
    if isinstance(f, Surrogate):
        return f"{f.known}:{f.norm}:{f.value}:{f.through}"
    return "identity" if f is None else str(f.known)


def _function(word: str, rest: Iterator[Tensor]) -> Activation | None:
    """The activation of that word; a surrogate takes the next tensor for its sharpness."""
    if word == "identity":
        return None
    name, *options = word.split(":")
    if not options:
        return ACTIVATIONS[name]()
    norm, value, through = options
    f = Surrogate(SURROGATES[name], 1.0, norm, value, through)
    f.sharpness = next(rest)
    return f


@torch.library.custom_op(
    "lyaptorch::unroll",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str layout) -> Tensor",
)
def unroll(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str) -> Tensor:
    """The states `(t, *e, b, n)` of the form that `flatten` made `tensors` and `layout`; differentiable."""
    form = unflatten(tensors, layout)
    with torch.no_grad():
        return _serving(form, h0).forward(form, inputs, h0, keep=False)[0].contiguous()


@torch.library.custom_op(
    "lyaptorch::unroll_adjoint",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str layout, bool[] wanted, Tensor bar) -> Tensor[]",
)
def unroll_adjoint(
    inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str, wanted: Sequence[bool], bar: Tensor
) -> list[Tensor]:
    """Gradients of h0 and of those of (inputs, *tensors) that are wanted, from cotangents of the states."""
    form, inputs = unflatten(tensors, layout, wanted[1:]), inputs.detach().requires_grad_(wanted[0])
    recurrence = _serving(form, h0)
    with torch.no_grad():
        states, kept = recurrence.forward(form, inputs, h0, keep=True)
        return own_memory(recurrence.adjoint(Ran(form, form.trained(), inputs, h0, states, kept), bar))


def _serving(form: AnyForm, h0: Tensor) -> Recurrence:
    recurrence = serving(form, h0)
    assert recurrence is not None
    return recurrence


@unroll.register_fake
def _(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str) -> Tensor:
    return h0.new_empty(inputs.shape[0], *h0.shape)


@unroll_adjoint.register_fake
def _(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], *given: Any) -> list[Tensor]:
    return shaped([h0], inputs, tensors, given[-2])


def _unroll_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, h0, tensors, ctx.layout = inputs
    ctx.save_for_backward(x, h0, *tensors)


def _unroll_backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
    inputs, h0, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2]]
    bars = unroll_adjoint(inputs, h0, tensors, ctx.layout, wanted, bar)
    inputs_bar, h_bar, *tensor_bars = spread(bars, 1, wanted)
    return inputs_bar, h_bar, tensor_bars, None


unroll.register_autograd(_unroll_backward, setup_context=_unroll_setup)


@torch.library.custom_op(
    "lyaptorch::scan", mutates_args=(), schema=f"({FORM}, {SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)"
)
def scan(
    inputs: Tensor, h: Tensor, frame: Tensor, tensors: Sequence[Tensor], layout: str, *settings: Any
) -> tuple[Tensor, ...]:
    """The scan by `FusedEngine`, of the form that `flatten` made into `tensors` and `layout`."""
    engine = _engine_of(unflatten(tensors, layout), *settings)
    with torch.no_grad():
        found, _ = engine.forward(inputs, h, frame, keep=False)
    return tuple(z.contiguous() for z in found[:4])


@torch.library.custom_op(
    "lyaptorch::scan_adjoint",
    mutates_args=(),
    schema=f"({FORM}, {SETTINGS}, bool[] wanted, Tensor log_r_bar, Tensor h_bar) -> Tensor[]",
)
def scan_adjoint(
    inputs: Tensor, h: Tensor, frame: Tensor, tensors: Sequence[Tensor], layout: str, *given: Any
) -> list[Tensor]:
    """Gradients of h, of the frame and of those of (inputs, *tensors) that are wanted."""
    # forward once more: a tape has a size that only the kernels know, and an operator must tell it beforehand
    *settings, wanted, log_r_bar, h_bar = given
    form, inputs = unflatten(tensors, layout, wanted[1:]), inputs.detach().requires_grad_(wanted[0])
    engine = _engine_of(form, *settings)
    with torch.no_grad():
        found, tape = engine.forward(inputs, h, frame, keep=True)
        saved = kernels.Saved(inputs, h, found.log_r, found.healthy, found.Q, tape)
        return own_memory(pull_back(engine, form.trained(), saved, log_r_bar, h_bar))


def _engine_of(
    form: AnyForm, cuts: Sequence[int], twice: Sequence[bool], cut: int | None, backend: str
) -> FusedEngine:
    return FusedEngine(form, kernels.Settings(tuple(cuts), tuple(twice), cut, backend))


@scan.register_fake
def _(inputs: Tensor, h: Tensor, frame: Tensor, *given: Any) -> tuple[Tensor, ...]:
    _tensors, _layout, _cuts, twice, *_ = given
    log_r = h.new_empty(len(twice), *h.shape[:-1], frame.shape[-1])
    Q = h.new_empty(*h.shape, frame.shape[-1])
    return log_r, torch.empty_like(log_r, dtype=torch.bool), h.new_empty(h.shape), Q


@scan_adjoint.register_fake
def _(inputs: Tensor, h: Tensor, frame: Tensor, tensors: Sequence[Tensor], *given: Any) -> list[Tensor]:
    return shaped([h, frame], inputs, tensors, given[-3])


def _scan_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h, frame, tensors, *ctx.settings = inputs
    ctx.save_for_backward(x, h, frame, *tensors)
    # who lives is no number, and the final frame is handed out without a gradient by all engines
    ctx.mark_non_differentiable(output[1], output[3])


def _scan_backward(
    ctx: Any, log_r_bar: Tensor, _healthy: Tensor, h_bar: Tensor, _frame: Tensor
) -> tuple[Any, ...]:
    inputs, h, frame, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3]]
    bars = scan_adjoint(inputs, h, frame, tensors, *ctx.settings, wanted, log_r_bar, h_bar)
    inputs_bar, past, frame_bar, *tensor_bars = spread(bars, 2, wanted)
    return inputs_bar, past, frame_bar, tensor_bars, *[None] * len(ctx.settings)


scan.register_autograd(_scan_backward, setup_context=_scan_setup)


def own_memory(bars: Sequence[Tensor | None]) -> list[Tensor]:
    """Those of the gradients that there are, each in memory of its own, as operators must return them."""
    return [z.clone(memory_format=torch.contiguous_format) for z in bars if z is not None]


def shaped(
    always: Sequence[Tensor], inputs: Tensor, tensors: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """What `own_memory` returns, as torch.compile asks for it: shapes only."""
    first, *rest = wanted
    # those of h and the frame come always: the kernels compute them on their way back to the first step
    like = [*([inputs] if first else []), *always, *(z for z, w in zip(tensors, rest, strict=True) if w)]
    return [z.new_empty(z.shape) for z in like]


def spread(bars: Sequence[Tensor], always: int, wanted: Sequence[bool]) -> list[Tensor | None]:
    """The same with None for each that was not wanted; those that always come stand second."""
    each, (first, *rest) = iter(bars), wanted
    return [next(each) if w else None for w in (first, *[True] * always, *rest)]


def register() -> None:
    """From now on let torch.compile see these operators wherever a form is unrolled or scanned."""
    trace_unroll(_unrolled)
    trace_scan(_scanned)


def _unrolled(form: AnyForm, inputs: Tensor, h0: Tensor) -> Tensor | None:
    flat = flatten(form)
    return None if flat is None else unroll(inputs, h0, *flat)


def _scanned(
    form: AnyForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: kernels.Settings
) -> tuple[Tensor, ...] | None:
    flat = flatten(form)
    return None if flat is None else scan(inputs, h, frame, *flat, *settings)
