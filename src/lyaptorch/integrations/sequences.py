"""Sequences of the user's, as a source of inputs."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Draw, Source


class Sequences:
    """Recorded inputs, from which each draw takes other trajectories and another beginning.

    Args:
        inputs: `(t, b, m)`, time first, or a PackedSequence.
        lengths: steps of each sequence `(b,)`; t of all when missing.
        longer_than: sequences that are not are never drawn: those that end within a transient.

    Raises:
        ValueError: if it is no floating tensor of that shape, or not finite, or no sequence is long enough.

    Example:
        >>> drawn = Sequences(torch.randn(100, 8, 3)).inputs(Draw(0, 55, 2))
        >>> drawn.shape
        torch.Size([55, 2, 3])
    """

    def __init__(
        self, inputs: Tensor | PackedSequence, lengths: Lengths = None, *, longer_than: int = 0
    ) -> None:
        inputs, lengths = padded(inputs, lengths)
        if _checks.tensor("inputs", inputs).dim() != 3 or 0 in inputs.shape[:2]:
            raise ValueError(
                f"inputs must have shape (t, b, m), time first, got {tuple(inputs.shape)}; of a batch-first "
                "batch pass x.transpose(0, 1)"
            )
        inputs = _checks.finite("inputs", inputs.detach())
        if lengths is not None:
            enough = lengths > longer_than
            if not enough.any():
                raise ValueError(
                    f"lengths must be above the {longer_than} steps of the transient for some sequence, got "
                    f"at most {len(inputs)}; shorten the transient"
                )
            if not enough.all():
                warnings.warn(
                    f"sequences {(~enough).nonzero().flatten().tolist()} end within the {longer_than} steps "
                    "of the transient and are not drawn",
                    stacklevel=3,
                )
            inputs, lengths = inputs[:, enough], lengths[enough]
            # all whole: as if none were given
            lengths = None if (lengths == len(inputs)).all() else lengths
        self._inputs, self._lengths = inputs, lengths

    def inputs(self, d: Draw) -> Inputs | Padded:
        """The inputs of one epoch `(d.steps, d.batch, m)`, the same for all members, all from one step on.

        Of sequences of different lengths they come with those of what is taken: all of a short sequence, of a
        long one a stretch that begins anywhere, independent of the others.

        Raises:
            ValueError: if the sequences are shorter than `d.steps`.
        """
        length = d.steps
        t, b, _ = self._inputs.shape
        if t < length:
            raise ValueError(f"inputs must hold steps={length} steps, got {t}; pass fewer steps")
        at = int(_checks.numbers(d.epoch).reshape(-1)[0])
        drawn = Stream(d.seed, f"{d.stream}_sequences")
        rows = drawn.permutation(b, member_ids=0, epoch=at)[torch.arange(d.batch, device="cpu") % b]
        rows = rows.to(self._inputs.device)
        if self._lengths is None:
            start = int(drawn.permutation(t - length + 1, member_ids=1, epoch=at)[0])
            taken = self._inputs[start : start + length, rows]
            return taken.to(d.dtype or taken.dtype)
        own = self._lengths[rows]
        # floor(u * size) is uniform over 0..size-1, because u < 1; each sequence has a size of its own
        u = drawn.uniform((d.batch,), member_ids=1, epoch=at, dtype=torch.float64).to(own.device)
        first = (u * ((own - length).clamp_min(0) + 1)).long()
        at_step = torch.arange(length, device=own.device).unsqueeze(-1) + first
        taken = self._inputs[at_step.clamp_max(t - 1), rows].to(d.dtype or self._inputs.dtype)
        return padded(taken, (own - first).clamp_max(length))


class Placed:
    """A source whose inputs come in the dtype and on the device of a network."""

    def __init__(self, source: Source, like: Tensor) -> None:
        self._source, self._like = source, like

    def inputs(self, d: Draw) -> Padded:
        """Those of the source."""
        inputs, lengths = padded(self._source.inputs(replace(d, dtype=self._like.dtype)))
        return Padded(inputs.to(self._like), None if lengths is None else lengths.to(self._like.device))
