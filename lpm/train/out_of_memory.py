"""Memory: what a step frees stays with the process, and what happens where it runs out."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from lpm import distributed

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT, LARGEST = 1 << 30, 1 << 25


def keep_freed_memory() -> bool:
    """Lets malloc keep up to a GiB that was freed, and blocks of up to 32 MiB; False where malloc is not glibc's.

    By itself it gives a training step's large tensors back to the system, which hands them out page by page, zeroed,
    a moment later: a tenth of a step's time on the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(TRIM_THRESHOLD, KEPT), mallopt(MMAP_THRESHOLD, LARGEST)])


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the device or the host, ran out, and this process can go on without.

    Where several train one model (lpm.distributed) it cannot: the others would wait for its part of the step.
    """
    if distributed.size() > 1:
        return False
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return said or isinstance(error, MemoryError)


class Before:
    """Parameters, moments and statistics before an event, to go back to. Holds references and copies nothing."""

    def __init__(self, params: Any, optimizers: dict[str, torch.optim.Optimizer], state: dict[str, Any]) -> None:
        self.params, self.optimizers, self.state = params, optimizers, state
        self._params, self._state = dict(params.items()), dict(state)
        self._moments = {name: dict(o.state.get(self._params[name], {})) for name, o in optimizers.items()}

    def put_back(self) -> None:
        """An event replaces tensors; what it had replaced when it failed is undone."""
        self.state.clear()
        self.state.update(self._state)
        for name, optimizer in self.optimizers.items():
            self.params[name] = old = self._params[name]
            optimizer.state.clear()
            if self._moments[name]:
                optimizer.state[old] = self._moments[name]
            optimizer.param_groups[0]["params"] = [old]
