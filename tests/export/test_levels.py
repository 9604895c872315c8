"""lpm-export sog --lod: levels of half the points each, written by splat-transform and shown by PlayCanvas' engine."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from editing.walls import cameras, wall
from export.some import call, visible
from export.test_viewers import FOV, chromium, packages, shoot  # noqa: F401

from lpm.checks import LpmError, fail
from lpm.exporting.cli import main
from lpm.exporting.levels import Refit, coarser_levels
from lpm.formats import splat_transform
from lpm.formats.picture import draw
from lpm.formats.ply import read_ply, write_ply
from lpm.multiview.views import look_at


def test_levels_halve_and_refitting_betters():
    full = wall(601)
    merged = list(coarser_levels(full, 3, None))
    assert [len(level.params["means"]) for level in merged] == [300, 150, 75]
    assert all(math.isnan(level.after) for level in merged)
    how = Refit(cameras(full), "classic", 60)
    fitted = list(coarser_levels(full, 3, how))
    assert [len(level.params["means"]) for level in fitted] == [300, 150, 75]
    assert all(level.after > level.before + 1 for level in fitted)
    assert fitted[0].after > fitted[1].after > fitted[2].after > 15


@pytest.fixture
def tool(monkeypatch):
    """Stands in for splat-transform: what it was called with, and an index of the count of each level's rows."""
    called = []

    def run_tool(arguments, say=print, seconds=0):
        if arguments == ["--help"]:
            return "SUPPORTED OUTPUTS lod-meta.json"
        called.append(arguments)
        inputs = arguments[2:-1]
        counts = {tag: len(read_ply(path)["means"]) for path, tag in zip(inputs[::3], inputs[2::3], strict=True)}
        (arguments[-1].parent / "0_0").mkdir()
        (arguments[-1].parent / "0_0" / "meta.json").write_text("{}")
        arguments[-1].write_text(json.dumps(counts))
        return ""

    monkeypatch.setattr(splat_transform, "run_tool", run_tool)
    return called


def test_command(tmp_path, capsys, tool):
    write_ply(tmp_path / "a.ply", visible(100, 1))
    arguments = ["--lod", "--levels", 3, "--refit-steps", 0]
    assert call(main, "sog", tmp_path / "a.ply", tmp_path / "web", *arguments) == 0
    assert json.loads((tmp_path / "web" / "lod-meta.json").read_text()) == {"0": 100, "1": 50, "2": 25}
    assert tool[0][3:10:3] == ["-l"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ply", "web", "web.json"]
    assert sorted(path.name for path in (tmp_path / "web").iterdir()) == ["0_0", "lod-meta.json"]
    said = capsys.readouterr().out
    assert "level 2: 25 Gaussians" in said
    assert "100 Gaussians from a.ply" in said


@pytest.mark.parametrize(("arguments", "said"), [
    (["a.sog"], "a.sog: the name of a file, .sog; wanted that of a new folder"),
    (["out", "--levels", "1"], "--levels: 1; wanted 2 or more"),
    (["out", "--levels", "8"], "--levels: 8 of 100 Gaussians; wanted so few that the coarsest has one"),
    (["out", "--refit-steps", "-1"], "--refit-steps: -1; wanted 0 or more"),
    (["full"], "full: there is something already; wanted a new or empty folder"),
])  # fmt: skip
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, tool, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_ply(tmp_path / "a.ply", visible(100, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert call(main, "sog", "a.ply", *arguments, "--lod") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ply", "full"]


def test_a_tool_without_levels_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(splat_transform, "run_tool", lambda arguments, say=print: "SUPPORTED OUTPUTS .sog")
    write_ply(tmp_path / "a.ply", visible(100, 1))
    assert call(main, "sog", tmp_path / "a.ply", tmp_path / "out", "--lod") == 2
    assert "one that writes no levels of detail; wanted one that writes lod-meta.json" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(splat_transform.shutil, "which", lambda name: None)
    assert call(main, "sog", tmp_path / "a.ply", tmp_path / "out", "--lod") == 2
    assert "no Node on this machine" in capsys.readouterr().err


def test_a_tool_that_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    def run_tool(arguments, say=print, seconds=0):
        if arguments == ["--help"]:
            return "lod-meta.json"
        arguments[-1].write_text("half")
        fail("splat-transform", "ended with code 1", "code 0")

    monkeypatch.setattr(splat_transform, "run_tool", run_tool)
    write_ply(tmp_path / "a.ply", visible(100, 1))
    assert call(main, "sog", tmp_path / "a.ply", tmp_path / "out", "--lod", "--refit-steps", 0) == 2
    assert "splat-transform: ended with code 1" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_a_sky_is_the_environment(tmp_path, monkeypatch):
    """The sky is no part of the levels: it is tagged -1, and shown at any distance."""
    called = []
    monkeypatch.setattr(splat_transform, "run_tool", lambda words, say, seconds: called.append(words))
    with pytest.raises(LpmError, match="nothing was written"):
        splat_transform.bundle_levels([Path("0.ply"), Path("1.ply")], Path("sky.ply"), tmp_path / "out")
    assert [str(word) for word in called[0][2:-1]] == ["0.ply", "-l", "0", "1.ply", "-l", "1", "sky.ply", "-l", "-1"]


def test_killed_before_it_is_whole(tmp_path):
    """kill -9 once splat-transform begins: nothing visible is there; the next export clears what is hidden."""
    code = """
import os, signal
from lpm.exporting import levels
from lpm.exporting.cli import main
levels.check_levels = lambda: None
levels.bundle_levels = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
main()
"""
    write_ply(tmp_path / "a.ply", visible(100, 1))
    words = ["sog", str(tmp_path / "a.ply"), str(tmp_path / "out"), "--lod", "--refit-steps", "0"]
    done = subprocess.run([sys.executable, "-c", code, *words], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["a.ply"]


@pytest.mark.export
def test_playcanvas_shows_each_level(shoot, packages, tmp_path):  # noqa: F811
    """Each level as PlayCanvas streams it against what we draw of it, read back from its chunk by splat-transform."""
    write_ply(tmp_path / "a.ply", visible(3000, 1))
    arguments = ["--lod", "--levels", 3, "--refit-steps", 30]
    assert call(main, "sog", tmp_path / "a.ply", tmp_path / "web", *arguments) == 0
    index = json.loads((tmp_path / "web" / "lod-meta.json").read_text())
    assert index["lodLevels"] == 3
    assert index["counts"] == [3000, 1500, 750]
    place = {"position": [2.5, 1.0, 1.5], "up": [0.0, 1, 0], "width": 400, "height": 300}
    job = {"viewer": "playcanvas", "file": tmp_path / "web" / "lod-meta.json", **place}
    theirs = shoot([{**job, "settings": {"level": i}} for i in range(3)])
    focal = 150 / math.tan(math.radians(FOV / 2))
    K = torch.tensor([[[focal, 0, 200], [0, focal, 150], [0, 0, 1.0]]])
    camera = look_at(torch.tensor(place["position"]), torch.zeros(3), torch.tensor(place["up"]))[None]
    for i, shown in enumerate(theirs):
        splat_transform.convert(tmp_path / "web" / f"{i}_0" / "meta.json", tmp_path / f"{i}.ply")
        params = read_ply(tmp_path / f"{i}.ply")
        assert len(params["means"]) == 3000 >> i
        ours = draw(params, camera, K, 400, 300, background=0.0)[0]
        psnr = -10 * math.log10(float((ours - shown / 255).square().mean()))
        print(f"level {i}: {psnr:.1f} dB")
        assert psnr >= 30
