"""Several processes that train one model, each on a view of its own: what they tell each other.

Everything here does nothing where there is one process. Processes hold the same parameters, optimizers and statistics;
gradients are averaged in every step, what strategies gather is summed at their events, and the first process decides
on the edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lpm.checks import LpmError

T = TypeVar("T")


class Lost(LpmError):
    """Another process of this run has ended, or cannot be reached."""


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 is the one that decides, writes and speaks."""
    return dist.get_rank() if size() > 1 else 0


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces `tensors` (float32, one device) by their mean over the processes; the same bits on all of them."""
    _reduce(tensors, dist.ReduceOp.SUM)
    if size() > 1:
        torch._foreach_div_(list(tensors), size())


def add(tensors: Sequence[Tensor]) -> None:
    """Replaces `tensors` by their sum over the processes."""
    _reduce(tensors, dist.ReduceOp.SUM)


def most(flag: Tensor) -> None:
    """Replaces `flag` by the largest over the processes."""
    _reduce([flag], dist.ReduceOp.MAX)


def gather(value: T) -> list[T]:
    """`value` (anything that pickles) of every process, in their order."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    _call(lambda: dist.all_gather_object(values, value))
    return values


def from_first(value: T) -> T:
    """The `value` (anything that pickles) of the first process."""
    if size() == 1:
        return value
    values = [value]
    _call(lambda: dist.broadcast_object_list(values, 0))
    return values[0]


def tensor_from_first(tensor: Tensor) -> Tensor:
    """The first process's tensor, on this process's device, whatever its shape."""
    if size() == 1:
        return tensor
    shape, dtype = from_first((tuple(tensor.shape), tensor.dtype))
    there = tensor.contiguous() if rank() == 0 else torch.empty(shape, dtype=dtype, device=tensor.device)
    _call(lambda: dist.broadcast(there, 0))
    return there


def _reduce(tensors: Sequence[Tensor], how: Any) -> None:
    if size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    _call(lambda: dist.all_reduce(flat, how))
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.reshape(tensor.shape))


def _call(collective: Callable[[], object]) -> None:
    try:
        collective()
    except RuntimeError as error:  # gloo and nccl raise this and nothing narrower
        first = str(error).strip().splitlines()[0][:200]
        raise Lost(f"training: another process of this run has ended ({first}); wanted all {size()} of them; "
                   "its output says why; go on from the saved state") from error  # fmt: skip
