"""Peak arithmetic of a core, measured: the yardstick of benchmarks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from lyaptorch.kernels.library import open_library

ROUNDS = 1_000_000


def peak(dtype: torch.dtype, threads: int = 1) -> float:
    """Floating-point operations a second in registers, summed over `threads` that run at once.

    Independent chains of fused multiplications and additions, with the instruction set that the kernels use;
    no memory is read. Takes a few milliseconds.

    Raises:
        OSError: if there are no compiled kernels.

    Example:
        >>> from lyaptorch.kernels import available
        >>> not available()["cpu"].available or peak(torch.float32) > 1e8
        True
    """
    library = open_library()

    def rate(_: int) -> float:
        start = time.perf_counter()
        done: float = library.lyap_peak(int(dtype == torch.float64), ROUNDS)
        return done / (time.perf_counter() - start)

    if threads == 1:
        return rate(0)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, range(threads)))
