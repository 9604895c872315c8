"""Sample scenes that move: exact masks, motion and depth, whole folders, the same bytes."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes.read import read_scene
from lpm.scenes.samples.moving import CLIPS, make_clip
from lpm.scenes.split import hold_out

SIZE = (64, 48)


def made(name, folder, **options):
    return make_clip(name, folder / name, **{"cams": 2, "frames": 6, "size": SIZE, **options})


def masks(folder, cam="cam00"):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "dynamic" / cam).iterdir())]) > 0


def test_a_mover_is_where_the_truth_says(tmp_path):
    folder = made("mover", tmp_path)
    scene, truth = read_scene(folder), json.loads((folder / "truth.json").read_text())
    assert scene.capture_times is not None
    assert scene.cams == ["cam00"] * 6 + ["cam01"] * 6
    assert scene.capture_times[:6].tolist() == truth["times"] == [i / 5 for i in range(6)]
    assert len(hold_out(scene, 8)[1]) == 2  # the third of six times, of both cameras
    for i in range(6):
        (globe,) = truth["moving"][i]
        centre = np.append(globe["low"], 1.0)
        local = np.linalg.inv(scene.c2w[i]) @ centre
        column = int(scene.intrinsics[i, 2] - scene.intrinsics[i, 0] * local[0] / local[2])
        row = int(scene.intrinsics[i, 3] + scene.intrinsics[i, 1] * local[1] / local[2])
        assert masks(folder)[i][row, column]
        depth = np.load(folder / "depth" / f"cam00/{i:04d}.npy")[row, column]
        assert depth == pytest.approx(-local[2] - globe["radius"], abs=0.05)


def test_what_comes_and_goes_is_there_at_its_times_only(tmp_path):
    assert masks(made("appearing", tmp_path)).any((1, 2)).tolist() == [False, False, False, True, True, True]
    assert masks(made("occluder", tmp_path)).any((1, 2)).tolist() == [False, False, True, True, False, False]
    assert masks(made("flash", tmp_path, frames=11)).mean((1, 2)).round().tolist() == [0] * 5 + [1] + [0] * 5
    still = made("still", tmp_path)
    assert not masks(still).any()
    first, last = (np.asarray(Image.open(still / "images" / "cam00" / f"{i:04d}.png")) for i in (0, 5))
    assert np.array_equal(first, last)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    one, other = made("mover", tmp_path / "a"), made("mover", tmp_path / "b")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 3 * 12 + 3
    assert filecmp.cmpfiles(one, other, files, shallow=False)[0] == files


def test_what_is_there_is_never_replaced_unasked(tmp_path):
    folder = made("still", tmp_path)
    with pytest.raises(LpmError, match="is there already"):
        made("still", tmp_path)
    assert made("still", tmp_path, overwrite=True, cams=3) == folder
    with pytest.raises(LpmError, match="cams and frames: 1 and 6"):
        made("mover", tmp_path, cams=1)


def test_the_command_makes_and_lists_them(tmp_path):
    program = [sys.executable, "-c", "from lpm.scenes.cli import main; main()"]
    arguments = ["make", "still", str(tmp_path / "s"), "--cams", "2", "--frames", "4", "--size", "32x24"]
    made_by = subprocess.run([*program, *arguments], capture_output=True, text=True)
    assert made_by.returncode == 0, made_by.stderr
    assert "8 views of 32x24" in made_by.stdout
    assert "lpm-train" in made_by.stdout
    told = subprocess.run([*program, "info", str(tmp_path / "s")], capture_output=True, text=True).stdout
    assert "moves     4 time steps, 2 cameras" in told
    listed = subprocess.run([*program, "list"], capture_output=True, text=True).stdout
    assert all(name in listed for name in CLIPS)
