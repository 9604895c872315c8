"""A run that is killed or asked to stop at any moment goes on, to the bit, as if it had not been."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from faces import CORE_FIRST

from lpm import records
from lpm.runs import checkpoint
from lpm.runs.folder import checkpoint_folder
from lpm.train.run_settings import FILE, read_settings

EVERY = 10


def interrupted(folder: Path, name: str, times: int, steps: int, face: str) -> list[dict]:
    command = [sys.executable, str(Path(__file__).with_name("interrupted.py")), str(folder), name]
    command += [str(n) for n in (times, steps, EVERY, times)] + [face]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment)
    assert done.returncode == 0, done.stderr[-2000:] + (folder / "log").read_text()[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_same(a, b, name=""):
    assert type(a) is type(b), name
    if isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{name}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    else:
        assert a == b, name


def assert_whole(folder: Path, steps: int, face: str) -> None:
    """The run that was stopped has ended as the one that was not: checkpoint, events, configuration."""
    runs = [folder / "out" / "tiny" / "lpm-splat" / name for name in ("stopped", "whole")]
    last = [checkpoint.load(checkpoint_folder(run) / f"step-{steps - 1:09d}.ckpt") for run in runs]
    assert_same(*last)
    events = [[(r.step, r.points, r.views) for r in records.read(run / "edits.jsonl")] for run in runs]
    assert events[0] == events[1]
    assert len(events[0]) > 5
    kept = [sorted(p.name for p in checkpoint_folder(run).iterdir()) for run in runs]
    assert kept[0] == kept[1]
    assert all(len(names) == 2 for names in kept)
    assert not list(runs[0].glob(".*.unfinished"))
    assert read_settings(runs[0] / FILE).steps == steps
    if face == "core":
        return
    saved = yaml.load((runs[0] / "config.yml").read_text(), Loader=yaml.Loader)
    assert saved.max_num_iterations == steps


@CORE_FIRST
@pytest.mark.parametrize(
    ("times", "steps"), [(3, 60), pytest.param(30, 400, marks=pytest.mark.slow)], ids=["3 times", "30 times"]
)
def test_killed(tmp_path, times, steps, face):
    *stopped, last, whole = interrupted(tmp_path, "SIGKILL", times, steps, face)
    assert [s["code"] for s in stopped] == [-signal.SIGKILL] * times
    assert last["code"] == whole["code"] == 0
    lost = [a["last"] - b["first"] for a, b in zip(stopped, [*stopped[1:], last], strict=True)]
    print("steps lost:", lost)
    assert max(lost) <= EVERY
    assert_whole(tmp_path, steps, face)


@CORE_FIRST
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_asked_to_stop(tmp_path, name, code, face):
    first, last, whole = interrupted(tmp_path, name, 1, 50, face)
    assert (first["code"], last["code"], whole["code"]) == (code, 0, 0)
    done = 1 if face == "core" else 0  # nerfstudio's loop names a step before it is stopped
    assert last["first"] == first["last"] + done  # no step is lost
    command = "lpm-train --resume " if face == "core" else "ns-train lpm-splat --load-dir "
    assert f"To go on:\n{command}" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert_whole(tmp_path, 50, face)
