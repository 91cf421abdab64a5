"""Memory of a GPU that a piece of work takes, and the size of it that would fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lyaptorch import _checks
from lyaptorch.cells.form import AnyForm, LIFForm

MATRICES = 8
"""Matrices as large as W for each network: gradients, their parts, clipped copies, two moments of Adam."""


@dataclass(frozen=True)
class Need:
    """What the kernels need besides the weights.

    Attributes:
        network: bytes of each network.
        trajectory: bytes of each of its trajectories.
    """

    network: int
    trajectory: int

    def bytes(self, networks: int, batch: int) -> int:
        """Of all together."""
        return networks * (self.network + batch * self.trajectory)


def unroll_need(form: AnyForm, steps: int, *, gradient: bool = True) -> Need:
    """What `unroll` needs of each network: states, inputs and, for a gradient, their cotangents.

    Args:
        form: what evolves.
        steps: t.
        gradient: whether backpropagation follows.

    Example:
        >>> import lyaptorch as lt
        >>> form = lt.RateCell(1, 80).form()
        >>> unroll_need(form, steps=300).bytes(networks=600, batch=16) / 1e9
        5.678592
    """
    neurons = isinstance(form, LIFForm)
    n, m = form.weight_ih.shape[-2:]
    state = 2 * n if neurons else n
    # the states and h0; the drive, in whose place a is left (of neurons the spikes stand beside it); the
    # inputs
    sequences = (steps + 1) * state + steps * ((2 if neurons else 1) * n + m)
    if gradient:
        # cotangents of the states and their copy, of the units, and the inputs in another order
        sequences += steps * (2 * state + n + m + _of_adjoint(form) * n)
    size = form.weight_hh.dtype.itemsize
    return Need(MATRICES * n * n * size, sequences * size)


def scan_need(form: AnyForm, steps: int, spans: int, k: int, *, gradient: bool = True) -> Need:
    """What a scan needs: states, triangles of each span and, for a gradient, the frames of each step.

    Args:
        form: what evolves.
        steps: t.
        spans: how often the frame is orthonormalised.
        k: tangent vectors.
        gradient: whether the adjoint follows.
    """
    n, size = form.weight_hh.shape[-1], form.weight_hh.dtype.itemsize
    neurons = isinstance(form, LIFForm)
    frames, triangles, sequences = 3, spans, 15 if neurons else 5
    if gradient:
        # frames and their cotangents; the same with slopes, for the gradients of W and of A
        frames += steps * (2 + (1 if neurons else min(2, _of_adjoint(form))))
        triangles, sequences = 2 * spans, 25 if neurons else 14
    rows = (2 if neurons else 1) * frames * n * k
    return Need(MATRICES * n * n * size, (rows + triangles * k * k + sequences * steps * n) * size)


def footprint(need: Need, networks: int, batch: int, free: int) -> int:
    """The bytes that the work takes, if it fits.

    Raises:
        ValueError: if it takes more than `free`; names the networks and the batch that would fit.

    Example:
        >>> footprint(Need(network=100, trajectory=50), networks=4, batch=2, free=1000)
        800
    """
    if (total := need.bytes(networks, batch)) <= free:
        return total
    ways = []
    if (fewer := free // need.bytes(1, batch)) > 0:
        ways.append("1 network" if fewer == 1 else f"{fewer} networks")
    if (rows := (free // networks - need.network) // need.trajectory) > 0:
        ways.append(f"a batch of {rows}")
    fit = " or ".join(ways) + " would fit" if ways else "take fewer steps: not one network would fit"
    raise ValueError(
        f"networks and batch must fit the memory, got {networks} networks with a batch of {batch}, which "
        f"take {total / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free; {fit}"
    )


def check_memory(need: Need, networks: int, batch: int, device: torch.device) -> None:
    """`footprint` with what is free on a GPU; what is small beside all of its memory is not asked about.

    Raises:
        ValueError: as `footprint` does.
    """
    if device.type != "cuda" or not _checks.can_look():
        return
    if 16 * need.bytes(networks, batch) < torch.cuda.get_device_properties(device).total_memory:
        return
    # what torch holds, but does not use, is free too
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    footprint(need, networks, batch, torch.cuda.mem_get_info(device)[0] + held)


def _of_adjoint(form: AnyForm) -> int:
    """Sequences of a step's parts that only the adjoint needs: g(h), A h and what it and c leave."""
    if isinstance(form, LIFForm):
        return 0
    residual, coupling = form.residual, form.coupling
    bypassed = 0 if residual is None else 1 + residual.matrix.requires_grad
    return (form.inner is not None) + bypassed + 3 * (coupling is not None and coupling.requires_grad)
