"""Adam and clipping, member by member: no member's step depends on another's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number


class MemberAdam:
    """Adam whose state has the ensemble's dimensions, its step count included.

    Args:
        parameters: each `(*e, ...)`.
        ensemble: `*e`.
        lr: learning rate, a number or `*e`.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.

    Source: Kingma & Ba (2015), algorithm 1.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        ensemble: tuple[int, ...],
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters, self.ensemble, self.betas, self.eps = list(parameters), ensemble, betas, eps
        for p in self.parameters:
            if tuple(p.shape[: len(ensemble)]) != tuple(ensemble):
                raise ValueError(
                    f"a parameter must have the leading dimensions {tuple(ensemble)} of the ensemble, "
                    f"got {tuple(p.shape)}: members that share it are not independent"
                )
        first = self.parameters[0] if self.parameters else torch.zeros(())
        self.lr = torch.zeros(ensemble, dtype=first.dtype, device=first.device)
        self.set_lr(lr)
        self.count = torch.zeros(ensemble, dtype=torch.int64, device=first.device)
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    def set_lr(self, lr: Number) -> None:
        """Change the learning rate, a number or `*e`."""
        lr = torch.as_tensor(_checks.per_member("lr", lr, self.ensemble), dtype=self.lr.dtype)
        self.lr = lr.to(self.lr.device).expand(self.ensemble).clone()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every member's parameters against its gradients."""
        beta1, beta2 = self.betas
        self.count += 1
        count = self.count.to(torch.float64)
        rate = (self.lr / (1 - beta1**count)).to(self.lr.dtype)
        correction = (1 - beta2**count).sqrt().to(self.lr.dtype)
        for p, g, m, v in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = v.sqrt() / expand(correction, p) + self.eps
            p.sub_(expand(rate, p) * m / denominator)

    def select(self, parameters: Sequence[Tensor], members: Tensor) -> MemberAdam:
        """The same optimiser for the copied `parameters` of some members."""
        part = MemberAdam(parameters, (int(members.sum()),), self.lr[members], self.betas, self.eps)
        part.count = self.count[members]
        part.means = [m[members] for m in self.means]
        part.squares = [v[members] for v in self.squares]
        return part

    def put(self, members: Tensor, part: MemberAdam) -> None:
        """Write the state of `select(..., members)` back."""
        self.count[members] = part.count
        for own, new in zip((*self.means, *self.squares), (*part.means, *part.squares), strict=True):
            own[members] = new


def clip(gradients: Sequence[Tensor], ensemble: tuple[int, ...], norm: Number) -> tuple[Tensor, ...]:
    """Scale each tensor's gradient, member by member, to at most this norm."""
    clipped = []
    for g in gradients:
        lengths = torch.linalg.vector_norm(g.unsqueeze(-1).flatten(len(ensemble)), dim=-1)
        limit = torch.as_tensor(_checks.per_member("clip", norm, ensemble), dtype=g.dtype, device=g.device)
        # no clamp of the length: a gradient of length 0 keeps factor 1
        factor = torch.where(lengths > limit, limit / lengths, 1.0)
        clipped.append(g * expand(factor, g))
    return tuple(clipped)


def finite(gradients: Sequence[Tensor], ensemble: tuple[int, ...]) -> Tensor:
    """Whose gradients hold neither NaN nor inf, `*e` bool."""
    fine = [torch.isfinite(g).unsqueeze(-1).flatten(len(ensemble)).all(-1) for g in gradients]
    return torch.stack(fine).all(0)


def expand(value: Tensor, like: Tensor) -> Tensor:
    """`*e` shaped to scale `(*e, ...)`."""
    return value.reshape((*value.shape, *[1] * (like.dim() - value.dim())))
