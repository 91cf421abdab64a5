"""Optimisers and clipping, member by member: no member's step depends on another's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.kernels.descent import Descent, Moving, serves

CLIPS = ("tensor", "global")


class Rule(Protocol):
    """How a gradient becomes a step."""

    @property
    def slots(self) -> int:
        """How many tensors like the parameter it remembers."""

    def step(self, g: Tensor, slots: list[Tensor], count: Tensor) -> Tensor:
        """What to subtract from the parameter per unit of learning rate; `count (*e)` starts at 1."""


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma & Ba 2015, algorithm 1).

    Example:
        >>> Adam(beta2=0.99).beta1
        0.9
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    slots: int = 2

    def step(self, g: Tensor, slots: list[Tensor], count: Tensor) -> Tensor:
        """m / (1 - beta1^t) over sqrt(v / (1 - beta2^t)) + eps."""
        m, v = slots
        # m + (1 - beta1) (g - m) = beta1 m + (1 - beta1) g
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        # m starts at 0, so after t steps E m = (1 - beta1^t) E g, and v likewise. t is each member's own: one
        # that was left out of a phase is behind, and its correction with it. In float64, because
        # 1 - .999^t of the first steps loses digits in float32
        steps = count.to(torch.float64)
        first = expand((1 - self.beta1**steps).to(g.dtype), g)
        second = expand((1 - self.beta2**steps).sqrt().to(g.dtype), g)
        return m / first / (v.sqrt() / second + self.eps)


@dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum, plain or Nesterov's, as torch.optim.SGD does it.

    Example:
        >>> SGD(momentum=0.9, nesterov=True).momentum
        0.9
    """

    momentum: float = 0.0
    nesterov: bool = False
    slots: int = 1

    def step(self, g: Tensor, slots: list[Tensor], count: Tensor) -> Tensor:
        """v <- momentum v + g; v, or g + momentum v for Nesterov."""
        (v,) = slots
        v.mul_(self.momentum).add_(g)
        return g + self.momentum * v if self.nesterov else v


class MemberOptimizer:
    """An optimiser whose state has the ensemble's dimensions, its step count included.

    Args:
        parameters: each `(*e, ...)`.
        ensemble: `*e`.
        lr: learning rate, a number or `*e`.
        rule: `Adam()` or `SGD()`.
    """

    def __init__(
        self, parameters: Sequence[Tensor], ensemble: tuple[int, ...], lr: Number, rule: Rule
    ) -> None:
        self.parameters, self.ensemble, self.rule = list(parameters), ensemble, rule
        self._known = _known(rule)
        for p in self.parameters:
            if p.is_complex():
                raise ValueError(
                    f"a parameter that is trained must be real, got {p.dtype}; keep torch.view_as_real(p) as "
                    "the parameter and take torch.view_as_complex of it in the step, or freeze it"
                )
            if tuple(p.shape[: len(ensemble)]) != tuple(ensemble):
                raise ValueError(
                    f"a parameter must have the leading dimensions {tuple(ensemble)} of the ensemble, "
                    f"got {tuple(p.shape)}: members that share it are not independent"
                )
        first = self.parameters[0] if self.parameters else torch.zeros((), device="cpu")
        self.lr = torch.zeros(ensemble, dtype=first.dtype, device=first.device)
        self.set_lr(lr)
        self.count = torch.zeros(ensemble, dtype=torch.int64, device=first.device)
        self.slots = [[torch.zeros_like(p) for _ in range(rule.slots)] for p in self.parameters]
        self._descent: Descent | None = None

    @property
    def only_reads(self) -> bool:
        """Whether a step reads gradients and leaves them alone; a rule of the user's may do as it likes."""
        return self._known is not None

    def set_lr(self, lr: Number) -> None:
        """Change the learning rate, a number or `*e`."""
        self.lr.copy_(_checks.numbers(_checks.per_member("lr", lr, self.ensemble), self.lr.dtype))

    def step(
        self, gradients: Sequence[Tensor], limit: Number | None = None, mode: str = "tensor"
    ) -> tuple[Tensor | None, Tensor]:
        """Move every member's parameters against its gradients, unless one of anybody's is not finite.

        Args:
            gradients: each as its parameter.
            limit: largest norm of a gradient, and of which, as `clip` has it.
            mode: likewise.

        Returns:
            Whose gradients are not finite, bool `*e`, or None where all are or nobody can look; and the norm
            of each gradient before it was clipped, `(tensors, *e)`.
        """
        if (known := self._known) is not None and (descent := self._compiled()) is not None:
            limit = math.inf if limit is None else _checks.per_member("clip", limit, self.ensemble)
            return descent.step(gradients, *known, limit, mode == "global")
        return self._by_operations(gradients, limit, mode)

    @torch.no_grad()
    def _by_operations(
        self, gradients: Sequence[Tensor], limit: Number | None, mode: str
    ) -> tuple[Tensor | None, Tensor]:
        if _checks.can_look() and not (fine := finite(gradients, self.ensemble)).all():
            return ~fine, self.lr.new_empty(0)
        self.count += 1
        clipped, lengths = _clip(gradients, self.ensemble, limit, mode)
        for p, g, slots in zip(self.parameters, clipped, self.slots, strict=True):
            p.sub_(expand(self.lr, p) * self.rule.step(g, slots, self.count))
        return None, lengths

    def _compiled(self) -> Descent | None:
        """The steps in compiled code, if they can be; a graph holds operations of torch."""
        if not _checks.can_look():
            return None
        moving = Moving(self.parameters, self.slots, self.lr, self.count)
        if self._descent is None or not self._descent.moves(moving):
            self._descent = Descent(moving) if serves(moving) else None
        return self._descent

    def select(self, parameters: Sequence[Tensor], who: Tensor) -> MemberOptimizer:
        """The same optimiser for the copied `parameters` of some members."""
        part = MemberOptimizer(parameters, (int(who.sum()),), self.lr[who], self.rule)
        part.count = self.count[who]
        part.slots = [[slot[who] for slot in slots] for slots in self.slots]
        return part

    def put(self, who: Tensor, part: MemberOptimizer) -> None:
        """Write the state of `select(..., who)` back."""
        self.count[who] = part.count
        for own, new in zip(self.tensors(), part.tensors(), strict=True):
            own[who] = new

    def tensors(self) -> list[Tensor]:
        """What it remembers, besides the count."""
        return [slot for slots in self.slots for slot in slots]


def clip(
    gradients: Sequence[Tensor], ensemble: tuple[int, ...], norm: Number | None, mode: str = "tensor"
) -> tuple[Tensor, ...]:
    """Scale gradients, member by member, to at most this norm, of each tensor or of all ("global").

    The norm is a number or `*e`; None for no limit.
    """
    return _clip(gradients, ensemble, norm, mode)[0]


def _clip(
    gradients: Sequence[Tensor], ensemble: tuple[int, ...], norm: Number | None, mode: str
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The same, and the norm of each gradient before, `(tensors, *e)`."""
    own = lengths = torch.stack([norms(g, ensemble) for g in gradients])
    if norm is None:
        return tuple(gradients), own
    if mode == "global":
        lengths = torch.linalg.vector_norm(lengths, dim=0).expand_as(lengths)
    norm = _checks.per_member("clip", norm, ensemble)
    limit = norm.to(lengths) if isinstance(norm, Tensor) else torch.full_like(lengths, norm)
    # g c / |g| where |g| > c, g elsewhere: no epsilon beside |g|, as torch has it, so that a clipped gradient
    # has the length c; one of length 0 keeps factor 1
    factors = torch.where(lengths > limit, limit / lengths, 1.0)
    return tuple(g * expand(factor, g) for g, factor in zip(gradients, factors, strict=True)), own


def _known(rule: Rule) -> tuple[str, tuple[float, float, float]] | None:
    """A rule as the kernels have it, and its constants; None for a user's own."""
    if type(rule) is Adam:
        return "adam", (float(rule.beta1), float(rule.beta2), float(rule.eps))
    if type(rule) is SGD:
        return "nesterov" if rule.nesterov else "momentum", (float(rule.momentum), 0.0, 0.0)
    return None


def norms(g: Tensor, ensemble: tuple[int, ...]) -> Tensor:
    """The norm of a gradient of each member, `*e`."""
    # the last dimension is new, so that a scalar parameter of each member has one to be flattened, too
    lengths: Tensor = torch.linalg.vector_norm(g.unsqueeze(-1).flatten(len(ensemble)), dim=-1)
    return lengths


def finite(gradients: Sequence[Tensor], ensemble: tuple[int, ...]) -> Tensor:
    """Whose gradients hold neither NaN nor inf, `*e` bool."""
    fine = [torch.isfinite(g).unsqueeze(-1).flatten(len(ensemble)).all(-1) for g in gradients]
    return torch.stack(fine).all(0)


def expand(value: Tensor, like: Tensor) -> Tensor:
    """`*e` shaped to scale `(*e, ...)`."""
    return value.reshape((*value.shape, *[1] * (like.dim() - value.dim())))
