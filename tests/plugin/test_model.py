"""The model's choices: what it starts with, its schedule, its colours."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scene import HEIGHT, WIDTH, make_transforms

from lpm.checks import LpmError


@pytest.fixture
def masked(tmp_path):
    """The tiny scene with masks that hide the left half."""
    folder = make_transforms(tmp_path / "masked")
    meta = json.loads((folder / "transforms.json").read_text())
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, : WIDTH // 2] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    for frame in meta["frames"]:
        frame["mask_path"] = "mask.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize("cap", [0, 20, 100])
def test_random_start_keeps_the_cap(make_trainer, cap):
    model = make_trainer("a", 5, random_init=True, num_random=70, max_points=cap).pipeline.model
    assert model.num_points == (70 if cap == 0 else min(70, cap // 2))


def test_points_are_thinned_to_half_of_the_cap(make_trainer):
    assert make_trainer("a", 5, max_points=50).pipeline.model.num_points == 25


@pytest.mark.parametrize("sh_degree", [0, 2])
def test_start_colours_are_the_points(make_trainer, sh_degree):
    model = make_trainer("a", 5, sh_degree=sh_degree).pipeline.model
    torch.testing.assert_close(model.colors.detach(), model.seed_points[1] / 255, atol=2e-3, rtol=0)


@pytest.mark.parametrize("views", [43, 300, 5000])
def test_short_runs_edit_however_many_photos(make_trainer, views):
    plan = make_trainer("a", 3000, strategy="adc").model.config.schedule(views)
    edits = [
        s for s in range(plan.start + 1, plan.stop) if s % 100 == 0 and s % plan.reset_every >= plan.pause_after_reset
    ]
    assert len(edits) == 12


def test_long_runs_pause_after_a_reset(make_trainer):
    plan = make_trainer("a", 5, max_steps=30_000, strategy="adc").pipeline.model.schedule
    assert (plan.start, plan.stop, plan.reset_every, plan.pause_after_reset) == (500, 15_000, 3000, 108)


def test_the_schedule_is_checked(make_trainer):
    with pytest.raises(LpmError, match="refine_every: 0"):
        make_trainer("a", 5, refine_every=0)


def test_extent_reaches_strategy_and_rate(make_trainer):
    trainer = make_trainer("a", 5, strategy="adc")
    extent = trainer.pipeline.model.scene_extent
    assert extent != 1.0
    assert trainer.pipeline.model.strategy_state["scene_scale"] == extent
    rate = trainer.optimizers.optimizers["means"].param_groups[0]["initial_lr"]
    assert rate == pytest.approx(1.6e-4 * extent)


@pytest.mark.parametrize("strategy", ["lpm", "random-zones", "paper"])
@pytest.mark.parametrize("downscales", [0, 1])
def test_masks_from_coarse_to_fine(make_trainer, masked, strategy, downscales):
    """The mask that a strategy gets has the size of the render, whatever the resolution of the step."""
    options = dict(strategy=strategy, warmup_length=2, refine_every=5, max_points=200, resolution_schedule=8)
    trainer = make_trainer("a", 20, data=masked, num_downscales=downscales, **options)
    trainer.train()
    info = trainer.pipeline.model.info
    assert info["mask"].shape[:2] == info["render"].shape[:2]


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        (dict(strategy="lpm"), [2, 2, 1, 1]),
        (dict(strategy="adc"), [1, 1, 1, 1]),
        (dict(strategy="lpm", num_downscales=0), [1, 1, 1, 1]),
        (dict(strategy="adc", num_downscales=2), [4, 2, 1, 1]),
        (dict(strategy="lpm", resolution_schedule=95), [2, 2, 2, 1]),
    ],
)
def test_sizes_of_the_first_steps(make_trainer, options, factors):
    """`lpm` begins with half the size, for three tenths of a run; what is small already stays as it is."""
    model = make_trainer("a", 100, **options).pipeline.model
    assert model.training
    found = []
    for model.step in (0, 10, 30, 95):
        found.append(model.downscale_factor(200, 128))
    assert found == factors
    model.step = 0
    assert model.downscale_factor(200, 127) == (factors[0] if "num_downscales" in options else 1)
    model.eval()
    assert model.downscale_factor(200, 128) == 1


def test_switches_reach_the_strategy(make_trainer):
    for name in ("lpm", "paper"):
        strategy = make_trainer(name, 5, strategy=name, insert=False, reset=False).pipeline.model.strategy
        assert (strategy.densify, strategy.insert, strategy.reset, strategy.prune) == (True, False, False, True)


def test_the_seed_of_the_run_is_the_strategys(make_trainer):
    trainer = make_trainer("a", 5)
    assert trainer.pipeline.model.strategy.seed == trainer.config.machine.seed
