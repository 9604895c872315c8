"""`lpm-splat-4d` as nerfstudio runs it: learns, resumes exactly, keeps to its budget, and refuses bad input."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from test_resume import BUSY, HALF, STEPS, assert_same, everything

from lpm.checks import LpmError
from lpm.gaussians import motion
from lpm.scenes.samples.moving import make_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A crate that appears in the middle, small."""
    folder = tmp_path_factory.mktemp("clips") / "appearing"
    return make_clip("appearing", folder, cams=3, frames=6, size=(64, 48))


@pytest.mark.parametrize(
    ("strategy", "preset"),
    [("lpm", "linear"), ("lpm", "stg-lite"), ("4dgs", "stg-lite"), ("stg", "linear"), ("freetime", "linear")],
)
def test_resume_is_exact(make_trainer, clip, strategy, preset):
    options = BUSY | {"strategy": strategy, "preset": preset, "max_points": 1500}
    whole = make_trainer("whole", STEPS, data=clip, moving=True, **options)
    start_points = whole.model.num_points
    whole.config.steps_per_save = HALF
    whole.train()
    assert start_points != whole.model.num_points <= 1500  # else the test would show little
    names = set(motion.NAMES) | ({motion.SPINS} if preset == "stg-lite" else set())
    assert names <= set(whole.model.gauss_params)
    wanted = everything(whole)
    middle = whole.checkpoint_dir / f"step-{HALF:09d}.ckpt"
    resumed = make_trainer("resumed", STEPS, load=middle, data=clip, moving=True, **options)
    resumed.train()
    assert_same(wanted, everything(resumed))


def test_two_views_of_one_time_follow_each_other(make_trainer, clip):
    data = make_trainer("a", 10, data=clip, moving=True).data
    times = data.train_dataset.cameras.times.flatten()
    order = data.sample_train_cameras()
    assert sorted(order) == list(range(len(times)))
    pairs = sum(bool(times[a] == times[b]) for a, b in pairwise(order))
    assert pairs >= len(times) // 3  # three cameras: a pair and a single at each time


def test_what_is_drawn_depends_on_the_time(make_trainer, clip):
    trainer = make_trainer("a", 10, data=clip, moving=True)
    model = trainer.model
    with torch.no_grad():
        model.gauss_params["motion"][:, 0, 0] = 1.0
    model.eval()
    camera = trainer.data.train_dataset.cameras[0:1]
    early = model.get_outputs(camera)["rgb"]
    camera.times = camera.times * 0 + 1.0
    late = model.get_outputs(camera)["rgb"]
    assert (early - late).abs().max() > 0.1
    camera.times = None  # a camera of the viewer, say: the model's own time
    model.time = 1.0
    assert torch.equal(model.get_outputs(camera)["rgb"], late)


def test_a_scene_without_times_is_refused(make_trainer, tmp_path):
    with pytest.raises(LpmError, match="a scene without times; wanted a time"):
        make_trainer("a", 10, moving=True)


def test_random_points_stand_before_the_cameras(make_trainer, clip, tmp_path):
    import json
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(clip, bare)
    meta = json.loads((bare / "transforms.json").read_text())
    del meta["ply_file_path"]
    (bare / "transforms.json").write_text(json.dumps(meta))
    trainer = make_trainer("a", 10, data=bare, moving=True, max_points=2000)
    means = trainer.model.gauss_params["means"].detach()
    assert len(means) == 1000  # half of the cap
    cameras = trainer.data.train_dataset.cameras
    ahead = (means - cameras.camera_to_worlds[0, :, 3]) @ -cameras.camera_to_worlds[0, :, 2]
    assert (ahead > 0).float().mean() > 0.95
    colors = trainer.model.gauss_params["features_dc"].detach()
    assert colors.std(0).min() > 0.1  # those of the photos, not grey
