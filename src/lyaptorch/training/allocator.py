"""Settings of the allocator of a process that trains: what becomes of the memory that it frees."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""The names that mallopt of glibc has for the free memory that is kept, and for arrays with own pages."""


def keep_pages() -> None:
    """Let this process keep what it frees, where the C library is glibc.

    It gives large arrays back to the system otherwise, and those of the next step come as fresh pages, which
    in a training of 32 networks took a third of the time. For processes that train and end, not for a
    program that imports the library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
