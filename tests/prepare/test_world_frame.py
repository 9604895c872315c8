"""Which way is up, how long a metre is, and where on earth a model stands."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from lpm.checks import LpmError
from lpm.prepare.photos import place_of
from lpm.prepare.world_frame import level, stand_up, to_places
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.train.run_settings import RunSettings
from lpm.train.trainer import Trainer

pycolmap = pytest.importorskip("pycolmap")
ORIGIN = (51.48, -0.01, 40.0)


def cameras(kind, count=16):
    """World to camera [V, 3, 3] (OpenCV's axes) and places [V, 3], z up."""
    angle = np.linspace(0, 5, count)
    if kind == "ring":
        centres = np.stack([20 * np.cos(angle), 20 * np.sin(angle), np.full(count, 3.0)], 1)
        forward = np.array([0, 0, 1.0]) - centres
    else:
        centres = np.stack([30.0 * (np.arange(count) % 4), 30.0 * (np.arange(count) // 4), np.full(count, 50.0)], 1)
        forward = np.tile([0, 0, -1.0], (count, 1))  # the drone turns as it flies
    forward /= np.linalg.norm(forward, axis=1)[:, None]
    right = np.cross(forward, [0, 0, 1.0])
    if kind != "ring":
        right = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    right /= np.linalg.norm(right, axis=1)[:, None]
    if kind == "one way":
        right, forward = np.tile([1.0, 0, 0], (count, 1)), np.tile([0, 1.0, 0], (count, 1))
    return np.stack([right, np.cross(forward, right), forward], 1), centres


@pytest.mark.parametrize("kind", ["ring", "down", "one way"])
def test_what_is_up(kind):
    axes, centres = cameras(kind)
    tilt = Rotation.from_rotvec([0.9, -0.5, 0.4]).as_matrix()  # columns: the true axes in the model's
    up = level(axes @ tilt.T, centres @ tilt.T, np.zeros((5, 3))) @ tilt @ [0, 0, 1]
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-6)


def saved(folder, axes, centres):
    """A model of cameras as pycolmap writes it, at another scale and turn; images 00.jpg, 01.jpg, ..."""
    tilt, scale = Rotation.from_rotvec([0.9, -0.5, 0.4]).as_matrix(), 0.07
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=40, height=30, params=[30, 30, 20, 15], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for i, (turn, centre) in enumerate(zip(axes @ tilt.T, scale * centres @ tilt.T + 0.3, strict=True)):
        image = pycolmap.Image(name=f"{i:02d}.jpg", camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ centre))
    (folder / "mapped").mkdir()
    model.write(folder / "mapped")


def places_in(folder):
    model = pycolmap.Reconstruction(folder / "model")
    return np.array([i.projection_center() for i in sorted(model.images.values(), key=lambda i: i.name)])


def degrees(centres, noise=0.0):
    rng = np.random.default_rng(0)
    there = centres + noise * rng.normal(size=centres.shape)
    found = pycolmap.GPSTransform().enu_to_ellipsoid(there, *ORIGIN)
    return {f"{i:02d}.jpg": tuple(place) for i, place in enumerate(np.array(found))}


def test_gps_makes_it_metric(tmp_path):
    axes, centres = cameras("ring")
    saved(tmp_path, axes, centres)
    wild = degrees(centres) | {"03.jpg": (51.6, -0.01, 40.0)}  # 13 km off
    found = stand_up(tmp_path, {name: wild[name] for name in sorted(wild)[:12]}, None)
    assert found["georeference"]["unit"] == "metre"
    made = places_in(tmp_path)
    # The origin is the mean of the places, the wild one included; distances and directions are those of the ground.
    np.testing.assert_allclose(made - made[0], centres - centres[0], atol=0.15)
    assert found["georeference"]["gps"]["photos"] == 12


def test_gps_that_errs_as_much_as_the_photos_are_apart_is_not_used(tmp_path):
    axes, centres = cameras("ring")
    saved(tmp_path, axes, centres)
    found = stand_up(tmp_path, degrees(centres, noise=20), None)
    assert "georeference" not in found
    assert "is not used: it is off by" in found["said"]
    assert to_places(centres, np.ones_like(centres)) == "it says the same of all"


def test_a_known_distance(tmp_path):
    axes, centres = cameras("ring")
    saved(tmp_path, axes, centres)
    apart = float(np.linalg.norm(centres[2] - centres[9]))
    found = stand_up(tmp_path, {}, ("02.jpg", "09.jpg", apart))
    made = places_in(tmp_path)
    assert np.linalg.norm(made[4] - made[11]) == pytest.approx(np.linalg.norm(centres[4] - centres[11]))
    np.testing.assert_allclose(made[:, 2] - made[0, 2], 0, atol=1e-6)  # the ring lies level
    assert found["georeference"] == {"frame": "z up", "unit": "metre"}
    with pytest.raises(LpmError, match=r"no\.jpg has no pose"):
        stand_up(tmp_path, {}, ("no.jpg", "09.jpg", 1.0))


def test_places_in_exif():
    def exif(**changes):
        written, file = Image.Exif(), io.BytesIO()
        tags = {1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 5: b"\0", 6: 12.5}
        written.get_ifd(0x8825).update(tags | {int(key[1:]): value for key, value in changes.items()})
        Image.new("L", (8, 8)).save(file, "JPEG", exif=written)
        return Image.open(file).getexif()

    assert place_of(exif()) == pytest.approx((-33.86, 151.2, 12.5))
    assert place_of(exif(_5=b"\1")) == pytest.approx((-33.86, 151.2, -12.5))
    assert place_of(Image.Exif()) is None
    assert place_of(exif(_2=(133.0, 0.0, 0.0))) is None
    assert place_of(exif(_2=(0.0, 0.0, 0.0), _4=(0.0, 0.0, 0.0))) is None  # what some phones write without a fix


def test_it_reaches_the_exports(tmp_path):
    told = {"frame": "z up", "unit": "metre"}
    scene = make("room", tmp_path / "room", 8, (32, 24), 0)
    (scene / "georeference.json").write_text(json.dumps(told))
    settings = RunSettings(scene=scene, steps=2, max_points=3000, device="cpu", page=False)
    trainer = Trainer(settings, tmp_path / "run")
    trainer.setup(read_scene(scene))
    trainer.train()
    one, two = tmp_path / "one.ply", tmp_path / "two.splat"
    for kind, source, out in (("ply", tmp_path / "run", one), ("splat", one, two)):
        program = "from lpm.formats.cli import export_main; export_main()"
        subprocess.run([sys.executable, "-c", program, kind, source, out], check=True)
        assert json.loads(out.with_name(f"{out.name}.json").read_text())["georeference"] == told
