"""Every layout becomes the same cameras, points and hold-out; real scenes project their points where they belong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_scene
import torch
from PIL import Image

from lpm.checks import LpmError
from lpm.plugin.dataparser import LpmDataParserConfig
from lpm.scenes.images import load_image
from lpm.scenes.layout import detect
from lpm.scenes.read import read_scene
from lpm.scenes.split import hold_out


def parse(folder, split="train", **options):
    return LpmDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def project(outputs, index, xyz):
    """Pixels [N, 2] and depth [N] of `xyz` in the outputs' frame, by the camera model's definition."""
    camera = outputs.cameras[index]
    c2w = camera.camera_to_worlds.double().numpy()
    local = (xyz - c2w[:, 3]) @ c2w[:, :3] * [1, -1, -1]
    z = local[:, 2]
    x, y = local[:, 0] / z, local[:, 1] / z
    k1, k2, _, _, p1, p2 = camera.distortion_params.double().numpy()
    r = x * x + y * y
    bend = 1 + k1 * r + k2 * r * r
    u = x * bend + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * bend + 2 * p2 * x * y + p1 * (r + 2 * y * y)
    pixels = np.stack([u * camera.fx.item() + camera.cx.item(), v * camera.fy.item() + camera.cy.item()], axis=1)
    # Far outside the image the polynomial turns back; those are not in view.
    return pixels, np.where(r < 2, z, -1.0)


def original(outputs, xyz):
    """`xyz` of the outputs' frame in the frame of the user's files, by nerfstudio's rule for exports."""
    transform = outputs.dataparser_transform.double().numpy()
    return np.linalg.solve(transform[:, :3], (xyz / outputs.dataparser_scale - transform[:, 3]).T).T


MAKERS = {
    "transforms": tiny_scene.make_transforms,
    "colmap": tiny_scene.make_colmap,
    "colmap-text": lambda folder: tiny_scene.make_colmap(folder, binary=False),
    "colmap-folder": lambda folder: tiny_scene.make_colmap(folder, where="colmap/sparse/0"),
    "colmap-flat": lambda folder: tiny_scene.make_colmap(folder, where="sparse"),
    "blender": tiny_scene.make_blender,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_layouts_agree(tmp_path, kind):
    folder = MAKERS[kind](tmp_path / "scene")
    assert detect(folder).kind == kind.split("-")[0]
    train, test = parse(folder), parse(folder, "test")
    assert len(train.image_filenames) == (8 if kind != "blender" else 9)
    assert len(test.image_filenames) == (2 if kind != "blender" else 1)
    assert "0.png" in test.metadata["image_names"][0] or "r_0" in test.metadata["image_names"][0]
    assert not set(train.image_filenames) & set(test.image_filenames)
    assert parse(folder, "val").image_filenames == test.image_filenames

    # The cameras are where they were written, once nerfstudio's transform is undone.
    held = {0} if kind == "blender" else {0, 8}
    wanted = tiny_scene.poses()[[i for i in range(10) if i not in held]]
    got = train.transform_poses_to_original_space(train.cameras.camera_to_worlds, camera_convention="opengl")
    assert np.allclose(got.numpy(), wanted[:, :3], atol=2e-6)
    intrinsics = [float(getattr(train.cameras, k)[0]) for k in ("fx", "fy", "cx", "cy", "width", "height")]
    assert np.allclose(intrinsics, [30, 30, 16, 12, 32, 24])
    distances = train.cameras.camera_to_worlds[:, :, 3] - train.cameras.camera_to_worlds[:, :, 3].mean(0)
    assert train.metadata["scene_extent"] == pytest.approx(1.1 * float(distances.norm(dim=1).max()), rel=1e-5)
    assert test.metadata["scene_extent"] == train.metadata["scene_extent"]
    largest = max(float(o.cameras.camera_to_worlds[:, :, 3].abs().max()) for o in (train, test))
    assert largest == pytest.approx(1.0, abs=1e-5)

    if kind == "blender":
        assert "points3D_xyz" not in train.metadata
        assert train.alpha_color.tolist() == [1, 1, 1]
        return
    xyz, rgb = tiny_scene.points()
    assert train.metadata["points3D_xyz"].dtype == torch.float32
    assert train.metadata["points3D_rgb"].dtype == torch.uint8
    assert (train.metadata["points3D_rgb"].numpy() == rgb).all()
    assert np.allclose(original(train, train.metadata["points3D_xyz"].double().numpy()), xyz, atol=2e-6)
    # They project where the definition of the poses puts them.
    local = (xyz - wanted[2][:3, 3]) @ wanted[2][:3, :3]
    pixels, z = project(train, 2, train.metadata["points3D_xyz"].double().numpy())
    if kind != "transforms":  # that one has distortion
        assert np.allclose(
            pixels, np.stack([16 - 30 * local[:, 0] / local[:, 2], 12 + 30 * local[:, 1] / local[:, 2]], 1), atol=1e-3
        )
    assert (z > 0).all()


def test_distortion_models(tmp_path):
    for i, (number, name, params, wanted) in enumerate(
        [
            (0, "SIMPLE_PINHOLE", [30.0, 16, 12], [30, 30, 16, 12, 0, 0, 0, 0, 0, 0]),
            (2, "SIMPLE_RADIAL", [30.0, 16, 12, 0.1], [30, 30, 16, 12, 0.1, 0, 0, 0, 0, 0]),
            (3, "RADIAL", [30.0, 16, 12, 0.1, 0.2], [30, 30, 16, 12, 0.1, 0.2, 0, 0, 0, 0]),
            (4, "OPENCV", [30.0, 31, 16, 12, 0.1, 0.2, 0.03, 0.04], [30, 31, 16, 12, 0.1, 0.2, 0, 0, 0.03, 0.04]),
        ]
    ):
        scene = read_scene(tiny_scene.make_colmap(tmp_path / str(i), model=(number, name, params)))
        assert np.allclose(np.concatenate([scene.intrinsics, scene.distortion], 1), wanted)


def test_precedence_is_said_once(tmp_path, monkeypatch):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    shutil.copytree(tiny_scene.make_colmap(tmp_path / "other") / "sparse", folder / "sparse")
    said = []
    monkeypatch.setattr("lpm.plugin.dataparser.CONSOLE.print", said.append)
    parser = LpmDataParserConfig(data=folder).setup()
    for split in ("train", "val"):
        parser.get_dataparser_outputs(split)
    assert said == [f"{folder}: transforms.json is read; also there: COLMAP's sparse/0"]
    assert detect(folder / "transforms.json").kind == "transforms"


def test_full_size_images_always(tmp_path):
    """nerfstudio's own parser would switch to images_2 for large photos; this one must not."""
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    meta = json.loads((folder / "transforms.json").read_text())
    for f in meta["frames"]:
        tiny_scene.write_image(folder / f["file_path"], 0, (1800, 8))
    shutil.copytree(folder / "images", folder / "images_2")
    (folder / "transforms.json").write_text(json.dumps({**meta, "w": 1800, "h": 8}))
    outputs = parse(folder)
    assert outputs.image_filenames[0].parent.name == "images"
    assert int(outputs.cameras.width[0]) == 1800


def test_hold_out_rules(tmp_path):
    scene = read_scene(tiny_scene.make_transforms(tmp_path / "a", views=20))
    train, test = hold_out(scene, 8)
    assert test.tolist() == [0, 8, 16]
    assert sorted([*train, *test]) == list(range(20))
    everything, again = hold_out(scene, 0)
    assert everything.tolist() == again.tolist() == list(range(20))
    scene.lists = {"test": ["images/003.png", "images/001.png"]}
    train, test = hold_out(scene, 8)
    assert test.tolist() == [1, 3]
    assert len(train) == 18
    scene.lists = {"train": ["images/003.png"], "val": ["images/001.png"]}
    assert [x.tolist() for x in hold_out(scene, 8)] == [[3], [1]]
    scene.lists = {}
    for interval in (-1, 1):
        with pytest.raises(LpmError, match=r"eval_interval|nothing left to train on"):
            hold_out(scene, interval)


def test_options(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene")
    assert parse(folder, max_points=7).metadata["points3D_xyz"].shape == (7, 3)
    assert "points3D_xyz" not in parse(folder, load_3D_points=False).metadata
    plain = parse(folder, orientation_method="none", center_method="none", auto_scale_poses=False)
    assert plain.dataparser_scale == 1
    moved = plain.metadata["points3D_xyz"].numpy()  # COLMAP's frame, turned z up: (x, y, z) -> (x, z, -y)
    assert np.allclose(moved, tiny_scene.points()[0][:, [0, 2, 1]] * [1, 1, -1], atol=1e-6)
    twice = parse(folder, scale_factor=2.0)
    assert twice.metadata["scene_extent"] == pytest.approx(2 * parse(folder).metadata["scene_extent"])
    for orientation in ("up", "vertical", "pca", "none"):
        for center in ("poses", "focus", "none"):
            outputs = parse(folder, orientation_method=orientation, center_method=center)
            assert np.allclose(
                original(outputs, outputs.metadata["points3D_xyz"].double().numpy()), tiny_scene.points()[0], atol=1e-5
            )


def test_far_coordinates_keep_their_precision(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    near = parse(folder).cameras.camera_to_worlds
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    for f in meta["frames"]:
        f["transform_matrix"][0][3] += 500_000.0
        f["transform_matrix"][1][3] += 5_000_000.0
    path.write_text(json.dumps(meta))
    assert torch.allclose(parse(folder).cameras.camera_to_worlds, near, atol=1e-5)


def test_applied_transform_and_scale(tmp_path):
    """Exports in the original frame undo what ns-process-data did, too."""
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    applied = np.array([[0.0, 1, 0, 0.5], [1, 0, 0, -1], [0, 0, -1, 2]])
    path.write_text(json.dumps({**meta, "applied_transform": applied.tolist(), "applied_scale": 2.0}))
    outputs = parse(folder)
    xyz = original(outputs, outputs.metadata["points3D_xyz"].double().numpy())
    assert np.allclose(2.0 * (xyz @ applied[:, :3].T + applied[:, 3]), tiny_scene.points()[0], atol=1e-5)


def test_own_intrinsics_allow_other_sizes(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    frame = next(f for f in meta["frames"] if f["file_path"] == "images/004.png")
    tiny_scene.write_image(folder / "images/004.png", 4, (40, 20))
    frame.update(w=40, h=20, fl_x=33.0, fl_y=34.0, cx=21.0, cy=9.0)
    path.write_text(json.dumps(meta))
    outputs = parse(folder)
    at = outputs.metadata["image_names"].index("images/004.png")
    camera = outputs.cameras[at]
    assert [float(x) for x in (camera.fx, camera.fy, camera.cx, camera.cy)] == [33, 34, 21, 9]
    assert (int(camera.width), int(camera.height)) == (40, 20)
    assert int(outputs.cameras[0].width) == 32


def test_masks(tmp_path):
    folder = tiny_scene.make_transforms(tmp_path / "a")
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    for f in meta["frames"]:
        f["mask_path"] = f["file_path"].replace("images", "masks")
        tiny_scene.write_image(folder / f["mask_path"], 1)
    path.write_text(json.dumps(meta))
    masks = parse(folder, "test").mask_filenames
    assert [m.name for m in masks] == ["000.png", "008.png"]
    tiny_scene.write_image(folder / "masks" / "003.png", 1, (16, 12))
    with pytest.raises(LpmError, match=r"masks/003\.png: mask of 16x12"):
        parse(folder)

    folder = tiny_scene.make_colmap(tmp_path / "b")
    for i in range(10):  # COLMAP's own naming
        tiny_scene.write_image(folder / "masks" / f"{i:03d}.png.png", 1)
    assert parse(folder, "test").mask_filenames[1].name == "008.png.png"
    (folder / "masks" / "005.png.png").unlink()
    with pytest.raises(LpmError, match=r"no mask for 005\.png"):
        parse(folder)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1"])
def test_load_image_modes(tmp_path, mode):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (6, 8)).astype(np.uint8)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(grey).convert(mode).save(path)
    pixels = load_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (6, 8, 4 if mode in ("RGBA", "LA") else 3)
    if mode not in ("CMYK", "1"):
        assert (pixels[:, :, :3] == grey[:, :, None]).all()


def nearest(pixels, z, cell=24):
    """Rows of the points that have no other one clearly before them in a cell of the image: mostly visible ones."""
    key = (pixels[:, 1] // cell).astype(int) * 10_000 + (pixels[:, 0] // cell).astype(int)
    front = np.full(key.max() + 1, np.inf)
    np.minimum.at(front, key, z)
    return z < front[key] * 1.05


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("fox", 0.6), ("fox-colmap", 0.6), ("snowmiku", 0.4)])
def test_real_points_have_their_pixels_colour(real_data, tmp_path, name, least):
    folder = real_data / name
    if name == "fox-colmap":
        folder = tmp_path / "fox"
        folder.mkdir()
        for part in ("images", "sparse"):
            (folder / part).symlink_to(real_data / "fox" / part)
    outputs = parse(folder)
    xyz, rgb = outputs.metadata["points3D_xyz"].double().numpy(), outputs.metadata["points3D_rgb"].numpy()

    def correlation(shift):
        values = []
        for i in range(0, len(outputs.image_filenames), 6):
            image = load_image(outputs.image_filenames[i])
            pixels, z = project(outputs, i, xyz)
            pixels = pixels + np.array(shift)
            rows = np.flatnonzero((z > 0) & (pixels >= 0).all(1) & (pixels < [image.shape[1], image.shape[0]]).all(1))
            rows = rows[nearest(pixels[rows], z[rows])]
            at = pixels[rows].astype(int)
            values.append(np.corrcoef(image[at[:, 1], at[:, 0]].ravel(), rgb[rows].ravel())[0, 1])
        return float(np.mean(values))

    here = correlation((0, 0))
    assert here > least
    for shift in ((12, 0), (-12, 0), (0, 12), (0, -12)):
        assert correlation(shift) < here - 0.03


def test_info_command(tmp_path, capsys):
    from lpm.scenes.cli import info

    folder = tiny_scene.make_colmap(tmp_path / "scene")
    info(folder, sheet=tmp_path / "sheet.jpg")
    said = capsys.readouterr().out
    for part in ("colmap", "10, 32x24", "60 (", "8 to train on, 2 to test on"):
        assert part in said
    assert Image.open(tmp_path / "sheet.jpg").width > 900
