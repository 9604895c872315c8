"""A run that was made before the modules lay in rooms still opens.

run_before_rooms/ is what commit 8f3ede6 left behind after 20 steps of lpm-splat on tests/tiny_scene.py (sh_degree 1, 80
points at most, antialiased); only the paths in its config.yml were made relative.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lpm.formats.cli import export_main
from lpm.formats.inspect import inspect_main
from lpm.formats.ply import read_ply
from lpm.formats.read import load
from lpm.viewer.page.photos import read_photos
from lpm.viewer.page.render_thread import RenderRequest
from lpm.viewer.page.scene import Shown
from lpm.viewer.replay.data import load as load_replay

STEPS, POINTS = 20, 80
OPTIONS = dict(sh_degree=1, max_points=POINTS, warmup_length=2, refine_every=5, rasterize_mode="antialiased")


@pytest.fixture
def old(tiny, tmp_path) -> Path:
    """The run's folder, beside the scene that it was trained on."""
    (tmp_path / "tiny").symlink_to(tiny)
    return Path(shutil.copytree(Path(__file__).parent / "run_before_rooms", tmp_path / "run"))


def saved(run: Path) -> torch.Tensor:
    (path,) = (run / "nerfstudio_models").glob("*.ckpt")
    return torch.load(path, weights_only=True)["pipeline"]["_model.gauss_params.means"]


def test_it_is_as_old_as_it_says(old):
    config = (old / "config.yml").read_text()
    for module in ("lpm.trainer.LpmTrainer", "lpm.model.LpmModel", "lpm.datamanager.LpmDatamanager", "lpm.adam.Adam"):
        assert module in config


@pytest.mark.parametrize("what", [".", "config.yml", "nerfstudio_models/step-000000019.ckpt"])
def test_the_viewer_opens_it(old, what):
    loaded = load(old / what)
    assert (loaded.kind, loaded.rasterize_mode) == ("checkpoint", "antialiased")
    assert len(loaded.params["means"]) == POINTS
    photos, note = read_photos(old, loaded.world_to_train)
    assert len(photos) == 10, note
    picture = Shown(loaded).draw(RenderRequest(photos[0].camera, antialiased=True), 32, 24)
    assert picture.std() > 5


def test_it_is_exported_and_inspected(old, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lpm-export", "ply", str(old), str(tmp_path / "out.ply")])
    export_main()
    assert len(read_ply(tmp_path / "out.ply")["means"]) == POINTS
    monkeypatch.setattr(sys, "argv", ["lpm-inspect", str(old)])
    inspect_main()
    assert f"{POINTS}" in capsys.readouterr().out


def test_it_is_replayed(old):
    replay = load_replay(old)
    assert [event.step for event in replay.events] == [5, 10, 15]


def test_training_goes_on_from_it_with_all_that_it_gathered(old, make_trainer):
    trainer = make_trainer("on", STEPS + 10, load=next((old / "nerfstudio_models").glob("*.ckpt")), **OPTIONS)
    model, strategy = trainer.pipeline.model, trainer.pipeline.model.strategy
    assert torch.equal(model.means.detach(), saved(old))
    assert len(strategy.maps.maps) == 8  # of all training views
    assert strategy.parts.choice.visited
    assert int(model.strategy_state["looks"].gt(0).sum()) > 0
    trainer.train()
    assert torch.isfinite(model.means).all()
    assert not torch.equal(model.means.detach()[:POINTS], saved(old)[: model.num_points])


def test_training_starts_from_it(old, make_trainer):
    trainer = make_trainer("from", 3, init_from=old, **OPTIONS)
    assert trainer.pipeline.model.num_points == POINTS
    trainer.train()


def test_the_host_says_in_one_line_what_opens_it(old):
    command = Path(sys.executable).parent / "ns-eval"
    done = subprocess.run([command, "--load-config", old / "config.yml"], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: config.yml: written by another version")
