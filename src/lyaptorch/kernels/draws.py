"""Numbers of streams in compiled code, in one pass, to the bit those of `_random`."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Drawing, key
from lyaptorch.kernels.dispatch import missing
from lyaptorch.kernels.library import DrawArgs, call, fill

_key, _wrapped = lru_cache(maxsize=256)(key), torch._C._functorch.is_functorch_wrapped_tensor
KINDS = {"bits": 0, "uniform": 1, "bernoulli": 2, "midpoints": 3}
FIXED = {"bits": torch.int64, "midpoints": torch.float64}


def drawn(d: Drawing) -> Tensor | None:
    """What `Drawing` describes, in memory of the host, in float32, float64 or int64; None for all else."""
    # what is captured is operations of torch
    if missing("cpu") is not None or not _checks.can_look():
        return None
    if d.device.type != "cpu" or (d.kind not in FIXED and d.dtype not in (torch.float32, torch.float64)):
        return None
    for z in (d.member, d.epoch):
        # what only looks like a tensor has no place in memory
        if isinstance(z, Tensor) and (type(z) is not Tensor or _wrapped(z) or z.device != d.device):
            return None
    ids = torch.as_tensor(d.member, device="cpu").contiguous()
    outer, row = d.shape[: d.before], d.shape[d.before :]
    dtype = FIXED.get(d.kind, d.dtype)
    out = torch.empty((*outer, *ids.shape, *row), dtype=dtype, device="cpu")
    args = DrawArgs(members=ids.numel(), outer=prod(outer), row=prod(row), kind=KINDS[d.kind])
    each = d.epoch.expand(ids.shape).contiguous() if isinstance(d.epoch, Tensor) else None
    fill(args, key=_key(d.seed, d.name), ids=ids, epochs=each, out=out)
    if not isinstance(d.epoch, Tensor):
        fill(args, epoch=d.epoch)
    call("draw", args, dtype)
    return out
