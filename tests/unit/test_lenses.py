"""Lenses that are no pinholes: their equations, the views cut out of their photos, and scenes that have them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tiny_scene
import torch
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes.cut_up import shown_of
from lpm.scenes.cuts import FACES, cuts
from lpm.scenes.images import load_image
from lpm.scenes.lenses import MODELS, NAMES, Lens
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.tile.split import _write_tile as write_tile
from lpm.train.load_photos import add_depths, load_photos
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

VALUES = {
    "f": 310.0, "fx": 300.0, "fy": 320.0, "cx": 330.0, "cy": 230.0, "k0": 0.03, "k1": -0.02, "k2": 0.01, "k3": -0.003,
    "k4": 0.001, "k5": 0.0007, "k6": -0.0002, "p0": 0.0015, "p1": 0.001, "p2": -0.002, "s0": 0.001, "s1": -0.0004,
    "s2": -0.0007, "s3": 0.0003, "sx1": 0.002, "sy1": -0.001, "omega": 0.9, "alpha": 0.6, "beta": 1.1, "w": 640.0,
    "h": 480.0,
}  # fmt: skip


def some(model: str) -> Lens:
    return Lens(model, tuple(VALUES[name] for name in NAMES[model]), (640, 480))


def around(degrees: float, count: int = 500) -> np.ndarray:
    """Directions up to `degrees` from the axis, and that itself."""
    rng = np.random.default_rng(0)
    angle, turn = np.radians(degrees) * rng.uniform(0, 1, count) ** 0.5, rng.uniform(0, 2 * np.pi, count)
    angle[0] = 0
    rays = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], 1)
    return rays * rng.uniform(0.1, 10, (count, 1))


@pytest.mark.parametrize("model", NAMES)
def test_every_model_draws_as_colmap_does(model):
    pycolmap = pytest.importorskip("pycolmap")
    if not hasattr(pycolmap.CameraModelId, model):
        pytest.skip("this pycolmap does not have it")
    assert int(getattr(pycolmap.CameraModelId, model).value) == next(
        k for k, (name, _) in MODELS.items() if name == model
    )
    lens = some(model)
    rays = around(min(80, math.degrees(lens.limit)))
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=lens.params).img_from_cam(rays)
    assert np.abs(lens.draws(rays) - theirs).max() < 1e-6


def test_fov_without_distortion_is_a_pinhole():
    rays = around(70)
    straight = Lens("PINHOLE", (300.0, 310.0, 320.0, 240.0), (640, 480)).draws(rays)
    assert np.allclose(Lens("FOV", (300.0, 310.0, 320.0, 240.0, 1e-7), (640, 480)).draws(rays), straight)


def test_wide_lenses_see_behind_and_flat_ones_do_not():
    behind = np.array([[1.0, 0, -0.1]])
    assert np.isnan(some("OPENCV").draws(behind)).all()
    wide = Lens("FISHEYE", (150.0, 150.0, 320.0, 320.0), (640, 640))
    assert wide.draws(behind)[0, 0] == pytest.approx(320 + 150 * (math.pi / 2 + math.atan(0.1)))
    assert wide.sees(behind)[1].all()


def test_where_a_lens_stops():
    turns = Lens("FULL_OPENCV", (27.0, 27.0, 48.0, 36.0, -0.35, 0.15, 0, 0, -0.03, 0, 0, 0), (96, 72))
    radius = np.linspace(0, 3, 30001)
    drawn = radius * (1 - 0.35 * radius**2 + 0.15 * radius**4 - 0.03 * radius**6)
    assert turns.folds()
    assert math.degrees(turns.limit) == pytest.approx(math.degrees(math.atan(radius[drawn.argmax()])), abs=0.11)
    assert not some("OPENCV").folds()
    # A circle in a square frame: its corners are black, not 130 degrees away.
    assert math.degrees(Lens("FISHEYE", (150.0, 150.0, 240.0, 240.0), (480, 480)).limit) == pytest.approx(90.7, abs=0.2)
    # A lens of 180 degrees from corner to corner has no such rim.
    assert math.degrees(Lens("FISHEYE", (230.0, 230.0, 300.0, 200.0), (600, 400)).limit) > 90


# What is cut out.


def paint(rays: np.ndarray) -> np.ndarray:
    """The colour of each direction: [..., 3] uint8, smooth."""
    d = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    waves = [np.sin(a * d[..., 0] + b) * np.cos(c * d[..., 1]) + np.sin(b + a * d[..., 2]) for a, b, c in WAVES]
    return (127.5 + 60 * np.stack(waves, -1) + 0.5).astype(np.uint8)


WAVES = ((6, 0, 5), (4, 1, 7), (7, 2, 3))


def rays_of(lens: Lens) -> np.ndarray:
    """[H, W, 3] the direction of every pixel, in closed form."""
    x, y = np.meshgrid(np.arange(lens.size[0]) + 0.5, np.arange(lens.size[1]) + 0.5)
    if lens.model == "EQUIRECTANGULAR":
        turn, rise = (x / lens.size[0] - 0.5) * 2 * np.pi, (y / lens.size[1] - 0.5) * np.pi
        return np.stack([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)], -1)
    fx, fy, cx, cy = lens.params[:4]
    u, v = (x - cx) / fx, (y - cy) / fy
    radius = np.hypot(u, v)
    if lens.model == "DIVISION":
        return np.stack([u, v, 1 + lens.params[4] * radius**2], -1)
    return np.stack([np.sinc(radius / np.pi) * u, np.sinc(radius / np.pi) * v, np.cos(radius)], -1)


LENSES = {
    "narrow fisheye": (Lens("FISHEYE", (200.0, 190.0, 161.0, 118.0), (320, 240)), 1),
    "wide fisheye": (Lens("OPENCV_FISHEYE", (100.0, 100.0, 160.0, 120.0, 0, 0, 0, 0), (320, 240)), 5),
    "wide, not high": (Lens("FISHEYE", (120.0, 120.0, 160.0, 90.0), (320, 180)), 3),
    "circle": (Lens("FISHEYE", (100.0, 100.0, 160.0, 160.0), (320, 320)), 5),
    "division": (Lens("DIVISION", (250.0, 250.0, 160.0, 120.0, -0.2), (320, 240)), 1),
    "all around": (Lens("EQUIRECTANGULAR", (512.0, 256.0), (512, 256)), 6),
}


@pytest.mark.parametrize("kind", LENSES)
def test_views_show_what_a_pinhole_would(kind):
    lens, count = LENSES[kind]
    photo = paint(rays_of(lens))
    found = cuts(lens, None, "x")
    assert len(found) == count
    covered = np.zeros(photo.shape[:2], bool)
    for cut in found:
        view, there = cut.take(photo)
        x, y = np.meshgrid(np.arange(cut.size[0]) + 0.5, np.arange(cut.size[1]) + 0.5)
        fx, fy, cx, cy = cut.intrinsics
        straight = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1) @ cut.turn.T
        off = np.abs(view.astype(int) - paint(straight))[there]
        assert off.mean() < 0.7
        assert off.max() < 12  # at the rim, where there is nothing to interpolate with
        assert there.all() == cut.whole
        assert np.linalg.det(cut.turn) == pytest.approx(1)
        ahead = rays_of(lens) @ cut.turn
        pixel = ahead[..., :2] / ahead[..., 2:] * (fx, fy) + (cx, cy)
        covered |= (ahead[..., 2] > 0) & ((pixel > -0.5) & (pixel < np.array(cut.size) + 0.5)).all(-1)
    used = lens.sees(rays_of(lens))[1]
    assert covered[used].mean() > (0.87 if count == 1 else 0.97)  # one view has no room for the corners
    half, there = found[0].take(photo[::2, ::2], None, found[0].intrinsics / 2, (found[0].size[0] // 2, 40))
    assert half.shape[:2] == there.shape == (40, found[0].size[0] // 2)


def test_a_stated_field_of_view():
    lens = LENSES["wide fisheye"][0]
    (cut,) = cuts(lens, 100, "x")
    assert cut.size[0] / cut.intrinsics[0] == pytest.approx(2 * math.tan(math.radians(50)), abs=0.01)
    assert cut.size[1] / cut.size[0] == pytest.approx(240 / 320, abs=0.01)
    assert cut.whole
    for wrong in (0, 170, math.nan):
        with pytest.raises(LpmError, match=r"--lens-fov: .*wanted 1 to 160 degrees"):
            cuts(lens, wrong, "x")


def test_what_a_mask_hides_stays_hidden():
    lens = LENSES["narrow fisheye"][0]
    (cut,) = cuts(lens, None, "x")
    mask = np.full((240, 320), 255, np.uint8)
    mask[:, 160:] = 0
    _, there = cut.take(paint(rays_of(lens)), mask)
    edge = round(float(cut.intrinsics[2] - cut.intrinsics[0] * math.tan(1 / 200)))
    assert there[:, : edge - 2].all()
    assert not there[:, edge + 1 :].any()


# Scenes.

FISHEYE = (5, "OPENCV_FISHEYE", [10.0, 10, 16, 12, 0.01, 0, 0, 0])
VIEWS = ["front", "right", "left", "up", "down"]


def fisheye_scene(folder):
    return tiny_scene.make_colmap(folder, views=10, model=FISHEYE)


def test_a_fisheye_scene_becomes_pinhole_views(tmp_path):
    folder = fisheye_scene(tmp_path / "scene")
    before = sorted(folder.rglob("*"))
    scene = read_scene(folder)
    assert sorted(folder.rglob("*")) == before
    assert scene.names[:6] == [f"000_{face}.png" for face in VIEWS] + ["001_front.png"]
    assert [path.name for path in scene.images[:6]] == ["000.png"] * 5 + ["001.png"]
    assert not scene.distortion.any()
    assert "10 photos by OPENCV_FISHEYE" in scene.notes[0]
    assert "to 5 views each: front, right, left, up, down" in scene.notes[0]
    # A point is where the lens draws it, by way of any view.
    plain = read_scene(tiny_scene.make_colmap(tmp_path / "plain"))
    lens = Lens(FISHEYE[1], tuple(FISHEYE[2]), (32, 24))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    seen = np.zeros(200, int)
    for i, cut in enumerate(scene.cuts):
        local = (points - scene.c2w[i, :3, 3]) @ scene.c2w[i, :3, :3] * (1, -1, -1)
        pixel = local[:, :2] / local[:, 2:] * scene.intrinsics[i, :2] + scene.intrinsics[i, 2:]
        ahead = local[:, 2] > 0
        raw = plain.c2w[i // 5]
        theirs = lens.draws((points - raw[:3, 3]) @ raw[:3, :3] * (1, -1, -1))
        mine = lens.draws(cut.rays(scene.intrinsics[i], *pixel.T))
        assert np.allclose(mine[ahead], theirs[ahead])
        seen += i < 5 and ahead & ((pixel > 0) & (pixel < scene.sizes[i])).all(1)
    assert (seen == 1).mean() > 0.9
    # Views of a photo are held out together, and lists name photos.
    train, test = hold_out(scene, 8)
    assert test.tolist() == [*range(5), *range(40, 45)]
    assert sorted([*train, *test]) == list(range(50))
    (folder / "test_list.txt").write_text("003.png\n")
    assert hold_out(read_scene(folder), 8)[1].tolist() == list(range(15, 20))
    (folder / "test_list.txt").unlink()
    one = read_scene(folder, lens_fov=90)
    assert (len(one), one.names[0]) == (10, "000.png")


def test_photos_masks_and_depths_are_cut_alike(tmp_path):
    """Colour, mask and depth of each pixel tell the same direction."""
    folder = tiny_scene.make_transforms(tmp_path / "scene", views=4)
    lens = Lens("OPENCV_FISHEYE", (60.0, 60.0, 96.0, 72.0, 0, 0, 0, 0), (192, 144))
    rays = rays_of(lens)
    photo, mask = paint(rays), np.where(rays[..., 0] < 0.3, 255, 0).astype(np.uint8)
    depth = np.where(rays[..., 2] > 0.01, 4 * rays[..., 2] / np.linalg.norm(rays, axis=-1), 0)  # a sphere around
    meta = json.loads((folder / "transforms.json").read_text())
    for i in range(4):
        Image.fromarray(photo).save(folder / f"images/{i:03d}.png")
    Image.fromarray(mask).save(folder / "mask.png")
    np.save(folder / "depth.npy", depth)
    for one in meta["frames"]:
        one.update(mask_path="mask.png", depth_file_path="depth.npy")
    meta |= {"fl_x": 60, "fl_y": 60, "cx": 96, "cy": 72, "w": 192, "h": 144, "k1": 0, "is_fisheye": True}
    (folder / "transforms.json").write_text(json.dumps(meta))
    scene = read_scene(folder)
    settings = SceneSettings(auto_scale_poses=False, depth_unit_scale_factor=1)
    split = place(scene, settings, 0).train
    for scale in (1.0, 0.5):
        photos, cameras = load_photos(split, scale)
        add_depths(photos, split, cameras, 1.0, pytest.fail, "x")
        for i, found in enumerate(photos[:5]):
            fx, fy, cx, cy = cameras.intrinsics[i].tolist()
            height, width = found["image"].shape[:2]
            assert (width, height) == tuple(cameras.sizes[i].tolist())
            x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
            straight = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1)
            known = found["mask"][..., 0].numpy()
            off = np.abs(found["image"].numpy().astype(int) - paint(straight @ scene.cuts[i].turn.T))
            assert known.any() != (i == 1)  # all to the right is masked
            assert off[known].mean() < (0.8 if scale == 1 else 4) if i != 1 else True
            unit = straight @ scene.cuts[i].turn.T / np.linalg.norm(straight, axis=-1, keepdims=True)
            assert not known[unit[..., 0] > 0.32].any()
            sees = lens.sees(unit)[1]
            inside = sees & (unit[..., 0] < 0.25) & np.roll(sees, 3, 0) & np.roll(sees, -3, 0)
            assert known[inside & np.roll(sees, 3, 1) & np.roll(sees, -3, 1)].all()
            rows, columns = found["depth"].nonzero().T.tolist()
            grid = found["depth"].shape
            at = unit[
                [int((r + 0.5) * height / grid[0]) for r in rows], [int((c + 0.5) * width / grid[1]) for c in columns]
            ]
            assert len(rows) or i not in (0, 2)
            # 4 away in every direction, and along the view's own axis less.
            own = (at @ scene.cuts[i].turn)[:, 2] * 4
            assert np.abs(found["depth"].numpy()[rows, columns] / own - 1).mean() < 0.06 if len(rows) else True


def test_all_around_in_transforms(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene", views=4)
    lens = LENSES["all around"][0]
    meta = json.loads((folder / "transforms.json").read_text())
    meta = {"camera_model": "EQUIRECTANGULAR", "frames": meta["frames"], "ply_file_path": meta["ply_file_path"]}
    (folder / "transforms.json").write_text(json.dumps(meta))
    for i in range(4):
        Image.fromarray(paint(rays_of(lens))).save(folder / f"images/{i:03d}.png")
    scene = read_scene(folder)
    assert len(scene) == 24
    assert "360 x 180 degrees" in scene.notes[0]
    assert scene.cuts[0].whole
    back, mask = shown_of(scene, 2)
    assert mask is None
    assert np.abs(back[81, 81].astype(int) - paint(np.array([0, 0, -1.0]))).max() <= 3
    assert np.allclose(scene.c2w[2, :3, 2], -scene.c2w[0, :3, 2])


def test_distortion_that_folds_is_masked(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    meta = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(
        json.dumps(meta | {"fl_x": 9, "fl_y": 9, "k1": -0.35, "k2": 0.15, "k3": -0.03})
    )
    scene = read_scene(folder)
    assert "FULL_OPENCV" in scene.notes[0]
    image, mask = shown_of(scene, 0)
    assert image.shape[:2] == tuple(scene.sizes[0, ::-1])
    assert mask is not None
    assert 0 < (mask == 0).mean() < 0.3
    photos, _ = load_photos(place(scene, SceneSettings(), 0).train, 1.0)
    assert torch.equal(photos[0]["mask"][..., 0], torch.from_numpy(mask > 0))


def test_turns_are_right_handed():
    for turn in FACES.values():
        assert np.allclose(turn @ turn.T, np.eye(3))
        assert np.linalg.det(turn) == pytest.approx(1)
    assert FACES["right"][:, 2].tolist() == [1, 0, 0]
    assert FACES["up"][:, 2].tolist() == [0, -1, 0]


def test_tiles_hold_the_views(tmp_path):
    scene = read_scene(fisheye_scene(tmp_path / "scene"))
    write_tile(tmp_path / "tile", scene, [0, 1, 7, 9], np.arange(20), {scene.names[1]})
    tile = read_scene(tmp_path / "tile")
    assert tile.cuts is None
    assert len(tile.masks) == 4
    assert tile.lists["test"] == ["images/000_right.png"]
    for v in (0, 1, 7, 9):
        image, mask = shown_of(scene, v)
        k = tile.names.index(f"images/{scene.names[v]}")
        assert np.allclose(tile.intrinsics[k], scene.intrinsics[v])
        assert np.allclose(tile.c2w[k], scene.c2w[v])
        assert (load_image(tile.images[k])[..., :3] == image).all()
        assert ((load_image(tile.masks[k])[..., 0] > 0) == (True if mask is None else mask > 0)).all()


def test_a_view_looked_at_along_its_middle():
    lens = LENSES["wide fisheye"][0]
    photo = paint(rays_of(lens))
    for cut in cuts(lens, None, "x"):
        shown = cut.centred(64)
        assert max(shown.size) == 64
        assert shown.intrinsics[2:].tolist() == [shown.size[0] / 2, shown.size[1] / 2]
        middle = cut.rays(cut.intrinsics, np.array(cut.size[0] / 2), np.array(cut.size[1] / 2))
        assert np.allclose(shown.turn[:, 2], middle / np.linalg.norm(middle))
        view, there = shown.take(photo)
        x, y = np.meshgrid(np.arange(shown.size[0]) + 0.5, np.arange(shown.size[1]) + 0.5)
        off = np.abs(view.astype(int) - paint(shown.rays(shown.intrinsics, x, y)))[there]
        assert off.mean() < 1
