"""Scenes with times: every layout from a small synthetic folder, the hold-out, and input that cannot be."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny_scene
from scipy.spatial.transform import Rotation

from lpm.checks import LpmError
from lpm.scenes.images import load_image
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out


def timed_transforms(folder, cams=2, steps=10):
    """`cams` cameras that stand still, `steps` times, in transforms.json."""
    frames = []
    for c, pose in enumerate(tiny_scene.poses(cams)):
        for i in range(steps):
            name = f"cam{c:02d}/{i:04d}.png"
            tiny_scene.write_image(folder / name, 10 * c + i)
            frames.append({"file_path": name, "time": i / (steps - 1), "cam": f"cam{c:02d}",
                           "transform_matrix": pose.tolist()})  # fmt: skip
    meta = {"fl_x": 30.0, "w": tiny_scene.WIDTH, "h": tiny_scene.HEIGHT, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return meta


def test_transforms_with_times(tmp_path):
    timed_transforms(tmp_path)
    scene = read_scene(tmp_path)
    assert scene.capture_times is not None
    assert scene.capture_times[:10].tolist() == [i / 9 for i in range(10)]
    assert scene.cams == ["cam00"] * 10 + ["cam01"] * 10
    train, test = hold_out(scene, 8)
    # Every 5th step from index 2, all cameras.
    assert sorted(scene.capture_times[test].tolist()) == [2 / 9] * 2 + [7 / 9] * 2
    assert len(train) == 16
    assert len(hold_out(scene, 0)[0]) == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.update(time=1.5), r"time = 1.5 for cam00/0003.png; wanted a time between 0 and 1"),
        (lambda frame: frame.update(time=-0.1), "time = -0.1"),
        (lambda frame: frame.update(time="soon"), "time = 'soon' for cam00/0003.png; wanted a number"),
        (lambda frame: frame.pop("time"), "no time for cam00/0003.png; wanted a time for every frame or for none"),
    ],
)
def test_times_that_cannot_be_are_refused(tmp_path, change, words):
    meta = timed_transforms(tmp_path)
    change(meta["frames"][3])
    (tmp_path / "transforms.json").write_text(json.dumps(meta))
    with pytest.raises(LpmError, match=words):
        read_scene(tmp_path)


def test_dnerf(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        frames = []
        for i, pose in enumerate(tiny_scene.poses(count)):
            tiny_scene.write_image(tmp_path / split / f"r_{i:03d}.png", i, channels=4)
            frames.append(
                {"file_path": f"./{split}/r_{i:03d}", "time": i / (count - 1), "transform_matrix": pose.tolist()}
            )
        meta = {"camera_angle_x": 0.9, "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(meta))
    scene = read_scene(tmp_path)
    assert scene.capture_times is not None
    assert scene.cams is not None
    train, test = hold_out(scene, 8)
    assert (len(train), scene.capture_times[test].tolist()) == (4, [0.0, 1.0])
    assert len(set(scene.cams)) == 6  # one camera that moves: no two images are of one place


def write_clip(path, frames, seed=0, size=(64, 48)):
    """A clip whose frame i is of brightness 20 i + 10 seed."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 * i + 10 * seed, np.uint8))
    writer.release()


def write_llff(folder, frames=(6, 6, 6)):
    rows = []
    for c, (pose, count) in enumerate(zip(tiny_scene.poses(len(frames)), frames, strict=True)):
        write_clip(folder / f"cam{c:02d}.mp4", count, c)
        # LLFF's axes are down, right, backwards; height, width and focal length are of images twice as large
        matrix = np.stack([-pose[:3, 1], pose[:3, 0], pose[:3, 2], pose[:3, 3], [96.0, 128.0, 120.0]], 1)
        rows.append(np.concatenate([matrix.flatten(), [0.5, 10.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))


def test_neural_3d_video(tmp_path):
    write_llff(tmp_path)
    scene = read_scene(tmp_path)
    assert len(scene) == 18
    assert scene.capture_times is not None
    assert scene.capture_times[:6].tolist() == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert scene.cams == ["cam00"] * 6 + ["cam01"] * 6 + ["cam02"] * 6
    assert np.allclose(scene.c2w[6], tiny_scene.poses(3)[1])
    assert scene.intrinsics[0].tolist() == [60.0, 60.0, 32.0, 24.0]
    for index in (16, 12, 15):  # in any order
        image = load_image(scene.images[index])
        assert image.shape == (48, 64, 3)
        assert abs(float(image.mean()) - (20 * (index - 12) + 20)) < 4
    assert abs(float(load_image(scene.images[12]).mean()) - 20) < 4  # and again


def test_clips_of_unequal_length_are_cut_to_the_shortest(tmp_path):
    write_llff(tmp_path, (6, 4, 6))
    scene = read_scene(tmp_path)
    assert len(scene) == 12
    assert any("not equally long; the first 4 frames are taken (cam01.mp4 ends there)" in note for note in scene.notes)


def test_clips_longer_than_memory_are_windowed(tmp_path, monkeypatch):
    write_llff(tmp_path)
    monkeypatch.setattr("lpm.scenes.layouts.multiview_video.MOST_BYTES", 3 * 64 * 48 * 3 * 5)
    scene = read_scene(tmp_path)
    assert len(scene) == 15
    assert scene.capture_times is not None
    assert scene.capture_times[4] == 1.0
    assert any("the first 5 of 6 frames" in note for note in scene.notes)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda folder: (folder / "cam01.mp4").unlink(), r"array \[3, 17\] for 2 videos"),
    (lambda folder: (folder / "cam01.mp4").write_bytes(b"no video"), "cam01.mp4: not a video that can be decoded"),
    (lambda folder: (folder / "poses_bounds.npy").write_bytes(b"nothing"), "poses_bounds.npy: cannot be read"),
])  # fmt: skip
def test_broken_video_scenes_are_refused(tmp_path, spoil, words):
    write_llff(tmp_path)
    spoil(tmp_path)
    with pytest.raises(LpmError, match=words):
        read_scene(tmp_path)


def write_nerfies(folder, splits=False):
    ids = [f"{c}_{i:05d}" for c in (0, 1) for i in range(4)]
    (folder / "camera").mkdir()
    for pose, name in zip(tiny_scene.poses(8), ids, strict=True):
        tiny_scene.write_image(folder / "rgb" / "2x" / f"{name}.png", 1)
        camera = {
            "orientation": (pose[:3, :3] * [1, -1, -1]).T.tolist(),
            "position": (pose[:3, 3] / 0.5 + [1, 2, 3]).tolist(),
            "focal_length": 60.0, "principal_point": [32.0, 24.0], "radial_distortion": [0.1, 0, 0],
            "tangential_distortion": [0, 0],
        }  # fmt: skip
        (folder / "camera" / f"{name}.json").write_text(json.dumps(camera))
    metadata = {name: {"warp_id": int(name[2:]), "camera_id": int(name[0])} for name in ids}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "scene.json").write_text(json.dumps({"scale": 0.5, "center": [1, 2, 3]}))
    lists = {} if splits else {"train_ids": ids[:4], "val_ids": ids[4:]}
    (folder / "dataset.json").write_text(json.dumps({"ids": ids, **lists}))
    if splits:
        (folder / "splits").mkdir()
        for split, names in (("train", ids[:4]), ("val", ids[4:6])):
            (folder / "splits" / f"{split}.json").write_text(json.dumps({"frame_names": names}))


@pytest.mark.parametrize(("splits", "held"), [(False, 4), (True, 2)])
def test_nerfies_and_dycheck(tmp_path, splits, held):
    write_nerfies(tmp_path, splits)
    scene = read_scene(tmp_path)
    train, test = hold_out(scene, 8)
    assert (len(train), len(test)) == (4, held)
    assert scene.capture_times is not None
    assert scene.capture_times[train].tolist() == [0, 1 / 3, 2 / 3, 1]
    assert np.allclose(scene.c2w[:4], tiny_scene.poses(8)[:4])
    assert scene.intrinsics[0].tolist() == [30.0, 30.0, 16.0, 12.0]  # images are half as large as the cameras say
    assert scene.cams is not None
    assert {scene.cams[i] for i in test} == {"1"}


def write_technicolor(folder):
    lines = ["f cx cy aspect skew qw qx qy qz tx ty tz"]
    for c, pose in enumerate(tiny_scene.poses(3)):
        w2c = np.linalg.inv(pose @ np.diag([1.0, -1.0, -1.0, 1.0]))
        x, y, z, w = Rotation.from_matrix(w2c[:3, :3]).as_quat()
        row = [1920.0, 1024.0, 544.0, 1.0, 0.0, w, x, y, z, *w2c[:3, 3]]
        lines.append(" ".join(f"{value:.9f}" for value in row))
        for i in range(4):
            tiny_scene.write_image(folder / "images" / f"Thing_undist_{i + 1:05d}_{c:02d}.png", i, size=(64, 34))
    (folder / "cameras_parameters.txt").write_text("\n".join(lines) + "\n")


def test_technicolor(tmp_path):
    write_technicolor(tmp_path)
    scene = read_scene(tmp_path)
    assert len(scene) == 12
    assert scene.capture_times is not None
    assert scene.capture_times[:4].tolist() == [0, 1 / 3, 2 / 3, 1]
    assert scene.cams == ["00"] * 4 + ["01"] * 4 + ["02"] * 4
    assert np.allclose(scene.c2w[::4], tiny_scene.poses(3), atol=1e-6)
    assert np.allclose(scene.intrinsics[0], [60.0, 60.0, 32.0, 17.0])


def test_a_camera_that_misses_a_time_is_named(tmp_path):
    write_technicolor(tmp_path)
    (tmp_path / "images" / "Thing_undist_00003_01.png").unlink()
    with pytest.raises(LpmError, match="no image of camera 1 at frame 3"):
        read_scene(tmp_path)
    (tmp_path / "cameras_parameters.txt").write_text("names\n1 2 3\n")
    with pytest.raises(LpmError, match="3 numbers in line 2; wanted twelve"):
        read_scene(tmp_path)


def test_nerfies_without_an_entry_is_refused(tmp_path):
    write_nerfies(tmp_path)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    del metadata["0_00002"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(LpmError, match="no entry for 0_00002"):
        read_scene(tmp_path)
