"""The benchmark of a GPU runs where there is none, so far as it can, and says what it left out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lpm.cuda.native import native
from lpm.scenes.samples import make

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
@pytest.mark.skipif(native() is None, reason="no C++ compiler on this machine")
def test_runs_and_tells(tmp_path):
    make.make("room", tmp_path / "room", views=10)
    out = tmp_path / "results" / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), "--scenes", "room", "absent", "--methods",
               "lpm", "splatfacto", "--steps", "20", "--points", "2000", "--device", "cpu", "--out",
               str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1  # something was left out
    assert "left out: absent: not in" in done.stdout
    assert "left out: splatfacto on room: exit 1: " in done.stdout  # it needs CUDA, and takes nobody along
    result = json.loads(out.read_text())
    assert [run["method"] for run in result["runs"]] == ["lpm"]
    for run in result["runs"]:
        assert len(run["curve"]) == 20
        assert run["psnr"] > 8
        assert run["ms_by_stage"]["backward and the rest"] > 0
        assert run["ms_by_stage"]["render"] > 0
    assert len(result["kernels"]) == 3
    assert "| room | lpm |" in out.with_suffix(".md").read_text()


@pytest.mark.skipif(native() is None, reason="no C++ compiler on this machine")
def test_what_is_stopped_tells_what_it_had(tmp_path):
    make.make("room", tmp_path / "room", views=10)
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), "--scenes", "room", "--methods", "lpm", "--steps",
               "100000", "--no-kernels", "--limit", "2", "--device", "cpu", "--out", str(out)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "left out: lpm on room: stopped after 2 s" in done.stdout
    assert json.loads(out.read_text())["runs"] == []
