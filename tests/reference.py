"""Lyapunov exponents as the formulas say: dense Jacobians, torch.linalg.qr, plain autograd; slow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch import Cell


class Reference(NamedTuple):
    """`log_r (s, *e, b, k)` of the counted intervals, steps in each, the last state, all Jacobians."""

    log_r: Tensor
    steps: Tensor
    final_state: Tensor
    jacobians: list[Tensor]

    @property
    def exponents(self) -> Tensor:
        return self.log_r.sum(0) / self.steps.sum()

    def running(self) -> Tensor:
        elapsed = self.steps.cumsum(0).reshape(-1, *[1] * (self.log_r.dim() - 1))
        return self.log_r.cumsum(0) / elapsed


def jacobian(cell: Cell, x: Tensor, h: Tensor, *, create_graph: bool = False) -> Tensor:
    """D `(*e, b, n, n)`, from the derivative of all states with respect to all states."""
    n, count = h.shape[-1], h[..., 0].numel()
    full = torch.autograd.functional.jacobian(lambda y: cell.step(x, y), h, create_graph=create_graph)
    blocks = full.reshape(count, n, count, n).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    assert torch.count_nonzero(full) == torch.count_nonzero(blocks), "trajectories or networks mix"
    return blocks.reshape(*h.shape, n)


def positive_qr(A: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK's QR with the signs that make the diagonal of R positive."""
    Q, R = torch.linalg.qr(A)
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(A.dtype)
    return Q * signs.unsqueeze(-2), R * signs.unsqueeze(-1)


def scan(
    cell: Cell,
    inputs: Tensor,
    h: Tensor,
    frame: Tensor,
    *,
    transient: int = 0,
    tangent_transient: int = 0,
    interval: int = 1,
    cut: int | None = None,
    create_graph: bool = False,
) -> Reference:
    """Products of dense Jacobians, differentiable with `create_graph`; `cut` detaches the state."""
    with torch.no_grad():
        for x in inputs[:transient]:
            h = cell.step(x, h)
    if transient:
        h = h.detach()
    inputs, start, stop = inputs[transient:], tangent_transient, len(inputs) - transient
    ends = sorted({*range(interval, start, interval), start, *range(start + interval, stop, interval), stop})
    Q, jacobians, log_r, steps, since = frame.expand(*h.shape, frame.shape[-1]), [], [], [], 0
    for s, x in enumerate(inputs):
        if cut and s % cut == 0:
            h = h.detach()
        jacobians.append(jacobian(cell, x, h, create_graph=create_graph))
        Q, h, since = jacobians[-1] @ Q, cell.step(x, h), since + 1
        if s + 1 in ends:
            Q, R = positive_qr(Q)
            if s + 1 > tangent_transient:
                log_r.append(R.diagonal(dim1=-2, dim2=-1).log())
                steps.append(since)
            since = 0
    return Reference(torch.stack(log_r), torch.tensor(steps), h, jacobians)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest entry expected."""
    return ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def random_frame(n: int, k: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """An orthonormal frame that does not come from the library."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64))[0].to(dtype)


STEP = 1e-6  # of central differences: errors of about 1e-10 from round-off, 1e-12 from the third derivative


def differences(value, tensor, ensemble):
    """d value (*e) / d tensor (*e, ...) by central differences, each member by its own entry."""
    out = torch.zeros_like(tensor)
    entries, own = tensor.detach().flatten(len(ensemble)), out.flatten(len(ensemble))
    with torch.no_grad():
        for i in range(entries.shape[-1]):
            kept = entries[..., i].clone()
            entries[..., i] = kept + STEP
            above = value()
            entries[..., i] = kept - STEP
            own[..., i] = (above - value()) / (2 * STEP)
            entries[..., i] = kept
    return out
