"""The scan of small frames, where finding out what to do next takes longer than doing it.

States do not depend on the frame, so they come first, and the Jacobians of a stretch of steps by one product
whose trajectories are its states. The frame then meets nothing but D Q and Householder's QR, whose signs and
dying columns are looked at once, at the end of the stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells.form import time_in_batch
from lyaptorch.tangent import scan
from lyaptorch.tangent.dynamics import Dynamics
from lyaptorch.tangent.qr import in_doubt, orthonormalise, surely_sound
from lyaptorch.tangent.scan import Span, Sweep, Tape

LARGEST = 1 << 12
"""Numbers in the Jacobians of a step above which arithmetic counts."""
STRETCH = 1 << 16
"""Numbers in the Jacobians of a stretch: a quarter of a megabyte in float32, which stays in the caches."""
LEAST = 8
"""Steps below which a stretch does not pay."""


def sweep(
    dynamics: Dynamics,
    h: Tensor,
    Q: Tensor,
    dead: Tensor | None,
    over: Sequence[Span],
    *,
    method: str = "auto",
    tape: Tape | None = None,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Sweep:
    """As `scan.sweep`, by stretches where the frame is small and nothing overflows."""
    if method == "auto" and _serves(h, Q, over):
        found = _Chain(dynamics, h, Q, dead, keep=tape is not None or watch is not None)
        if all(found.go(stretch) for stretch in _stretches(over, STRETCH // (h.numel() * h.shape[-1]))):
            if watch is not None:
                for span, frame in zip(over, found.frames, strict=False):
                    watch(span.start, found.states[span.start - over[0].start], frame)
            if tape is not None:
                tape.states += found.states[:-1]
                tape.frames += found.frames[:-1]
                tape.factors += found.factors
            return Sweep(found.states[-1], found.Q, found.dead, found.pivots, found.deaths)
    return scan.sweep(dynamics, h, Q, dead, over, method=method, tape=tape, watch=watch)


def _serves(h: Tensor, Q: Tensor, over: Sequence[Span]) -> bool:
    # a Jacobian costs n tangent vectors, whatever k is, and has n rows, as the frame has but of one copy
    n = h.shape[-1]
    small = Q.shape[-2] == n and h.numel() * n <= LARGEST and over[-1].stop - over[0].start >= LEAST
    return small and h.device.type == "cpu" and _checks.can_look()


def _stretches(over: Sequence[Span], steps: int) -> Iterator[Sequence[Span]]:
    """The spans in pieces of at most so many steps, or of one span."""
    first = 0
    for i, span in enumerate(over):
        if span.stop - over[first].start > steps and i > first:
            yield over[first:i]
            first = i
    yield over[first:]


class _Chain:
    """A state and a frame on their way, and what they leave behind.

    Attributes:
        states: before each step, and at the end.
        frames: if they are kept, before each span and at the end.
        factors: if they are kept, R of each span.
        pivots: the diagonal of R of each span.
        deaths: who is dead after each span.
    """

    def __init__(self, dynamics: Dynamics, h: Tensor, Q: Tensor, dead: Tensor | None, *, keep: bool) -> None:
        self.dynamics, self.Q, self.dead, self.keep = dynamics, Q, dead, keep
        self.states, self.frames = [h], [Q]
        self.factors: list[Tensor] = []
        self.pivots: list[Tensor] = []
        self.deaths: list[Tensor | None] = []
        self.reach = LEAST
        self.memory: tuple[Tensor, ...] = (Q[:0], Q[:0])

    def go(self, stretch: Sequence[Span]) -> bool:
        """Whether it went well; else a step looks at numbers, or something is not finite."""
        start = stretch[0].start
        jacobians = self._jacobians(start, stretch[-1].stop)
        if jacobians is None or not torch.isfinite(self.states[-1]).all():
            return False
        while stretch:
            tried = stretch[: self.reach]
            done = self._many(jacobians, tried, start)
            # where Householder is in doubt whether a column died, the way that decides it is taken
            if done < len(tried) and not self._one(jacobians, tried[done], start):
                return False
            # what comes after a doubt is lost, so that less is tried where doubts are many
            self.reach = max(1, done) * 2
            stretch = stretch[done + 1 :] if done < len(tried) else stretch[done:]
        return True

    def _jacobians(self, start: int, stop: int) -> Tensor | None:
        """D at each step, `(t, *e, b, n, n)`; the states after them are kept."""
        states = self.states[-1:]
        for s in range(start, stop):
            states.append(self.dynamics.step(s, states[-1]))
        self.states += states[1:]
        D = self.dynamics.jacobians(start, stop, time_in_batch(torch.stack(states[:-1])))
        return None if D is None else torch.unflatten(D, -3, (stop - start, -1)).movedim(-4, 0)

    def _many(self, jacobians: Tensor, stretch: Sequence[Span], start: int) -> int:
        """How many spans were taken until one is in doubt."""
        k, dead = self.Q.shape[-1], self.dead
        # dead columns go last, where no other is taken against them: what they hold there does not matter
        order = None if dead is None else torch.argsort(dead.to(torch.int8), dim=-1, stable=True)
        Q = self.Q if order is None else _columns(self.Q, order)
        # a single matrix meets faster products than a stack of one
        shape = Q.shape if Q[..., 0, 0].numel() > 1 else Q.shape[-2:]
        steps, Q = jacobians.reshape(-1, *shape[:-1], shape[-2]).unbind(), Q.reshape(shape)
        Qs, Rs = self._memory(len(stretch), shape)
        for Q_s, R_s, span in zip(Qs, Rs, stretch, strict=True):
            for s in range(span.start - start, span.stop - start):
                Q = steps[s] @ Q
            Q, _ = torch.linalg.qr(Q, out=(Q_s, R_s))
        R = Rs.reshape(len(Rs), *self.Q.shape[:-2], k, k)
        done = len(stretch)
        if not surely_sound(R):
            doubt = in_doubt(R)
            if order is not None and dead is not None:
                doubt &= ~dead.gather(-1, order)
            if doubt.any():
                done = int(doubt.flatten(1).any(1).to(torch.int8).argmax())
        if done:
            self._take(Qs[:done], R[:done], order)
        return done

    def _memory(self, spans: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Room for Q and R of so many spans, by columns, as LAPACK writes them; the same again and again."""
        if len(self.memory[0]) < spans:
            *batch, n, k = shape
            self.memory = tuple(self.Q.new_empty(spans, *batch, k, rows).mT for rows in (n, k))
        Qs, Rs = self.memory
        return Qs[:spans], Rs[:spans]

    def _take(self, Q: Tensor, R: Tensor, order: Tensor | None) -> None:
        """Make every diagonal positive, put columns where they were, and the dead out of the way."""
        # A = Q R, and with S = diag(+-1) also (Q S) (S R): signs add up along the chain
        diagonal = R.diagonal(dim1=-2, dim2=-1)
        signs = torch.where(diagonal < 0, -1.0, 1.0).to(R.dtype).cumprod(0)
        Q = Q if self.keep else Q[-1:]
        Q = Q.reshape(len(Q), *self.Q.shape) * signs[-len(Q) :].unsqueeze(-2)
        pivots, dead = diagonal.abs(), self.dead
        if self.keep:
            before = torch.cat([torch.ones_like(signs[:1]), signs[:-1]])
            R = signs.unsqueeze(-1) * R * before.unsqueeze(-2)
        if order is not None and dead is not None:
            back = torch.argsort(order, dim=-1)
            pivots = torch.where(dead, 1.0, pivots.gather(-1, back.expand_as(pivots)))
            Q = torch.where(dead.unsqueeze(-2), 0.0, _columns(Q, back))
            if self.keep:
                R = _columns(_columns(R, back).mT, back).mT
                off = dead.unsqueeze(-1) | dead.unsqueeze(-2)
                R = torch.where(off, torch.diag_embed(dead.to(R.dtype)), R)
        if self.keep:
            self.frames += Q.unbind()
            self.factors += R.unbind()
        self.Q = Q[-1]
        self.pivots += pivots.unbind()
        self.deaths += [dead] * len(pivots)

    def _one(self, jacobians: Tensor, span: Span, start: int) -> bool:
        """Whether a span went well by the way that always works."""
        Q = self.Q
        for s in range(span.start - start, span.stop - start):
            Q = jacobians[s] @ Q
        if not torch.isfinite(Q).all():
            return False
        self.Q, R, self.dead = orthonormalise(Q, self.dead, "householder")
        if self.keep:
            self.frames.append(self.Q)
            self.factors.append(R)
        self.pivots.append(R.diagonal(dim1=-2, dim2=-1))
        self.deaths.append(self.dead)
        return True


def _columns(A: Tensor, order: Tensor) -> Tensor:
    """Columns of A `(..., n, k)` in another order `(*e, b, k)`."""
    return torch.gather(A, -1, order.unsqueeze(-2).expand_as(A))
