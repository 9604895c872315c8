#!/usr/bin/env python3
"""Peak memory of the process in training steps and in an event of point management, on the CPU (Linux).

    python benchmarks/event_memory.py [--points 400000]

The kernel's own high-water mark is cleared before each part (/proc/self/clear_refs). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from plain import PlainScene, Run
from torch.nn import Parameter

from lpm.scenes.samples.make import make
from lpm.strategy.lpm import LpmStrategy


def peak_mb(clear: bool = False) -> float:
    """The process's highest resident memory since the last call with `clear`."""
    status = Path("/proc/self/status").read_text()
    value = float(status.split("VmHWM:")[1].split()[0]) / 1024
    if clear:
        Path("/proc/self/clear_refs").write_text("5")
    return value


def main() -> None:
    """Steps, then one event that adds a twentieth of the points, then steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=400_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = PlainScene(make("room", Path(folder) / "room", 16, (320, 240)))
    n, warm = options.points, 12
    strategy = LpmStrategy(
        max_points=n, refine_start_iter=1, refine_stop_iter=10**6, refine_every=warm, growth_end=1e-9
    )
    records = []
    strategy.on_event = lambda record, _: records.append(record)
    run = Run(scene, strategy, scene.points, scene.rgb)
    chosen = torch.randint(len(scene.points), (n - n // 20,))
    for name, optimizer in run.optimizers.items():
        value = run.params[name].detach()[chosen].clone()
        if name == "features_rest":  # all of degree 3, as in real runs
            value = value.new_zeros(len(value), 15, 3)
        run.params[name] = Parameter(value)
        optimizer.param_groups[0]["params"] = [run.params[name]]

    def steps(first: int, count: int) -> float:
        peak_mb(clear=True)
        for step in range(first, first + count):
            run.step(step, 1000, step % len(scene.train))
        return peak_mb()

    steps(2, warm - 4)  # moments and statistics come into being
    before = steps(warm - 2, 2)
    event = steps(warm, 1)
    after = steps(warm + 1, 3)
    assert len(records) == 1
    assert records[0].points == n
    result = {"points": n, "steps_before_mb": before, "event_mb": event, "steps_after_mb": after,
              "event_over_steady": event / after}  # fmt: skip
    print(
        f"steps with {n - n // 20:,} points: {before:.0f} MB; event: {event:.0f} MB; steps with {n:,}: {after:.0f} MB"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
