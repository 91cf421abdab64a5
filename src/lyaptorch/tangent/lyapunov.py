"""`lyapunov_spectrum` of any recurrent step, and `depth_spectrum` over the layers of a deep network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._types import Inputs, Tokens
from lyaptorch.cells import Block, Depth, Network, probe
from lyaptorch.tangent.automatic import AUTO, choose_interval, late_drift
from lyaptorch.tangent.engine import ENGINES, problem_of, run_scan
from lyaptorch.tangent.error_bars import discretisation, moments
from lyaptorch.tangent.growth import died_at, in_spans, tell_of_deaths
from lyaptorch.tangent.pieces import scan_in_pieces
from lyaptorch.tangent.qr import METHODS
from lyaptorch.tangent.scan import layout
from lyaptorch.tangent.spectrum import Spectrum
from lyaptorch.tangent.start import start


@measures
def lyapunov_spectrum(
    cell: Network,
    inputs: Inputs | Tokens | PackedSequence | Padded,
    *,
    k: int | None = None,
    h0: Any = None,
    lengths: Lengths = None,
    transient: int | str = 0,
    tangent_transient: int = 0,
    interval: int | str = 1,
    segments: int = 1,
    frame: Tensor | None = None,
    generator: torch.Generator | None = None,
    dt: float | None = None,
    state_grad: str | int = "full",
    backend: str | None = None,
    checkpoint: int | None = None,
    qr_method: str = "auto",
) -> Spectrum:
    """The first k Lyapunov exponents along a driven trajectory, differentiable.

    With `Qtilde = D_s Q_s = Q_{s+1} R_{s+1}` (QR, positive diagonal) at every `interval` steps and at
    the end, `lambda_i = sum_s log (R_s)_ii / steps`. They depend on `interval` only by round-off. The
    gradient runs through the Jacobians and, by `state_grad`, through the trajectory.

    The caller's modes change nothing: a network counts as in `eval()`, autocast is left, and so is inference
    mode, of course without a graph. Half precision is measured in a float32 copy, also without one.

    Args:
        cell: anything that `as_cell` takes: a cell, a recurrent network of torch, a module or function
            `step(x, h)`, or a list of modules.
        inputs: `(t, *e, b, m)`; a missing `*e` broadcasts. t = transient + tangent_transient + counted. Or a
            PackedSequence, whose order is restored. A model of transformers takes token ids `(b, t)`, too.
        k: how many exponents, 1..n; all n when missing.
        h0: initial state `(*e, b, n)`, or its parts as `as_cell` says; zeros when missing (a function needs
            it: its size comes from there).
        lengths: steps of each trajectory, integers `(b,)` or `(*e, b)`, where they differ: a trajectory ends
            where its sequence ends, its exponents are over its own counted steps, and final state and frame
            are those at its end. What stands in the padding, be it NaN, does not matter.
        transient: first steps, of the state only; without gradient. "auto" drops the steps whose growth is
            unlike the rest, at most half; a warning, and the error bars, tell of a drift that only the whole
            run shows.
        tangent_transient: next steps, of state and frame, not counted, with gradient.
        interval: steps between reorthonormalisations. "auto" takes the longest for which a rough spectrum and
            the condition of the products allow it; `Spectrum` tells which.
        segments: cut a long orbit into so many pieces, whose frames are carried side by side, as if there
            were so many times more trajectories: cheaper for all cells but those with a form on one thread.
            The first sixteenth of the counted steps is scanned alone, and all pieces start from its frame;
            each goes on into the next one until what they differ by is below the standard error, or for a
            quarter of a piece, at most. `Spectrum` tells for how long (`warm_up`), and what may be left
            (`seams`), which its error bars have in them. Without gradient, and without lengths.
        frame: orthonormal `(n, k)` or `(*e, b, n, k)`; random when missing, the same for all members. Of a
            cell with a `multiplicity` the random one is that of one copy, and all copies have its exponents.
        generator: seeds the random frame.
        dt: time per step; exponents come in nats per unit of time. The cell's own when missing: that of a
            `Flow`, 1 for all others.
        state_grad: "full", "detach" (the trajectory is a constant), or L: the state is detached every L
            steps after the transient, so that 1 is "detach".
        backend: "cpu" or "triton" (compiled, for cells with a form, on the CPU or a GPU; taken by themselves
            where they serve), "torch" (one hand-written adjoint for the whole sequence, any cell and device),
            or "autograd" (plain autograd through every QR: slower, second derivatives). `lt.tangent.engines`
            tells which is taken, and why each other one is not.
        checkpoint: keep only the state and the frame at about every `checkpoint` steps and compute the rest
            again in the backward pass.
        qr_method: "auto", "cholesky2" or "householder".

    Returns:
        A `Spectrum`. Cost O(t n^2 k + (t / interval) n k^2) time per trajectory of a dense cell; memory,
        when a gradient is needed, t states and t / interval frames and triangles. With segments at most 1.25
        times as much, and the state once more, in so many times fewer steps, each of so many times the batch.

    Raises:
        ValueError: for arguments out of range, wrong shapes, dtypes or devices, NaN or inf, segments where
            a gradient is asked for or lengths are given, a frame that is not orthonormal, a step that mixes
            the batch, is random, or takes (state, input), or a backend that cannot serve the cell.
        FloatingPointError: if the dynamics overflow; names the step.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 32, gain=1.0)
        >>> spec = lt.lyapunov_spectrum(cell, torch.zeros(200, 1, 1), k=4, transient=100)
        >>> spec.exponents.shape
        torch.Size([1, 4])

    Source: Gradient Flossing, sections 2-3 and appendix J; Benettin et al. (1980).
    """
    chosen = transient == AUTO
    if interval != AUTO:
        interval = _checks.integer("interval", interval, 1, do='or pass "auto"')
    segments = _checks.integer("segments", segments, 1)
    cut = _checks.state_grad(state_grad)
    _checks.choice("backend", "torch" if backend is None else backend, ENGINES)
    _checks.choice("qr_method", qr_method, METHODS)
    cell, inputs, h, Q, transient, after = start(
        cell,
        padded(inputs, lengths),
        k=k,
        h0=h0,
        transient=transient,
        uncounted={"tangent_transient": tangent_transient},
        frame=frame,
        generator=generator,
        copies=True,
    )
    copies, k = cell.multiplicity if frame is None else 1, h.shape[-1] if k is None else int(k)
    tangent_transient = int(tangent_transient)
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    t = len(inputs)
    if isinstance(interval, str):
        if after is not None:
            raise ValueError(
                'interval must be a number where trajectories have lengths, got "auto"; pass one'
            )
        interval = choose_interval(cell, inputs, h, Q, t - tangent_transient)
    if segments > 1 and after is not None:
        raise ValueError(f"segments must be 1 where trajectories have lengths, got {segments}; leave it out")
    laid = layout(tangent_transient, t, interval, h.device)
    seen = moments(cell, laid.over, Q, after)
    how: dict[str, Any] = {"cut": cut, "checkpoint": checkpoint, "qr_method": qr_method}
    problem, pieces = problem_of(cell, h, laid, after, watch=seen, **how), None
    if segments > 1:
        pieces = scan_in_pieces(problem, backend, inputs, h, Q, interval=interval, segments=segments)
    if pieces is None:
        found = run_scan(problem, backend, inputs, h, Q)
    else:
        found, laid, seen = pieces.outcome, pieces.laid, pieces.seen
    growth = in_spans(laid, found.log_r, found.healthy, after)
    died = died_at(found.healthy, laid, transient)
    tell_of_deaths(died)
    drift = late_drift(growth, transient, dt) if chosen else None
    error, resolved = discretisation(seen, inputs, growth.exponents, dt)
    taken = {} if pieces is None else pieces.taken(segments, growth, dt)
    at_end = found.h, found.Q, dt, transient, interval
    return Spectrum(growth, *at_end, died, error, resolved, drift, **taken).repeated(copies, k)


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
