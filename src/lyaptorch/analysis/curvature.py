"""The curvature of a loss with respect to a cell's weights, and which steps it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._caller import measures
from lyaptorch._random import Stream, seed_from
from lyaptorch._types import Inputs, Number, States
from lyaptorch.analysis.curvature_products import Product, differentiated, operator_product
from lyaptorch.cells import Cell, fit

MATRICES, BACKENDS = ("hessian", "ggn"), ("torch", "curvlinops")


@dataclass(frozen=True)
class HessianSpectrum:
    """Leading eigenpairs of a curvature matrix M of each member, and its density.

    Attributes:
        eigenvalues: `(*e, k)`, of largest magnitude first.
        eigenvectors: `(*e, k, p)`, along the weights one after the other, each flattened.
        residuals: `(*e, k)`, |M v - lambda v|: an eigenvalue is at most so far away.
        contributions: `(t, *e, k)`, the share of the weights' use at each step; they add up to the
            eigenvalue (up to the residual).
        nodes: `(probes, *e, steps)`, Ritz values of each probe.
        quadrature: their weights, which add up to 1.
    """

    eigenvalues: Float[Tensor, "*e k"]
    eigenvectors: Float[Tensor, "*e k p"]
    residuals: Float[Tensor, "*e k"]
    contributions: Float[Tensor, "t *e k"]
    nodes: Float[Tensor, "probes *e steps"]
    quadrature: Float[Tensor, "probes *e steps"]

    __repr__ = brief

    def density(self, at: Float[Tensor, " points"], width: float) -> Float[Tensor, "*e points"]:
        """The density of eigenvalues at some points, smoothed with a Gaussian of this standard deviation."""
        z = (at - self.nodes.unsqueeze(-1)) / _checks.positive("width", width)
        kernel = torch.exp(-0.5 * z.square()) / (width * math.sqrt(2 * math.pi))
        return (self.quadrature.unsqueeze(-1) * kernel).sum(-2).mean(0)


@measures
def hessian_spectrum(
    cell: Cell,
    inputs: Inputs,
    loss: Callable[[States], Tensor],
    *,
    weights: tuple[str, ...] = ("weight_hh",),
    matrix: str = "hessian",
    k: int = 5,
    steps: int = 40,
    probes: int = 1,
    h0: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "torch",
) -> HessianSpectrum:
    """Curvature of a loss on a fixed sample, by Lanczos iteration with matrix-vector products.

    With a copy W_s of the weights for each step s the Hessian is `sum_{s, s'} d^2 L / dW_s dW_s'`, and a
    step's share of an eigenvalue is `v^T sum_s' (d^2 L / dW_s dW_s') v`. The generalised Gauss-Newton matrix
    is `J^T (d^2 L / dh^2) J`, J the derivative of all states with respect to the weights; a step's share is
    that of J^T. The first of the probes, random starts of the iteration, gives the eigenpairs.

    Args:
        cell: the network.
        inputs: `(t, *e, b, m)`, the sample.
        loss: from states `(t, *e, b, n)` to a tensor of any shape, which is summed; such as a mean over
            trajectories. It holds the readout.
        weights: names of parameters of the cell.
        matrix: "hessian", or "ggn", the generalised Gauss-Newton matrix.
        k: how many eigenpairs.
        steps: of the iteration, at least k; p, the number of weights, is always enough.
        probes: random starts over which the density is averaged.
        h0: initial state `(*e, b, n)`; zeros when missing.
        generator: seeds the starts; None is a fixed seed.
        backend: who multiplies in the iteration: "torch", or "curvlinops" where that is installed, for
            cells and losses that `torch.func` can transform. The shares of the steps are our own.

    Returns:
        A `HessianSpectrum`, with NaN for members whose loss or curvature overflows. Cost: `probes * steps`
        products of some four backpropagations through time each, in plain autograd; memory O(t (b n + p))
        per network.

    Raises:
        ValueError: for wrong shapes, unknown names, or a loss that does not depend on the weights.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 6)
        >>> found = hessian_spectrum(cell, torch.ones(10, 4, 1), lambda h: h[-1].square().mean(), k=2)
        >>> found.eigenvalues.shape, found.contributions.shape
        (torch.Size([2]), torch.Size([10, 2]))

    Source: Fading memory as inductive bias in residual recurrent networks, eq 7-10, 14 and 15; density:
    Ubaru, Chen & Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
    """
    _checks.choice("matrix", matrix, MATRICES)
    _checks.choice("backend", backend, BACKENDS)
    inputs, h = fit(cell, inputs, h0)
    known = dict(cell.named_parameters())
    for name in weights:
        _checks.choice("weights", name, known)
    ensemble = tuple(h.shape[:-2])
    size = sum(known[name][(0,) * len(ensemble)].numel() for name in weights)
    _checks.integer("k", k, 1, size)
    steps = min(_checks.integer("steps", steps, k), size)
    chosen: dict[str, Tensor] = {name: known[name] for name in weights}
    product = differentiated(cell, inputs, h, loss, chosen, matrix, len(ensemble))
    whole: Product = (
        operator_product(cell, inputs, h, loss, list(chosen.values()), matrix)
        if backend == "curvlinops"
        else lambda v: product(v).sum(0)
    )
    stream = Stream(seed_from(generator), "curvature")
    shared_id = torch.zeros(ensemble, dtype=torch.int64, device=h.device)
    # stochastic Lanczos quadrature: v^T f(M) v = sum_j (U_1j)^2 f(theta_j) for the Ritz values theta and the
    # eigenvectors U of the tridiagonal matrix; a mean over random v estimates tr f(M) / p
    start = partial(stream.normal, (size,), member_ids=shared_id, dtype=h.dtype)
    rounds = range(_checks.integer("probes", probes, 1))
    runs = [lanczos(whole, start(epoch=i).to(h.device), steps) for i in rounds]
    ritz = [run.ritz() for run in runs]
    (values, mixing), basis = ritz[0], runs[0].basis
    order = values.abs().argsort(-1, descending=True)[..., :k]
    values = values.gather(-1, order)
    leading = mixing.gather(-1, order.unsqueeze(-2).expand(*mixing.shape[:-1], k))
    # M V = V T, T U = U theta: the Ritz vectors are V U
    vectors = (leading.mT @ basis.movedim(0, -2)).detach()
    # one more product for each eigenvector gives its residual |M v - lambda v|, and the shares of the steps
    shares = torch.stack([product(v) for v in vectors.unbind(-2)], -2)
    return HessianSpectrum(
        values,
        vectors,
        torch.linalg.vector_norm(shares.sum(0) - values.unsqueeze(-1) * vectors, dim=-1),
        (shares * vectors).sum(-1),
        torch.stack([nodes for nodes, _ in ritz]),
        torch.stack([vectors[..., 0, :].square() for _, vectors in ritz]),
    )


def effective_learning_rates(eigenvalues: Float[Tensor, "*e k"], lr: Number) -> Float[Tensor, "*e k"]:
    """lr lambda_i: a step of gradient descent multiplies the distance along eigenvector i by 1 - lr lambda_i.

    Descent converges along it for values in (0, 2).

    Cost O(k).

    Args:
        eigenvalues: of the Hessian.
        lr: a number or `*e`.

    Example:
        >>> effective_learning_rates(torch.tensor([10.0, 1.0]), 0.1)
        tensor([1.0000, 0.1000])

    Source: Fading memory as inductive bias in residual recurrent networks, eq 5 and 6.
    """
    return eigenvalues * torch.as_tensor(lr, dtype=eigenvalues.dtype, device=eigenvalues.device).unsqueeze(-1)


class Tridiagonal(NamedTuple):
    """V^T M V, and V: `diagonal (*e, steps)`, `off (*e, steps - 1)`, `basis (steps, *e, p)`."""

    diagonal: Tensor
    off: Tensor
    basis: Tensor

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the small matrix; NaN where it is not finite."""
        T = torch.diag_embed(self.diagonal) + torch.diag_embed(self.off, 1) + torch.diag_embed(self.off, -1)
        broken = ~torch.isfinite(T).all(-1).all(-1)
        values, vectors = torch.linalg.eigh(torch.where(broken[..., None, None], 0.0, T))
        return values.masked_fill(broken.unsqueeze(-1), torch.nan), vectors


def lanczos(product: Product, start: Tensor, steps: int) -> Tridiagonal:
    """Lanczos iteration with full reorthogonalisation, for each member from its row of `start (*e, p)`.

    Where the space that M makes of the start ends, the iteration goes on with a coordinate vector.
    """
    v = start / torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    basis, diagonal, off = [v], [], []
    for j in range(steps):
        w = product(v)
        diagonal.append((w * v).sum(-1))
        if j == steps - 1:
            break
        V = torch.stack(basis, -2)
        scale = torch.linalg.vector_norm(w, dim=-1)
        # in exact arithmetic w is orthogonal to all but the last two already; without taking off the others
        # the basis loses its orthogonality as soon as a Ritz value converges, and finds that one again
        w = _orthogonal_to(V, w)
        length = torch.linalg.vector_norm(w, dim=-1)
        ended = length <= 100 * torch.finfo(w.dtype).eps * scale
        off.append(torch.where(ended, 0.0, length))
        if ended.any():
            # the coordinate of which the basis knows least
            other = torch.nn.functional.one_hot(V.square().sum(-2).argmin(-1), w.shape[-1]).to(w.dtype)
            w = torch.where(ended.unsqueeze(-1), _orthogonal_to(V, other), w)
        v = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)
        basis.append(v)
    none = start.new_zeros(*start.shape[:-1], 0)
    return Tridiagonal(torch.stack(diagonal, -1), torch.stack(off, -1) if off else none, torch.stack(basis))


def _orthogonal_to(V: Tensor, w: Tensor) -> Tensor:
    """w less its part in the rows of V, taken off twice."""
    # "twice is enough" (Kahan, Parlett): what is left after the first time is mostly round-off of the large
    # part, which the second takes off
    for _ in range(2):
        w = w - (V.mT @ (V @ w.unsqueeze(-1))).squeeze(-1)
    return w
