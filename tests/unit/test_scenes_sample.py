"""Sample scenes keep what truth.json promises: depths, points on surfaces, an empty hole, floating false points."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lpm.checks import LpmError
from lpm.scenes.cli import list_, parse_size
from lpm.scenes.ply import read_points
from lpm.scenes.read import read_scene
from lpm.scenes.samples import make, textures
from lpm.scenes.samples.points import inside, project, unproject
from lpm.scenes.samples.worlds import SAMPLES

VIEWS, SIZE = 8, (128, 96)


@pytest.fixture(scope="module", params=list(SAMPLES))
def made(request, tmp_path_factory):
    """A small sample scene, read back, with its truth and its geometry."""
    folder = make.make(request.param, tmp_path_factory.mktemp("made") / request.param, VIEWS, SIZE)
    scene = read_scene(folder)
    return SimpleNamespace(
        name=request.param,
        facing=1 if request.param == "street" else VIEWS // 2,  # views that must show what is planted
        folder=folder,
        scene=scene,
        truth=json.loads((folder / "truth.json").read_text()),
        depth=[np.load(folder / "depth" / f"{i:04d}.npy") for i in range(VIEWS)],
        labels=[np.asarray(Image.open(folder / "labels" / f"{i:04d}.png")) for i in range(VIEWS)],
        rgb=[np.asarray(Image.open(path)) / 255.0 for path in scene.images],
        world=SAMPLES[request.param].world(0),
    )


def test_layout(made):
    scene = made.scene
    assert scene.layout.kind == "transforms"
    assert len(scene) == VIEWS
    assert (scene.sizes == SIZE).all()
    assert scene.notes == []
    assert all(d.shape == SIZE[::-1] and d.dtype == np.float32 and np.isfinite(d).all() for d in made.depth)
    assert len(scene.points.xyz) == made.truth["points"]["count"]


def test_images_are_well_exposed_and_rich(made):
    for rgb in made.rgb:
        assert 0.25 < rgb.mean() < 0.7
        assert (rgb > 0.995).mean() < 0.05
        assert rgb.std() > 0.1


def test_depth_lies_on_surfaces(made):
    for i, depth in enumerate(made.depth):
        rows, columns = np.divmod(np.arange(0, depth.size, 37), SIZE[0])
        z = depth[rows, columns].astype(np.float64)
        points = unproject(np.stack([columns, rows], 1) + 0.5, z, made.scene.c2w[i], made.scene.intrinsics[i])
        assert (made.world.distance(points) < 1e-3 + 1e-5 * z).all()


def test_views_agree_through_depth(made):
    """Photometric consistency: what two views both see has the same colour, up to exposure, edges and the glass."""
    errors, shuffled = [], []
    for i in range(VIEWS):
        j = (i + 1) % VIEWS
        a, b = made.depth[i], made.depth[j]
        smooth = ndimage.maximum_filter(a, 3) / ndimage.minimum_filter(a, 3) < 1.03
        rows, columns = np.nonzero(smooth & (made.labels[i] == 0))
        pose, k = made.scene.c2w, made.scene.intrinsics
        points = unproject(np.stack([columns, rows], 1) + 0.5, a[rows, columns].astype(np.float64), pose[i], k[i])
        pixels, z = project(points, pose[j], k[j])
        ok = (z > 0.1) & (pixels > 1).all(1) & (pixels < np.array(SIZE) - 1).all(1)
        u, v = pixels[ok].T
        at = (v.astype(int), u.astype(int))
        same = (np.abs(b[at] - z[ok]) < 0.01 * z[ok]) & (made.labels[j][at] == 0)
        if same.sum() < 50:
            continue
        there = np.stack(
            [ndimage.map_coordinates(made.rgb[j][..., c], [v - 0.5, u - 0.5], order=1) for c in range(3)], 1
        )
        gain = made.truth["exposure_gain"]
        names = made.scene.names
        here = made.rgb[i][rows[ok], columns[ok]] / gain[names[i]]
        there = there / gain[names[j]]
        keep = same & (here.max(1) < 0.75) & (there.max(1) < 0.75)
        errors.append(np.abs(here - there)[keep].mean())
        shuffled.append(np.abs(here[keep] - np.roll(there[keep], 1000, 0)).mean())
    assert len(errors) >= 3
    assert np.median(errors) < 0.06
    assert np.median(errors) < 0.5 * np.median(shuffled)


def test_points_lie_on_surfaces_except_the_false_ones(made):
    xyz, false = made.scene.points.xyz, np.array(made.truth["false_points"]["indices"])
    assert np.allclose(xyz[false], made.truth["false_points"]["positions"], atol=1e-4)
    distance = made.world.distance(xyz)
    real = np.setdiff1d(np.arange(len(xyz)), false)
    # A point was found in some view, so its noise is at most that of a pixel at its farthest camera.
    away = np.linalg.norm(xyz[:, None] - made.scene.c2w[None, :, :3, 3], axis=2).max(1)
    bound = 5 * made.truth["points"]["noise_px"] * away / made.scene.intrinsics[0, 0]
    assert (distance[real] < bound[real]).all()
    assert np.median(distance[false]) > 0.1
    floating = [made.truth["visible"][name]["false_points"] > len(false) // 2 for name in made.scene.names]
    assert sum(floating) >= made.facing


def test_real_points_have_their_pixels_colour(made):
    """Also across the layout's frame and the PLY: the points are where the images show them."""
    xyz, rgb = made.scene.points.xyz, made.scene.points.rgb / 255.0
    for i in range(0, VIEWS, 3):
        pixels, z = project(xyz, made.scene.c2w[i], made.scene.intrinsics[i])
        rows = np.flatnonzero((z > 0.1) & (pixels >= 0).all(1) & (pixels < SIZE).all(1))
        at = pixels[rows].astype(int)
        seen = np.abs(made.depth[i][at[:, 1], at[:, 0]] - z[rows]) < 0.02 * z[rows]
        a, b = made.rgb[i][at[seen, 1], at[seen, 0]], rgb[rows[seen]]
        assert seen.sum() > 300
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7


def test_hole_is_empty_and_seen(made):
    hole = made.truth["hole"]
    centre, size = np.array(hole["centre"]), np.array(hole["size"])
    assert not inside(made.scene.points.xyz, (centre - size / 2, centre + size / 2)).any()
    # There would be points: the surfaces in it are seen, and texture is around.
    assert sum(v["hole"] > 0.005 for v in made.truth["visible"].values()) >= made.facing
    for i, name in enumerate(made.scene.names):
        depth = made.depth[i]
        pixels = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), -1).reshape(-1, 2) + 0.5
        points = unproject(pixels, depth.ravel().astype(float), made.scene.c2w[i], made.scene.intrinsics[i])
        share = inside(points, (centre - size / 2, centre + size / 2)).mean()
        assert share == pytest.approx(made.truth["visible"][name]["hole"], abs=2e-3)


def test_truth_counts_what_labels_show(made):
    for name, label in zip(made.scene.names, made.labels, strict=True):
        for region, bit in made.truth["labels"].items():
            assert made.truth["visible"][name][region] == pytest.approx(((label & bit) > 0).mean(), abs=1e-5)
    if made.truth["scene"] != "street":
        assert sum(v["rails"] > 0.003 for v in made.truth["visible"].values()) >= VIEWS // 2
    assert max(v["background"] for v in made.truth["visible"].values()) > 0.03
    assert (made.truth["pane"] is not None) == (made.name == "room")
    gains = [made.truth["exposure_gain"][name] for name in made.scene.names]
    assert gains[0] == 1
    assert (len(set(gains)) > 1) == (made.name == "room")


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_seed_decides_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "SIZE", 128)  # coarse textures are made sooner
    one, two, other = (
        digest(make.make("garden", tmp_path / str(i), 8, (48, 32), seed)) for i, seed in enumerate((3, 3, 4))
    )
    assert one == two
    assert one.keys() == other.keys()
    assert one["images/0000.png"] != other["images/0000.png"]
    assert one["sparse_pc.ply"] != other["sparse_pc.ply"]


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "SIZE", 128)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(make, "find_points", stop)
    monkeypatch.setattr(make, "shoot", lambda *a: SimpleNamespace(rgb=np.zeros((16, 16, 3))))
    with pytest.raises(KeyboardInterrupt):
        make.make("room", tmp_path / "out", 8, (16, 16))
    assert list(tmp_path.iterdir()) == []


def test_overwrite_replaces_sample_scenes_only(tmp_path, monkeypatch):
    def fake(folder, *arguments):
        (folder / "truth.json").write_text("new")

    monkeypatch.setattr(make, "write", fake)
    out = tmp_path / "out"
    out.mkdir()
    make.make("room", out)  # an empty folder is no loss
    with pytest.raises(LpmError, match=r"out: is there already.*--overwrite"):
        make.make("room", out)
    (out / "truth.json").write_text("old")
    make.make("room", out, overwrite=True)
    assert (out / "truth.json").read_text() == "new"
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "a.jpg").write_text("a")
    with pytest.raises(LpmError, match=r"photos: is not a sample scene"):
        make.make("room", precious, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "attic"}, r"'attic'; wanted one of room, garden"),
        ({"views": 2}, r"views: 2; wanted at least 8"),
        ({"size": (4, 4)}, r"size: 4x4"),
        ({"seed": -1}, r"seed: -1"),
    ],
)
def test_bad_numbers(tmp_path, arguments, says):
    with pytest.raises(LpmError, match=says):
        make.make(**{"name": "room", "out": tmp_path / "out", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, capsys):
    assert parse_size("320x240") == (320, 240)
    for text in ("320", "axb", "-1x4"):
        with pytest.raises(LpmError, match="wanted WIDTHxHEIGHT"):
            parse_size(text)
    list_()
    said = capsys.readouterr().out
    assert all(name in said for name in (*SAMPLES, "yard"))
    code = "import sys; from lpm.scenes.cli import main; sys.argv[0] = 'lpm-scene'; main()"
    run = [sys.executable, "-c", code, "make", "attic", str(tmp_path / "x")]
    result = subprocess.run(run, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        "error: scene: 'attic'; wanted one of room, garden, street, yard, random; see `lpm-scene list`"
    ]


def test_light_imports():
    """The command and the readers do without nerfstudio, which takes seconds to import."""
    code = "import sys, lpm.scenes.cli, lpm.scenes.read, lpm.scenes.samples.make; sys.exit('nerfstudio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ply_round_trip(tmp_path):
    from lpm.scenes.ply import write_points

    xyz = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32).astype(np.float64)
    rgb = np.arange(15, dtype=np.uint8).reshape(5, 3)
    write_points(tmp_path / "a.ply", xyz, rgb)
    back = read_points(tmp_path / "a.ply")
    assert (back.xyz == xyz).all()
    assert (back.rgb == rgb).all()
