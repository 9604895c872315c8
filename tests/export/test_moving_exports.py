"""Exports of what moves: the frame t of every format draws what the model draws at t."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lpm.formats.moving import at_time, for_splatv, moves, moving_rows
from lpm.formats.ply_sequence import read_ply_sequence
from lpm.formats.read import load
from lpm.gaussians import motion
from lpm.render.rasterize import rasterize

SIZE = (80, 60)


def model(n=400, degree=1, spins=False):
    """Random points in front of a camera; half of them come and go, and all move."""
    torch.manual_seed(0)
    params = {name: value.detach() for name, value in motion.start(n, degree, spins).items()}
    params |= {
        "means": torch.rand(n, 3) * torch.tensor([2.0, 1.6, 1.0]) + torch.tensor([-1.0, -0.8, 2.5]),
        "scales": torch.full((n, 3), -3.0) + 0.5 * torch.rand(n, 3), "quats": torch.randn(n, 4),
        "features_dc": torch.randn(n, 3), "features_rest": 0.2 * torch.randn(n, 3, 3), "opacities": torch.randn(n, 1),
        "times": torch.rand(n, 1), "motion": 0.5 * torch.randn(n, degree, 3),
    }  # fmt: skip
    params["durations"][: n // 2], params["gates"][: n // 2] = -2.5, -4.0
    if spins:
        params["spins"] = torch.randn(n, 4)
    return params


def moved(params, t):
    """What the model draws at `t`: all points, most of them with hardly any opacity."""
    opacity = torch.sigmoid(params["opacities"]) * motion.weight_at(params, t)[:, None]
    return params | {"means": motion.means_at(params, t), "quats": motion.quats_at(params, t),
                     "opacities": torch.logit(opacity.double(), eps=1e-12)}  # fmt: skip


def draw(params, harmonics=True):
    """[H, W, 3] the picture of parameters of lpm.gaussians."""
    K = torch.tensor([[70.0, 0, SIZE[0] / 2], [0, 70.0, SIZE[1] / 2], [0, 0, 1]])[None]
    colors = (params["features_dc"][:, None], params["features_rest"])
    opacities = torch.sigmoid(params["opacities"]).flatten().float()
    return rasterize(
        params["means"], params["quats"], params["scales"].exp(), opacities, colors,
        torch.eye(4)[None], K, *SIZE, sh_degree=1 if harmonics else 0,
    )[0][0]  # fmt: skip


@pytest.mark.parametrize(("degree", "spins"), [(1, False), (3, True)])
def test_a_slice_draws_what_the_model_draws(degree, spins):
    params = model(degree=degree, spins=spins)
    for t in (0.0, 0.37, 1.0):
        still = at_time(params, t)
        assert not moves(still)
        assert len(still["means"]) < len(params["means"])  # those that are not there are left out
        assert (draw(still) - draw(moved(params, t))).abs().max() < 1e-5


def checkpoint(folder, params):
    """A run's folder with a checkpoint of `params`, as far as the exporter reads it."""
    path = folder / "run" / "nerfstudio_models" / "step-000000010.ckpt"
    path.parent.mkdir(parents=True)
    pipeline = {f"_model.gauss_params.{name}": value for name, value in params.items()}
    torch.save({"step": 10, "pipeline": pipeline}, path)
    return folder / "run"


def export(*arguments):
    program = "from lpm.formats.cli import export_main; export_main()"
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


def test_a_sequence_read_back_draws_the_same_at_every_time(tmp_path):
    params = model()
    run = checkpoint(tmp_path, params)
    assert set(load(run).params) == set(params)
    done = export("ply-sequence", run, tmp_path / "clip", "--steps", 5)
    assert done.returncode == 0, done.stderr
    frames = read_ply_sequence(tmp_path / "clip")
    assert len(frames) == 5
    for i, frame in enumerate(frames):
        assert (draw(frame) - draw(at_time(params, i / 4))).abs().max() < 1 / 255
    assert (draw(frames[0]) - draw(frames[4])).abs().max() > 0.2  # and things did move


def test_a_ply_of_one_time(tmp_path):
    params = model()
    run = checkpoint(tmp_path, params)
    done = export("ply", run, tmp_path / "middle.ply", "--time", 0.5)
    assert done.returncode == 0, done.stderr
    assert (draw(load(tmp_path / "middle.ply").params) - draw(at_time(params, 0.5))).abs().max() < 1 / 255
    unasked = export("ply", run, tmp_path / "first.ply")
    assert "The model moves; its first frame is written" in unasked.stderr
    assert (draw(load(tmp_path / "first.ply").params) - draw(at_time(params, 0.0))).abs().max() < 1 / 255


def test_splatv_moves_alike(tmp_path):
    params = model(degree=3, spins=True)
    params["gates"][200:] = 9.0  # points that are there all the time: a .splatv has no half measures
    params["gates"][:200] = -9.0
    run = checkpoint(tmp_path, params)
    done = export("splatv", run, tmp_path / "clip.splatv")
    assert done.returncode == 0, done.stderr
    assert "one colour a point" in done.stderr
    back = load(tmp_path / "clip.splatv").params
    for t in (0.0, 0.5, 1.0):
        ours = draw(at_time(params, t), harmonics=False)
        theirs = draw(at_time(back, t), harmonics=False)
        assert (ours - theirs).abs().mean() < 2 / 255  # half floats, and colours of bytes


def test_partly_lasting_points_become_one_or_the_other():
    params = model(10)
    params["gates"] = torch.linspace(-3, 3, 10)[:, None]
    width = for_splatv(params)["time_width"].flatten()
    assert torch.allclose(width[:5], torch.sqrt(torch.tensor(2.0)) * params["durations"][:5, 0].exp())
    assert (width[5:] == 10_000).all()


def test_still_and_moving_parts_make_the_whole(tmp_path):
    params = model()
    params["motion"][200:], params["gates"][200:] = 0, 9.0
    assert moving_rows(params).tolist() == [True] * 200 + [False] * 200
    run = checkpoint(tmp_path, params)
    assert export("ply", run, tmp_path / "still.ply", "--part", "still").returncode == 0
    assert export("ply-sequence", run, tmp_path / "clip", "--part", "moving", "--steps", 3).returncode == 0
    still, clip = load(tmp_path / "still.ply").params, read_ply_sequence(tmp_path / "clip")
    assert len(still["means"]) == 200
    whole = {name: torch.cat([still[name], clip[1][name]]) for name in still}
    assert (draw(whole) - draw(at_time(params, 0.5))).abs().max() < 1 / 255
    text = subprocess.run(
        [sys.executable, "-c", "from lpm.formats.inspect import inspect_main; inspect_main()", str(run)],
        capture_output=True,
        text=True,
    ).stdout
    assert "200 come and go or move; 200 stand still and stay" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (("ply", "OUT.ply", "--time", 1.5), "--time: 1.5; wanted a number from 0 to 1"),
    (("ply-sequence", "OUT", "--time", 0.5), "--time: given; wanted nothing"),
    (("splatv", "OUT.splatv", "--frame", "world"), "--frame: world"),
    (("ply", "OUT.ply", "--part", "still"), "--part: still, and there are no such points"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(tmp_path, arguments, words):
    run = checkpoint(tmp_path, model(20))
    kind, out, *rest = arguments
    done = export(kind, run, tmp_path / out, *rest)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / out).exists()
