"""Scenes as people have them: other names, other systems, other programs. Each is read for what it says, or refused."""

from __future__ import annotations

import json
import shutil
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_scene
from PIL import Image
from plyfile import PlyData, PlyElement

from lpm.checks import LpmError
from lpm.scenes.images import image_size, load_image
from lpm.scenes.layout import detect
from lpm.scenes.masks import load_mask, mask_key
from lpm.scenes.ply import read_points
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out
from lpm.scenes.texts import lines, read_text
from lpm.train.load_photos import load_photos
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

W, H = tiny_scene.WIDTH, tiny_scene.HEIGHT


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """`folder` with `change` done to the object in transforms.json."""
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    return folder


def each(**values: Callable[[str], object]) -> Callable[[dict[str, Any]], object]:
    """Sets keys of every frame, by its file_path."""
    return lambda meta: [f.update({k: v(f["file_path"]) for k, v in values.items()}) for f in meta["frames"]]


def mask_pixels() -> np.ndarray:
    """[H, W] uint8, the upper third black."""
    return np.where(np.arange(H)[:, None] < H // 3, 0, 255).astype(np.uint8).repeat(W, 1)


def save(path: Path, pixels: np.ndarray, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


def rename(folder: Path, name: Callable[[str], str]) -> Path:
    """A scene of COLMAP's text whose images are called otherwise in the model; the files stay."""
    path = folder / "sparse/0/images.txt"
    text = path.read_text()
    for i in range(10):
        text = text.replace(f" {i:03d}.png", f" {name(f'{i:03d}.png')}")
    path.write_text(text)
    return folder


# Masks


@pytest.mark.parametrize(
    "name",
    [
        "masks/{}_mask.png", "masks/{}.mask.png", "masks/{}.png.mask.png", "masks/{}.png.png", "masks/{}.png",
        "masks/{}.jpg", "masks/mask_{}.png", "masks/{}-mask.PNG", "Masks/{}.PNG", "mask/{}.webp", "masks/{}_MASK.png",
        "images/{}_mask.png", "images/{}.mask.png", "masks/left/{}.png",
    ],
)  # fmt: skip
def test_masks_are_found_by_what_others_call_them(tmp_path, name):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    for i in range(10):
        save(folder / name.format(f"{i:03d}"), mask_pixels())
    scene = read_scene(folder)
    assert [path.relative_to(folder).as_posix() for path in scene.masks] == [name.format(f"{i:03d}") for i in range(10)]
    assert (load_mask(scene.masks[3]) == (mask_pixels() > 0)).all()
    assert scene.notes == []


def test_masks_of_photos_in_folders(tmp_path):
    folder = rename(tiny_scene.make_colmap(tmp_path / "scene", binary=False), lambda n: f"cam{int(n[:3]) % 2}/{n}")
    for i in range(10):
        (folder / f"images/cam{i % 2}").mkdir(exist_ok=True)
        (folder / f"images/{i:03d}.png").rename(folder / f"images/cam{i % 2}/{i:03d}.png")
        save(folder / f"masks/cam{i % 2}/{i:03d}_mask.png", mask_pixels())
    scene = read_scene(folder)
    assert scene.names[:2] == ["cam0/000.png", "cam0/002.png"]
    assert [m.parent.name + m.name[:3] for m in scene.masks] == [n[:8].replace("/", "") for n in scene.names]


def test_a_folder_of_masks_that_fits_no_photo(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    for i in range(10):
        save(folder / f"masks/frame{i + 1}.png", mask_pixels())
    with pytest.raises(
        LpmError, match=r"masks: 10 files, none of which is called as a photo is .*wanted 000\.png\.png"
    ):
        read_scene(folder)
    (folder / "masks/frame1.png").rename(folder / "masks/000_mask.png")
    with pytest.raises(LpmError, match=r"no mask for 001\.png and 8 others of 10 images"):
        read_scene(folder)


def test_masks_that_no_frame_names_are_spoken_of(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    save(folder / "masks/000.png", mask_pixels())
    assert any("no frame of transforms.json names a mask_path" in note for note in read_scene(folder).notes)


def test_keys_of_masks():
    for name in ("a/0_mask.png", "a/0.jpg.mask.PNG", "a/0.png.png", "a/mask_0.tif", "a\\0-masks.png", "./a/0.jpg"):
        assert mask_key(name) == "a/0"
    assert mask_key("mask.png") == "mask"
    assert mask_key("unmasked.png") == "unmasked"


def rgba(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([color, color, color, alpha])


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda m: Image.fromarray(m), "png"),
        (lambda m: Image.fromarray(m).convert("RGB"), "png"),
        (lambda m: Image.fromarray(m).convert("RGBA"), "png"),
        (lambda m: Image.fromarray(m).convert("LA"), "png"),
        (lambda m: Image.fromarray(m).convert("1"), "png"),
        (lambda m: Image.fromarray(m).convert("P"), "png"),
        (lambda m: Image.fromarray(m // 255), "png"),
        (lambda m: Image.fromarray(m.astype(np.uint16) * 257), "png"),
        (lambda m: Image.fromarray(np.dstack([m, 0 * m, 0 * m])), "png"),  # red says something
        (lambda m: Image.fromarray(rgba(0 * m, m)), "png"),  # all black, but transparent in part
        (lambda m: Image.fromarray(rgba(0 * m + 255, m)), "png"),
        (lambda m: Image.fromarray(rgba(m, 0 * m + 255)), "png"),
        (lambda m: Image.fromarray(m).convert("RGB"), "jpg"),
        (lambda m: Image.fromarray(m), "webp"),
    ],
)
def test_masks_of_all_kinds_of_pixels(tmp_path, make, end):
    path = tmp_path / f"mask.{end}"
    make(mask_pixels()).save(path)
    assert (load_mask(path) == (mask_pixels() > 0)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_of_several_channels_are_trained_with(tmp_path, mode):
    def colored(name: str) -> str:
        path = tmp_path / "scene" / name.replace("images", "masks")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask_pixels()).convert(mode).save(path)
        return f"masks/{path.name}"

    folder = edited(tiny_scene.make_transforms(tmp_path / "scene"), lambda meta: meta.pop("k1"))
    scene = read_scene(edited(folder, each(mask_path=colored)))
    photos, _ = load_photos(place(scene, SceneSettings(), 8).train, 1.0)
    assert all((photo["mask"][..., 0].numpy() == (mask_pixels() > 0)).all() for photo in photos)


def test_masks_that_leave_nothing_are_refused(tmp_path):
    def black(name: str) -> str:
        save(tmp_path / "scene" / name.replace("images", "masks"), 0 * mask_pixels())
        return name.replace("images", "masks")

    scene = read_scene(edited(tiny_scene.make_transforms(tmp_path / "scene"), each(mask_path=black)))
    with pytest.raises(LpmError, match=r"masks: the masks of all 8 photos are black.*invert them"):
        load_photos(place(scene, SceneSettings(), 8).train, 1.0)


# COLMAP's tables


@pytest.mark.parametrize("views", [10, 9, 2])
@pytest.mark.parametrize("keep", [(), (3,)], ids=["no line", "one line"])
def test_images_without_lines_of_features(tmp_path, views, keep):
    folder = tiny_scene.make_colmap(tmp_path / "scene", views=views, binary=False)
    path = folder / "sparse/0/images.txt"
    whole = read_scene(folder)
    rows = [row for row in path.read_text().splitlines() if row and (".png" in row or row[0] == "#" or keep)]
    path.write_text("\n".join(rows) + "\n")
    scene = read_scene(folder)
    assert scene.names == [f"{i:03d}.png" for i in range(views)]
    assert np.array_equal(scene.c2w, whole.c2w)
    assert scene.notes == []


def test_names_of_images_with_spaces_and_numbers(tmp_path):
    folder = rename(tiny_scene.make_colmap(tmp_path / "scene", binary=False), lambda n: f"a 1 2 {n}")
    for path in sorted((folder / "images").iterdir()):
        path.rename(path.with_name(f"a 1 2 {path.name}"))
    path = folder / "sparse/0/images.txt"
    for text in (path.read_text(), path.read_text().replace("\n\n", "\n"), path.read_text() + "\n\n"):
        path.write_text(text)
        assert read_scene(folder).names == [f"a 1 2 {i:03d}.png" for i in range(10)]


def test_a_line_that_is_neither_image_nor_features(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=False)
    with (folder / "sparse/0/images.txt").open("a") as file:
        file.write("11 1 0 0 0 oops\n")
    with pytest.raises(LpmError, match=r"images\.txt: a line that is neither: '11 1 0 0 0 oops'"):
        read_scene(folder)


@pytest.mark.parametrize("words", ["0 0 0 0", "nan 0 0 0", "inf 0 0 0", "1e-200 0 0 0"])
def test_quaternions_that_are_no_rotations(tmp_path, words):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=False)
    (folder / "sparse/0/images.txt").write_text(
        "\n\n".join(f"{i} {words} 0 0 1 7 {i:03d}.png" for i in range(10)) + "\n"
    )
    with pytest.raises(LpmError, match=r"images\.txt: 000\.png has the quaternion .*wanted one that is a rotation"):
        read_scene(folder)


def test_points_without_colours_are_not_two_in_one(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=False)
    (folder / "sparse/0/points3D.txt").write_text("".join(f"{i} 1 2 3\n" for i in range(10)))
    with pytest.raises(LpmError, match=r"points3D\.txt: cannot be read \(4 words in a line\)"):
        read_scene(folder)


def image_rows(folder: Path, count: int) -> None:
    """Leaves `count` images in images.bin of the model `folder`."""
    data, at = (folder / "images.bin").read_bytes(), 8
    for _ in range(count):
        end = data.index(b"\0", at + 64)
        at = end + 9 + 24 * struct.unpack_from("<Q", data, end + 1)[0]
    (folder / "images.bin").write_bytes(struct.pack("<Q", count) + data[8:at])


@pytest.mark.parametrize("place", ["sparse", "colmap/sparse"])
def test_the_largest_of_several_models_is_taken(tmp_path, place):
    folder = tiny_scene.make_colmap(tmp_path / "scene", where=f"{place}/2")
    for name, count in (("0", 3), ("1", 5)):
        shutil.copytree(folder / place / "2", folder / place / name)
        image_rows(folder / place / name, count)
    scene = read_scene(folder)
    assert (len(scene), scene.layout.source) == (10, folder / place / "2")
    also = f"COLMAP's {place}/1 (5 images), COLMAP's {place}/0 (3 images)"
    assert scene.notes[0].startswith(
        f"{folder}: COLMAP's {place}/2 (10 images) is read; also there: {also}; move it away"
    )
    shutil.rmtree(folder / place / "2")
    assert len(read_scene(folder)) == 5


def test_equal_models_in_text_and_a_broken_one(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=False)
    shutil.copytree(folder / "sparse/0", folder / "sparse/1")
    shutil.copytree(folder / "sparse/0", folder / "sparse/10")
    (folder / "sparse/10/images.bin").write_bytes(b"")
    (folder / "sparse/10/cameras.bin").write_bytes(b"")
    assert detect(folder).source == folder / "sparse/0"
    (folder / "sparse/0/images.txt").write_text((folder / "sparse/0/images.txt").read_text().split("\n3 ")[0])
    assert detect(folder).source == folder / "sparse/1"


def test_a_model_beside_the_photos(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", where="flat")
    for path in (folder / "flat").iterdir():
        path.rename(folder / path.name)
    (folder / "images").rename(folder / "Images")
    assert len(read_scene(folder)) == 10


# Points


def write_ply(path: Path, kind: str = "<f4", color: str = "u1", scale: float = 1, text: bool = False) -> np.ndarray:
    """Our points as a PLY with other types; returns the colours [N, 3], 0..255."""
    xyz, rgb = tiny_scene.points()
    rows = np.zeros(len(xyz), [*((c, kind) for c in "xyz"), *((c, color) for c in ("red", "green", "blue"))])
    for i in range(3):
        rows["xyz"[i]] = xyz[:, i]
        values = rgb[:, i] * float(scale)
        rows[("red", "green", "blue")[i]] = (
            values if color[-2] == "f" else values.round().astype(np.int64).astype(color)
        )
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=kind[0]).write(str(path))
    return rgb


@pytest.mark.parametrize("name", ["points3D.ply", "points3d.ply", "points.ply"])
@pytest.mark.parametrize("options", [{}, {"kind": "<f8"}, {"kind": ">f8"}, {"kind": ">f4"}, {"text": True}], ids=str)
@pytest.mark.parametrize("empty", [False, True], ids=["no table", "empty table"])
def test_points_beside_the_model_as_ply(tmp_path, name, options, empty):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    wanted = read_scene(folder).points
    (folder / "sparse/0/points3D.bin").unlink()
    if empty:
        (folder / "sparse/0/points3D.bin").write_bytes(struct.pack("<Q", 0))
    write_ply(folder / "sparse/0" / name, **options)
    scene = read_scene(folder)
    assert scene.points.source == folder / "sparse/0" / name
    assert np.allclose(scene.points.xyz, wanted.xyz, atol=1e-7)
    assert np.array_equal(scene.points.rgb, wanted.rgb)


def test_two_files_of_points_that_differ(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    write_ply(folder / "sparse/0/points3D.ply")
    assert read_scene(folder).notes == []  # as 3DGS makes it of the table
    rows = PlyData.read(str(folder / "sparse/0/points3D.ply"))["vertex"].data[:20].copy()
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(folder / "sparse/0/points3D.ply"))
    scene = read_scene(folder)
    assert len(scene.points.xyz) == 60
    assert "points3D.ply beside it has 20 points, not 60" in scene.notes[0]


@pytest.mark.parametrize(
    ("color", "scale"),
    [("u1", 1), ("i1", 1), ("i4", 1), ("u2", 1), ("u2", 257), ("f4", 1), ("f4", 1 / 255), ("f8", 1 / 255), ("f4", 257)],
)
def test_colours_of_points_in_all_types(tmp_path, color, scale):
    rgb = write_ply(tmp_path / "points.ply", color=color if color[1] == "1" else f"<{color}", scale=scale)
    assert np.abs(read_points(tmp_path / "points.ply").rgb.astype(int) - rgb).max() <= (1 if scale == 257 else 0)


def test_gaussians_as_points_have_their_colours(tmp_path):
    rows = np.zeros(3, [(name, "<f4") for name in ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")])
    rows["f_dc_0"], rows["f_dc_1"] = 0.5 / 0.28209479, -9
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "a.ply"))
    assert read_points(tmp_path / "a.ply").rgb.tolist() == [[255, 0, 128]] * 3


def test_points_that_transforms_json_does_not_name_are_spoken_of(tmp_path):
    folder = edited(tiny_scene.make_transforms(tmp_path / "scene"), lambda meta: meta.pop("ply_file_path"))
    scene = read_scene(folder)
    assert scene.points is None
    assert any("points.ply is not read: transforms.json does not name it" in note for note in scene.notes)


# Lenses


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"camera_model": "OPENCV", "is_fisheye": True},
            r"camera_model OPENCV, and is_fisheye true.*remove what is wrong",
        ),
        ({"camera_model": "PINHOLE", "is_fisheye": "true"}, r"camera_model PINHOLE, and is_fisheye true"),
        ({"is_fisheye": "perhaps"}, r"is_fisheye = 'perhaps'.*true or false"),
        ({"k4": 0.01}, r"distortion .*no k4.*say camera_model OPENCV_FISHEYE of a fisheye"),
        ({"is_fisheye": False, "k4": 0.01}, r"no k4.*OPENCV_FISHEYE"),
        ({"camera_model": "FISHEYE624"}, r"camera_model FISHEYE624"),
        ({"distortion_params": ["a"]}, r"distortion_params = \['a'\].*six numbers"),
        ({"w": float("nan")}, r"w = 'nan'.*a number"),
        ({"fl_x": True}, r"fl_x = 'True'.*a number"),
        ({"cx": 10**400}, r"cx = '1000.*a number"),
        ({"applied_scale": "big"}, r"applied_scale = 'big'"),
        ({"applied_scale": 0}, r"applied_scale = 0"),
        ({"orientation_override": "left"}, r"orientation_override = 'left'"),
        ({"test_filenames": "images/000.png"}, r"test_filenames is no list of names"),
    ],
)
def test_contradictions_and_what_is_no_number(tmp_path, values, says):
    folder = edited(tiny_scene.make_transforms(tmp_path / "scene"), lambda meta: meta.update(values))
    with pytest.raises(LpmError, match=says):
        read_scene(folder)


def test_flags_and_numbers_as_words(tmp_path):
    def spelled(meta: dict[str, Any]) -> None:
        meta.update(camera_model="opencv", is_fisheye="false", w=str(W), h=f"{H}.0", fl_x="30", k1=0)

    scene = read_scene(edited(tiny_scene.make_transforms(tmp_path / "a"), spelled))
    assert scene.intrinsics[0].tolist() == [30, 30, 16, 12]
    flags = {"is_fisheye": True, "k1": 0.01, "k2": 0, "k3": 0, "k4": 0}
    scene = read_scene(edited(tiny_scene.make_transforms(tmp_path / "b"), lambda meta: meta.update(flags)))
    assert scene.cuts is not None
    assert {cut.lens.model for cut in scene.cuts} == {"OPENCV_FISHEYE"}


# Poses


def matrix(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Any]], object]:
    return lambda meta: [
        f.update(transform_matrix=change(np.array(f["transform_matrix"])).tolist()) for f in meta["frames"]
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m @ np.diag([-1.0, 1, 1, 1]), r"a mirrored pose .*determinant < 0.*right-handed"),
        (lambda m: np.diag([1.0, 1, -1, 1]) @ m, r"a mirrored pose"),
        (lambda m: m @ np.diag([1.0, 1.5, 1, 1]), r"a sheared pose \(one axis is 1.5 times"),
        (lambda m: m * np.where(np.eye(4) > 0, np.nan, 1), r"a non-finite pose"),
        (lambda m: 0 * m, r"singular"),
    ],
)
def test_matrices_that_are_no_cameras(tmp_path, change, says):
    with pytest.raises(LpmError, match=says):
        read_scene(edited(tiny_scene.make_transforms(tmp_path / "scene"), matrix(change)))


@pytest.mark.parametrize("scale", [1e-3, 0.1, 7.0])
def test_the_scale_of_a_camera_means_nothing(tmp_path, scale):
    """Blender writes that of what the camera hangs on into its matrix."""
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    wanted = read_scene(folder).c2w
    scene = read_scene(edited(folder, matrix(lambda m: m @ np.diag([scale, scale, scale, 1]))))
    assert np.allclose(scene.c2w, wanted, atol=1e-9)


def test_an_image_twice_in_other_words(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    twice = lambda meta: meta["frames"].append({**meta["frames"][0], "file_path": "./images/009.png"})  # noqa: E731
    with pytest.raises(LpmError, match=r"images/009\.png stands in two frames"):
        read_scene(edited(folder, twice))
    folder = tiny_scene.make_colmap(tmp_path / "colmap", binary=False)
    path = folder / "sparse/0/images.txt"
    path.write_text(path.read_text().replace("003.png", "004.png"))
    with pytest.raises(LpmError, match=r"images\.txt: 004\.png stands in it twice"):
        read_scene(folder)


def test_cameras_that_look_away_are_spoken_of(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    assert read_scene(folder).notes == []
    scene = read_scene(edited(folder, matrix(lambda m: m @ np.diag([1.0, -1, -1, 1]))))
    assert (
        "none of the scene's 60 points lie before its cameras: are the poses OpenCV's (y down, z forward)?"
        in (scene.notes[0])
    )
    away = np.eye(4)
    away[1, 3] = 50
    scene = read_scene(edited(tiny_scene.make_transforms(tmp_path / "other"), matrix(lambda m: away @ m)))
    assert "are points and poses of one scene" in scene.notes[0]


# Names of files


@pytest.mark.parametrize(
    "name",
    [".\\images\\{}", "images\\{}", "C:\\Users\\me\\scene\\images\\{}", "D:/scene/images/{}", "/home/me/old/images/{}",
     "../scene/images/{}", "old/images/{}", "{}"],
)  # fmt: skip
def test_paths_of_other_machines(tmp_path, name):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    masked = lambda path: name.replace("images", "masks").format(path[7:])  # noqa: E731
    for i in range(10):
        save(folder / f"masks/{i:03d}.png", mask_pixels())
    edited(folder, each(mask_path=masked, file_path=lambda path: name.format(path[7:])))
    edited(folder, lambda meta: meta.update(ply_file_path=".\\points.ply", test_filenames=[name.format("004.png")]))
    if name == "{}":  # which is no mask's name
        edited(folder, each(mask_path=lambda path: f"masks/{path}"))
    scene = read_scene(folder)
    assert scene.images == [folder / f"images/{i:03d}.png" for i in range(10)]
    assert scene.masks == [folder / f"masks/{i:03d}.png" for i in range(10)]
    assert len(scene.points.xyz) == 60
    assert hold_out(scene, 8)[1].tolist() == [4]


@pytest.mark.parametrize("name", ["C:\\data\\images\\{}", "/data/images/{}", "images/{}", "sub\\{}"])
def test_colmap_models_of_other_machines(tmp_path, name):
    folder = rename(tiny_scene.make_colmap(tmp_path / "scene", binary=False), lambda n: name.format(n))
    scene = read_scene(folder)
    assert scene.images == [folder / f"images/{i:03d}.png" for i in range(10)]
    assert scene.names == [f"{i:03d}.png" for i in range(10)]


def test_the_end_of_a_path_is_not_taken_for_two_photos(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=False)
    scene = read_scene(rename(folder, lambda n: f"cam2/{n}" if int(n[:3]) < 4 else n))
    assert len(scene) == 10  # moved into one folder: clear
    folder = tiny_scene.make_colmap(tmp_path / "other", binary=False)
    scene = read_scene(rename(folder, lambda n: "cam1/000.png" if n == "001.png" else n))
    assert len(scene) == 9
    assert "1 (cam1/000.png) of 10 photos are not there" in scene.notes[0]


def test_files_outside_stay_out(tmp_path):
    (tmp_path / "other").mkdir()
    tiny_scene.write_image(tmp_path / "other/secret.png", 1)
    for name in ("../other/secret.png", str(tmp_path / "other/secret.png"), "..\\other\\secret.png"):
        folder = tiny_scene.make_transforms(tmp_path / "scene")
        edited(folder, lambda meta, name=name: meta["frames"][0].update(file_path=name))
        if "\\" in name:  # no file is called so, and none of the scene's own ends so
            assert "1 (..\\other\\secret.png) of 10 photos" in read_scene(folder).notes[0]
            continue
        with pytest.raises(LpmError, match=r"lies outside of"):
            read_scene(folder)


@pytest.mark.parametrize(
    ("called", "there"),
    [("{}.jpg", "{}.png"), ("{}.png", "{}.PNG"), ("{}.JPG", "{}.webp"), ("IMG_{}.PNG", "img_{}.png"),
     ("Ünï_{}.png", unicodedata.normalize("NFD", "Ünï_{}.png"))],
)  # fmt: skip
def test_photos_with_other_endings_and_cases(tmp_path, called, there):
    folder = rename(tiny_scene.make_colmap(tmp_path / "scene", binary=False), lambda n: called.format(n[:3]))
    for path in sorted((folder / "images").iterdir()):
        Image.open(path).save(path.with_name(there.format(path.stem)))
        if there != "{}.png":
            path.unlink()
    (folder / "test_list.txt").write_text(called.format("004") + "\n")
    scene = read_scene(folder)
    assert [path.name for path in scene.images] == [there.format(f"{i:03d}") for i in range(10)]
    assert len(scene.notes) == 1
    assert "10 of 10 photos are there under another name and taken" in scene.notes[0]
    assert hold_out(scene, 8)[1].tolist() == [4]


def test_photos_that_are_missing(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    names = [f"{i:03d}.png" for i in range(10)]
    for gone in range(1, 6):
        (folder / "images" / names[gone]).unlink()
        scene = read_scene(folder)
        assert scene.names == [name for name in names if name not in names[1 : gone + 1]]
        assert f"{gone} (001.png" in scene.notes[0]
        assert "of 10 photos are not there and are left out" in scene.notes[0]
    (folder / "images/006.png").unlink()
    with pytest.raises(
        LpmError, match=r"images/00\d\.png: no such file; 6 of 10 photos are missing; wanted the photos"
    ):
        read_scene(folder)


def test_lists_of_photos_that_are_missing(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    lists = {
        "train_filenames": [f"images/{i:03d}.png" for i in range(8)],
        "test_filenames": ["./images/008.png", "images\\009.png"],
    }
    edited(folder, lambda meta: meta.update(lists))
    (folder / "images/009.png").unlink()
    assert hold_out(read_scene(folder), 8)[1].tolist() == [8]
    (folder / "images/008.png").unlink()
    scene = read_scene(folder)
    assert hold_out(scene, 4)[1].tolist() == [0, 4]
    assert "no photo of the test list is there: the scene's own lists are not used" in scene.notes


def test_blender_without_test_photos(tmp_path):
    folder = tiny_scene.make_blender(tmp_path / "scene")
    (folder / "test/r_0.png").unlink()
    scene = read_scene(folder)
    assert len(scene) == 9
    assert len(hold_out(scene, 8)[0]) == 7
    assert "the 1 photos of transforms_test.json are not there" in scene.notes[0]
    shutil.copytree(folder / "train", folder / "val")
    (folder / "transforms_val.json").write_text(
        (folder / "transforms_train.json").read_text().replace("/train/", "/val/")
    )
    assert [len(part) for part in hold_out(read_scene(folder), 8)] == [9, 9]
    for name in ("test", "val"):
        (folder / f"transforms_{name}.json").unlink()
    assert "there is no transforms_test.json: photos of transforms_train.json are held out" in read_scene(folder).notes


# Photos on their side


def put_on_its_side(path: Path, turn: int) -> None:
    """Saves the PNG at `path` so that EXIF's orientation `turn` brings it back."""
    back = {5: 0, 6: 1, 7: 2, 8: 3}[turn]
    pixels = np.asarray(Image.open(path))
    pixels = {
        0: lambda p: p.transpose(1, 0, 2),
        1: lambda p: np.rot90(p),
        2: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        3: lambda p: np.rot90(p, -1),
    }[back](pixels)
    exif = Image.Exif()
    exif[0x112] = turn
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
@pytest.mark.parametrize("make", [tiny_scene.make_transforms, tiny_scene.make_colmap], ids=["transforms", "colmap"])
def test_photos_are_turned_where_only_that_fits(tmp_path, turn, make):
    folder = make(tmp_path / "scene")
    wanted = [load_image(path) for path in read_scene(folder).images]
    for path in (folder / "images").iterdir():
        put_on_its_side(path, turn)
        assert Image.open(path).size == (H, W)
    scene = read_scene(folder)
    assert all(image_size(path) == (W, H) for path in scene.images)
    assert all(np.array_equal(load_image(path), pixels) for path, pixels in zip(scene.images, wanted, strict=True))
    assert scene.names[0].endswith("000.png")
    assert any("10 of 10 photos are turned as their EXIF says" in note for note in scene.notes)


def test_photos_on_their_side_without_exif(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    for path in (folder / "images").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    with pytest.raises(LpmError, match=r"image of 24x32 \(it lies on its side, and no EXIF orientation says so\)"):
        read_scene(folder)


def test_masks_lie_as_their_photo_or_turn_alike(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    for i in range(10):
        save(folder / f"masks/{i:03d}.png", np.dstack([mask_pixels()] * 3))
        put_on_its_side(folder / f"masks/{i:03d}.png", 6)
    scene = read_scene(folder)
    assert (load_mask(scene.masks[4]) == (mask_pixels() > 0)).all()


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system(tmp_path, encoding, end):
    folder = tiny_scene.make_colmap(tmp_path / "colmap", binary=False)
    wanted = read_scene(folder)
    for path in (folder / "sparse/0").iterdir():
        path.write_bytes(path.read_text().replace("\n", end).encode(encoding))
    (folder / "test_list.txt").write_bytes(f"004.png{end}005.png{end}".encode(encoding))
    scene = read_scene(folder)
    assert scene.names == wanted.names
    assert np.array_equal(scene.c2w, wanted.c2w)
    assert np.array_equal(scene.points.xyz, wanted.points.xyz)
    assert hold_out(scene, 8)[1].tolist() == [4, 5]
    folder = tiny_scene.make_transforms(tmp_path / "transforms")
    path = folder / "transforms.json"
    path.write_bytes(path.read_text().replace("\n", end).encode(encoding))
    assert len(read_scene(folder)) == 10


@pytest.mark.parametrize("binary", [False, True])
def test_names_in_windows_own_code(tmp_path, binary):
    folder = tiny_scene.make_colmap(tmp_path / "scene", binary=binary)
    (folder / "images/003.png").rename(folder / "images/Ä3.png")
    path = folder / "sparse/0" / ("images.bin" if binary else "images.txt")
    path.write_bytes(path.read_bytes().replace(b"003.png", "Ä3.png".encode("cp1252") + b"\0" * 0))
    assert "Ä3.png" in read_scene(folder).names


def test_lines_and_text_agree(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\r\nÄ\r\nb".encode("cp1252"))
    assert list(lines(path)) == ["a", "Ä", "b"] == read_text(path).splitlines()
    path.write_bytes(b"\xff\xfea")  # UTF-16 that ends in the middle of a letter
    with pytest.raises(ValueError, match="truncated"):
        read_text(path)


# LLFF


def test_llff_with_photos(tmp_path):
    rows, wanted = [], tiny_scene.poses()
    for i, pose in enumerate(wanted):
        tiny_scene.write_image(tmp_path / f"images/{i:03d}.png", i)
        llff = np.concatenate([-pose[:3, 1:2], pose[:3, :1], pose[:3, 2:4], [[2 * H], [2 * W], [60.0]]], 1)
        rows.append([*llff.flatten(), 0.5, 10.0])
    np.save(tmp_path / "poses_bounds.npy", np.array(rows))
    scene = read_scene(tmp_path)
    assert np.allclose(scene.c2w, wanted)
    assert scene.intrinsics[0].tolist() == [30, 30, 16, 12]
    assert scene.names[3] == "images/003.png"
    (tmp_path / "images/003.png").unlink()
    with pytest.raises(LpmError, match=r"images: 9 photos; wanted 10, one for each row.*lpm-prepare"):
        read_scene(tmp_path)
