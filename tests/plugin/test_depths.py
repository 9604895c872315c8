"""A scene with depths: training starts from them, and leans on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes.read import read_scene
from lpm.scenes.samples import make
from lpm.strategy.registry import STRATEGIES


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A room whose frames name their depths, in thousandths of the scene's unit, and no points."""
    folder = make.make("room", tmp_path_factory.mktemp("room") / "measured", views=12, size=(120, 90))
    meta = json.loads((folder / "transforms.json").read_text())
    del meta["ply_file_path"]
    for frame in meta["frames"]:
        frame["depth_file_path"] = f"depth/{Path(frame['file_path']).stem}.npy"
    for file in (folder / "depth").iterdir():
        np.save(file, 1_000 * np.load(file))
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture
def train(make_trainer, measured):
    return lambda steps, **options: make_trainer("a", steps, data=measured, max_points=3_000, **options)


def away(trainer):
    """Median over the held-out photos' pixels of how far the drawn depth is from the true one, as a share of it."""
    model = trainer.model
    model.eval()
    parsed, off = trainer.data.eval_dataset._dataparser_outputs, []
    for i, file in enumerate(parsed.metadata["depth_filenames"]):
        true = torch.from_numpy(np.load(file)) * parsed.dataparser_scale / 1_000
        drawn = model.get_outputs(trainer.data.eval_dataset.cameras[i : i + 1])["depth"][..., 0].detach()
        off.append((drawn / true - 1).abs().flatten())
    return float(torch.cat(off).median())


def test_training_starts_from_them(train, measured, capsys):
    trainer = train(10)
    said = capsys.readouterr().out
    assert "are drawn from its depths" in said
    assert "warning" not in said
    means = trainer.model.gauss_params["means"].detach()
    assert len(means) == 1_500
    scene, parsed = read_scene(measured), trainer.data.train_dataparser_outputs
    depth = trainer.data.cached_train[0]["depth"]
    assert depth.shape == (22, 30)  # a quarter of the photo
    true = np.load(scene.depths[1]) * parsed.dataparser_scale / 1_000  # the first photo is held out
    np.testing.assert_allclose(depth[5, 9], true[5 * 90 // 22 + 2, 9 * 4 + 2], rtol=1e-5)


def test_it_leans_on_them(train):
    """From one start: a hundred steps with the depths draw depths nearer to the true ones than without."""
    found = {}
    for weight in (0.0, 0.3):
        trainer = train(100, strategy="lpm", depth_weight=weight)
        trainer.train()
        found[weight] = away(trainer)
        assert trainer.left_out.total == 0
    print(found)
    assert found[0.3] < 0.9 * found[0.0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_them(train, strategy):
    trainer = train(20, strategy=strategy, warmup_length=5, refine_every=5, stop_split_at=15)
    trainer.train()
    assert trainer.left_out.total == 0
    weights = {"mcmc": 2, "lpm": 2, "random-zones": 2, "conegs": 1}.get(strategy, 0)  # on opacity and scale
    assert len(trainer.model.losses) == 2 + weights
    assert 0 < float(trainer.model.losses[-1]) < 0.01


def test_every_frame_or_none(measured, tmp_path):
    meta = json.loads((measured / "transforms.json").read_text())
    del meta["frames"][3]["depth_file_path"]
    broken = measured / "other.json"
    broken.write_text(json.dumps(meta))
    with pytest.raises(LpmError, match=r"no depth_file_path for .*; wanted depth_file_path in every frame or in none"):
        read_scene(broken)


def test_a_wrong_unit_is_said(make_trainer, measured, tmp_path, capsys):
    from lpm.plugin.datamanager import LpmDatamanagerConfig

    config = LpmDatamanagerConfig(data=measured)
    config.dataparser.depth_unit_scale_factor = 1.0
    config.setup(device="cpu", test_mode="val")
    assert "times as far as what the cameras look at" in capsys.readouterr().out


def test_what_is_masked_or_transparent_has_no_depth(make_trainer, measured, tmp_path):
    scene = shutil.copytree(measured, tmp_path / "scene")
    meta = json.loads((scene / "transforms.json").read_text())
    (scene / "masks").mkdir()
    for i, frame in enumerate(meta["frames"]):
        mask = np.full((90, 120), 255, np.uint8)
        mask[:, :60] = 0
        Image.fromarray(mask).save(scene / "masks" / f"{i}.png")
        frame["mask_path"] = f"masks/{i}.png"
        path = scene / frame["file_path"]
        picture = Image.open(path).convert("RGBA")
        picture.putalpha(Image.fromarray(np.where(np.arange(90)[:, None] < 44, 0, mask * 0 + 255).astype(np.uint8)))
        picture.save(path)
    (scene / "transforms.json").write_text(json.dumps(meta))
    depth = make_trainer("a", 5, data=scene, max_points=3_000).data.cached_train[0]["depth"]
    assert float(depth[:11].max()) == 0.0
    assert float(depth[:, :15].max()) == 0.0
    assert float(depth[12:, 15:].min()) > 0.0


def test_nerfstudios_own_parser_without_depths_or_points(make_trainer, measured, tmp_path, capsys):
    """It says depth_filenames=None."""
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    from lpm.plugin.datamanager import LpmDatamanagerConfig

    scene = shutil.copytree(measured, tmp_path / "scene")
    meta = json.loads((scene / "transforms.json").read_text())
    for frame in meta["frames"]:
        del frame["depth_file_path"]
    (scene / "transforms.json").write_text(json.dumps(meta))
    data = LpmDatamanagerConfig(data=scene, dataparser=NerfstudioDataParserConfig(data=scene, load_3D_points=True))
    manager = data.setup(device="cpu", test_mode="val")
    assert manager.train_dataparser_outputs.metadata["depth_filenames"] is None
    assert "were found by comparing the photos" in capsys.readouterr().out
