"""Values between host and device, so that the host waits for the device as seldom as can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sent(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The host's `values` (numbers, lists of them, a tensor of the CPU) as a tensor on `device`, without a wait."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # from memory that may move, a copy waits for the stream


def brought(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`tensors` on the CPU, by one wait for all of them. Of types that float64 holds: integers up to 2^53."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    flat = torch.cat([t.flatten().double() for t in tensors]).cpu()
    parts = flat.split([t.numel() for t in tensors])
    return [part.to(t.dtype).reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]
