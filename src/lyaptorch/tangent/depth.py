"""`depth_spectrum`: Lyapunov exponents over the layers of a deep network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch.cells import Block, Depth, probe
from lyaptorch.tangent.lyapunov import lyapunov_spectrum
from lyaptorch.tangent.spectrum import Spectrum


@measures
def depth_spectrum(
    blocks: Depth | nn.Module | Sequence[Block],
    x: Float[Tensor, "b *shape"],
    *,
    k: int | None = None,
    interval: int = 1,
    frame: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str | None = None,
    checkpoint: int | None = None,
) -> Spectrum:
    """The first k Lyapunov exponents over the layers of a deep network of equal width, differentiable.

    With D_i the Jacobian of block i at what reaches it, `D_i Q_i = Q_{i+1} R_{i+1}` and
    `lambda_j = sum_i log (R_i)_jj / depth`. Between first and last block a perturbation, or a gradient on its
    way back, grows or shrinks by `exp(lambda_j depth)` along direction j: where `lambda_1 depth` is far
    below 0, gradients vanish, where it is far above, they explode.

    Args:
        blocks: modules or functions `(b, *shape) -> (b, *shape)`, in their order: the blocks of a residual
            network, the layers of a transformer. A `Depth` is checked only once, however often it is asked.
        x: examples `(b, *shape)`, as they enter the first block.
        k: how many exponents, 1..n, n the numbers in one example; all n when missing.
        interval: blocks between reorthonormalisations.
        frame: orthonormal `(n, k)` or `(b, n, k)`; random when missing.
        generator: seeds the random frame.
        backend: "torch" or "autograd", as in `lyapunov_spectrum`.
        checkpoint: recompute all but every `checkpoint`-th block in the backward pass.

    Returns:
        A `Spectrum` whose steps are blocks: `exponents (b, k)` in nats per block, `local()` those of each
        block. `flossing_loss(spectrum.exponents).backward()` flosses. Cost: k forward-mode products with each
        block, and O(depth n k^2).

    Raises:
        ValueError: for blocks whose output has another shape, that mix examples or are random
            (modules count as in `eval()`), and for arguments out of range.
        FloatingPointError: if the activations overflow; names the block as a step.

    Example:
        >>> import lyaptorch as lt
        >>> blocks = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh()) for _ in range(20)]
        >>> lt.depth_spectrum(blocks, torch.randn(4, 16), k=3).exponents.shape
        torch.Size([4, 3])

    Source: Gradient Flossing, section 8, and Surrogate gradient flossing, section 6, announce it.
    """
    _checks.finite("x", _checks.tensor("x", x))
    if x.dim() < 2 or 0 in x.shape:
        raise ValueError(f"x must have shape (b, *shape), at least one example, got {tuple(x.shape)}")
    cell = blocks if isinstance(blocks, Depth) else Depth(blocks, x.shape[1:])
    numbers = cell.numbers(x)
    if cell.unproven:
        with torch.no_grad():
            h = cell.pack(x.detach())
            for number in numbers:
                probe(cell, number, h)
                h = cell.step(number, h)
    return lyapunov_spectrum(
        cell,
        numbers,
        k=k,
        h0=x,
        interval=interval,
        frame=frame,
        generator=generator,
        backend=backend,
        checkpoint=checkpoint,
    )
