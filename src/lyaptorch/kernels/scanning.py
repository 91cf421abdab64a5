"""The scan of a form and its frame, and its adjoint, with arguments and room that serve again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm
from lyaptorch.kernels.arguments import KernelArguments
from lyaptorch.kernels.library import ScanArgs, call, fill, reuse_buffer, tape_size


class Cuts(NamedTuple):
    """Where spans lie, on the host.

    Attributes:
        steps: `(s + 1,)`, the steps between which they lie; or those of each member `(members, s + 1)`, of
            which the first and last spans may be empty.
        twice: `(s,)` or `(members, s)` uint8, which are orthonormalised to round-off.
    """

    steps: Tensor
    twice: Tensor


@lru_cache(maxsize=64)
def cuts_of(steps: tuple[int, ...], twice: tuple[bool, ...]) -> Cuts:
    """Those of all members."""
    return Cuts(
        torch.tensor(steps, dtype=torch.int64, device="cpu"), torch.tensor(twice, device="cpu").byte()
    )


class Scanning:
    """A scan on the CPU, as often as it is asked for.

    Args:
        form: what evolves.
        inputs: `(t, *e, b, m)`.
        h: `(*e, b, N)`.
        k: tangent vectors.
        cuts: of the spans.
        cut: the state's cotangent stops at every multiple of it; 0 for never.
        keep: whether the adjoint follows.

    Attributes:
        pivots: diagonals of R `(s, *e, b, k)`, 1 in an empty span; as all else here, written by `forward`.
        dead: columns that died, `(s, *e, b, k)` bool.
        longest: the length of the longest living column before each orthonormalisation, `(s, *e, b)`.
        h: the final state.
        status: `(*e, b, 2)`, the first span after which tangent vectors are not finite, and the first step of
            those after which a final state that is not finite was not; or -1.
    """

    def __init__(
        self, form: AnyForm, inputs: Tensor, h: Tensor, k: int, cuts: Cuts, *, cut: int = 0, keep: bool
    ) -> None:
        (*e, b, _), s = h.shape, cuts.twice.shape[-1]
        self._h0, self._cuts = h, cuts
        self._handed = handed = KernelArguments(form, inputs, h)
        self._args = args = ScanArgs(k=k, spans=s, cut=cut, keep=int(keep), apart=cuts.twice.dim() - 1)
        # from here on the arguments are those within
        args.form = handed.args
        handed.args = args.form
        self.pivots, self.dead = h.new_empty(s, *e, b, k), h.new_empty(s, *e, b, k, dtype=torch.bool)
        self.longest, self.h = h.new_empty(s, *e, b), h.new_empty(h.shape)
        # found by threads that cannot raise: looked at when all are done
        self.status = h.new_empty(*e, b, 2, dtype=torch.int64)
        fill(args, cuts=cuts.steps, twice=cuts.twice, pivots=self.pivots, dead=self.dead)
        fill(args, longest=self.longest, h=self.h, status=self.status)
        self._tape: Tensor | None = None
        self._size = tape_size("scan", args, h.dtype) if keep else 0

    def see(self, form: AnyForm, inputs: Tensor, h: Tensor) -> None:
        """Take other inputs and another state, of the shapes of those before, and what became of the weights.

        `form` has the tensors of the one before, but for decays of neurons.
        """
        self._handed.hear(inputs)
        self._handed.renew(form)
        self._handed.give("h0", h)

    def forward(self, frame: Tensor, Q: Tensor | None = None) -> None:
        """Scan from a frame `(*e, b, N, k)`, or `(N, k)` of all; the last one is left in Q, if it is given.

        Cost O(t n^2 k + s n k^2) per trajectory.
        """
        args = self._args
        # what all share is not copied for each
        if not any(frame.stride()[:-2]):
            frame = frame[(0,) * (frame.dim() - 2)]
        frame = frame.detach().contiguous()
        if self._size:
            self._tape = reuse_buffer((self._size,), torch.uint8)
            fill(args.form, tape=self._tape)
        self._frame = frame
        args.one_frame = int(frame.dim() == 2)
        fill(args, frame=frame, Q=Q)
        call("scan_forward", args, self._h0.dtype)

    def stopped(self) -> tuple[int | None, int | None]:
        """The first span and the first step that `status` tells of; None where all is well."""
        numbers = self.status.flatten().tolist()
        columns = ([number for number in numbers[i::2] if number >= 0] for i in (0, 1))
        broken, overflow = (min(column, default=None) for column in columns)
        return broken, overflow

    def want(self, leaves: Sequence[Tensor]) -> None:
        """Make room for the gradients of the inputs, if they want one, and of `leaves`."""
        self._leaves = leaves
        self._handed.gradients(leaves)

    def adjoint(self, c: Tensor, log_r: Tensor, h_bar: Tensor, frame_bar: Tensor | None = None) -> None:
        """The way back from `c`, the gradient of log R_ii `(s, *e, b, k)`; what `want` named is then `found`.

        `h_bar` has the cotangent of the final state, in whose place that of the first one is left; that of
        the frame is left in `frame_bar`, if it is given. Cost about 1.5 times that of `forward`.
        """
        fill(self._args, c=c, log_r=log_r, frame_bar=frame_bar)
        fill(self._args.form, h_bar=h_bar)
        call("scan_adjoint", self._args, self._h0.dtype)

    def forget(self) -> None:
        """Lend the tape's memory to others until the next `forward`."""
        self._tape = None

    def found(self) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted) and leaves."""
        return self._handed.found(self._leaves)

    @property
    def steady(self) -> bool:
        """Whether each adjoint leaves all gradients where they were, each of the shape of its leaf."""
        own = {bar.data_ptr() for bar in self._handed.bars()}
        found = zip(self.found()[1:], self._leaves, strict=True)
        known = all(p.dtype == self._h0.dtype for f in self._handed.form.activations() for p in f.arguments)
        return known and all(
            g is not None and g.data_ptr() in own and g.shape == leaf.shape for g, leaf in found
        )
