"""Binary networks of Surrogate Gradient Flossing: random ones, and ones that learn a task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch.cells import BinaryCell
from lyaptorch.tasks.batch import Task
from lyaptorch.training import Model, Readout
from lyaptorch.training.model import settled_state

PAPER = "surrogate-flossing"
NATS = "(nats per step)"


def random_networks(n: int, sharpness: float | Tensor, ids: Tensor, seed: int) -> BinaryCell:
    """The networks `ids` of n units without bias, with one input channel, in float64."""
    return BinaryCell(
        1,
        n,
        sharpness=sharpness,
        bias=False,
        ensemble=tuple(ids.shape),
        member_ids=ids,
        generator=torch.Generator().manual_seed(seed),
    ).double()


def binary_network(
    task: Task,
    n: int,
    rows: int,
    ids: Tensor,
    seed: int,
    *,
    floss_sharpness: bool,
    sharpness: Tensor | None = None,
    input_scale: Tensor | None = None,
    readout_scale: float = 1.0,
) -> Model:
    """Binary networks with a trained initial state.

    W ~ N(0, 1/n), V ~ N(0, 1), b ~ U(0, 0.1); a readout with weights N(0, 1/n). The bias and the scale of the
    readout are ours: the paper prints neither.

    Args:
        task: what they are to learn.
        n: units.
        rows: of the initial state.
        ids: of the networks, `*e`.
        seed: determines everything.
        floss_sharpness: whether flossing trains the sharpness.
        sharpness: `*e`, 1 when missing.
        input_scale: factor of V, `*e`, 1 when missing.
        readout_scale: factor of the readout's weights.
    """
    generator, ensemble = torch.Generator().manual_seed(seed), tuple(ids.shape)
    g = (torch.ones(ensemble) if sharpness is None else sharpness)[..., None, None].clone()
    cell = BinaryCell(
        task.input_size,
        n,
        sharpness=nn.Parameter(g) if floss_sharpness else g,
        ensemble=ensemble,
        member_ids=ids,
        generator=generator,
    )
    if input_scale is not None:
        with torch.no_grad():
            cell.weight_ih.mul_(input_scale[..., None, None])
    readout = Readout(
        n,
        task.output_size,
        scale=readout_scale * n**-0.5,
        ensemble=ensemble,
        member_ids=ids,
        generator=generator,
    )
    h0 = settled_state(cell, rows, member_ids=ids, generator=generator)
    return Model(cell, readout, h0=h0, loss=task.loss)
