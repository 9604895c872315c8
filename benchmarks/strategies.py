#!/usr/bin/env python3
"""Trains scenes x strategies x seeds, each run in a process of its own, and tabulates held-out quality.

    python benchmarks/strategies.py --scenes fox=../data/fox snowmiku=../data/snowmiku --out results.json

Runs that are in the result already are not made again, so an interrupted command is simply repeated. `--set` changes
fields of the strategy (ablations): `lpm:no-zones --set no-zones.zone_boost=0` makes a row of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STRATEGIES = ["lpm", "adc", "absgrad", "mcmc", "paper", "random-zones"]


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One run, in this process."""
    import torch
    from nerfstudio.scripts.train import _set_random_seed

    from lpm import records
    from lpm.config import lpm_splat

    torch.set_num_threads(job["threads"])
    config = copy.deepcopy(lpm_splat.config)
    with tempfile.TemporaryDirectory() as folder:
        config.experiment_name, config.timestamp, config.output_dir = "run", "0", Path(folder)
        config.machine.device_type, config.machine.seed, config.vis = "cpu", job["seed"], "tensorboard"
        config.max_num_iterations, config.steps_per_eval_image, config.steps_per_save = job["steps"], 0, 10**6
        config.logging.local_writer.enable = False
        data, model = config.pipeline.datamanager, config.pipeline.model
        data.data, data.camera_res_scale_factor = Path(job["data"]), job["scale"]
        data.train_cameras_sampling_seed = job["seed"]
        model.strategy, model.max_points, model.with_lpips = job["base"], job["cap"], False
        _set_random_seed(job["seed"])
        start = time.perf_counter()
        trainer = config.setup()
        trainer.setup()
        strategy = trainer.model.strategy
        for name, value in job["set"].items():
            assert hasattr(strategy, name), f"the strategy has no {name}"
            setattr(strategy, name, value)
        trainer.train()
        seconds = time.perf_counter() - start
        metrics = trainer.pipeline.get_average_eval_image_metrics()
        path = trainer.base_dir / "edits.jsonl"
        events = records.read(path) if path.is_file() else []
    kinds = ("split", "cloned", "inserted", "pruned", "reset")
    totals = {kind: sum(getattr(event, kind) for event in events) for kind in kinds}
    return {
        **{key: job[key] for key in ("scene", "strategy", "seed", "cap", "steps", "set")},
        "psnr": metrics["psnr"],
        "ssim": metrics["ssim"],
        "points": trainer.model.num_points,
        "seconds": seconds,
        "event_seconds": sum(e.seconds for e in events),
        "edits": totals,
        "threads": job["threads"],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Mean and range of PSNR and SSIM by scene and strategy, as Markdown."""
    lines = ["| scene | strategy | seeds | PSNR (dB) | range | SSIM | points |", "|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["scene"], run["strategy"]), []).append(run)
    means = {key: statistics.mean(r["psnr"] for r in group) for key, group in groups.items()}
    for scene, strategy in sorted(groups, key=lambda key: (key[0], -means[key])):
        group = groups[scene, strategy]
        psnr, ssim = [r["psnr"] for r in group], statistics.mean(r["ssim"] for r in group)
        points = statistics.mean(r["points"] for r in group)
        lines.append(
            f"| {scene} | `{strategy}` | {len(group)} | {means[scene, strategy]:.2f} | {min(psnr):.2f} to "
            f"{max(psnr):.2f} | {ssim:.4f} | {points:,.0f} |"
        )
    return "\n".join(lines)


def differences(runs: list[dict[str, Any]], of: str = "lpm") -> str:
    """PSNR of `of` less that of each other strategy, by scene, seed by seed: mean and range, as Markdown."""
    psnr = {(r["scene"], r["strategy"], r["seed"]): r["psnr"] for r in runs}
    scenes = sorted({r["scene"] for r in runs})
    lines = [f"| `{of}` less | {' | '.join(scenes)} |", "|---" * (len(scenes) + 1) + "|"]
    for other in sorted({r["strategy"] for r in runs} - {of}):
        cells = []
        for scene in scenes:
            pairs = [psnr[scene, of, seed] - value for (place, name, seed), value in psnr.items()
                     if (place, name) == (scene, other) and (scene, of, seed) in psnr]  # fmt: skip
            cells.append(f"{statistics.mean(pairs):+.2f} ({min(pairs):+.2f} to {max(pairs):+.2f})" if pairs else "")
        lines.append(f"| `{other}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Makes the missing runs; prints the table and writes JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, metavar="NAME[:ROW]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--cap", type=int, default=30_000, help="points at most")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--set", nargs="*", default=[], metavar="ROW.FIELD=VALUE")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on cores / jobs threads")
    parser.add_argument("--out", type=Path, required=True, help="JSON; a table is written beside it")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print("RESULT " + json.dumps(train(json.loads(options.job))))
        return

    changes: dict[str, dict[str, Any]] = {}
    for text in options.set:
        name, value = text.split("=", 1)
        row, field = name.split(".", 1)
        changes.setdefault(row, {})[field] = json.loads(value)
    runs = json.loads(options.out.read_text())["runs"] if options.out.is_file() else []
    done = {(r["scene"], r["strategy"], r["seed"], r["cap"], r["steps"]) for r in runs}
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    jobs = []
    for seed in options.seeds:  # a seed of everything first: the table is of use early
        for scene in options.scenes:
            name, _, folder = scene.partition("=")
            for strategy in options.strategies:
                base, _, row = strategy.partition(":")
                row = row or base
                if (name, row, seed, options.cap, options.steps) in done:
                    continue
                job = dict(scene=name, data=folder, base=base, strategy=row, seed=seed, set=changes.get(row, {}))
                job |= dict(cap=options.cap, steps=options.steps, scale=options.scale, threads=threads)
                jobs.append(job)

    writing = threading.Lock()

    def run(job: dict[str, Any]) -> None:
        arguments = [sys.executable, __file__, "--scenes", "-", "--out", "-", "--job", json.dumps(job)]
        result = subprocess.run(arguments, capture_output=True, text=True)
        lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"{job['scene']} {job['strategy']} {job['seed']} FAILED\n{result.stderr[-2000:]}", flush=True)
            return
        last = json.loads(lines[0][7:])
        print(f"{last['scene']} {last['strategy']} {last['seed']}: {last['psnr']:.2f} dB, {last['points']:,} points, "
              f"{last['seconds']:.0f} s, {last['edits']}", flush=True)  # fmt: skip
        with writing:
            runs.append(last)
            save(options.out, runs)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, jobs))
    print(table(runs), differences(runs), sep="\n\n")


def save(path: Path, runs: list[dict[str, Any]]) -> None:
    """Writes the JSON whole or not at all, and the table beside it."""
    import torch

    import lpm

    about = dict(lpm=lpm.__version__, torch=torch.__version__, machine=platform.processor() or platform.machine())
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(".part")
    order = sorted(runs, key=lambda r: (r["scene"], r["strategy"], r["seed"]))
    work.write_text(json.dumps({"runs": order, "about": about}, indent=1) + "\n")
    os.replace(work, path)
    path.with_suffix(".md").write_text(f"{table(runs)}\n\n{differences(runs)}\n")


if __name__ == "__main__":
    main()
