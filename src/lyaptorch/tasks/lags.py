"""What was some steps ago, and since when. Places are kept: a captured graph can copy none from the host."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=16)
def since(steps: int, delays: tuple[int, ...], ensemble: tuple[int, ...], device: torch.device) -> Tensor:
    """Which steps come after a delay, one for all or one each, `(t, *#e)`."""
    now = torch.arange(steps, device=device).reshape(-1, *[1] * len(ensemble))
    return now >= torch.tensor(delays, device=device).reshape(() if len(delays) == 1 else ensemble)


@functools.lru_cache(maxsize=16)
def _rows(steps: int, lags: tuple[int, ...], device: torch.device) -> Tensor:
    """Where in `(t * e)` stands what was so many steps ago; step 0 stands in for those before."""
    place, e = torch.arange(steps * len(lags), device=device), len(lags)
    rows = place - e * torch.tensor(lags, device=device).repeat(steps)
    return torch.where(rows < 0, place % e, rows)


def earlier(x: Tensor, lags: tuple[int, ...]) -> Tensor:
    """x `(t, *e, b, m)` so many steps ago, one lag for all or one each."""
    lags = lags[:1] if len(set(lags)) == 1 else lags
    return x.reshape(len(x) * len(lags), -1).index_select(0, _rows(len(x), lags, x.device)).view(x.shape)
