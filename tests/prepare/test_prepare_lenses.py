"""Photos by fisheyes become scenes of pinhole views."""

from __future__ import annotations

import io
import math
import os

import numpy as np
import pytest
from PIL import Image
from rendered_photos import alignment
from rich.console import Console

from lpm.checks import LpmError
from lpm.prepare import panorama
from lpm.prepare.run import prepare
from lpm.prepare.settings import Settings
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import lens_of, render
from lpm.scenes.samples.worlds import SAMPLES, look_at
from lpm.scenes.split import hold_out

VIEWS, SIZE = 9, (320, 240)


def photos(folder, lens, count=VIEWS):
    """`count` photos of the garden by `lens`, taken along an arc, and their poses [V, 4, 4] (OpenGL)."""
    pytest.importorskip("pycolmap")
    folder.mkdir()
    turns = np.linspace(-0.5, 0.5, count)
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
    assert console.file.getvalue().count("done before") == 6
    scene = read_scene(tmp_path / "out")
    assert len(scene) == VIEWS
    assert scene.names[0] == "00.png"
    width, focal = scene.sizes[0, 0], scene.intrinsics[0, 0]
    assert 2 * math.degrees(math.atan(width / 2 / focal)) == pytest.approx(90, abs=1.5)
    assert scene.masks is None
    assert "90 x" in console.file.getvalue()
    with pytest.raises(LpmError, match=r"--lens-fov: 180; wanted 1 to 160 degrees"):
        prepare(Settings(folder, tmp_path / "x", lens_fov=180), console)


# All around.


def test_photos_all_around(tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    count = 6
    truth = photos(folder, lens_of("360", (320, 160)), count)
    console = Console(file=io.StringIO(), width=500)
    numbers = prepare(Settings(folder, out), console)
    said = console.file.getvalue()
    assert f"{count} photos are 360 degrees around: each is cut into 6 views" in said
    assert f"(assumed of {count}, which are twice as wide as high; if wrong: --camera-model OPENCV)" in said
    assert numbers["registered"] == 6 * count
    assert f"{6 * count} of {6 * count} images that hang together" in said
    assert numbers["reprojection_error_px"] < 1
    assert all(camera.startswith("PINHOLE 102x102: 51, 51, 51, 51") for camera in numbers["cameras"])
    scene = read_scene(out)
    assert len(scene) == 6 * count
    assert scene.masks is None
    front = [i for i, name in enumerate(scene.names) if "/front/" in name]
    degrees, away = alignment(truth, scene.c2w[front])
    assert degrees < 0.5
    assert away < 0.02
    for i, name in enumerate(scene.names):  # exactly what was cut
        other = next(k for k in front if scene.names[k].endswith(name[-7:]))
        assert np.allclose(scene.c2w[i, :3, 3], scene.c2w[other, :3, 3], atol=1e-5)
        if "/up/" in name:
            assert np.allclose(-scene.c2w[i, :3, 2], scene.c2w[other, :3, 1], atol=1e-5)
    train, test = hold_out(scene, 8)
    assert {scene.names[i][-6:-4] for i in test} == {"00"}
    assert len(train) == 6 * (count - 1)


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"
GPano:ProjectionType="equirectangular"/></x:xmpmeta>"""


def test_which_photos_are_all_around(tmp_path):
    def listed(names_sizes):
        return [{"name": name, "size": size} for name, size in names_sizes.items()]

    sizes = {"told.jpg": (128, 64), "wide.jpg": (128, 64), "other.png": (96, 64)}
    for name, size in sizes.items():
        more = {"xmp": XMP} if name == "told.jpg" else {}
        Image.new("RGB", size).save(tmp_path / name, **more)
    assert panorama.which(listed(sizes), tmp_path, "auto") == (["told.jpg", "wide.jpg"], ["wide.jpg"])
    assert panorama.which(listed(sizes), tmp_path, "EQUIRECTANGULAR") == (["told.jpg", "wide.jpg"], [])
    assert panorama.which(listed(sizes), tmp_path, "OPENCV") == (["told.jpg"], [])
    made = {"photos": listed({"other.png": (96, 64)}), "masks": False}
    assert panorama.cut_all(tmp_path, made, "auto") is made
    with pytest.raises(LpmError, match=r"EQUIRECTANGULAR: other\.png is 96x64; wanted photos twice as wide as high"):
        panorama.cut_all(tmp_path, made, "EQUIRECTANGULAR")


def test_faces_and_their_masks(tmp_path):
    """A photo whose right half is masked, and a link to the user's own file, which stays."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks/sub").mkdir(parents=True)
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :64], picture[:, 64:] = (200, 40, 40), (40, 40, 200)
    Image.fromarray(picture).save(tmp_path / "mine.png")
    (tmp_path / "images/sub").mkdir()
    (tmp_path / "images/sub/a.png").symlink_to(tmp_path / "mine.png")
    Image.fromarray(np.where(np.arange(128) < 64, 255, 0).astype("u1")[None].repeat(64, 0)).save(
        tmp_path / "masks/sub/a.png.png"
    )
    made = [{"name": "sub/a.png", "size": [128, 64], "lens": "x"}, {"name": "b.png", "size": [96, 64], "lens": "y"}]
    found = panorama.cut(tmp_path, made, ["sub/a.png"], True)
    assert [photo["name"] for photo in found[:3]] == [
        "b.png", "360_128x64/front/sub/a.jpg", "360_128x64/right/sub/a.jpg"
    ]  # fmt: skip
    assert found[1]["focal"] == 20
    assert len({photo["lens"] for photo in found}) == 7
    assert (tmp_path / "mine.png").is_file()
    assert not os.path.lexists(tmp_path / "images/sub/a.png")
    for face, colour, share in (("left", (200, 40, 40), 1), ("right", (40, 40, 200), 0), ("front", None, 0.5)):
        pixels = np.asarray(Image.open(tmp_path / f"images/360_128x64/{face}/sub/a.jpg"))
        mask = np.asarray(Image.open(tmp_path / f"masks/360_128x64/{face}/sub/a.jpg.png"))
        assert pixels.shape == (40, 40, 3)
        assert (mask == 255).mean() == pytest.approx(share, abs=0.05)
        if colour is not None:
            assert np.abs(pixels.astype(int) - colour).max() < 12
