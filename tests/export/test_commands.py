"""lpm-export and lpm-inspect as a person types them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from export.some import call, visible

from lpm.formats import splat_transform
from lpm.formats.cli import export_main
from lpm.formats.inspect import inspect_main
from lpm.formats.ply import read_ply, write_ply
from lpm.formats.read import load
from lpm.gaussians.spherical_harmonics import sh0_to_rgb
from lpm.render.sky import DOME
from lpm.runs import checkpoint


@pytest.fixture
def run(tmp_path):
    """A run's folder: a checkpoint, the frame, a config that says antialiased; and its parameters."""
    folder = tmp_path / "run"
    (folder / "nerfstudio_models").mkdir(parents=True)
    params = visible(200, degree=2)
    state = {"step": 9, "pipeline": {f"_model.gauss_params.{name}": value for name, value in params.items()}}
    checkpoint.atomic_save(state, folder / "nerfstudio_models" / "step-000000009.ckpt", folder)
    transform = [[1.0, 0, 0, 0.5], [0, 0, -1.0, 0.25], [0, 1.0, 0, -1.0]]  # world y becomes train z
    (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": transform, "scale": 0.5}))
    (folder / "config.yml").write_text("pipeline:\n  model:\n    rasterize_mode: antialiased\n")
    return folder, params


@pytest.mark.parametrize("name", ["ply", "splat", "splatv", "glb", "gltf", "usd", "usdz", "spz"])
def test_formats(run, tmp_path, capsys, name):
    if name.startswith("usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed")
    folder, params = run
    out = tmp_path / f"out.{name}"
    assert call(export_main, name, folder, out) == 0
    assert "200 Gaussians from step-000000009.ckpt" in capsys.readouterr().out
    loaded = load(out)
    assert loaded.kind == name
    assert len(loaded.params["means"]) == 200
    assert loaded.frame == "train"
    assert loaded.rasterize_mode == "antialiased"
    if name not in ("splat", "splatv", "spz"):
        assert torch.equal(loaded.params["features_rest"], params["features_rest"])


def test_there_and_back_through_files(run, tmp_path):
    """train -> world -> train, the second time from the PLY and its sidecar."""
    folder, params = run
    assert call(export_main, "ply", folder, tmp_path / "w.ply", "--frame", "world") == 0
    world = read_ply(tmp_path / "w.ply")
    x, y, z = params["means"].unbind(1)  # undone by hand: train = .5 * (M @ world)
    by_hand = torch.stack([x / 0.5 - 0.5, z / 0.5 + 1.0, -(y / 0.5 - 0.25)], 1)
    torch.testing.assert_close(world["means"], by_hand, atol=1e-5, rtol=1e-5)
    side = json.loads((tmp_path / "w.ply.json").read_text())
    assert side["frame"] == "world"
    assert side["up"] == [0, 1, 0]
    assert side["count"] == 200
    assert side["rasterize_mode"] == "antialiased"
    assert side["command"].startswith("lpm-export ply")
    assert call(export_main, "ply", tmp_path / "w.ply", tmp_path / "t.ply", "--frame", "train") == 0
    back = read_ply(tmp_path / "t.ply")
    for name in ("means", "scales", "features_dc", "features_rest", "opacities"):
        assert (back[name] - params[name]).abs().max() < 1e-5, name


def test_options(run, tmp_path):
    folder, _ = run
    box = ["-0.5", "-0.5", "-0.5", "0.5", "0.5", "0.5"]
    out = tmp_path / "o.ply"
    assert (
        call(export_main, "ply", folder, out, "--pad-sh", "3", "--crop", *box, "--min-opacity", ".5", "--no-sidecar")
        == 0
    )
    params = read_ply(out)
    assert 0 < len(params["means"]) < 200
    assert params["means"].abs().max() <= 0.5
    assert params["features_rest"].shape[1] == 15
    assert not (tmp_path / "o.ply.json").exists()
    assert call(export_main, "ply-sequence", folder, tmp_path / "steps", "--steps", "3") == 0
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == [f"steps_000{i}.ply" for i in range(3)]


def test_antialiased_models_are_warned_of(run, tmp_path, capsys):
    folder, _ = run
    call(export_main, "ply", folder, tmp_path / "a.ply")
    said = capsys.readouterr().err
    assert "trained antialiased" in said
    assert "GaussianSplats3D" in said
    (folder / "config.yml").write_text("    rasterize_mode: classic\n")
    call(export_main, "ply", folder, tmp_path / "a.ply")
    assert "antialiased" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ply", "nothing", "a.ply"], "error: nothing: no such file; wanted a run's folder"),
        (["ply", "x.ply", "a.ply", "--frame", "world"], "says how the frames lie"),
        (["ply", "x.ply", "a.ply", "--crop", "1", "1", "1", "0", "0", "0"], "error: --crop"),
        (["ply", "x.ply", "a.ply", "--pad-sh", "0"], "error: --pad-sh: 0"),
        (["splat", "x.ply", "/dev/null/a.splat"], "cannot be written (File exists)"),
        (["spz", "x.ply", "a.ply"], "wanted a name ending in .spz"),
        (["glb", "x.ply", "a.gltf"], "wanted a name ending in .glb"),
        (["usd", "x.ply", "a.usdz"], "wanted a name ending in .usd or .usdc or .usda"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_ply(tmp_path / "x.ply", visible(5, degree=1))
    assert call(export_main, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.ply"]


def test_without_node_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(splat_transform.shutil, "which", lambda name: None)
    write_ply(tmp_path / "x.ply", visible(5, degree=1))
    assert call(export_main, "sog", tmp_path / "x.ply", tmp_path / "a.sog") == 2
    error = capsys.readouterr().err
    assert "no Node on this machine" in error
    assert error.count("\n") == 1


def test_inspect(tmp_path, capsys):
    params = visible(500, degree=2)
    params["means"][3, 1] = float("nan")
    params["quats"][4] = 0.125
    params["scales"][5, 0] = -50
    params["opacities"][6] = -20
    path = tmp_path / "a.ply"
    rows = {**params}
    write_ply(path, {name: torch.nan_to_num(value, 0.0) for name, value in rows.items()})
    data = path.read_bytes()  # the writer would have left the broken rows out
    place = data.index(params["means"][3, :1].numpy().tobytes()) + 4
    data = data[:place] + np.float32("nan").tobytes() + data[place + 4 :]
    path.write_bytes(data.replace(params["quats"][4].numpy().tobytes(), bytes(16)))
    assert call(inspect_main, path, "--render", tmp_path / "a.png", "--size", "200") == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "Gaussians 500", "SH degree 2", "not finite 1 rows (1 in means)", "1 without a rotation, 1 flat",
        "invisible 1 ", "opacity", "longest side",
    ):  # fmt: skip
        assert text in said, text
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (200, 200, 3)
    assert (picture < 250).any(-1).mean() > 0.05


def test_inspect_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "a.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 99999999\nproperty float x\nend_header\n")
    assert call(inspect_main, tmp_path / "a.ply") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("moment", ["opening", "writing"])
def test_killed_while_writing(tmp_path, moment):
    """kill -9 in the middle: the name is not there, and nothing visible is."""
    code = f"""
import os, signal, sys
from pathlib import Path
from lpm.formats import ply
from export.some import some
if {moment!r} == "writing":
    old, calls = ply.to_rows, []
    def to_rows(params):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return old(params)
    ply.to_rows = to_rows
else:
    ply.to_rows = lambda params: os.kill(os.getpid(), signal.SIGKILL)
ply.write_ply(Path(sys.argv[1]), some(60_000, 0))
"""
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.ply")], env={"PYTHONPATH": str(tests)})
    assert done.returncode == -9
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert list(tmp_path.glob("*.ply")) == []


def test_a_sky_becomes_a_dome_behind_the_scene(run, tmp_path, capsys):
    folder, params = run
    path = folder / "nerfstudio_models" / "step-000000009.ckpt"
    state = checkpoint.load(path)
    sky = torch.zeros(16, 3)
    sky[0], sky[2] = torch.tensor([-0.5, 0.2, 0.8]), 0.3  # bluish, brighter above
    state["pipeline"]["_model.sky"] = sky
    checkpoint.atomic_save(state, path, folder)
    assert torch.equal(load(folder).sky, sky)
    assert call(export_main, "ply", folder, tmp_path / "with.ply", "--min-opacity", "0.5") == 0
    assert call(export_main, "ply", folder, tmp_path / "world.ply", "--frame", "world") == 0
    assert call(export_main, "ply", folder, tmp_path / "without.ply", "--no-sky") == 0
    with_dome, world, without = (read_ply(tmp_path / f"{name}.ply") for name in ("with", "world", "without"))
    assert len(without["means"]) == 200  # and it was not cropped for being far away:
    assert len(with_dome["means"]) == DOME + int((torch.sigmoid(params["opacities"]) >= 0.5).sum())
    assert len(world["means"]) == DOME + 200
    above = with_dome["means"][-DOME:].max(0).indices[2] - DOME  # z is up here, y in the world
    assert above + DOME == world["means"][-DOME:].max(0).indices[1]
    colors = sh0_to_rgb(with_dome["features_dc"])[above]
    torch.testing.assert_close(colors, sh0_to_rgb(sky[0]) + 0.3 * 0.4886, atol=1e-3, rtol=0)
    capsys.readouterr()
    state["pipeline"]["_model.sky"] = torch.full((7, 3), torch.nan)  # somebody's, and no sky
    checkpoint.atomic_save(state, path, folder)
    assert load(folder).sky is None
