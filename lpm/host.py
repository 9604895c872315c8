"""Parts of nerfstudio's trainer that hold out where its own would not: optimizers, clocks, writers."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer import viewer

from lpm import bad_steps, distributed
from lpm.model import LpmModel


class LpmOptimizers(Optimizers):
    """nerfstudio's; a step whose loss or gradient is not finite changes nothing, and on a GPU nobody waits for that."""

    def __init__(self, config: dict[str, Any], model: LpmModel, groups: dict[str, list[torch.nn.Parameter]]) -> None:
        super().__init__(config, groups)
        self.model = model
        self.flag = torch.zeros(())
        """[]: 1 where the last step was left out, else 0."""

    def optimizer_scaler_step_some(self, grad_scaler: Any, param_groups: list[str]) -> None:
        """A step of all of `param_groups`, or of none; by the mean gradient of all processes."""
        groups = [group for name in param_groups for group in self.optimizers[name].param_groups]
        if distributed.size() > 1:
            for parameter in (p for group in groups for p in group["params"] if p.grad is None):
                parameter.grad = torch.zeros_like(parameter)  # another process's view may have seen it
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        distributed.average(gradients)
        self.flag = bad_steps.not_finite(self.model.losses + gradients)
        distributed.most(self.flag)
        if self.flag.is_cuda:
            self.model.spoilt = self.flag
            for name in param_groups:
                self.optimizers[name].found_inf = self.flag
        elif self.flag.numpy() > 0:
            self.model.spoilt = True
            return
        super().optimizer_scaler_step_some(grad_scaler, param_groups)


def mend() -> None:
    """Mends nerfstudio in this process: clocks that cannot jump, and writers that a full disk silences.

    By the wall clock its viewer would hold up a run that somebody looks at for as long as the clock is set back.
    """
    viewer.time = SimpleNamespace(time=time.monotonic, sleep=time.sleep)  # type: ignore[assignment]
    writer.time = time.monotonic  # type: ignore[assignment]
    if not hasattr(writer.write_out_storage, "__wrapped__"):
        writer.write_out_storage = _enduring(writer.write_out_storage)


def _enduring(write: Any) -> Any:
    def call() -> None:
        try:
            write()
        except OSError as error:
            CONSOLE.print(f"Tensorboard's files are not written from here on: {error.strerror or error}.")
            writer.EVENT_STORAGE.clear()
            writer.EVENT_WRITERS[:] = [w for w in writer.EVENT_WRITERS if isinstance(w, writer.LocalWriter)]

    call.__wrapped__ = write  # type: ignore[attr-defined]
    return call
