#!/usr/bin/env python3
"""Steps and events of `lpm` at a million points on a GPU: time, waits of the host, memory; and a seed run twice.

    python benchmarks/gpu_event.py [--points 1000000] [--size 1600 1067] [--out benchmarks/results/gpu/NAME.json]

The scene is the sample `room`, made here (half a minute on 16 cores); its points are put there by number, not by
training. After each part the file is written anew. `--device cpu --points 3000 --size 160 120` shows that it runs.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from step_profile import fill

from lpm import records
from lpm.runs.checkpoint import seed_everything
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.strategy import event, evidence, false_fronts, width, zone_search
from lpm.train.optimizers import Optimizers
from lpm.train.run_settings import RunSettings
from lpm.train.trainer import Trainer

EVERY = 10
"""Steps from event to event."""


class Million:
    """A trainer of `lpm` with so many points, and what is measured of it."""

    def __init__(self, scene: Path, points: int, device: str, folder: Path) -> None:
        self.device = device
        settings = RunSettings(scene=scene, steps=3000, max_points=points, scale=1.0, device=device, page=False)  # type: ignore[arg-type]
        settings.model.refine_every, settings.model.warmup_length = EVERY, 5
        self.trainer = Trainer(settings, folder)
        self.trainer.setup(read_scene(scene))
        seed_everything(0)
        fill(self.trainer.model, points - points // 20)  # the events add the rest
        self.trainer.optimizers = Optimizers(self.trainer.model, self.trainer.rates)
        self.parts: dict[str, float] = collections.defaultdict(float)
        self.peaks: dict[str, float] = {}
        self.step_number = 0

    def sync(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def steps(self, count: int) -> list[float]:
        """Milliseconds of each of `count` steps, the device's end awaited."""
        times = []
        for _ in range(count):
            self.sync()
            begin = time.perf_counter()
            self.trainer.step(self.step_number)
            self.sync()
            times.append(1e3 * (time.perf_counter() - begin))
            self.step_number += 1
        return times

    def back_to_back(self, count: int) -> float:
        """Milliseconds a step where nobody waits between steps."""
        self.sync()
        begin = time.perf_counter()
        for _ in range(count):
            self.trainer.step(self.step_number)
            self.step_number += 1
        self.sync()
        return 1e3 * (time.perf_counter() - begin) / count

    def up_to_event(self) -> None:
        """Steps until the next one has an event."""
        while not self.trainer.model.strategy.has_event(self.step_number):  # type: ignore[attr-defined]
            self.steps(1)

    def peak(self, count: int) -> float:
        """GiB of device memory at the peak of `count` steps."""
        if self.device != "cuda":
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        self.steps(count)
        return torch.cuda.max_memory_allocated() / 2**30

    def waits(self, count: int) -> dict[str, int]:
        """The lines at which the host waited for the device in `count` steps, and how often."""
        seen: collections.Counter[str] = collections.Counter()
        if self.device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(count):
                    self.trainer.step(self.step_number)
                    self.step_number += 1
        finally:
            if self.device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            if "synchroniz" in str(warning.message):
                seen["/".join(Path(warning.filename).parts[-3:]) + f":{warning.lineno}"] += 1
        return dict(seen.most_common(25))

    def profile(self, count: int, file: Path | None) -> dict[str, float]:
        """Kernel launches and milliseconds of kernels a step, by torch's profiler; its table goes to `file`."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            self.back_to_back(count)
        table = profile.key_averages()
        if file is not None:
            orders = ["self_cuda_time_total"] * (self.device == "cuda") + ["self_cpu_time_total"]
            file.write_text("\n".join(table.table(o, row_limit=35, max_name_column_width=70) for o in orders))
        launches = sum(row.count for row in table if "LaunchKernel" in row.key)
        kernels = sum(row.self_device_time_total for row in table) / 1e3
        return {"launches": launches / count, "kernel_ms": kernels / count}

    def watch(self, module: Any, name: str) -> None:
        """Adds up the milliseconds of calls of module.name, the device's end awaited; keeps their peak of memory."""
        function = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.sync()
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.sync()
                self.parts[name] += 1e3 * (time.perf_counter() - begin)
                if self.device == "cuda":
                    peak = torch.cuda.max_memory_allocated() / 2**30
                    self.peaks[name] = max(self.peaks.get(name, 0.0), peak)

        setattr(module, name, call)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def at_many_points(options: argparse.Namespace, scene: Path, folder: Path, tell: Callable[[str, Any], None]) -> None:
    """Times, waits and memory of plain steps and of events."""
    big = Million(scene, options.points, options.device, folder / "many")
    big.up_to_event()
    tell("first_event_step_ms", big.steps(1)[0])  # the photos are compared for the first time
    for _ in range(len(big.trainer.data.train) // 4 + 1):  # until every photo has been looked at
        big.up_to_event()
        big.steps(2)
    plain, events = [], []
    for _ in range(5):
        big.up_to_event()
        events += big.steps(1)
        big.steps(1)
        plain += big.steps(EVERY - 3)
    tell("points", big.trainer.model.num_points)
    tell("plain_step_ms", {"median": median(plain), "all": plain})
    tell("event_step_ms", {"median": median(events), "all": events})
    tell("event_ms", median(events) - median(plain))
    big.up_to_event()
    big.steps(2)
    tell("plain_step_back_to_back_ms", big.back_to_back(EVERY - 3))
    big.up_to_event()
    big.steps(1)
    tell("peak_GiB_of_plain_steps", big.peak(4))
    big.up_to_event()
    tell("peak_GiB_of_an_event", big.peak(1))
    tell("peak_GiB_of_plain_steps_after_it", big.peak(4))
    tell("waits_of_4_plain_steps", big.waits(4))
    big.up_to_event()
    tell("waits_of_an_event", big.waits(1))
    big.steps(1)
    tell("plain_step_profile", big.profile(5, options.out and options.out.with_name("profile_step.txt")))
    big.up_to_event()
    tell("event_profile", big.profile(1, options.out and options.out.with_name("profile_event.txt")))
    parts = ((evidence, "look"), (zone_search, "find_zones"), (false_fronts, "zone_votes"), (event, "apply"))
    for module, name in parts:
        big.watch(module, name)
    strategy: Any = big.trainer.model.strategy
    of = strategy.parts
    named = ((of.evidence, "of"), (of.zones, "find"), (of.fronts, "remember"), (of.scores, "split"), (of.edit, "make"))
    for part, name in (*named, (of.edit, "_gone"), (strategy, "_find_few"), (width, "widest_scales")):
        big.watch(part, name)
    big.up_to_event()
    big.parts.clear()
    took = big.steps(1)[0]
    tell("event_by_part_ms", {"all": took} | dict(big.parts))
    tell("event_by_part_peak_GiB", big.peaks)


def twice(options: argparse.Namespace, scene: Path, folder: Path, tell: Callable[[str, Any], None]) -> None:
    """Two runs of one seed: what each event edited, and how good they are."""
    runs = []
    for name in ("a", "b"):
        settings = RunSettings(scene=scene, steps=options.twice, max_points=20_000, scale=1 / 4, device=options.device,
                               page=False, measure_every=0)  # fmt: skip
        trainer = Trainer(settings, folder / name)
        trainer.setup(read_scene(scene))
        trainer.train()
        events = records.read(trainer.folder / "edits.jsonl")
        rows = [(e.step, e.views, e.split, e.inserted, e.pruned, e.reset, e.points) for e in events]
        psnr = [row["psnr"] for row in trainer.measure()]
        runs.append((rows, sum(psnr) / len(psnr)))
    (a, psnr_a), (b, psnr_b) = runs
    same = sum(x == y for x, y in zip(a, b, strict=True))
    tell("seed_twice", {"events": len(a), "events_with_the_same_counts": same, "psnr": [psnr_a, psnr_b],
                        "step_views_split_inserted_pruned_reset_points": [a, b]})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1067), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--twice", type=int, default=1500, help="steps of the seed that is run twice; 0: not")
    parser.add_argument("--after", type=Path, metavar="FILE", help="measure nothing before FILE is there")
    parser.add_argument("--scene", type=Path, help="a scene in place of the one that is made")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no NVIDIA GPU that torch can use: nothing was measured (--device cpu shows that it runs)")
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu", "torch": torch.__version__,
        "size": options.size, "views": options.views, "command": " ".join(sys.argv),
    }  # fmt: skip

    def tell(name: str, value: Any) -> None:
        result[name] = value
        print(f"{name}: {json.dumps(value)[:1500]}", flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")

    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = options.scene or make("room", folder / "room", options.views, tuple(options.size))
        while options.after is not None and not options.after.exists():
            time.sleep(0.2)
        for part in (at_many_points, twice) if options.twice else (at_many_points,):
            try:
                part(options, scene, folder, tell)
            except Exception:  # the other part still says something
                failed = True
                tell(f"{part.__name__} failed", traceback.format_exc()[-1500:])
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
