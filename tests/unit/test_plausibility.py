"""A good scene has nothing wrong with it; one with a planted fault has just that, and the photo is named."""

from __future__ import annotations

import copy
import json
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_scene
from corner_scene import make_corner
from PIL import Image
from scipy.spatial.transform import Rotation

from lpm.checks import LpmError
from lpm.plausibility.check import check, check_briefly, in_runs, stop_if_serious
from lpm.plausibility.points import track_errors
from lpm.scenes.read import read_scene

MIRROR = np.diag([-1.0, 1, 1, 1])


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    return read_scene(make_corner(tmp_path_factory.mktemp("plausibility") / "corner"))


@pytest.fixture
def scene(corner):
    return copy.deepcopy(corner)


def serious(report):
    return [(finding.kind, finding.photos) for finding in report.findings if finding.serious]


@pytest.mark.parametrize("look", [check, check_briefly])
def test_a_good_scene_has_nothing_wrong(scene, look):
    report = look(scene)
    assert report.findings == []
    assert not report.serious
    assert report.pairs >= 12


def test_what_is_told_of_a_good_scene(scene):
    report = check(scene)
    assert report.figures["explained"] > 0.95
    assert report.figures["off_px"] < 0.3
    assert report.verdict() == "nothing wrong"


def whole_faults():
    def focal(scene):
        scene.intrinsics[:, :2] *= 1.2

    def scaled(scene):
        scene.intrinsics *= 0.5

    def centre(scene):
        scene.intrinsics[:, 2] += 20

    def mirrored(scene):
        scene.c2w = MIRROR @ scene.c2w @ MIRROR
        scene.points = None

    def opencv(scene):
        scene.c2w[:, :3, 1:3] *= -1
        scene.points = None

    def inverse(scene):
        scene.c2w = np.linalg.inv(scene.c2w)
        scene.points = None

    def later(scene):
        scene.images = scene.images[1:] + scene.images[:1]

    def away(scene):
        scene.points.xyz[:] += 50

    names = ["focal", "scaled", "principal-point", "mirrored", "axes", "inverse", "shifted", "points"]
    return list(zip(names, [focal, scaled, centre, mirrored, opencv, inverse, later, away], strict=True))


@pytest.mark.parametrize("look", [check, check_briefly])
@pytest.mark.parametrize(("kind", "plant"), whole_faults(), ids=[kind for kind, _ in whole_faults()])
def test_faults_of_the_whole_scene_are_named(scene, look, kind, plant):
    plant(scene)
    assert serious(look(scene)) == [(kind, ())]


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.5])
def test_the_right_focal_length_is_told(scene, factor):
    scene.intrinsics[:, :2] *= factor
    (finding,) = check(scene).findings
    told = float(finding.text.split("seems to be ")[1].split(" times")[0])
    assert told == pytest.approx(1 / factor, rel=0.01)


def test_swapped_photos_are_named(scene):
    scene.images[3], scene.images[11] = scene.images[11], scene.images[3]
    assert serious(check(scene)) == [("swapped", ("images/003.png", "images/011.png"))]


def test_names_that_are_shifted_from_one_on(scene):
    scene.images = scene.images[:9] + scene.images[10:] + scene.images[:1]  # the tenth was lost
    ((kind, photos),) = serious(check(scene))
    assert kind == "shifted"
    assert set(scene.names[10:]) <= set(photos) <= set(scene.names[8:])


@pytest.mark.parametrize("view", [0, 7])
def test_noise_on_one_pose_is_named(scene, view):
    turn = Rotation.from_rotvec([0.02, 0.03, -0.02]).as_matrix()
    scene.c2w[view, :3, :3] = turn @ scene.c2w[view, :3, :3]
    (finding,) = check(scene).findings
    assert (finding.kind, finding.serious, finding.photos) == ("pose", True, (scene.names[view],))
    assert "2.4 degrees" in finding.text


@pytest.mark.parametrize("look", [check, check_briefly])
def test_poses_of_another_scene_are_named(scene, look):
    scene.c2w = scene.c2w[np.random.default_rng(3).permutation(16)]
    (finding,) = look(scene).findings
    assert (finding.kind, finding.serious) == ("poses", True)


def painted(scene, tmp_path, view, pixels):
    scene.images[view] = tmp_path / f"{view}.png"
    Image.fromarray(pixels).save(scene.images[view])


@pytest.mark.parametrize("look", [check, check_briefly])
@pytest.mark.parametrize(("kind", "level"), [("black", 0), ("black", 6), ("blank", 200)])
def test_black_and_blank_photos_are_named(scene, tmp_path, look, kind, level):
    painted(scene, tmp_path, 5, np.full((180, 240, 3), level, np.uint8))
    assert serious(look(scene)) == [(kind, ("images/005.png",))]


def test_the_same_photo_twice_is_named(scene, tmp_path):
    painted(scene, tmp_path, 5, np.asarray(Image.open(scene.images[9])))
    twice = ("duplicate", ("images/005.png", "images/009.png"))
    assert twice in serious(check(scene))
    assert serious(check_briefly(scene))[0] == twice
    scene.c2w[5] = scene.c2w[9]
    report = check_briefly(scene)
    assert not report.serious
    assert [finding.kind for finding in report.findings] == ["duplicate", "same-pose"]


def masked(scene, tmp_path, shown=lambda i, mask: mask):
    """Masks that hide one of the three walls."""
    scene.masks = []
    for i in range(len(scene)):
        y, x = np.mgrid[0:180, 0:240] + 0.5
        fx, fy, cx, cy = scene.intrinsics[i]
        ray = np.stack([(x - cx) / fx, -(y - cy) / fy, -np.ones_like(x)], -1) @ scene.c2w[i, :3, :3].T
        eye = scene.c2w[i, :3, 3]
        depth = -eye / np.where(ray == 0, 1e-9, ray)  # of the walls x = 0, y = 0, z = 0
        mask = np.where(np.where(depth > 0, depth, np.inf).argmin(-1) == 0, 0, 255).astype(np.uint8)
        scene.masks.append(tmp_path / f"mask{i}.png")
        Image.fromarray(shown(i, mask)).save(scene.masks[i])


def test_masks_that_agree_are_good(scene, tmp_path):
    masked(scene, tmp_path)
    assert check(scene).findings == []


def test_wrong_masks_are_named(scene, tmp_path):
    masked(scene, tmp_path, lambda i, mask: 255 - mask if i == 6 else mask)
    assert ("mask", ("images/006.png",)) in serious(check(scene))
    masked(scene, tmp_path, lambda i, mask: mask * 0)
    assert [kind for kind, _ in serious(check_briefly(scene))] == ["mask"]
    masked(scene, tmp_path, lambda i, mask: mask * 0 if i == 6 else mask)
    report = check_briefly(scene)
    assert [(f.kind, f.serious, f.photos) for f in report.findings] == [("mask", False, ("images/006.png",))]


def test_masks_that_hide_the_points_are_told(scene, tmp_path):
    corner = lambda i, mask: np.where(np.arange(240) > 225, 255, mask * 0).astype(np.uint8)  # noqa: E731
    masked(scene, tmp_path, corner)
    (finding,) = check(scene).findings
    assert (finding.kind, finding.serious) == ("mask", False)
    assert "of the scene's own points where photos show them: inverted?" in finding.text


def test_exposures_that_jump_are_told(scene, tmp_path):
    for view in (4, 9):
        painted(scene, tmp_path, view, (np.asarray(Image.open(scene.images[view])) * 0.6).astype(np.uint8))
    (finding,) = check(scene).findings
    assert (finding.kind, finding.serious, finding.photos) == ("exposure", False, ("images/004.png", "images/009.png"))


def test_photos_of_noise_tell_nothing(tmp_path):
    report = check(read_scene(tiny_scene.make_transforms(tmp_path / "scene")))
    assert (report.findings, report.pairs) == ([], 0)
    assert "too few to judge the poses" in report.told()


# COLMAP's tracks


def tracked(folder, off=0.0, wrong=None):
    """A COLMAP scene whose images see all points where they are, `off` pixels away; those of one image, 50."""
    tiny_scene.make_colmap(folder)
    xyz, _ = tiny_scene.points()
    data = struct.pack("<Q", 10)
    for i, pose in enumerate(tiny_scene.poses()):
        w2c = np.linalg.inv(pose @ np.diag([1.0, -1, -1, 1]))
        local = xyz @ w2c[:3, :3].T + w2c[:3, 3]
        at = local[:, :2] / local[:, 2:] * 30 + (16, 12) + (50 if i == wrong else off)
        q = tiny_scene.quaternion(w2c[:3, :3])
        data += struct.pack("<i7di", i + 1, *q, *w2c[:3, 3], 7) + f"{i:03d}.png".encode() + b"\0"
        data += struct.pack("<Q", len(at) + 1) + struct.pack("<ddq", 5, 5, -1)  # a feature without a point
        data += b"".join(struct.pack("<ddq", *row, key + 1) for key, row in enumerate(at.tolist()))
    (folder / "sparse/0/images.bin").write_bytes(data)
    return folder


@pytest.mark.parametrize(("off", "kind"), [(0.0, None), (0.1, None), (3.0, "reprojection")])
def test_reprojection_of_tracks(tmp_path, off, kind):
    folder = tracked(tmp_path / "scene", off)
    errors = track_errors(folder / "sparse/0")
    assert list(errors) == [f"{i:03d}.png" for i in range(10)]
    assert np.allclose(list(errors.values()), np.hypot(off, off) / 32, atol=1e-6)
    assert [f.kind for f in check_briefly(read_scene(folder)).findings] == ([kind] if kind else [])


def test_tracks_of_one_photo_that_are_wrong(tmp_path):
    folder = tracked(tmp_path / "scene", wrong=4)
    assert serious(check_briefly(read_scene(folder))) == [("pose", ("004.png",))]


def test_tracks_in_text(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "text", binary=False)
    assert track_errors(folder / "sparse/0") == {}  # two features are not enough
    xyz, _ = tiny_scene.points()
    rows = (folder / "sparse/0/images.txt").read_text().splitlines()
    w2c = np.linalg.inv(tiny_scene.poses()[2] @ np.diag([1.0, -1, -1, 1]))
    local = xyz @ w2c[:3, :3].T + w2c[:3, 3]
    at = local[:, :2] / local[:, 2:] * 30 + (16, 12)
    line = next(i for i, row in enumerate(rows) if row.endswith("002.png"))
    rows[line + 1] = " ".join(f"{x} {y} {i + 1}" for i, (x, y) in enumerate(at.tolist()))
    (folder / "sparse/0/images.txt").write_text("\n".join(rows) + "\n")
    assert track_errors(folder / "sparse/0") == {"002.png": pytest.approx(0, abs=1e-6)}


# The commands


def test_photos_in_runs():
    assert in_runs(5, 8, 3) == [0, 1, 2, 3, 4]
    assert in_runs(100, 12, 3) == [0, 1, 2, 32, 33, 34, 65, 66, 67, 97, 98, 99]
    assert len(in_runs(1000, 150, 5)) == 150


def run(monkeypatch, capsys, *words):
    from lpm.scenes.cli import main

    monkeypatch.setattr(sys, "argv", ["lpm-scene", "check", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    folder = make_corner(tmp_path / "scene")
    code, text = run(monkeypatch, capsys, folder)
    assert not code
    assert "found     nothing wrong" in text
    meta = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps(meta | {"fl_x": 300, "fl_y": 300}))
    code, text = run(monkeypatch, capsys, folder)
    assert code == 1
    assert "ERROR     focal: the focal length seems to be 0.73" in text
    code, text = run(monkeypatch, capsys, folder, "--json")
    assert code == 1
    told = json.loads(text)
    assert (told["serious"], told["findings"][0]["kind"], told["photos"]) == (True, "focal", 16)


def test_training_stops_on_what_is_serious(scene):
    said = []
    stop_if_serious(scene, said.append, "--data.unchecked")
    assert said == []
    scene.intrinsics[:, :2] *= 1.5
    with pytest.raises(LpmError, match=r"focal length seems to be 0\.66.*; wanted .*--data\.unchecked"):
        stop_if_serious(scene, said.append, "--data.unchecked")


@pytest.mark.parametrize("face", ["core", "nerfstudio"])
def test_both_faces_check_before_they_train(tmp_path, monkeypatch, face):
    folder = make_corner(tmp_path / "scene", views=9)
    meta = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps(meta | {"fl_x": 330, "fl_y": 330}))
    monkeypatch.chdir(tmp_path)

    def core(unchecked):
        from lpm.train.cli import train

        words = [str(folder), "--out", "run", "--no-page", "--device", "cpu", "--steps", "1", "--scale", ".2"]
        train([*words, *(["--data.unchecked"] if unchecked else [])])
        assert list((tmp_path / "run").rglob("*.ckpt"))

    def nerfstudio(unchecked):
        from lpm.plugin.config import lpm_splat

        config = copy.deepcopy(lpm_splat.config.pipeline.datamanager)
        config.data, config.dataparser.data, config.dataparser.unchecked = folder, folder, unchecked
        config.points_from_photos = False
        assert len(config.setup(device="cpu").train_dataset) == 7

    go = {"core": core, "nerfstudio": nerfstudio}[face]
    with pytest.raises(LpmError, match="focal length seems to be"):
        go(False)
    assert not list((tmp_path / "run").rglob("*"))
    go(True)


def test_scenes_that_move_are_checked_within_a_moment(scene):
    moving = replace(scene, capture_times=np.arange(16) // 4 / 3, cams=[str(i % 4) for i in range(16)])
    assert check(moving).findings == []
