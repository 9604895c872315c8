"""Steps that cannot be used: found without waiting for the device, left out, counted, and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lpm.checks import LpmError
from lpm.cuda.native import NativeLibrary, native

MOST_IN_A_ROW = 10
READ_EVERY = 10
"""Steps after which the host waits for the device anyway, to log."""


def not_finite(tensors: list[Tensor]) -> Tensor:
    """[] 1 where any of `tensors` (floats, one device) holds a NaN or infinity, else 0; the host waits for nothing."""
    kernels = native() if tensors[0].device.type == "cpu" else None
    if kernels is not None:  # torch's writes the gradients anew
        return torch.tensor(float(any(_any_not_finite(kernels, tensor) for tensor in tensors)))
    found = torch.zeros((), device=tensors[0].device)
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, found, torch.ones_like(found))  # one pass; times 1
    return found


def _any_not_finite(kernels: NativeLibrary, tensor: Tensor) -> bool:
    tensor = tensor.contiguous()
    return kernels.call("not_finite", tensor.dtype, tensor.numel(), tensor) != 0


def leave_out(info: dict[str, Any], spoilt: Tensor) -> None:
    """Where `spoilt` [] is 1, a strategy finds in `info` that the step drew no point and moved none."""
    means2d = info["means2d"]
    if "radii" in info:
        info["radii"] = torch.where(spoilt > 0, 0, info["radii"])
    kept = ("grad", "absgrad") if means2d.is_leaf or means2d.retains_grad else ("absgrad",)
    for name in kept:
        if getattr(means2d, name, None) is not None:
            setattr(means2d, name, torch.where(spoilt > 0, 0, getattr(means2d, name)))


class LeftOut:
    """Steps that changed nothing, since their loss or gradient was not finite or memory ran out."""

    def __init__(self, image: Callable[[int | None], str], say: Callable[[str], object]) -> None:
        """`image`: the name of a training view."""
        self.image, self.say = image, say
        self.total = self.in_a_row = 0
        self._unread: list[tuple[int, int | None, Tensor]] = []

    def note(self, step: int, view: int | None, flag: Tensor) -> None:
        """Takes in not_finite() of a step on `view`; of a device it is read later, when the host waits anyway.

        Raises:
            LpmError: too many in a row.
        """
        self._unread.append((step, view, flag))
        if flag.is_cuda and step % READ_EVERY:
            return
        unread, self._unread = self._unread, []
        flags = [flag for *_, flag in unread]
        bad = [float(f.numpy()) for f in flags] if flag.device.type == "cpu" else torch.stack(flags).tolist()
        for (step, view, _), spoilt in zip(unread, bad, strict=True):
            if spoilt:
                self.count(step, f"the loss or gradient of {self.image(view)} is not finite")
            else:
                self.in_a_row = 0

    def count(self, step: int, why: str) -> None:
        """Counts one more step that was left out. Raises LpmError where there were too many in a row."""
        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
        if self.total <= MOST_IN_A_ROW or self.total % 100 == 0:
            self.say(f"Step {step} is left out: {why} ({self.total} so far).")
        if self.in_a_row >= MOST_IN_A_ROW:
            raise LpmError(
                f"training: {MOST_IN_A_ROW} steps in a row could not be used, the last since {why}; wanted finite "
                "losses and room for a step; look at that image, lower learning rates or --pipeline.model.max-points"
            )
