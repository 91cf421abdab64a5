"""Numbers of streams in compiled code, in one pass, to the bit those of `_random`."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Drawing, key
from lyaptorch.kernels.dispatch import missing
from lyaptorch.kernels.library import DrawArgs, call

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
    ids = d.member if isinstance(d.member, Tensor) else torch.tensor(d.member, device="cpu")
    ids = ids.contiguous()
    outer, row = d.shape[: d.before], d.shape[d.before :]
    dtype = FIXED.get(d.kind, d.dtype)
    out = torch.empty((*outer, *ids.shape, *row), dtype=dtype, device="cpu")
    args = DrawArgs(_key(d.seed, d.name), ids.numel(), prod(outer), prod(row), kind=KINDS[d.kind])
    if isinstance(d.epoch, Tensor):
        each = d.epoch if d.epoch.shape == ids.shape else d.epoch.expand(ids.shape)
        each = each.contiguous()
        args.epochs = each.data_ptr()
    else:
        args.epoch = d.epoch
    args.ids, args.out = ids.data_ptr(), out.data_ptr()
    call("draw", args, dtype)
    return out
