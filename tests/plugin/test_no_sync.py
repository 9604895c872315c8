"""A plain training step asks nothing of the device that the host would have to wait for."""

from __future__ import annotations

import traceback
from collections import Counter

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")
"""Operators that give the host a value or a size that depends on values: with CUDA tensors they wait for the stream."""


class Waits(TorchDispatchMode):
    """Counts the lines of ours and of nerfstudio that such an operator is called from."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if name in WAITS or by_mask:
            lines = [f"{f.filename}:{f.lineno} {f.line}" for f in traceback.extract_stack()[:-1]]
            lines = [line for line in lines if "/torch/" not in line and "_pytest" not in line]
            if "/lpm/checks.py" in lines[-1]:  # the rasterizer looks at values on the CPU only, and says so
                return func(*args, **(kwargs or {}))
            self.found[f"{name} from {lines[-1]}"] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("strategy", ["lpm", "paper"])
def test_a_plain_step_does_not_wait(make_trainer, strategy):
    trainer = make_trainer(strategy, 400, strategy=strategy)
    trainer.pipeline.train()

    def step(number: int) -> None:
        for callback in trainer.callbacks:
            callback.run_callback_at_location(number, Location.BEFORE_TRAIN_ITERATION)
        trainer.train_iteration(number)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(number, Location.AFTER_TRAIN_ITERATION)

    for number in range(11):
        step(number)
    with Waits() as waits:
        for number in range(11, 19):  # none that nerfstudio logs
            step(number)
    assert not waits.found, "\n".join(f"{n}x {line}" for line, n in waits.found.most_common())
