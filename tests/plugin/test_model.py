"""The model's choices: what it starts with, its schedule, its colours."""

import pytest
import torch

from lpm.checks import LpmError


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
    model = make_trainer("a", 3000).pipeline.model
    model.num_train_data = views
    plan = model._schedule()
    edits = [
        s for s in range(plan.start + 1, plan.stop) if s % 100 == 0 and s % plan.reset_every >= plan.pause_after_reset
    ]
    assert len(edits) == 12


def test_long_runs_pause_after_a_reset(make_trainer):
    plan = make_trainer("a", 5, max_steps=30_000).pipeline.model._schedule()
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
