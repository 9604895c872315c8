"""What a training run says of itself before it begins."""

from __future__ import annotations

import math
import time

import torch

from lpm.plugin.datamanager import LpmDatamanager
from lpm.plugin.model import LpmModel
from lpm.runs import checkpoint


def announcement(model: LpmModel, data: LpmDatamanager, steps: int) -> str:
    """What `steps` steps will be made on, and about how long they take."""
    height, width = data.cached_train[0]["image"].shape[:2]
    cap, device = model.schedule.max_points, model.device.type
    chosen = "CPU defaults; each can be overridden" if device == "cpu" else str(model.device)
    return (
        f"[bold]lpm-splat[/bold] ({chosen}): strategy {model.config.strategy}, {steps:,} steps, "
        f"{len(data.train_dataset)} training and {len(data.eval_dataset)} held-out images of {width}x{height}, "
        f"{model.num_points:,} points to start with, at most {f'{cap:,}' if cap else 'as many as it takes'}. "
        f"About {_spoken(steps * _seconds_per_step(model, data))}."
    )


def _seconds_per_step(model: LpmModel, data: LpmDatamanager) -> float:
    """Time of one render and its gradient now, with allowance for growth, loss and optimizer."""
    state, cached = checkpoint.random_state(), data.cached_train[0]["image"]
    camera = data.train_dataset.cameras[0:1].to(model.device)
    model.eval()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.get_outputs(camera)["rgb"].mean().backward()
        if model.device.type != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    for parameter in model.parameters():
        parameter.grad = None
    checkpoint.set_random_state(state)
    plan, points = model.schedule, model.num_points
    edits = max(0, plan.stop - plan.start) // plan.every
    at_most = min(points * 1.1 ** min(edits, 100), plan.max_points or math.inf)  # an edit adds about a tenth
    growth = (points + at_most) / 2 / points
    pixels = cached.shape[0] * cached.shape[1]
    loss = 1.2e-7 * pixels if model.device.type == "cpu" else 1e-3
    whole: float = min(seconds) * growth**0.6 + loss
    return whole


def _spoken(seconds: float) -> str:
    units = ((90, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
    return next(f"{seconds / unit:.0f} {name}" for limit, unit, name in units if seconds < limit)
