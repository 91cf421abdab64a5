"""What several processes that train one network must agree on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


def several() -> bool:
    """Whether other processes train the same network."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def decided_by_first(decision: bool, device: torch.device) -> bool:
    """The decision of the first process, in all of them."""
    if not several():
        return decision
    flag = torch.tensor(int(decision), device=device)
    dist.broadcast(flag, 0)
    return bool(flag)


@torch.no_grad()
def share(tensors: Sequence[Tensor]) -> None:
    """Give the values of the first process to all."""
    for tensor in tensors if several() else ():
        dist.broadcast(tensor.data, 0)
