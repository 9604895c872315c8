"""Sample scenes through a fisheye and all around: exact poses, points that lie where photos show them, depths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_scene
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes.layouts.colmap import read_images
from lpm.scenes.lenses import NAMES, Lens
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import lens_of, make
from lpm.scenes.samples.points import project
from lpm.scenes.split import hold_out


@pytest.mark.parametrize(("kind", "size", "count"), [("fisheye", (96, 72), 3), ("360", (128, 64), 6)])
def test_a_sample_through_a_lens(tmp_path, kind, size, count):
    folder = make("garden", tmp_path / "garden", views=8, size=size, lens=kind)
    lens = lens_of(kind, size)
    meta = json.loads((folder / "transforms.json").read_text())
    assert meta["camera_model"] == lens.model
    scene = read_scene(folder)
    assert len(scene) == 8 * count
    truth = json.loads((folder / "truth.json").read_text())
    good = np.setdiff1d(np.arange(len(scene.points.xyz)), truth["false_points"]["indices"])
    xyz, rgb = scene.points.xyz[good], scene.points.rgb[good]
    assert len(good) > 500
    agree, same, seen = [], [], 0
    for frame in meta["frames"]:
        photo = np.asarray(Image.open(folder / frame["file_path"]))
        depth = np.load(folder / "depth" / (frame["file_path"][7:11] + ".npy"))
        c2w = np.array(frame["transform_matrix"])
        pixels, distance = project(xyz, c2w, lens)
        local = -((xyz - c2w[:3, 3]) @ c2w[:3, 2])
        column, row = np.where(distance[:, None] > 0, pixels, 0).astype(int).clip(0, np.array(size) - 1).T
        there = depth[row, column]
        known = (distance > 0) & (local > 0.3 * distance)
        near = known & (np.abs(there / local - 1) < 0.05)
        seen += near
        agree.append(near.sum() / known.sum())
        same.append(np.abs(photo[row, column][near].astype(float) - rgb[near]).mean())
    assert np.mean(agree) > 0.5  # what is hidden disagrees
    assert np.mean(seen > 0) > 0.65  # half a pixel of noise is much of a small photo
    assert np.mean(same) < 30


def test_the_way_back_of_a_lens():
    rng = np.random.default_rng(0)
    for kind, size in (("fisheye", (320, 240)), ("360", (256, 128))):
        lens = lens_of(kind, size)
        pixels = rng.uniform(0, size, (500, 2))
        assert np.allclose(lens.draws(lens.rays(pixels)), pixels, atol=1e-4)
        assert np.allclose(np.linalg.norm(lens.rays(pixels), axis=1), 1)
    fisheye = lens_of("fisheye", (320, 240))
    corner = fisheye.rays(np.array([0.0, 0.0]))
    assert abs(corner[2]) < 1e-6
    simple = Lens("SIMPLE_RADIAL_FISHEYE", (160.0, 160.0, 120.0, -0.01), (320, 240))
    assert np.allclose(simple.draws(simple.rays(pixels)), pixels, atol=1e-4)
    assert len(NAMES["SIMPLE_RADIAL_FISHEYE"]) == 4


def test_sizes_that_no_lens_has(tmp_path):
    with pytest.raises(LpmError, match=r"size: 96x72; wanted twice as wide as high"):
        make("garden", tmp_path / "x", size=(96, 72), lens="360")
    with pytest.raises(LpmError, match=r"lens: 'tele'; wanted one of pinhole, fisheye, 360"):
        make("garden", tmp_path / "x", lens="tele")


def test_frames_of_a_rig_are_held_out_together(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", views=10)
    assert read_scene(folder).shots is None
    pose = "1 0 0 0 0 0 0"
    keys = {i: sorted(read_images(folder / "sparse/0/images.bin"))[i] for i in range(10)}
    lines = [f"{k + 1} 1 {pose} 2 CAMERA 1 {keys[2 * k]} CAMERA 2 {keys[2 * k + 1]}" for k in range(5)]
    (folder / "sparse/0/frames.txt").write_text("\n".join(["# frames", *lines]))
    scene = read_scene(folder)
    assert len(set(scene.shots)) == 5
    _, test = hold_out(scene, 4)
    together = {scene.shots[i] for i in test}
    assert len(test) == 4
    assert [i for i, shot in enumerate(scene.shots) if shot in together] == test.tolist()
    (folder / "sparse/0/frames.bin").write_bytes(b"\1" + b"\0" * 9)
    with pytest.raises(LpmError, match=r"frames\.bin: cannot be read"):
        read_scene(folder)
