"""Whatever is wrong with a scene is said in one line that names the file and the remedy, and nothing is written."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_scene
from nerfstudio.scripts.train import main as ns_train
from PIL import Image

from lpm.checks import LpmError
from lpm.plugin.config import lpm_splat
from lpm.scenes.ply import write_points


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Applies `change` to the object in transforms.json."""
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def frame(meta: dict[str, Any], name: str = "images/004.png") -> dict[str, Any]:
    return next(f for f in meta["frames"] if f["file_path"] == name)


def no_poses(folder: Path) -> None:
    (folder / "transforms.json").unlink()


def missing_images(folder: Path) -> None:
    for i in range(3, 9):
        (folder / "images" / f"{i:03d}.png").unlink()


def truncated_jpeg(folder: Path) -> None:
    # A JPEG keeps its header when it is cut, so that only decoding tells.
    path = folder / "images" / "004.jpg"
    Image.open(folder / "images" / "004.png").save(path, quality=95)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    edit(folder, lambda meta: frame(meta).update(file_path="images/004.jpg"))


def not_an_image(folder: Path) -> None:
    (folder / "images" / "004.png").write_text("hello")


def other_size(folder: Path) -> None:
    tiny_scene.write_image(folder / "images" / "004.png", 4, (40, 24))


def no_points_in_file(folder: Path) -> None:
    write_points(folder / "points.ply", np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


def infinite_point(folder: Path) -> None:
    xyz, rgb = tiny_scene.points()
    xyz[5, 1] = np.inf
    write_points(folder / "points.ply", xyz, rgb)


def one_place(folder: Path) -> None:
    def change(meta: dict[str, Any]) -> None:
        for f in meta["frames"]:
            for row, value in zip(f["transform_matrix"], (1.0, 2.0, 3.0), strict=False):
                row[3] = value

    edit(folder, change)


def set_pose(value: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda meta: frame(meta).update(transform_matrix=value))


def nan_pose(folder: Path) -> None:
    edit(folder, lambda meta: frame(meta)["transform_matrix"][1].__setitem__(3, float("nan")))


def set_top(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda meta: meta.update(values))


def fisheye_by_angle(meta: dict[str, Any]) -> None:
    """A field of view in place of the focal length, of which a fisheye has no one meaning."""
    meta.update(is_fisheye=True, camera_angle_x=meta.pop("fl_x") / 30)


def colmap_with(change: Callable[[Path], object], **options: Any) -> Callable[[Path], None]:
    """The same scene as COLMAP's layout, then broken by `change`."""

    def broken(folder: Path) -> None:
        shutil.rmtree(folder)
        tiny_scene.make_colmap(folder, **options)
        change(folder)

    return broken


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "sparse" / "0" / name
        path.write_bytes(path.read_bytes()[:-30])

    return change


Case = tuple[str, Callable[[Path], object], str, str]
# What is wrong; how the good tiny scene is made so; what the one line must name; what it must advise.
CASES: list[Case] = [
    ("missing folder", shutil.rmtree, r"scene: no such folder", r"check the path"),
    (
        "no poses",
        no_poses,
        r"scene: neither cameras nor poses.*sparse/0",
        r"lpm-prepare .*scene OUT .* or name a folder",
    ),
    ("no images in the file", set_top(frames=[]), r"transforms\.json: no images", r"at least two frames"),
    ("images missing", missing_images, r"images/003\.png: no such file; 6 of 10 photos are missing", r"restore them"),
    ("image folder missing", lambda f: shutil.rmtree(f / "images"), r"images/00\d\.png: no such file", r"restore"),
    ("truncated JPEG", truncated_jpeg, r"images/004\.jpg: cannot be decoded \(.*truncated", r"copy the file again"),
    ("not an image", not_an_image, r"images/004\.png: cannot be read \(not an image", r"copy the file again"),
    ("images of different sizes", other_size, r"images/004\.png: image of 40x24; wanted 32x24", r"own intrinsics"),
    ("not JSON", lambda f: (f / "transforms.json").write_text("{"), r"transforms\.json: not JSON", r"write the file"),
    ("no frames", lambda f: (f / "transforms.json").write_text("{}"), r"transforms\.json: no list of frames", r"write"),
    (
        "transforms without a matrix",
        lambda f: edit(f, lambda meta: frame(meta).pop("transform_matrix")),
        r"transforms\.json: no transform_matrix for images/004\.png",
        r"add it or remove the frame",
    ),
    ("matrix of another shape", set_pose([[1, 0], [0, 1]]), r"images/004\.png: .*shape \[2, 2\]", r"remove this frame"),
    ("matrix of words", set_pose([["a"] * 4] * 4), r"images/004\.png: .*not numbers", r"remove this frame"),
    ("non-finite pose", nan_pose, r"transforms\.json, images/004\.png: a non-finite pose", r"remove this frame"),
    (
        "mirrored pose",
        set_pose(np.diag([1.0, 1, -1, 1]).tolist()),
        r"images/004\.png: a mirrored pose",
        r"right-handed",
    ),
    ("singular pose", set_pose(np.zeros((4, 4)).tolist()), r"images/004\.png: .*singular", r"remove this frame"),
    ("focal length of zero", set_top(fl_x=0.0), r"transforms\.json, images/00\d\.png: focal length 0", r"correct"),
    ("size of zero", set_top(w=0), r"transforms\.json: w = 0", r"correct"),
    ("no focal length", lambda f: edit(f, lambda m: m.pop("fl_x")), r"transforms\.json: neither fl_x", r"add fl_x"),
    ("another camera", set_top(camera_model="ORTHOPHOTO"), r"camera_model ORTHOPHOTO", r"undistort"),
    ("fisheye without a focal length", lambda f: edit(f, fisheye_by_angle), r"no fl_x for images/00\d", r"add fl_x"),
    ("zero points", no_points_in_file, r"points\.ply: zero points", r"remove the file to start from random"),
    ("points missing", lambda f: (f / "points.ply").unlink(), r"points\.ply: no such file", r"remove ply_file_path"),
    ("points of another kind", lambda f: (f / "points.ply").write_text("x"), r"points\.ply: cannot be read", r"export"),
    ("non-finite point", infinite_point, r"points\.ply: non-finite position in point 5", r"export the points again"),
    (
        "cameras all at one place",
        one_place,
        r"transforms\.json: the 8 training cameras are all in one",
        r"photos taken",
    ),
    (
        "empty hold-out",
        lambda f: edit(f, lambda m: m.update(frames=m["frames"][-1:])),
        r"scene: nothing left to train on",
        r"add images, or set --eval-interval",
    ),
    ("list names no image", set_top(test_filenames=["images/x.png"]), r"the test list names images/x\.png", r"correct"),
    ("image twice", lambda f: edit(f, lambda m: m["frames"].append(m["frames"][0])), r"two frames", r"remove one"),
    (
        "COLMAP camera unknown",
        colmap_with(lambda f: None, model=(99, "FUTURE", [30.0, 30, 16, 12])),
        r"cameras\.bin: camera model 99; wanted a model that COLMAP defines \(0 to 17\)",
        r"model_converter",
    ),
    (
        "COLMAP lens off its picture",
        colmap_with(lambda f: None, model=(5, "OPENCV_FISHEYE", [30.0, 30, 50, 12, 0, 0, 0, 0])),
        r"OPENCV_FISHEYE .* of 32x24; wanted a lens whose axis meets its picture",
        r"pose estimation",
    ),
    ("COLMAP images cut", colmap_with(cut("images.bin")), r"images\.bin: cannot be read", r"model_converter"),
    ("COLMAP points cut", colmap_with(cut("points3D.bin")), r"points3D\.bin: cannot be read", r"model_converter"),
    ("COLMAP images missing", colmap_with(missing_images), r"images/003\.png: no such file; 6 of 10", r"restore"),
    ("COLMAP other size", colmap_with(other_size), r"images/004\.png: image of 40x24; wanted 32x24", r"not scaled"),
    (
        "COLMAP zero points",
        colmap_with(lambda f: (f / "sparse/0/points3D.bin").write_bytes(b"\0" * 8)),
        r"points3D\.bin: zero points",
        r"run the reconstruction again",
    ),
]


def train(folder: Path) -> None:
    """What `ns-train lpm-splat --data FOLDER` does, beside the scene: its run would be in `outputs`."""
    config = copy.deepcopy(lpm_splat.config)
    config.data, config.output_dir = folder, folder.parent / "outputs"
    config.max_num_iterations, config.vis = 2, "tensorboard"
    ns_train(config)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_good_scene_is_good(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    before = snapshot(folder)
    train(folder)
    assert snapshot(folder) == before
    assert list((tmp_path / "outputs").rglob("*.ckpt"))


@pytest.mark.parametrize(("change", "names", "advises"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input(tmp_path, change, names, advises):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    change(folder)
    before = snapshot(tmp_path)
    with pytest.raises(LpmError, match=names) as caught:
        train(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert "; wanted " in text
    assert re.search(advises, text), text
    assert snapshot(tmp_path) == before
    assert list((tmp_path / "outputs").rglob("*")) == []
