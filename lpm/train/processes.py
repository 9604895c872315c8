"""Several processes that torchrun started to train one model; what they tell each other is in lpm.distributed."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

from lpm import distributed
from lpm.checks import fail
from lpm.strategy.registry import strategy_class
from lpm.train.run_settings import RunSettings
from lpm.train.terminal import Terminal

PATIENCE = timedelta(days=7)
"""For which the others wait while the first one is paused, or measures. One that ends is noticed at once."""


def count() -> int:
    """How many processes torchrun started; 1 where it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def speaks() -> bool:
    """Whether this is the first of them."""
    return count() == 1 or os.environ["RANK"] == "0"


@contextmanager
def joined(settings: RunSettings, folder: Path) -> Iterator[tuple[Path, Terminal]]:
    """Joins the others, if there are any: where this process writes, and what it says lines to.

    The first one writes into `folder` and speaks; what the others write is removed, and they have no page.

    Raises:
        LpmError: the strategy is not made for several processes.
    """
    if count() == 1:
        yield folder, Terminal()
        return
    if not strategy_class(settings.strategy, settings.moving).several_processes:
        fail("--strategy", f"{settings.strategy} by {count()} processes", "lpm", "train others without torchrun")
    on_gpus = settings.device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)
    folder = distributed.from_first(folder)
    try:
        if distributed.rank() == 0:
            yield folder, Terminal()
            return
        settings.page, settings.measure_every = False, 0
        own = Path(tempfile.mkdtemp(prefix="lpm-train-"))
        try:
            yield own, Terminal(Console(file=io.StringIO()))
        finally:
            shutil.rmtree(own, ignore_errors=True)
    finally:
        dist.destroy_process_group()
