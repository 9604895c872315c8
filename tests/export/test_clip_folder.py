"""lpm-export clip: what stands still and what moves, drawn together at a time, is what the model draws then."""

import json
import re

import numpy as np
import pytest
import torch
from export.test_moving_exports import draw, model
from export.test_viewers import PACKAGES, chromium, packages, shoot  # noqa: F401 (fixtures)

from lpm.checks import LpmError
from lpm.exporting.cli import Playing
from lpm.exporting.clip import CLIP_KEYS, PLAYER, to_clip
from lpm.formats.cli import Options
from lpm.formats.moving import at_time, for_splatv
from lpm.formats.read import load
from lpm.formats.splatv import write_splatv

STEPS = 5


@pytest.fixture
def clip(tmp_path):
    """Folder, what clip.json says, and the model, of which half the points come and go and the others stand still."""
    params = model()
    params["motion"][200:] = 0.0
    params["durations"][200:], params["gates"][200:] = 3.0, 8.0
    write_splatv(tmp_path / "a.splatv", for_splatv(params))
    to_clip(tmp_path / "a.splatv", tmp_path / "clip", Options(), Playing(steps=STEPS, fps=10.0))
    return (
        tmp_path / "clip",
        json.loads((tmp_path / "clip" / "clip.json").read_text()),
        load(tmp_path / "a.splatv").params,
    )


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean()))


def test_both_parts_together_draw_what_the_model_draws(clip):
    folder, said, params = clip
    assert tuple(said) == ("frames_per_second", "still", "moving", "antialiased", "up", "position", "target", "fov")
    assert set(said) == set(CLIP_KEYS)
    assert said["moving"] == [f"moving/{i:04d}.spz" for i in range(STEPS)]
    still = load(folder / said["still"]).params
    assert len(still["means"]) == 200
    pictures = []
    for i, name in enumerate(said["moving"]):
        part = load(folder / name).params
        assert 0 < len(part["means"]) <= 200
        together = {key: torch.cat([still[key], part[key]]) for key in still}
        pictures.append(draw(together, harmonics=False))
        assert psnr(pictures[-1], draw(at_time(params, i / (STEPS - 1)), harmonics=False)) > 40
    assert psnr(pictures[0], pictures[2]) < 30  # it moves


def test_a_time_with_nothing_there_is_null(tmp_path):
    params = model()
    params["durations"][:], params["gates"][:], params["motion"][:], params["times"][:] = -4.0, -9.0, 0.0, 0.5
    write_splatv(tmp_path / "a.splatv", for_splatv(params))
    with pytest.raises(LpmError):  # nor is there anything at the first time, by which the rest is chosen
        to_clip(tmp_path / "a.splatv", tmp_path / "clip", Options(), Playing(steps=3))
    params["times"][:10] = 0.0
    write_splatv(tmp_path / "a.splatv", for_splatv(params))
    to_clip(tmp_path / "a.splatv", tmp_path / "a&b", Options(), Playing(steps=4))
    said = json.loads((tmp_path / "a&b" / "clip.json").read_text())
    assert "<title>a&amp;b</title>" in (tmp_path / "a&b" / "index.html").read_text()
    assert said["still"] is None
    assert said["moving"] == ["moving/0000.spz", None, None, None]


@pytest.mark.parametrize(
    ("common", "how", "says"),
    [
        (Options(time=0.5), Playing(), "--time"),
        (Options(part="still"), Playing(), "--part"),
        (Options(), Playing(steps=1), "--steps"),
        (Options(), Playing(fps=0.0), "--fps"),
        (Options(), Playing(fps=float("nan")), "--fps"),
    ],
)
def test_bad_options_leave_nothing(tmp_path, common, how, says):
    write_splatv(tmp_path / "a.splatv", for_splatv(model()))
    with pytest.raises(LpmError, match=says):
        to_clip(tmp_path / "a.splatv", tmp_path / "clip", common, how)
    assert [path.name for path in tmp_path.iterdir()] == ["a.splatv"]


def test_what_stands_still_is_refused(tmp_path):
    from lpm.formats.ply import write_ply

    write_ply(tmp_path / "a.ply", at_time(model(), 0.0))
    with pytest.raises(LpmError, match="nothing that moves"):
        to_clip(tmp_path / "a.ply", tmp_path / "clip", Options(), Playing())


def test_the_player_asks_for_the_versions_that_are_tested():
    asked = re.findall(r"jsdelivr.net/npm/((?:@\w+/)?\w+)@([\d.]+)/", PLAYER.read_text())
    assert set(asked) == {(name, PACKAGES[name]) for name in ("three", "@sparkjsdev/spark")}


@pytest.mark.export
def test_it_plays_in_chromium(clip, shoot):  # noqa: F811
    """The player at the first and at the middle time, from its first camera, beside our own pictures."""
    folder, said, params = clip
    size = {"width": 320, "height": 240}
    job = {"viewer": "", "file": folder / "index.html", **size}
    shots = shoot([job | {"settings": {"query": f"?frame={i}"}} for i in (0, 2)])
    from lpm.multiview.views import look_at
    from lpm.render.rasterize import rasterize

    focal = 120 / np.tan(np.radians(said["fov"]) / 2)
    K = torch.tensor([[[focal, 0, 160], [0, focal, 120], [0, 0, 1]]], dtype=torch.float32)
    viewmat = look_at(*(torch.tensor(said[name]) for name in ("position", "target", "up")))
    for shot, i in zip(shots, (0, 2), strict=True):
        there = at_time(params, i / (STEPS - 1))
        ours = rasterize(
            there["means"], there["quats"], there["scales"].exp(), there["opacities"].sigmoid().flatten(),
            (there["features_dc"][:, None], there["features_rest"]), viewmat[None].float(), K, 320, 240, sh_degree=0,
            backgrounds=torch.tensor([[0x26, 0x2A, 0x37]]) / 255,
        )[0][0]  # fmt: skip
        assert psnr(shot[:200] / 255, ours[:200].clamp(0, 1)) > 30  # less the bar of the player
