"""`unwrap`: the network within what others wrap around it."""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel


def unwrap(network: Any) -> Any:
    """The network inside what `torch.compile` or `DistributedDataParallel` made of it, on its parameters."""
    while isinstance(network, DistributedDataParallel) or hasattr(network, "_orig_mod"):
        network = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
    return network
