"""Still scenes drawn from a seed: geometry as truth.json says, faults in drawn bounds, a side that can be held out."""

from __future__ import annotations

import filecmp
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes.read import read_scene
from lpm.scenes.samples import make, textures
from lpm.scenes.samples.faults import drift
from lpm.scenes.samples.points import project, unproject
from lpm.scenes.samples.random_still import ORDER, draw, random_still, random_views
from lpm.scenes.split import hold_out

VIEWS, SIZE = 12, (64, 48)


@pytest.fixture(scope="module", params=range(0, 12, 2), ids=ORDER)
def made(request, tmp_path_factory):
    """A tiny scene of each kind, with coarse textures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textures, "SIZE", 128)
        folder = make.make("random", tmp_path_factory.mktemp("still") / "out", VIEWS, SIZE, request.param)
        sample = random_still(request.param)
        world = sample.world(request.param)
    truth = json.loads((folder / "truth.json").read_text())
    return SimpleNamespace(folder=folder, world=world, drawn=sample.drawn, truth=truth, scene=read_scene(folder))


def test_the_layout_and_what_was_drawn(made):
    assert len(made.scene) == VIEWS
    assert made.scene.notes == []
    assert made.truth["drawn"]["kind"] == made.drawn.kind
    assert 20 < len(made.scene.points.xyz) <= made.truth["drawn"]["points"]
    assert (made.truth["pane"] is not None) == (made.drawn.kind == "glass")
    for image in made.scene.images:
        rgb = np.asarray(Image.open(image)) / 255.0
        assert 0.15 < rgb.mean() < 0.8
        assert rgb.std() > 0.05


def test_depth_lies_on_surfaces_and_cameras_in_the_open(made):
    poses = np.array([made.truth["poses"][name] for name in made.scene.names])
    assert made.world.distance(poses[:, :3, 3]).min() > 0.15
    for i, pose in enumerate(poses):
        depth = np.load(made.folder / "depth" / f"{i:04d}.npy")
        assert np.median(depth) > 0.5
        rows, columns = np.divmod(np.arange(0, depth.size, 17), SIZE[0])
        z = depth[rows, columns].astype(np.float64)
        points = unproject(np.stack([columns, rows], 1) + 0.5, z, pose, made.scene.intrinsics[i])
        assert (made.world.distance(points) < 1e-3 + 1e-5 * z).all()


def test_labels_show_what_the_kind_is_named_after(made):
    labels = np.stack([np.asarray(Image.open(path)) for path in sorted((made.folder / "labels").iterdir())])
    assert (labels & make.LABELS["pane"] > 0).any() == (made.drawn.kind == "glass")
    if made.drawn.kind == "thin":
        assert (labels & make.LABELS["rails"] > 0).mean() > 0.01


def test_poses_are_off_by_no_more_than_what_is_drawn(made):
    corners = np.array([[x, y] for x in (0.0, SIZE[0]) for y in (0.0, SIZE[1])])
    for i, name in enumerate(made.scene.names):
        pose, k = np.array(made.truth["poses"][name]), made.scene.intrinsics[i]
        points = unproject(corners, np.full(4, 2.0), pose, k)
        moved = np.linalg.norm(project(points, made.scene.c2w[i], k)[0] - corners, axis=1).max()
        assert moved <= made.truth["drawn"]["pose_noise"] + 1e-6
        held = i % 8 == 0 or name in made.truth["sector"]
        assert (moved < 1e-6) == (held or made.drawn.pose_noise == 0)
        gain = made.truth["exposure_gain"][name]
        assert 1 / 1.43 < gain < 1.43
        assert gain == 1 or not held


def test_a_side_can_be_held_out(made):
    scene = read_scene(made.folder / "sector.json")
    train, test = hold_out(scene, 8)
    assert [scene.names[i] for i in test] == made.truth["sector"]
    assert len(train) + len(test) == VIEWS
    assert 1 <= len(test) <= 0.3 * VIEWS
    turn = np.radians(made.truth["drawn"]["side"])
    places = np.array([made.truth["poses"][name] for name in scene.names])[:, :2, 3]
    far = places @ np.array([np.cos(turn), np.sin(turn)])
    assert far[test].min() >= far[train].max()
    assert hold_out(made.scene, 8)[1].tolist() == [0, 8]  # transforms.json: every 8th


def test_even_and_odd_seeds_have_every_kind():
    assert [draw(seed).kind for seed in range(0, 12, 2)] == list(ORDER)
    assert [draw(seed).kind for seed in range(1, 13, 2)] == list(ORDER)
    drawn = [draw(seed) for seed in range(60)]
    assert min(d.points for d in drawn) < 1_000 < 12_000 < max(d.points for d in drawn)
    assert 0.2 < np.mean([d.drift == 0 for d in drawn]) < 0.8
    assert 0.8 < max(d.pose_noise for d in drawn) <= 1
    assert all(16 <= random_views(seed) <= 48 for seed in range(20))


def test_drift_is_slow_and_away_at_every_8th_view():
    gains = drift(0.2, 33)
    assert (gains[::8] == 1).all()
    assert gains.max() == pytest.approx(1.2)
    assert gains.min() == pytest.approx(1 / 1.2)
    assert np.abs(np.diff(gains)).max() < 0.09


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "SIZE", 64)
    one, two, other = (make.make("random", tmp_path / str(i), 8, (32, 24), s) for i, s in enumerate((5, 5, 17)))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert filecmp.cmpfiles(one, two, files, shallow=False)[0] == files
    assert not filecmp.cmp(one / "images/0000.png", other / "images/0000.png", shallow=False)
    with pytest.raises(LpmError, match="lens: fisheye; wanted pinhole"):
        make.make("random", tmp_path / "x", 8, (32, 24), 0, lens="fisheye")
