"""ns-render's cameras that are not perspective, and transforms in double."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tiny_scene import make_transforms

from lpm.checks import LpmError
from lpm.gaussians.similarity import from_dataparser

paths = pytest.importorskip("nerfstudio.cameras.camera_paths")


def cameras(kind, width, height, fov=75.0):
    """As ns-render makes them of a camera path."""
    pose = [1, 0, 0, 0.1, 0, 1, 0, -0.2, 0, 0, 1, 0.3, 0, 0, 0, 1]
    return paths.get_path_from_json({
        "camera_type": kind, "render_width": width, "render_height": height,
        "camera_path": [{"camera_to_world": [float(v) for v in pose], "fov": fov, "aspect": width / height}],
    })[0:1]  # fmt: skip


@pytest.fixture
def model(make_trainer):
    """One small bright Gaussian in each of six directions, the sixth part of red each more."""
    model = make_trainer("a", 5, sh_degree=0, background_color="black").pipeline.model
    around = torch.cat([torch.eye(3), -torch.eye(3)])
    values = {
        "means": torch.tensor([0.1, -0.2, 0.3]) + 2 * around, "scales": torch.full((6, 3), math.log(0.3)),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(6, 1), "features_dc": torch.logit(torch.full((6, 3), 0.9)),
        "features_rest": torch.zeros(6, 0, 3), "opacities": torch.full((6, 1), 9.0),
    }  # fmt: skip
    values["features_dc"][:, 0] = torch.logit((torch.arange(6) + 1.0) / 8)
    for name, value in values.items():
        model.gauss_params[name] = torch.nn.Parameter(value)
    return model.eval()


@torch.no_grad()
def test_a_panorama_is_one(model):
    camera = cameras("equirectangular", 120, 60)
    shown = model.get_outputs_for_camera(camera)
    assert shown["rgb"].shape == (60, 120, 3)
    # Where +x, +y, +z, -x, -y, -z are: ahead is -z, in the middle; up is +y.
    for i, (x, y) in enumerate([(90, 30), (None, 0), (0, 30), (30, 30), (None, 59), (60, 30)]):
        spot = shown["rgb"][max(y - 1, 0) : y + 1, (x or 10) - 1 if x else 10 : (x or 10) + 1 if x else 12]
        spot = shown["rgb"][29:31, [0, 119]] if x == 0 else spot
        assert (spot[..., 1] > 0.7).all(), (i, spot)
        assert (spot[..., 0] / spot[..., 1] - (i + 1) / 8 / 0.9).abs().max() < 0.02, (i, spot)
    assert (shown["depth"][29:31, 89:91] - 2).abs().max() < 0.1
    assert (shown["rgb"] > 0.05).any(-1).float().mean() < 0.6  # between them it is black


@torch.no_grad()
def test_a_fisheye_sees_to_the_side(model):
    """What lies 90 degrees beside the axis is a quarter of a turn times the focal length from the middle."""
    camera = cameras("fisheye", 100, 100, fov=150.0)
    shown = model.get_outputs_for_camera(camera)["rgb"]
    at = 50 + float(camera.fx) * math.pi / 2
    assert 60 < at < 90
    for x, i in ((50, 5), (round(at), 0), (round(100 - at), 3)):
        spot = shown[49:51, x - 1 : x + 1]
        assert (spot[..., 1] > 0.7).all()
        assert (spot[..., 0] / spot[..., 1] - (i + 1) / 8 / 0.9).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["omnidirectional", "vr180"])
def test_stereo_panoramas_are_refused_in_one_line(model, kind):
    with pytest.raises(LpmError, match=r"camera_type: .*; wanted perspective, equirectangular or fisheye") as error:
        model.get_outputs_for_camera(cameras(kind, 120, 60))
    assert "\n" not in str(error.value)


def test_the_transform_of_a_scene_in_utm_is_kept_in_double(make_trainer, tmp_path):
    folder, far = make_transforms(tmp_path / "utm"), np.array([500000.25, 5412345.5, 300.0])
    meta = json.loads((folder / "transforms.json").read_text())
    before = np.array([frame["transform_matrix"] for frame in meta["frames"]])
    for frame, pose in zip(meta["frames"], before, strict=True):
        pose = pose.copy()
        pose[:3, 3] += far
        frame["transform_matrix"] = pose.tolist()
    meta.pop("ply_file_path", None)
    (folder / "transforms.json").write_text(json.dumps(meta))
    trainer = make_trainer("a", 5, data=folder, random_init=True)
    outputs = trainer.pipeline.datamanager.train_dataparser_outputs
    outputs.save_dataparser_transform(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    to_world = from_dataparser(np.array(saved["transform"]), saved["scale"]).inverse()
    c2w = outputs.cameras.camera_to_worlds.double().numpy()
    places = c2w[:, :, 3] * to_world.scale @ to_world.rotation.T + to_world.translation
    names = [path.name for path in outputs.image_filenames]
    order = {frame["file_path"].split("/")[-1]: i for i, frame in enumerate(meta["frames"])}
    want = np.stack([before[order[name], :3, 3] for name in names]) + far
    assert np.abs(places - want).max() < 1e-5
    back = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds)
    assert np.abs(back[:, :3, 3].numpy() - want).max() < 1e-3
