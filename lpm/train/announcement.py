"""What a run says of itself before it begins."""

from __future__ import annotations

import math
import time

import torch

from lpm.runs import checkpoint
from lpm.train.cameras import Camera
from lpm.train.model import GaussianModel


def announcement(model: GaussianModel, camera: Camera, photos: tuple[int, int], steps: int) -> str:
    """What `steps` steps will be made on, and about how long they take.

    Args:
        camera: of a training photo, drawn from to know the time of a step.
        photos: how many are trained on, and held out.
    """
    cap, device = model.schedule.max_points, model.device.type
    chosen = "CPU defaults; each can be overridden" if device == "cpu" else str(model.device)
    return (
        f"[bold]lpm-splat[/bold] ({chosen}): strategy {model.config.strategy}, {steps:,} steps, "
        f"{photos[0]} training and {photos[1]} held-out images of {camera.width}x{camera.height}, "
        f"{model.num_points:,} points to start with, at most {f'{cap:,}' if cap else 'as many as it takes'}. "
        f"About {_spoken(steps * _seconds_per_step(model, camera))}."
    )


def _seconds_per_step(model: GaussianModel, camera: Camera) -> float:
    """Time of one render and its gradient now, with allowance for growth, loss and optimizer."""
    state = checkpoint.random_state()
    model.eval()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.draw(camera)["rgb"].mean().backward()
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
    loss = 1.2e-7 * camera.height * camera.width if model.device.type == "cpu" else 1e-3
    return float(min(seconds) * growth**0.6 + loss)


def _spoken(seconds: float) -> str:
    units = ((90, 1, "s"), (5400, 60, "min"), (math.inf, 3600, "h"))
    return next(f"{seconds / unit:.0f} {name}" for limit, unit, name in units if seconds < limit)
