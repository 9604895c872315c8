"""nerfstudio's trainer on a real GPU: steps, events, what the host waits for, steps that are left out, a resume.

Where LPM_TEST_DEVICE=cpu, they run without a GPU, to see that they run.
"""

from __future__ import annotations

import copy
import os
import warnings

import pytest
import torch

from lpm.cuda.native import native
from lpm.runs import checkpoint
from lpm.scenes.samples import make

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("LPM_TEST_DEVICE", "cuda")
EVERY = 10  # steps from event to event; the first is at 10


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu") / "room"
    make.make("room", folder, views=10)
    return folder


@pytest.fixture
def trainer(scene, tmp_path):
    """Makes a trainer that is set up and seeded; keywords are the model's options."""

    def build(name="0", load=None, **options):
        from lpm.plugin.config import lpm_splat
        from lpm.plugin.nerfstudio_patches import set_random_seed

        config = copy.deepcopy(lpm_splat.config)
        config.experiment_name, config.timestamp, config.output_dir = "gpu", name, tmp_path
        config.machine.device_type, config.vis, config.max_num_iterations = DEVICE, "tensorboard", 60
        config.steps_per_eval_image = config.steps_per_save = 10**6
        config.logging.local_writer.enable, config.load_checkpoint = False, load
        config.pipeline.datamanager.data, config.pipeline.datamanager.cache_images = scene, "gpu"
        model = config.pipeline.model
        model.with_lpips, model.max_points, model.refine_every, model.warmup_length = False, 6000, EVERY, 5
        for key, value in options.items():
            assert hasattr(model, key), key
            setattr(model, key, value)
        set_random_seed(42)
        made = config.setup()
        made.setup()
        return made

    return build


def step(trainer, i):
    """One step with its callbacks; the loss."""
    from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

    trainer.pipeline.train()
    for callback in trainer.callbacks:
        callback.run_callback_at_location(i, Location.BEFORE_TRAIN_ITERATION)
    loss, *_ = trainer.train_iteration(i)
    for callback in trainer.callbacks:
        callback.run_callback_at_location(i, Location.AFTER_TRAIN_ITERATION)
    return loss


def parameters(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.gauss_params.items()}


def waits(trainer, steps):
    """Each line that made the host wait for the device in `steps`."""
    if DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for i in steps:
                step(trainer, i)
    finally:
        if DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


@pytest.mark.parametrize("strategy", ["lpm", "adc", "absgrad", "mcmc", "paper", "igs", "fastgs", "steepgs", "conegs"])
def test_every_strategy_trains_with_events(trainer, strategy):
    made = trainer(strategy=strategy)
    start = made.model.num_points
    losses = [step(made, i).item() for i in range(4 * EVERY + 1)]
    assert all(value < 10 for value in losses)
    assert sum(losses[-5:]) < sum(losses[:5])
    if strategy in ("lpm", "mcmc"):
        assert made.model.num_points > start
    assert all(torch.isfinite(value).all() for value in parameters(made).values())


def test_a_plain_step_does_not_wait(trainer):
    made = trainer()
    for i in range(EVERY + 1):
        step(made, i)
    assert waits(made, range(EVERY + 1, 2 * EVERY)) == []


def test_an_event_waits_a_bounded_number_of_times(trainer):
    """As on the pretended device, which counts more: a few for a view that is looked at."""
    made = trainer()
    for i in range(2 * EVERY):
        step(made, i)
    assert len(waits(made, [2 * EVERY])) <= 40 * made.model.strategy.views_per_event


def test_a_resume_is_exact_until_the_next_step(trainer, tmp_path):
    made = trainer()
    for i in range(2 * EVERY + 1):
        step(made, i)
    made.save_checkpoint(2 * EVERY)
    again = trainer("1", load=max(tmp_path.rglob("*.ckpt")))
    loaded = parameters(again)
    assert all(torch.equal(value, loaded[name]) for name, value in parameters(made).items())
    moments = [value for o in again.optimizers.optimizers.values() for s in o.state.values() for value in s.values()]
    assert {value.device.type for value in moments} == {DEVICE}
    chance = checkpoint.random_state()
    b = step(again, 2 * EVERY + 1).item()
    checkpoint.set_random_state(chance)
    a = step(made, 2 * EVERY + 1).item()
    assert a == pytest.approx(b, rel=1e-4)  # gsplat adds its gradients up in any order


def test_a_step_that_is_not_finite_changes_nothing(trainer):
    made = trainer()
    for i in range(5):
        step(made, i)
    before = parameters(made)
    photos = made.data.cached_train
    kept = [photo["image"] for photo in photos]
    for photo in photos:
        photo["image"] = torch.full_like(photo["image"], float("nan"), dtype=torch.float32)
    step(made, 5)
    for photo, image in zip(photos, kept, strict=True):
        photo["image"] = image
    assert all(torch.equal(value, before[name]) for name, value in parameters(made).items())
    step(made, 6)
    assert not all(torch.equal(value, before[name]) for name, value in parameters(made).items())


def test_two_runs_of_a_seed_go_the_same_way(trainer):
    """Not to the bit: gsplat adds its gradients up in any order; the first event sees what differs by rounding."""
    runs = []
    for name in ("a", "b"):
        made = trainer(name)
        losses = [step(made, i).item() for i in range(EVERY + 5)]
        runs.append((losses, made.model.num_points))
    (a, points_a), (b, points_b) = runs
    assert a == pytest.approx(b, rel=0.02)
    assert points_a == pytest.approx(points_b, rel=0.02)


def test_adam_leaves_a_spoilt_step_out():
    """Without a flag its steps are torch's own; with one that is up nothing changes, the count of steps neither."""
    from lpm.train.adam import Adam
    from lpm.train.bad_steps import not_finite

    start = torch.randn(1000, 3, device=DEVICE)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    a, b = Adam([ours], lr=1e-2), torch.optim.Adam([theirs], lr=1e-2, fused=True)
    for _ in range(4):
        gradient = torch.randn_like(start)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.found_inf = not_finite([gradient])
        a.step(), b.step()
    assert torch.equal(ours, theirs)
    if DEVICE == "cpu":
        return  # torch's kernel for CPUs does not read the flag
    before = [ours.detach().clone(), *(value.clone() for value in a.state[ours].values())]
    ours.grad = torch.full_like(start, float("nan"))
    a.found_inf = not_finite([ours.grad])
    a.step()
    for value, old in zip([ours.detach(), *a.state[ours].values()], before, strict=True):
        assert torch.equal(value, old)


def test_the_nearest_camera_is_that_of_the_cpu():
    from lpm.multiview.views import nearest_centre

    means, centres = 5 * torch.randn(70_000, 3), torch.randn(100, 3)
    wanted, found = nearest_centre(means, centres), nearest_centre(means.to(DEVICE), centres.to(DEVICE))
    torch.testing.assert_close(found.cpu(), wanted)


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_look_is_that_of_the_cpu(shrink):
    """Errors and pixels of points, depths and opacity: CUDA against our own kernels."""
    if native() is None:
        pytest.skip("no C++ compiler on this machine")
    from lpm.zones.point_errors import look

    n, (width, height) = 2000, (160, 120)
    p = {
        "means": torch.rand(n, 3) * 2 - 1 + torch.tensor([0.0, 0, 4]), "quats": torch.randn(n, 4),
        "scales": (0.05 + 0.1 * torch.rand(n, 3)).log(), "opacities": torch.randn(n, 1),
    }  # fmt: skip
    K = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    error = torch.linspace(0, 1, width * height).reshape(height, width)
    seen = []
    for device in ("cpu", DEVICE):
        on = {name: value.to(device) for name, value in p.items()}
        e = look(on, torch.eye(4, device=device), K.to(device), (width, height), error.to(device), shrink=shrink)
        seen.append([value.double().cpu() for value in (e.point_error, e.contribution, e.depth, e.alpha)])
    for cpu, cuda in zip(*seen, strict=True):
        assert (cuda - cpu).norm() <= 2e-3 * cpu.norm()


def test_the_memory_of_a_run_is_the_devices(trainer):
    """What lpm-bench says of a run on a GPU (lpm.bench.run.peak_memory)."""
    from lpm.bench.run import peak_memory

    made = trainer()
    step(made, 0)
    megabytes = peak_memory()
    assert 0 < megabytes["host"] < 10**6
    if DEVICE == "cuda":
        assert 1 <= megabytes["device"] < 10**5
