"""Random numbers that a network draws itself, such as masks of dropout: seeded with the run, and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

CPU, GPU = "generator.cpu", "generator.cuda"
"""Names in a checkpoint."""


@contextmanager
def masks_from(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators seeded; afterwards they are as the caller had them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def generators(device: torch.device) -> dict[str, Tensor]:
    """Where they stand, to be saved."""
    own = {CPU: torch.get_rng_state()}
    return own | {GPU: torch.cuda.get_rng_state(device)} if device.type == "cuda" else own


def set_generators(saved: Mapping[str, Tensor], device: torch.device) -> None:
    """As `generators` told; a checkpoint of before has none, and one of another device not all."""
    if CPU in saved:
        torch.set_rng_state(saved[CPU])
    if GPU in saved and device.type == "cuda":
        torch.cuda.set_rng_state(saved[GPU], device)
