"""Memory of the process that works on images: an album is long, and photos are large.

Both ask glibc, and where there is another C library leave its ways as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of its malloc.h
_LARGE_BLOCK = 2_000_000  # bytes


def keep_little() -> None:
    """Let every large array go back to the system when it is freed, and few compiled convolutions stay.

    Once a block of some megabytes was freed, blocks up to that size are kept for later: with a 12 MP photo, a hundred
    megabytes that are in no use. torch compiles a convolution for each size of face and keeps a thousand: to be called
    before it makes the first.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for threshold in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            library.mallopt(threshold, _LARGE_BLOCK)


def give_back_memory() -> None:
    """Hand what is free back to the system now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
