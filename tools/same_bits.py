#!/usr/bin/env python3
"""Whether two revisions train the same model, to the bit, and how long each takes: `same_bits.py OLD NEW`.

Each revision is checked out into a temporary folder and trains `lpm`, `adc`, `mcmc` (a sample scene that stands still)
and `4d` (one that moves) by the packages of the environment that runs this. Printed is a hash of all parameters a run;
with --times N the runs are repeated in turn (old, new, old, ...) and the ratio of their training times is printed too.
--off NAME sets an option of `lpm` that came later to 0 (where a revision has it): what it changes is then left out.
Exit code 1 where a hash differs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
ARMS = ("lpm", "adc", "mcmc", "4d")
PARTS = ("cuda", "scenes", "viewer")

# Runs in a process of its own, with one revision's modules: sys.argv holds the arm, scene, steps, output folder
# and options to set to 0.
TRAIN = """
import copy, hashlib, importlib, json, sys, time
from pathlib import Path
import torch
# What is installed in place would lend its modules to the other revision.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(getattr(finder, "__module__", ""))]
arm, scene, steps, out, off = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:]
import lpm
rooms = (Path(lpm.__file__).parent / "plugin").is_dir()  # before modules lay in rooms its address was another
config = importlib.import_module("lpm.plugin.config" if rooms else "lpm" + ".config")
from nerfstudio.scripts.train import _set_random_seed
chosen = copy.deepcopy((config.lpm_splat_4d if arm == "4d" else config.lpm_splat).config)
chosen.output_dir, chosen.experiment_name, chosen.timestamp, chosen.vis = out, "run", "0", "tensorboard"
chosen.max_num_iterations, chosen.steps_per_save, chosen.steps_per_eval_image = steps, 10**9, 0
chosen.logging.local_writer.enable = False
chosen.pipeline.datamanager.data = scene
chosen.pipeline.model.strategy, chosen.pipeline.model.max_points = "lpm" if arm == "4d" else arm, 6000
chosen.pipeline.model.with_lpips = False
options = getattr(getattr(chosen.pipeline.model, "settings", None), "lpm", None)
for name in off:
    if hasattr(options, name):
        setattr(options, name, 0.0)
        print("OFF", name)
_set_random_seed(0)
trainer = chosen.setup()
trainer.setup()
start = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - start
digest = hashlib.sha256()
for name, value in sorted(trainer.model.gauss_params.items()):
    digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
print("RESULT", json.dumps([digest.hexdigest()[:16], trainer.model.num_points, seconds]))
"""


def importable(checkout: Path, folder: Path) -> Path:
    """A folder for PYTHONPATH in which `lpm` is that of `checkout`, with the parts that stand beside it."""
    (folder / "lpm").mkdir(parents=True)
    for entry in (checkout / "lpm").iterdir():
        (folder / "lpm" / entry.name).symlink_to(entry)
    for part in PARTS:
        (folder / "lpm" / part).symlink_to(checkout / part)
    # nerfstudio finds methods by the entry points of what is installed: these come first.
    entries = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["entry-points"]
    installed = folder / "lpm_splat-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: lpm-splat\nVersion: 0\n")
    lines = [f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in names.items()) for group, names in entries.items()]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    return folder


def run(code: list[str], path: Path) -> str:
    """What `python CODE` prints with the modules in `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *code], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}\nerror: a run ended with code {done.returncode}")
    return done.stdout


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new", help="a revision, or . for the working tree")
    parser.add_argument("--repo", type=Path, default=ROOT, help="the repository that has both")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--times", type=int, default=1, help="runs of each; times are of use from 3 on")
    parser.add_argument("--off", nargs="*", default=[], help="options of `lpm` set to 0, as widest")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = []
        for name, revision in (("old", asked.old), ("new", asked.new)):
            checkout = asked.repo
            if revision != ".":
                checkout = Path(scratch) / f"{name}-checkout"
                checkout.mkdir()
                packed = subprocess.run(["git", "-C", asked.repo, "archive", revision], check=True, capture_output=True)
                subprocess.run(["tar", "-x", "-C", checkout], input=packed.stdout, check=True)
            paths.append(importable(checkout.resolve(), Path(scratch) / name))
        scenes = {}
        for sample in ("room", "mover"):
            scenes[sample] = Path(scratch) / sample
            made = "import sys; from lpm.scenes.cli import main; sys.argv = ['lpm-scene', *sys.argv[1:]]; main()"
            run(["-c", made, "make", sample, str(scenes[sample])], paths[0])
        same = True
        for arm in asked.arms:
            scene = scenes["mover" if arm == "4d" else "room"]
            results: list[list[list]] = [[], []]
            for i in range(2 * asked.times):
                out = Path(scratch) / f"{arm}-{i}"
                printed = run(["-c", TRAIN, arm, str(scene), str(asked.steps), str(out), *asked.off], paths[i % 2])
                if i % 2 and printed.count("OFF ") != len(asked.off):
                    sys.exit(f"error: --off: got {asked.off}; wanted options of lpm that {asked.new} has")
                results[i % 2].append(json.loads(printed.rsplit("RESULT", 1)[1]))
            hashes = [{r[0] for r in side} for side in results]
            equal = len(hashes[0] | hashes[1]) == 1
            same &= equal
            old, new = (statistics.median(r[2] for r in side) for side in results)
            verdict = "same bits" if equal else "DIFFERENT"
            shown = " / ".join(",".join(sorted(h)) for h in hashes)
            points, ratio = results[1][0][1], new / old
            print(f"{arm}: {verdict} ({shown}), {points:,} points, time new / old {ratio:.3f}", flush=True)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
