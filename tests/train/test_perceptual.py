"""FLIP and ColorVideoVDP: known values, where they are measured and where not, clips, and the film of a comparison."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_scene
import torch

from lpm.checks import LpmError
from lpm.runs import checkpoint
from lpm.scenes.read import read_scene
from lpm.train import clips, eval_cli, model, perceptual, pictures
from lpm.train.opened_run import lost_views, open_run
from lpm.train.run_settings import RunSettings
from lpm.train.trainer import Trainer
from lpm.viewer.page.video import ending

needs_flip = pytest.mark.skipif(
    not perceptual.have(perceptual.FLIP), reason="flip-evaluator is not installed: pip install 'lpm-splat[metrics]'"
)
needs_cvvdp = pytest.mark.skipif(
    not perceptual.have(perceptual.CVVDP), reason="cvvdp is not installed: pip install 'lpm-splat[metrics]'"
)


def noise(*shape):
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0))


@needs_flip
def test_flip_has_the_values_of_its_tool():
    black, white, photo = torch.zeros(40, 60, 3), torch.ones(40, 60, 3), noise(40, 60)
    assert perceptual.flip(photo, photo) == 0.0
    assert perceptual.flip(white, black) == pytest.approx(0.9674, abs=1e-3)
    shifted = photo.roll(1, 1)
    from flip_evaluator import evaluate

    by_tool = evaluate(photo.numpy(), shifted.numpy(), "LDR")
    assert perceptual.flip(shifted, photo) == pytest.approx(by_tool[1], abs=1e-5)
    assert by_tool[1] == pytest.approx(0.24, abs=0.02)
    assert math.isnan(perceptual.flip(torch.full_like(photo, math.nan), photo))
    assert by_tool[2]["ppd"] == pytest.approx(67.02, abs=0.01)


@needs_flip
def test_flip_counts_what_the_mask_lets_through():
    photo, mask = noise(40, 60), torch.zeros(40, 60, 1, dtype=torch.bool)
    mask[:, :30] = True
    beside, within = photo.clone(), photo.clone()
    beside[:, 30:], within[:, :30] = 0.5, 1 - photo[:, :30]
    assert perceptual.flip(beside, photo, mask) == 0.0
    assert perceptual.flip(within, photo, mask) > 1.5 * perceptual.flip(within, photo) > 0.1
    assert perceptual.flip(beside, photo, mask & False) == perceptual.flip(beside, photo)


@needs_cvvdp
def test_cvvdp_of_pictures_and_of_a_clip_that_flickers():
    photo = noise(64, 96) * 0.5 + 0.25
    assert perceptual.cvvdp(photo, photo) == pytest.approx(10.0)
    slightly, badly = (perceptual.cvvdp((photo + by).clamp(0, 1), photo) for by in (0.02, 0.2))
    assert badly < slightly < 10.0
    clip = photo.expand(30, -1, -1, -1)
    assert perceptual.cvvdp(clip, clip, 30) == pytest.approx(10.0)
    brighter = clip + 0.04
    flickering = torch.where((torch.arange(30) % 4 < 2)[:, None, None, None], brighter, clip - 0.04)
    assert perceptual.cvvdp(flickering, clip, 30) < perceptual.cvvdp(brighter, clip, 30) - 0.3
    as_bytes = [(pictures * 255).round().byte() for pictures in (flickering, clip)]
    assert perceptual.cvvdp(*as_bytes, 30) == pytest.approx(perceptual.cvvdp(flickering, clip, 30), abs=0.05)


def test_a_package_that_is_missing_or_broken_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_metric.py").write_text("raise RuntimeError('no such operator')")
    assert not perceptual.have("no_such_metric")
    assert capsys.readouterr().out == ""
    assert not perceptual.have("broken_metric")
    assert not perceptual.have("broken_metric")
    told = "broken_metric is left out: it does not import (RuntimeError: no such operator).\n"
    assert capsys.readouterr().out == told  # once


def moving(frames, held_out, cams=("a", "b")):
    """The data of a clip of `frames` moments whose moments `held_out` (by camera) are held out."""
    shots = [(cam, t) for t in range(frames) for cam in cams]

    def split(chosen):
        times = torch.tensor([t / (frames - 1) for _, t in chosen])
        cameras = SimpleNamespace(capture_times=times, sizes=torch.tensor([[32, 24]] * len(chosen)))
        return SimpleNamespace(cams=[cam for cam, _ in chosen], cameras=cameras)

    train = split([shot for shot in shots if shot[1] not in held_out.get(shot[0], ())])
    test = split([shot for shot in shots if shot[1] in held_out.get(shot[0], ())][::-1])
    scene = SimpleNamespace(train=train, test=test)
    return SimpleNamespace(scene=scene, test=test.cams, test_cameras=test.cameras)


def test_a_held_out_camera_is_a_clip_in_order_of_time():
    data = moving(10, {"b": range(10)})
    assert clips.clips(data) == [clips.Clip("b", list(range(9, -1, -1)), 30.0)]  # they are listed backwards
    both = moving(20, {"a": range(2, 20, 5), "b": range(2, 20, 5)})
    assert [(clip.camera, len(clip.photos), clip.fps) for clip in clips.clips(both)] == [("a", 4, 6.0), ("b", 4, 6.0)]
    assert clips.in_order(both) == [7, 5, 3, 1, 6, 4, 2, 0]


def test_what_is_too_short_or_has_gaps_is_no_clip():
    assert clips.clips(moving(10, {"a": (1, 2, 3)})) == []
    assert clips.clips(moving(10, {"a": (1, 2, 3, 6, 7)})) == []
    still = moving(4, {"a": range(4)})
    still.scene.train.cameras.capture_times = still.scene.test.cameras.capture_times = None
    assert clips.clips(still) == []
    assert clips.in_order(still) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perceptual")
    scene = tiny_scene.make_transforms(folder / "scene")
    settings = RunSettings(scene=scene, steps=8, max_points=200, page=False, measure_every=4)
    settings.model.with_lpips = False
    trainer = Trainer(settings, folder / "run")
    trainer.setup(read_scene(scene))
    trainer.train()
    return trainer


def test_flip_is_measured_at_the_end_alone(trained, monkeypatch):
    before = checkpoint.random_state()
    few, everything = trained.measure(1), trained.measure()
    assert torch.equal(before["torch"], checkpoint.random_state()["torch"])
    assert set(few[0]) == {"view", "psnr", "ssim"}
    assert {name: value for name, value in everything[0].items() if name != "flip"} == few[0]
    result = trained.summary()
    assert ("flip" in result) == perceptual.have(perceptual.FLIP)
    assert json.loads((trained.folder / "metrics.json").read_text())["lost"] == len(lost_views(everything)) == 0
    monkeypatch.setattr(model, "have", lambda package: False)
    assert trained.measure() == [{name: row[name] for name in ("view", "psnr", "ssim")} for row in everything]


def test_a_comparison_shows_photo_render_and_error(trained):
    run = open_run(trained.folder, "cpu", say=lambda text: None)
    films = list(pictures.compared(run, (96, 24)))
    assert len(films) == 2
    _, camera, photo = next(run.data.held_out())
    with torch.no_grad():
        render = run.model.draw(camera)["rgb"]
    shown = [films[0][: camera.height, left : left + camera.width] for left in (0, 32, 64)]  # undistorted: < 32x24
    assert np.array_equal(shown[0], photo["image"][..., :3].numpy())
    assert np.array_equal(shown[1], pictures.as_bytes(render))
    assert shown[2].max() > 100
    assert films[0][camera.height :].max(initial=0) == films[0][:, camera.width : 32].max(initial=0) == 0


def test_the_colours_of_errors_get_lighter():
    photo = torch.zeros(2, 3, 3)
    render = torch.tensor([0.0, pictures.WORST / 2, pictures.WORST])[None, :, None].expand(2, 3, 3)
    none, half, worst = pictures.shown_errors(render, photo)[0].sum(1).tolist()
    assert none < 0.05
    assert 1.0 < half < 1.6
    assert worst > 2.5


def test_lpm_eval_writes_figures_and_a_film(trained, tmp_path):
    out, film = tmp_path / "e.json", tmp_path / f"film{ending()}"
    eval_cli.evaluate(trained.folder, out, device="cpu", video=film)
    result = json.loads(out.read_text())
    assert ("flip" in result) == perceptual.have(perceptual.FLIP)
    assert result["lost"] == 0
    assert film.stat().st_size > 500
    with pytest.raises(LpmError, match=rf"film.avi: ends with .avi; wanted {ending()} for a film"):
        eval_cli.evaluate(tmp_path / "not looked at", video=tmp_path / "film.avi")
