#!/usr/bin/env python3
"""What localized point management costs in a run: its share of the training time, and the preprocessing.

    python benchmarks/event_cost.py --data SCENE [--steps 3000] [--cap 60000] [--out FILE.json]

Everything that the strategy does is counted: error maps at every step, events (evidence, depths, zones, votes, edits),
and, once, neighbours and features of all photos of the scene with nothing in the cache. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from nerfstudio.scripts.train import _set_random_seed

from lpm import records
from lpm.multiview import feature_matches
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views
from lpm.plugin.config import lpm_splat
from lpm.strategy import event, evidence, false_fronts, zone_search


def trainer_on(
    data: Path, scale: float, steps: int, cap: int, folder: str, eval_interval: int = 8, vis: str = "tensorboard"
) -> Any:
    """A trainer of `lpm` that is set up."""
    config = copy.deepcopy(lpm_splat.config)
    config.experiment_name, config.timestamp, config.output_dir = "cost", "0", Path(folder)
    config.machine.device_type, config.vis, config.max_num_iterations = "cpu", vis, steps
    config.steps_per_eval_image, config.steps_per_save = 0, 10**6
    config.logging.local_writer.enable = False
    config.viewer.quit_on_train_completion = True
    manager = config.pipeline.datamanager
    manager.data, manager.camera_res_scale_factor = data, scale
    manager.dataparser.eval_interval = eval_interval
    config.pipeline.model.max_points, config.pipeline.model.with_lpips = cap, False
    _set_random_seed(42)
    config.save_config()  # it makes the folder
    trainer = config.setup()
    trainer.setup()
    return trainer


def main() -> None:
    """Trains, prints the shares and, with --out, writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--cap", type=int, default=60_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - start

        return call

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_on(options.data, options.scale, options.steps, options.cap, folder)
        strategy = trainer.model.strategy
        # Parts of an event, by the names that it calls.
        parts = ((evidence, "look"), (zone_search, "find_zones"), (false_fronts, "zone_votes"), (event, "apply"))
        for module, name in parts:
            setattr(module, name, timed(name, getattr(module, name)))
        strategy.maps.update = timed("error maps", strategy.maps.update)
        strategy.step_post_backward = timed("all of the strategy", strategy.step_post_backward)
        start = time.perf_counter()
        trainer.train()
        total = time.perf_counter() - start
        events = records.read(trainer.base_dir / "edits.jsonl")
        quality = trainer.pipeline.get_average_eval_image_metrics()["psnr"]

    # Once more, all photos, nothing known before.
    with tempfile.TemporaryDirectory() as folder:
        both = trainer_on(options.data, options.scale, 10, options.cap, folder, eval_interval=0)
        views = both.model.strategy.photo_graph.views
        points = both.data.train_dataparser_outputs.metadata.get("points3D_xyz")
        fresh = Views(views.images, views.Ks, views.viewmats, views.masks)
        feature_matches._memory.clear()
        start = time.perf_counter()
        PhotoGraph(fresh, points, None)
        preprocessing = time.perf_counter() - start

    result = {
        "scene": options.data.name, "steps": options.steps, "cap": options.cap, "points": trainer.model.num_points,
        "psnr": quality, "events": len(events), "training_seconds": total,
        "share": seconds["all of the strategy"] / total,
        "share_with_preprocessing": (seconds["all of the strategy"] + preprocessing) / (total + preprocessing),
        "parts": {name: value / total for name, value in sorted(seconds.items(), key=lambda item: -item[1])},
        "event_ms": 1e3 * sum(e.seconds for e in events) / max(1, len(events)),
        "preprocessing_seconds": preprocessing, "photos": len(views), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
