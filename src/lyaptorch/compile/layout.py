"""A form as a list of tensors and a line of text: what an operator of torch.library can take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from lyaptorch.cells.activation import ACTIVATIONS, Activation
from lyaptorch.cells.form import AnyForm, Form, LIFForm, Residual
from lyaptorch.cells.surrogates import SURROGATES, Surrogate

# torch.compile traces `flatten`: it knows strings, but not json


def flatten(form: AnyForm) -> tuple[list[Tensor], str] | None:
    """All tensors of a form and what else there is of it; None where an activation is the user's own."""
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
