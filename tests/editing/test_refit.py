"""lpm-edit simplify: what was merged is trained to look like all, from a scene's cameras or drawn ones."""

import re

import pytest
import tiny_scene
import torch
from editing.walls import cameras, wall
from export.some import call

from lpm.editing.cameras import drawn_cameras, on_device
from lpm.editing.cli import main
from lpm.editing.refit import refit
from lpm.editing.seen_light import stopped_light
from lpm.editing.simplify import simplify
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.multiview.views import centres_of, project


def test_refit_betters_and_repeats():
    full = wall()
    small = simplify(full, 150)
    done = refit(small, full, cameras(full), 60, "classic", seed=1)
    assert done.after > done.before + 1.5
    again = refit(small, full, cameras(full), 60, "classic", seed=1)
    assert all(torch.equal(done.params[name], again.params[name]) for name in small)
    assert done.after == again.after
    other = refit(small, full, cameras(full), 60, "classic", seed=2)
    assert not torch.equal(done.params["means"], other.params["means"])
    for name, value in small.items():  # all are learnt
        assert done.params[name].shape == value.shape
        assert not torch.equal(done.params[name], value), name
    none = refit(small, full, cameras(full), 0, "classic")
    assert none.before == none.after == done.before
    assert all(torch.equal(none.params[name], value) for name, value in small.items())


@pytest.mark.gpu
def test_cuda_does_as_the_cpu():
    full, device = wall(), "cuda" if torch.cuda.is_available() else "cpu"
    small = simplify(full, 150)
    here, there = (
        refit(small, full, on_device(cameras(full), where), 60, "classic", seed=1) for where in ("cpu", device)
    )
    assert there.before == pytest.approx(here.before, abs=0.05)
    assert there.after == pytest.approx(here.after, abs=0.5)
    views = [on_device(cameras(full), where).views() for where in ("cpu", device)]
    a, b = (sum(stopped_light(full, each, "classic")) for each in views)
    assert (a - b).abs().max() < 0.01 * a.max()


def test_the_whole_is_like_itself():
    full = wall(300)
    done = refit(full, full, cameras(full), 0, "classic")
    assert done.before == 100.0  # of an error that is cut at 1e-10


def test_drawn_cameras_look_at_the_middle():
    full = wall()
    seen = drawn_cameras(full, torch.tensor([0.0, 1, 0]), 24, 64)
    pixels, z = project(full["means"].mean(0, keepdim=True), seen.viewmats, seen.Ks)
    assert (pixels - 32).abs().max() < 2
    assert z.min() > 0.5
    centres = centres_of(seen.viewmats)
    assert torch.cdist(centres, centres).fill_diagonal_(9).min() > 0.2  # on all sides
    assert centres[:, 1].min() < -0.5
    assert centres[:, 1].max() > 1
    assert seen.held_out.sum() == 3


def test_worth_keeps_what_is_seen():
    """Of two walls, the one that nobody sees is merged away first."""
    seen, unseen = wall(400), wall(400, seed=4)
    unseen["means"][:, 2] -= 5
    both = {name: torch.cat([seen[name], unseen[name]]) for name in seen}
    worth = torch.cat([torch.ones(400), torch.zeros(400)])
    assert (simplify(both, 720, worth)["means"][:, 2] > -1).sum() == 400
    assert 320 < (simplify(both, 720)["means"][:, 2] > -1).sum() < 400


@pytest.mark.parametrize("scene", [False, True])
def test_command(tmp_path, capsys, scene):
    write_ply(tmp_path / "a.ply", wall(600))
    more = ["--scene", tiny_scene.make_transforms(tmp_path / "scene")] if scene else []
    arguments = ["simplify", tmp_path / "a.ply", tmp_path / "b.ply", "--points", 100, "--refit-steps", 8]
    assert call(main, *arguments, "--no-picture", *more) == 0
    said = capsys.readouterr().out
    assert "600 Gaussians became 100" in said
    assert ("10 cameras of scene" if scene else "64 cameras drawn around the points") in said
    line = next(line for line in said.splitlines() if line.startswith("re-fitted in 8 steps"))
    before, after = (float(number) for number in re.findall(r"([0-9.]+) dB", line))
    assert before > 10
    assert after > 10
    assert len(load(tmp_path / "b.ply").params["means"]) == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--points", "99", "--refit-steps", "-1"], "--refit-steps"),
        (["--points", "601"], "--points: 601"),
        (["--points", "9", "--scene", "gone"], "gone"),
    ],
)
def test_errors(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_ply(tmp_path / "a.ply", wall(600))
    assert call(main, "simplify", "a.ply", "b.ply", *arguments) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
