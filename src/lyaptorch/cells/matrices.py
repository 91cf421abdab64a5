"""Ensembles of initial weights, each member from its own counter-based stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Number

Weights: TypeAlias = Callable[[int, Stream, Tensor], Tensor]
"""`(n, stream, member_ids (*e)) -> (*e, n, n)`."""


def per_matrix(number: Number, like: Tensor) -> Tensor:
    """A hyperparameter of shape `()` or `*e`, shaped to scale `(*e, n, n)`."""
    return torch.as_tensor(number, dtype=like.dtype, device=like.device)[..., None, None]


def gaussian(gain: Number = 1.0) -> Weights:
    """Independent N(0, g^2 / n) entries (Gradient Flossing, eq 9).

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 400, weights=gaussian(1.5))
        >>> round(cell.weight_hh.std().item() * 400**0.5, 1)
        1.5
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        W = stream.normal((n, n), member_ids=member_ids)
        return W * per_matrix(gain, W) / math.sqrt(n)

    return draw


def shifted_mean(gain: Number = 1.0, mean: Number = -1.0) -> Weights:
    """Independent N(mean / n, g^2 / n) entries; `mean` is the expected sum of a row.

    A negative mean keeps networks of rectified units from running away (Gradient Flossing, appendix B).

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 400, weights=shifted_mean(1.0, mean=-2.0), activation="relu")
        >>> round(cell.weight_hh.sum(-1).mean().item(), 1)
        -2.0
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        W = gaussian(gain)(n, stream, member_ids)
        return W + per_matrix(mean, W) / n

    return draw


def uniform(gain: Number = 1.0) -> Weights:
    """Independent U(-g/sqrt n, g/sqrt n) entries, torch's default at g = 1.

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> bool(lt.RateCell(1, 100, weights=uniform(2.0)).weight_hh.abs().max() <= 0.2)
        True
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        W = 2 * stream.uniform((n, n), member_ids=member_ids) - 1
        return W * per_matrix(gain, W) / math.sqrt(n)

    return draw


def fan_in(shape: tuple[int, ...], size: int, stream: Stream, member_ids: Tensor) -> Tensor:
    """Independent U(-1/sqrt size, 1/sqrt size) entries `(*e, *shape)`, as in a `torch.nn.Linear`."""
    return (2 * stream.uniform(shape, member_ids=member_ids) - 1) / math.sqrt(size)


def orthogonal(gain: Number = 1.0) -> Weights:
    """G times a Haar-random orthogonal matrix.

    Cost O(n^3) per network.

    Example:
        >>> import lyaptorch as lt
        >>> W = lt.ElmanCell(1, 20, weights=orthogonal(2.0)).weight_hh
        >>> bool((W.mT @ W - 4 * torch.eye(20)).abs().max() < 1e-4)
        True
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        Q = random_frame(n, n, stream, member_ids)
        return Q * per_matrix(gain, Q)

    return draw


def mixing(gain: Number = 1.0) -> Weights:
    """`orthogonal`; of gated cells in the candidate's weights alone, with open gates, as `mixing_` has it.

    Cost O(n^3) per network.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.GRUCell(1, 20, weights="mixing")
        >>> bool(cell.bias_ih[:20].min() > 1)  # resets let the state through
        True
    """
    return orthogonal(gain)


def identity(gain: Number = 1.0) -> Weights:
    """G times the identity.

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> lt.ElmanCell(1, 2, weights=identity(0.5)).weight_hh.tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        W = torch.eye(n, device=member_ids.device).expand(*member_ids.shape, n, n)
        return W * per_matrix(gain, W)

    return draw


def dale(gain: Number = 1.0, excitatory: float = 0.8) -> Weights:
    """Dale's principle: the first `excitatory` n columns are >= 0, the others <= 0.

    Half-normal entries; the fewer inhibitory neurons are stronger, so that the expected sum of a row is 0.
    The expected sum of its squares is g^2, as that of `gaussian`.

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> W = lt.RateCell(1, 10, weights=dale(excitatory=0.8)).weight_hh
        >>> bool((W[:, :8] >= 0).all() and (W[:, 8:] <= 0).all())
        True
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        n_excitatory = round(_checks.share("excitatory", excitatory) * n)
        if not 0 < n_excitatory < n:
            raise ValueError(
                f"there must be excitatory and inhibitory neurons, got {n_excitatory} excitatory of {n}; "
                f"change the share {excitatory} or take more neurons"
            )
        # a row sums to n_E - ratio n_I = 0 times E|z|, its squares to n_E + ratio^2 n_I = n_E (1 + ratio)
        ratio = n_excitatory / (n - n_excitatory)
        signs = torch.full((n,), -ratio, device=member_ids.device)
        signs[:n_excitatory] = 1.0
        W = stream.normal((n, n), member_ids=member_ids).abs() * signs
        return W * per_matrix(gain, W) / math.sqrt(n_excitatory * (1 + ratio))

    return draw


def balanced(gain: Number = 1.0, excitatory: float = 0.8) -> Weights:
    """`dale`, with the inhibitory weights of each neuron scaled so that its row sums to 0 exactly.

    Cost O(n^2) per network.

    Example:
        >>> import lyaptorch as lt
        >>> bool(lt.RateCell(1, 10, weights=balanced()).weight_hh.sum(-1).abs().max() < 1e-6)
        True

    Source: van Vreeswijk & Sompolinsky (1996), Chaos in neuronal networks with balanced excitatory and
    inhibitory activity.
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        W = dale(gain, excitatory)(n, stream, member_ids)
        excites, inhibits = W.clamp_min(0), W.clamp_max(0)
        return excites - inhibits * (excites.sum(-1, keepdim=True) / inhibits.sum(-1, keepdim=True))

    return draw


def low_rank(gain: Number = 1.0, rank: int = 1, bulk: Number = 0.0) -> Weights:
    """W = g U U^T + N(0, bulk^2 / n): `rank` eigenvalues g, on random orthonormal directions U, and a disc.

    Without a bulk all other eigenvalues are 0: but for `rank` of them the directions of a rate network die at
    once, those of a leaky one decay with its leak.

    Cost O(rank n^2) per network.

    Args:
        gain: g, a number or a tensor of shape `*e`.
        rank: columns of U, 1..n.
        bulk: radius of the disc; a number or a tensor of shape `*e`.

    Example:
        >>> import lyaptorch as lt
        >>> W = lt.RateCell(1, 10, weights=low_rank(1.5, rank=2)).weight_hh
        >>> torch.linalg.eigvalsh(W.detach())[-3:].abs().round(decimals=4)
        tensor([0.0000, 1.5000, 1.5000])

    Source: Mastrogiuseppe & Ostojic (2018), Linking connectivity, dynamics, and computations in low-rank
    recurrent neural networks, here with left and right vectors alike.
    """

    def draw(n: int, stream: Stream, member_ids: Tensor) -> Tensor:
        r = _checks.integer("rank", rank, 1, n, do=f"there are {n} neurons")
        U = random_frame(n, r, stream, member_ids)
        # U U^T as a sum, which autocast does not round
        W = per_matrix(gain, U) * (U.unsqueeze(-2) * U.unsqueeze(-3)).sum(-1)
        # of another epoch of the stream, so that it does not depend on U
        return W + per_matrix(bulk, U) / math.sqrt(n) * stream.normal((n, n), member_ids=member_ids, epoch=1)

    return draw


WEIGHTS: dict[str, Callable[[Number], Weights]] = {
    make.__name__: make
    for make in (gaussian, uniform, orthogonal, mixing, identity, shifted_mean, dale, balanced, low_rank)
}
"""All, by the name that `weights` of a cell may have; each takes a gain."""


def weights(spec: str | Weights, gain: Number) -> Weights:
    """The weight ensemble called `spec` at this gain, or `spec` itself.

    Costs nothing until it draws.

    Raises:
        ValueError: for an unknown name (the nearest one is named), or a gain that a callable ignores.

    Example:
        >>> from lyaptorch.cells.weights import WEIGHTS
        >>> sorted(WEIGHTS)[:3], callable(weights("gaussian", 1.0))
        (['balanced', 'dale', 'gaussian'], True)
    """
    if callable(spec):
        if not (isinstance(gain, float | int) and gain == 1.0):
            raise ValueError(f"gain={gain!r} has no effect on weights given as a function; build it in there")
        return spec
    return WEIGHTS[_checks.choice("weights", spec, WEIGHTS)](gain)


def random_frame(
    n: int,
    k: int,
    stream: Stream,
    member_ids: Tensor,
    epoch: int | Tensor = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Haar-random orthonormal columns `(*e, n, k)`; the first columns do not depend on k."""
    # drawn column by column, so that they nest
    A = stream.normal(
        (k, n), member_ids=member_ids, epoch=epoch, dtype=torch.float64, device=member_ids.device
    ).mT
    frame = by_householder(A) if A.device.type == "cpu" else by_cholesky(A)
    return frame.to(dtype or torch.get_default_dtype())


def by_householder(A: Tensor) -> Tensor:
    """Q of A = Q R with R_ii > 0, of each matrix by itself: the same bits alone and among others."""
    # of a Gaussian A, Q is Haar-distributed only with the signs of R fixed: LAPACK's depend on the columns
    Q, R = torch.linalg.qr(A)
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return torch.mul(Q, signs.unsqueeze(-2))


def by_cholesky(A: Tensor) -> Tensor:
    """The same to round-off, in operations that a graph of a GPU can hold."""
    if A.dim() == 2:
        # of batches a graph has been seen to hold them, of a single matrix not
        return by_cholesky(A.expand(2, *A.shape))[0]
    n, k = A.shape[-2:]
    unit = torch.eye(k, dtype=A.dtype, device=A.device)
    # the shift keeps the first factorisation from failing; the second has nothing to fear
    for shift in (1e-12 * n, 0.0):
        # A^T A = R^T R, so A R^-1 has orthonormal columns, up to eps cond(A)^2: hence the second pass
        R = torch.linalg.cholesky_ex(A.mT @ A + shift * unit, upper=True).L
        A = torch.linalg.solve_triangular(R, A, upper=True, left=False)
    return A
