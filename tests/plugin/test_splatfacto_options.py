"""Options for imperfect photos, with every strategy: refined poses, colours that differ by photo, a sky."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.data.scene_box import OrientedBox

from lpm.multiview.views import world_to_camera
from lpm.render.sky import sky_colors
from lpm.strategy.registry import STRATEGIES
from lpm.train.model_settings import PoseRefinementSettings

BUSY = dict(warmup_length=5, refine_every=5, stop_split_at=25, densify_grad_thresh=1e-7, max_points=400)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_poses_are_refined(make_trainer, strategy):
    trainer = make_trainer(
        "poses", 30, strategy=strategy, camera_optimizer=PoseRefinementSettings(mode="SO3xR3"), **BUSY
    )
    trainer.train()
    moved = trainer.model.camera_optimizer.pose_adjustment.detach()
    assert bool(torch.isfinite(moved).all())
    assert float(moved.abs().max()) > 1e-6
    assert trainer.left_out.total == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_colours_by_photo(make_trainer, strategy):
    trainer = make_trainer("grid", 30, strategy=strategy, use_bilateral_grid=True, **BUSY)
    before = trainer.model.bil_grids.grids.detach().clone()
    trainer.train()
    after = trainer.model.bil_grids.grids.detach()
    assert bool(torch.isfinite(after).all())
    assert not torch.equal(before, after)
    assert trainer.left_out.total == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("sky", ["constant", "sphere"])
def test_a_sky_is_learnt(make_trainer, strategy, sky):
    """And what is behind everything in a picture is it."""
    trainer = make_trainer("sky", 30, strategy=strategy, sky=sky, **BUSY)
    model = trainer.model
    before = model.sky.detach().clone()
    trainer.train()
    assert bool(torch.isfinite(model.sky).all())
    assert float((model.sky - before).detach().abs().max()) > 1e-3
    assert trainer.left_out.total == 0
    model.eval()
    camera = trainer.data.train_dataset.cameras[0:1]
    seen, K = model.get_outputs(camera), camera.get_intrinsics_matrices()[0]
    viewmat = world_to_camera(camera.camera_to_worlds)[0]
    colors = sky_colors(model.sky, viewmat, K, int(camera.width), int(camera.height))
    torch.testing.assert_close(seen["background"], colors)
    bare = (seen["accumulation"] < 1e-6).squeeze(-1)
    if bool(bare.any()):
        torch.testing.assert_close(seen["rgb"][bare], colors[bare].clamp(0, 1))


def test_nothing_in_the_crop_shows_the_sky(make_trainer):
    trainer = make_trainer("crop", 5, sky="sphere")
    model, camera = trainer.model.eval(), trainer.data.train_dataset.cameras[0:1]
    model.crop_box = OrientedBox(R=torch.eye(3), T=torch.full((3,), 50.0), S=torch.full((3,), 0.1))
    seen = model.get_outputs(camera)
    assert seen["rgb"].shape == (int(camera.height), int(camera.width), 3)
    assert torch.equal(seen["rgb"], seen["background"])
    assert float(seen["accumulation"].max()) == 0.0
