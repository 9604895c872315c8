"""Levels of detail against the whole model, in dB at cameras that only measure: ours, and what others make of it.

    lpm-train SCENE --out RUN ...; python benchmarks/levels.py RUN [--levels 4] [--steps 500]

Random: so many of the Gaussians, as they are. Others': splat-transform --decimate, of each level the next; it is left
out where Node is not there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from lpm.checks import LpmError
from lpm.editing.refit import refit
from lpm.editing.simplifying import cameras_for
from lpm.exporting.levels import Refit, coarser_levels
from lpm.formats.ply import read_ply, write_ply
from lpm.formats.read import load
from lpm.formats.rows import sound_rows
from lpm.formats.splat_transform import run_tool
from lpm.gaussians.parameters import NAMES


def decimated(full, count):
    """`count` levels below `full` by splat-transform, half the points each."""
    with tempfile.TemporaryDirectory() as folder:
        write_ply(Path(folder) / "0.ply", full)
        for i in range(count):
            words = ["-g", "cpu", Path(folder) / f"{i}.ply", "-F", "50%", Path(folder) / f"{i + 1}.ply"]
            run_tool(words, lambda text: None)
            yield read_ply(Path(folder) / f"{i + 1}.ply")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    loaded = load(args.run)
    sound = sound_rows(loaded.params)
    full = {name: loaded.params[name].detach()[sound] for name in NAMES}
    cameras = cameras_for(loaded, full, None, "cpu")
    mode = loaded.rasterize_mode or "classic"
    count, n = args.levels - 1, len(full["means"])
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=generator)

    def like(params) -> float:
        return refit(params, full, cameras, 0, mode).before

    subsets = (order[: n >> i] for i in range(1, count + 1))
    rows = {"random": [like({name: value[subset] for name, value in full.items()}) for subset in subsets]}
    try:
        rows["splat-transform --decimate"] = [like(params) for params in decimated(full, count)]
    except LpmError as error:
        print(error)
    rows["merged"] = [like(level.params) for level in coarser_levels(full, count, None)]
    how = Refit(cameras, mode, 0)
    rows["merged by what is seen"] = [like(level.params) for level in coarser_levels(full, count, how)]
    how.steps = args.steps
    rows[f"and re-fitted, {args.steps} steps"] = [level.after for level in coarser_levels(full, count, how)]
    print("| | " + " | ".join(f"1/{1 << i}: {n >> i:,}" for i in range(1, count + 1)) + " |")
    print("|---|" + "---|" * count)
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
