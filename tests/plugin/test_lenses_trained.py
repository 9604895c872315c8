"""A fisheye scene under both faces: the same views, and training runs on them."""

import numpy as np
import pytest
import tiny_scene
import torch

from lpm.checks import LpmError
from lpm.plugin.datamanager import LpmDatamanagerConfig
from lpm.plugin.dataparser import LpmDataParserConfig
from lpm.scenes.read import read_scene
from lpm.train.cli import parse, train
from lpm.train.image_metrics import image_metrics
from lpm.train.load_photos import load_photos
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

FISHEYE = (5, "OPENCV_FISHEYE", [10.0, 10, 16, 12, 0.01, 0, 0, 0])


def test_both_faces_see_the_same(tmp_path, monkeypatch):
    folder = tiny_scene.make_colmap(tmp_path / "scene", model=FISHEYE)
    monkeypatch.setattr(LpmDataParserConfig, "takes_cuts", False)
    parser = LpmDataParserConfig(data=folder)
    with pytest.raises(
        LpmError, match=r"no pinholes; wanted perspective photos, for this method; train with lpm-splat"
    ):
        parser.setup().get_dataparser_outputs("train")
    config = LpmDatamanagerConfig(dataparser=parser, camera_res_scale_factor=0.5, points_from_photos=False)
    manager = config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    ours, cameras = load_photos(place(read_scene(folder), SceneSettings(), 8).train, 0.5)
    theirs = manager.cached_train
    assert len(ours) == len(theirs) == 40
    for i, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(one["image"], two["image"])
        assert ("mask" in one) == ("mask" in two)
        if "mask" in one:
            assert torch.equal(one["mask"], two["mask"])
        assert manager.train_cameras[i].width.item() == cameras.sizes[i, 0]
        assert np.allclose(manager.train_cameras.fx[i], cameras.intrinsics[i, 0])
    shown = manager.train_dataset[0]["image"]  # nerfstudio's viewer asks so
    assert np.abs(shown * 255 - ours[0]["image"]).max() < 1e-3


def test_what_a_mask_hides_is_not_measured():
    truth = torch.rand(40, 50, 3)
    render = (truth + 0.05 * torch.randn_like(truth)).clamp(0, 1)
    mask = torch.ones(40, 50, 1, dtype=torch.bool)
    assert image_metrics(render, truth, None, mask) == image_metrics(render, truth, None)
    mask[:, 25:] = False
    black = torch.where(mask, truth, 0.0)
    masked, part = image_metrics(render, black, None, mask), image_metrics(render[:, :25], truth[:, :25], None)
    assert masked["psnr"] == pytest.approx(part["psnr"], abs=1e-4)
    assert masked["ssim"] == pytest.approx(part["ssim"], abs=0.005)  # a window reaches over the edge
    assert image_metrics(render, black, None)["psnr"] < 10


def test_lpm_train_takes_the_field_of_view(tmp_path):
    folder = tiny_scene.make_colmap(tmp_path / "scene", model=FISHEYE)
    words = [str(folder), "--steps", "3", "--out", str(tmp_path / "run"), "--device", "cpu"]
    _, scene, _ = parse([*words, "--data.lens-fov", "90"])
    assert len(scene) == 10
    with pytest.raises(LpmError, match=r"--data\.lens-fov: wide; wanted degrees"):
        parse([*words, "--data.lens-fov=wide"])
    trainer = train([*words, "--no-page"])
    assert len(trainer.data.train) == 40
