"""Photos by fisheyes become scenes of pinhole views."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from rendered_photos import alignment
from rich.console import Console

from lpm.checks import LpmError
from lpm.prepare.run import prepare
from lpm.prepare.settings import Settings
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import lens_of, render
from lpm.scenes.samples.worlds import SAMPLES, look_at
from lpm.scenes.split import hold_out

VIEWS, SIZE = 9, (320, 240)


def photos(folder, lens):
    """VIEWS photos of the room by `lens`, taken along an arc, and their poses [V, 4, 4] (OpenGL)."""
    pytest.importorskip("pycolmap")
    folder.mkdir()
    turns = np.linspace(-0.5, 0.5, VIEWS)
    poses = [
        look_at(np.array([3.0 * np.sin(turn), -3.0 * np.cos(turn), 1.4 + 0.3 * (i % 3)]), np.array([0.0, 0.0, 0.8]))
        for i, turn in enumerate(turns)
    ]
    world = SAMPLES["garden"].world(0)
    for i, shot in enumerate(render(SAMPLES["garden"], world, poses, lens, lens.size, lambda: None)):
        Image.fromarray((np.clip(shot.rgb, 0, 1) * 255).astype("u1")).save(folder / f"{i:02d}.png")
    return np.stack(poses)


@pytest.fixture(scope="module")
def fisheye(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fisheye") / "photos"
    return folder, photos(folder, lens_of("fisheye", SIZE))


def test_a_fisheye(fisheye, tmp_path):
    folder, truth = fisheye
    console = Console(file=io.StringIO(), width=500)
    numbers = prepare(Settings(folder, tmp_path / "out", camera_model="OPENCV_FISHEYE"), console)
    assert numbers["registered"] == VIEWS
    assert numbers["reprojection_error_px"] < 1
    lens = lens_of("fisheye", SIZE)
    model, values = numbers["cameras"][0].split(" ", 1)
    assert model == "OPENCV_FISHEYE"
    found = [float(value) for value in values.split(": ")[1].split(", ")]
    assert found[0] == pytest.approx(lens.params[0], rel=0.03)
    said = console.file.getvalue()
    (line,) = [line for line in said.splitlines() if line.startswith("undistorted")]
    assert "OPENCV_FISHEYE (14" in line
    assert "to 3 views each: front, right, left" in line
    assert line.removeprefix("undistorted").strip() in (tmp_path / "out/report.html").read_text()
    scene = read_scene(tmp_path / "out")
    assert len(scene) == 3 * VIEWS
    assert not scene.distortion.any()
    assert scene.cuts is None or not any(scene.cuts)
    assert len(scene.masks) == 3 * VIEWS
    front = [i for i, name in enumerate(scene.names) if name.endswith("_front.png")]
    degrees, away = alignment(truth, scene.c2w[front])
    assert degrees < 1
    assert away < 0.03
    # Views of a photo stand at one place, a quarter turn from each other, and are held out together.
    for i in front:
        left, right = i + 1, i + 2
        assert scene.names[left].endswith("left.png")
        assert np.allclose(scene.c2w[left, :3, 3], scene.c2w[i, :3, 3], atol=1e-6)
        assert np.allclose(scene.c2w[left, :3, 2], scene.c2w[i, :3, 0], atol=1e-6)
        assert np.allclose(scene.c2w[right, :3, 2], -scene.c2w[i, :3, 0], atol=1e-6)
    assert hold_out(scene, 8)[1].tolist() == [0, 1, 2, 24, 25, 26]
    # Points lie where the views show them.
    import pycolmap

    model = pycolmap.Reconstruction(tmp_path / "out/sparse/0")
    assert model.num_points3D() > 0.95 * numbers["points"]
    assert model.compute_mean_reprojection_error() < 1.5
    assert len(scene.points.xyz) == model.num_points3D()

    # Again, of what was found, with a stated field of view.
    again = Settings(folder, tmp_path / "out", camera_model="OPENCV_FISHEYE", lens_fov=90, overwrite=True)
    console = Console(file=io.StringIO(), width=500)
    prepare(again, console)
    assert console.file.getvalue().count("done before") == 5
    scene = read_scene(tmp_path / "out")
    assert len(scene) == VIEWS
    assert scene.names[0] == "00.png"
    width, focal = scene.sizes[0, 0], scene.intrinsics[0, 0]
    assert 2 * math.degrees(math.atan(width / 2 / focal)) == pytest.approx(90, abs=1.5)
    assert scene.masks is None
    assert "90 x" in console.file.getvalue()
    with pytest.raises(LpmError, match=r"--lens-fov: 180; wanted 1 to 160 degrees"):
        prepare(Settings(folder, tmp_path / "x", lens_fov=180), console)
