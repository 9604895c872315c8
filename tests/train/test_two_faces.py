"""`ns-train lpm-splat` and `lpm-train` make the same model, to the bit, and go on with each other's runs."""

import pytest
import torch
from faces import core_trainer
from plugin.test_resume import BUSY

from lpm.gaussians import motion
from lpm.scenes.samples.moving import make_clip
from lpm.train.cli import parse
from lpm.train.optimizers import settling
from lpm.train.run_settings import FILE

STEPS = 60


def parameters(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items() if value.numel()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip("mover", tmp_path_factory.mktemp("clip") / "mover", 3, 6, (48, 36), 0)


MORE = dict(sky="sphere", use_bilateral_grid=True, grid_shape=(4, 4, 2), num_downscales=1, rasterize_mode="antialiased")


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("lpm", {}), ("adc", {}), ("mcmc", {}), ("lpm", MORE)],
    ids=["lpm", "adc", "mcmc", "options"],
)
def test_the_same_bits(make_trainer, tmp_path, tiny, strategy, options):
    ours = core_trainer(tmp_path / "core", STEPS, None, tiny, None, False, strategy=strategy, **BUSY, **options)
    ours.train()
    theirs = make_trainer("theirs", STEPS, strategy=strategy, **BUSY, **options)
    theirs.train()
    assert ours.model.num_points != 60
    assert_same_bits(parameters(theirs.model), parameters(ours.model))
    # Rivals' rates are their authors'.
    share = settling(STEPS - 1, STEPS) if strategy == "lpm" else 1.0
    assert {optimizer.share for optimizer in ours.optimizers.optimizers.values()} == {share}
    assert (share < 0.3) == (strategy == "lpm")


@pytest.mark.parametrize(
    ("strategy", "steps", "share"), [("lpm", 3000, 1.0), ("lpm", 6000, 0.5), ("lpm", 30000, 0.2), ("adc", 30000, 1.0)]
)
def test_the_rate_of_harmonics_fits_the_length_of_the_run(make_trainer, tmp_path, tiny, strategy, steps, share):
    ours = core_trainer(tmp_path / "core", steps, None, tiny, None, False, strategy=strategy)
    for trainer in (ours, make_trainer("theirs", steps, strategy=strategy)):
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in trainer.optimizers.optimizers.items()}
        assert rates["features_rest"] == pytest.approx(share * 1.25e-4)
        assert rates["features_dc"] == pytest.approx(2.5e-3)
        assert rates["means"] == pytest.approx(1.6e-4 * trainer.model.scene_extent)


def test_a_longer_run_goes_on_with_its_own_rate_of_harmonics(make_trainer, tmp_path, tiny):
    short = core_trainer(tmp_path / "short", STEPS, None, tiny, None, False, **BUSY)
    short.settings.save_every = 30
    short.train()
    checkpoint = short.checkpoint_dir / "step-000000030.ckpt"
    ours = core_trainer(tmp_path / "core", 30000, checkpoint, tiny, None, False, **BUSY)
    for trainer in (ours, make_trainer("theirs", 30000, load=checkpoint, **BUSY)):
        (group,) = trainer.optimizers.optimizers["features_rest"].param_groups
        assert group["lr"] == pytest.approx(0.2 * 1.25e-4)
        assert trainer.optimizers.optimizers["features_rest"].state  # its moments came along


def test_a_rate_that_was_asked_for_stays(make_trainer, tmp_path, tiny):
    rates = {"features_rest": 1e-4}
    ours = core_trainer(tmp_path / "core", 30000, None, tiny, None, False, rates=rates)
    (group,) = ours.optimizers.optimizers["features_rest"].param_groups
    assert group["lr"] == 1e-4


def test_the_same_bits_of_a_scene_that_moves(make_trainer, tmp_path, clip):
    ours = core_trainer(tmp_path / "core", STEPS, None, clip, None, True, **BUSY | {"max_points": 1500})
    ours.train()
    theirs = make_trainer("theirs", STEPS, data=clip, moving=True, **BUSY | {"max_points": 1500})
    theirs.train()
    assert set(motion.NAMES) < set(ours.model.gauss_params.keys())
    assert {optimizer.share for optimizer in ours.optimizers.optimizers.values()} == {settling(STEPS - 1, STEPS)}
    assert_same_bits(parameters(theirs.model), parameters(ours.model))


@pytest.mark.parametrize("strategy", ["lpm", "mcmc"])
@pytest.mark.parametrize("first", ["nerfstudio", "core"])
def test_a_run_of_one_face_goes_on_under_the_other(make_trainer, tmp_path, tiny, strategy, first):
    options = dict(strategy=strategy, **BUSY)
    whole = core_trainer(tmp_path / "whole", STEPS, None, tiny, None, False, **options)
    whole.train()
    if first == "core":
        half = core_trainer(tmp_path / "half", STEPS, None, tiny, None, False, **options)
        half.settings.save_every = 30
        half.train()
        resumed = make_trainer("on", STEPS, load=half.checkpoint_dir / "step-000000030.ckpt", **options)
    else:
        half = make_trainer("half", STEPS, **options)
        half.config.steps_per_save = 30
        half.train()
        resumed = core_trainer(tmp_path / "on", STEPS, half.checkpoint_dir / "step-000000030.ckpt", tiny, None, False,
                               **options)  # fmt: skip
        assert resumed.first == 31
    resumed.train()
    assert_same_bits(parameters(whole.model), parameters(resumed.model))


def test_lpm_train_knows_the_settings_of_a_run_of_nerfstudio(make_trainer, tiny):
    theirs = make_trainer("theirs", STEPS, strategy="mcmc", **BUSY, sky="constant")
    settings, scene, resume = parse(["--resume", str(theirs.base_dir), "--steps", "90"])
    assert (settings.steps, settings.strategy, settings.max_points) == (90, "mcmc", 400)
    assert (settings.scene, settings.out) == (tiny.resolve(), theirs.base_dir)
    assert (settings.model.sky, settings.model.refine_every, settings.rates) == ("constant", 5, {})
    assert len(scene) == 10
    assert (theirs.base_dir / FILE).is_file()
    assert resume == theirs.base_dir
