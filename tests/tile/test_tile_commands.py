"""lpm-tile as a person types it: split, train a part, go on, merge."""

import json
import subprocess
import sys

import numpy as np
import torch

from lpm.formats.read import load
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.tile.split import read_plan

SHORT = "--steps 30 --save-every 10 --max-points 400"


def tile(*arguments):
    program = "from lpm.tile.cli import main; main()"
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


def test_split_train_merge(tmp_path):
    scene, folder, out = make("street", tmp_path / "scene", 24, (96, 72)), tmp_path / "tiles", tmp_path / "all.ply"
    done = tile("split", scene, folder, "--tiles", 2)
    assert done.returncode == 0, done.stderr
    assert "tile_00" in done.stdout
    assert f"next: lpm-tile train {folder}" in done.stdout

    early = tile("merge", folder, out)
    assert early.returncode == 2
    assert f"{folder}: tile_00, tile_01 not trained; wanted a run of every tile" in early.stderr
    assert not out.exists()
    wrong = tile("train", folder, "--only", "tile_07")
    assert wrong.returncode == 2
    assert "tile_07; wanted of tile_00, tile_01" in wrong.stderr

    first = tile("train", folder, "--only", "tile_00", f"--args={SHORT}")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "tile_01" not in first.stdout
    rest = tile("train", folder, f"--args={SHORT}")
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert "tile_00: trained before" in rest.stdout
    assert tile("merge", folder, tmp_path / "all.obj").returncode == 2
    done = tile("merge", folder, out)
    assert done.returncode == 0, done.stderr

    merged = load(out)
    assert merged.frame == "world"
    _, cells = read_plan(folder)
    means = merged.params["means"].double().numpy()
    share = [cells.holding(means, t).mean() for t in range(2)]
    assert min(share) > 0.2  # both have given
    assert 200 < len(means) <= 800
    points = read_scene(scene).points.xyz
    assert np.linalg.norm(np.median(means, 0) - np.median(points, 0)) < 0.2 * np.ptp(points, 0).max()
    assert abs(np.dot(json.loads((tmp_path / "all.ply.json").read_text())["up"], [0, 0, 1])) > 0.95
    assert torch.isfinite(merged.params["scales"]).all()
