"""N steps = N/2 + resume + N/2, to the bit, for each strategy."""

import random

import numpy as np
import pytest
import torch
from faces import BOTH

from lpm.checks import LpmError
from lpm.runs import checkpoint
from lpm.strategy.registry import STRATEGIES

STEPS, HALF = 60, 30
# So that edits of every kind (grow, prune, reset, SH degrees) happen in both halves.
BUSY = dict(
    warmup_length=5, refine_every=5, stop_split_at=55, reset_alpha_every=4, densify_grad_thresh=1e-7,
    sh_degree_interval=15, max_points=400,
)  # fmt: skip


def everything(trainer):
    """All that the next step depends on, flat: name -> tensor or value."""
    model, flat = trainer.pipeline.model, {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}.{key}", item)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                walk(f"{name}.{i}", item)
        else:
            flat[name] = value

    walk("params", dict(model.gauss_params.items()))
    walk("optimizers", {k: o.state_dict() for k, o in trainer.optimizers.optimizers.items()})
    walk("schedulers", {k: s.state_dict() for k, s in trainer.optimizers.schedulers.items()})
    walk("strategy", model.strategy_state)
    walk("extra", model.strategy.extra_state())
    walk("sampling", trainer.pipeline.datamanager.sampling_state())
    walk("random", checkpoint.random_state())
    walk("draws", (random.random(), np.random.rand(), torch.rand(1)))
    return flat


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], torch.Tensor):
            assert torch.equal(a[name], b[name]), name
        else:
            assert a[name] == b[name], name


@BOTH
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resume_is_exact(make_trainer, strategy):
    whole = make_trainer("whole", STEPS, strategy=strategy, **BUSY)
    start_points = whole.pipeline.model.num_points
    whole.config.steps_per_save = HALF
    whole.train()
    assert whole.pipeline.model.num_points != start_points  # else the test would show little
    wanted = everything(whole)

    middle = whole.checkpoint_dir / f"step-{HALF:09d}.ckpt"
    resumed = make_trainer("resumed", STEPS, load=middle, strategy=strategy, **BUSY)
    assert resumed._start_step == HALF + 1
    before = resumed.pipeline.model.gauss_params["means"].detach().clone()
    resumed.train()
    assert_same(wanted, everything(resumed))
    after = resumed.pipeline.model.gauss_params["means"]
    assert before.shape != after.shape or not torch.equal(before, after)  # the optimizers do move what was loaded


@BOTH
def test_resume_with_a_sky_is_exact(make_trainer):
    whole = make_trainer("whole", STEPS, sky="sphere", **BUSY)
    whole.config.steps_per_save = HALF
    whole.train()
    wanted = everything(whole) | {"sky": whole.model.sky.detach().clone()}
    resumed = make_trainer("resumed", STEPS, load=whole.checkpoint_dir / f"step-{HALF:09d}.ckpt", sky="sphere", **BUSY)
    resumed.train()
    assert_same(wanted, everything(resumed) | {"sky": resumed.model.sky.detach()})


@BOTH
def test_the_last_two_checkpoints_stay(make_trainer):
    trainer = make_trainer("a", 17, **BUSY)
    trainer.config.steps_per_save, trainer.config.save_only_latest_checkpoint = 5, True
    trainer.train()
    assert sorted(p.name for p in trainer.checkpoint_dir.iterdir()) == ["step-000000015.ckpt", "step-000000016.ckpt"]


def test_nothing_left_to_do_is_said(make_trainer):
    done = make_trainer("done", 5, **BUSY)
    done.train()
    with pytest.raises(LpmError, match=r"--max-num-iterations: 5, and the checkpoint is at step 5"):
        make_trainer("again", 5, load=done.checkpoint_dir / "step-000000004.ckpt", **BUSY)
    assert not (done.base_dir.parent / "again").exists()


@BOTH
def test_an_older_longer_run_of_the_same_name_stays(make_trainer):
    make_trainer("same", 12, **BUSY).train()
    trainer = make_trainer("same", 6, **BUSY)
    trainer.config.save_only_latest_checkpoint = True
    trainer.train()
    assert (trainer.checkpoint_dir / "step-000000011.ckpt").exists()


def test_all_points_removed_is_said(make_trainer):
    trainer = make_trainer("empty", 40, strategy="adc", cull_alpha_thresh=0.999, warmup_length=2, refine_every=5)
    with pytest.raises(LpmError, match="points: all were removed by step"):
        trainer.train()


def test_another_strategy_takes_the_parameters(make_trainer, capsys):
    first = make_trainer("first", 8, strategy="adc", **BUSY)
    first.train()
    second = make_trainer(
        "second", 12, load=first.checkpoint_dir / "step-000000007.ckpt", strategy="mcmc", **BUSY
    )  # fmt: skip
    assert "another strategy" in " ".join(capsys.readouterr().out.split())
    second.train()
