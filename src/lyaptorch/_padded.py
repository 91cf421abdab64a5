"""Sequences of different lengths in one tensor: what is a step of theirs and what is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lyaptorch import _checks

Lengths: TypeAlias = Tensor | Sequence[int] | None
"""Steps of each sequence, integers `(b,)` or `(*e, b)`; None where all have all."""


class Padded(NamedTuple):
    """Inputs `(t, *e, b, m)`, and the lengths `(b,)` or `(*e, b)` of their sequences; None: all have t."""

    inputs: Tensor
    lengths: Tensor | None = None


def padded(inputs: Tensor | PackedSequence | Padded, lengths: Lengths = None) -> Padded:
    """Inputs and checked lengths; what stands in the padding, be it NaN, is the sequence's first step again.

    A PackedSequence brings its own lengths, and gets its order back.

    Raises:
        ValueError: for lengths that are no integers in 1..t, do not fit the inputs, or come twice.
    """
    if isinstance(inputs, PackedSequence | Padded):
        if lengths is not None:
            raise ValueError(
                f"inputs of type {type(inputs).__name__} bring their own lengths, got others; leave lengths "
                "out"
            )
        inputs, lengths = inputs if isinstance(inputs, Padded) else pad_packed_sequence(inputs)
    if lengths is None:
        return Padded(inputs)
    _checks.inputs(inputs)
    lengths = torch.as_tensor(lengths, device=inputs.device)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be integers, got {lengths.dtype}; pass the number of steps of each")
    if inputs.dim() < 3:
        raise ValueError(f"inputs must have shape (t, *e, b, m), got {tuple(inputs.shape)}; time comes first")
    ensemble, b = tuple(inputs.shape[1:-2]), inputs.shape[-2]
    if lengths.shape[-1:] != (b,) or (ensemble and lengths.shape[:-1] not in ((), ensemble)):
        raise ValueError(
            f"lengths must have shape (b,) = {(b,)} or (*e, b), got {tuple(lengths.shape)}; give each "
            "trajectory of the inputs its number of steps"
        )
    t = len(inputs)
    if _checks.can_look() and not ((lengths >= 1) & (lengths <= t)).all():
        wrong = lengths[(lengths < 1) | (lengths > t)][0].item()
        raise ValueError(f"lengths must be integers in 1..{t}, the steps of the inputs, got {wrong}")
    # every member has lengths of its own of the same inputs: these get the ensemble's dimensions, of size 1
    if ensemble == () and lengths.dim() > 1:
        inputs = inputs.reshape(t, *[1] * (lengths.dim() - 1), *inputs.shape[1:])
    return Padded(torch.where(real(lengths, inputs.shape[:-1]).unsqueeze(-1), inputs, inputs[:1]), lengths)


def mean_of(values: Tensor, counts: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean over some dimensions of the values that count: steps and trajectories that are there."""
    return (values * counts).sum(dims) / counts.expand_as(values).sum(dims)


def real(lengths: Tensor, shape: Sequence[int]) -> Tensor:
    """Which steps belong to a sequence, bool against `(t, *e, b)` = `shape`."""
    return torch.arange(shape[0], device=lengths.device).reshape(-1, *[1] * (len(shape) - 1)) < lengths
