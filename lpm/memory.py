"""The process's memory: what a step frees stays with the process, for the next step."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT, LARGEST = 1 << 30, 1 << 25


def keep_freed_memory() -> bool:
    """Lets malloc keep up to a GiB that was freed, and blocks of up to 32 MiB; False where malloc is not glibc's.

    By itself it gives a training step's large tensors back to the system, which hands them out page by page, zeroed,
    a moment later: a tenth of a step's time on the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(TRIM_THRESHOLD, KEPT), mallopt(MMAP_THRESHOLD, LARGEST)])
