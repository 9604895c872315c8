"""The CUDA path without a GPU: a pretended device (tests/pretended_*.py) that counts what the host waits for.

gsplat's own Python runs, and ours; kernels are stood in for. Every training is a process of its own, since torch is
patched for it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
EVERY = 10  # steps from event to event, and from one log line to the next


def train(*folders: str, **asked: Any) -> dict[str, Any]:
    """What tests/pretended_training.py tells of a run; `folders` come first on its path."""
    path = os.pathsep.join([*folders, str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-W", "ignore", str(TESTS / "pretended_training.py"), json.dumps(asked)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-6000:]
    return json.loads(ended.stdout.splitlines()[-1])


def waits_of(steps: list[dict[str, Any]]) -> str:
    """Each line that waits in `steps`, and how often."""
    return "\n".join(f"step {s['step']}: {n}x {line}" for s in steps for line, n in s["waits"].items())


RUNS = {
    "lpm": dict(strategy="lpm", sky="sphere", resume=True, pictures=True),
    "4d": dict(strategy="lpm", moving=True, resume=True),
    "mcmc": dict(strategy="mcmc", sky="constant"),
    "adc": dict(strategy="adc", cameras="SO3xR3"),
    "paper": dict(strategy="paper"),
    "igs": dict(strategy="igs"),
    "fastgs": dict(strategy="fastgs"),
    "steepgs": dict(strategy="steepgs"),
    "conegs": dict(strategy="conegs", resume=True),
    "masked": dict(strategy="lpm", masks=True),
    "streamed": dict(strategy="lpm", streamed=True),
}
WAITS = {
    "lpm": 45, "4d": 110, "mcmc": 5, "adc": 10, "paper": 45, "igs": 8, "fastgs": 8, "steepgs": 8, "conegs": 40,
    "masked": 45, "streamed": 350,
}  # fmt: skip
"""Of an event, at most: each is a gap in which the device has nothing to do."""


SLOW = dict.fromkeys(("paper", "masked", "igs", "fastgs", "steepgs"), pytest.mark.slow)
"""They are `lpm` but for zones and resets, or for masks, or `adc` but for what it scores and how it splits."""


@pytest.fixture(scope="module", params=[pytest.param(name, marks=SLOW.get(name, ())) for name in RUNS])
def run(request) -> dict[str, Any]:
    """24 steps with events at 10 and 20."""
    return {"name": request.param, **train(steps=24, **RUNS[request.param])}


def test_training_runs_on_the_device(run):
    """No tensor of the host among those of the device, in steps, events, resume, pictures and evaluation."""
    assert run["held_out"]["psnr"] > 12
    assert run["kernels"]["loss"] == 24
    assert run.get("pictures", []) == ([[60, 80, 3], [60, 80, 3], [48, 64, 3]] if run["name"] == "lpm" else [])


def test_a_plain_step_does_not_wait(run):
    """Nor one with refined poses or a sky. The first steps after a start or a resume may: what lies on the device is
    brought there."""
    plain = [s for s in run["steps"] if s["step"] % EVERY and s["step"] != 12]
    assert len(plain) == 20
    assert not any(s["waits"] for s in plain), waits_of(plain)


def test_an_event_waits_a_bounded_number_of_times(run):
    """At step 10; what is beside the event (a log line) waits once."""
    (event,) = [s for s in run["steps"] if s["step"] == EVERY]
    assert 1 <= sum(event["waits"].values()) <= WAITS[run["name"]], waits_of([event])


@pytest.mark.parametrize("strategy", ["lpm", "adc", "mcmc"])
def test_another_gsplat(strategy):
    """Of a release other than the one that is installed, unpacked into the folder LPM_OTHER_GSPLAT."""
    folder = os.environ.get("LPM_OTHER_GSPLAT")
    if not folder or not (Path(folder) / "gsplat").is_dir():
        pytest.skip("LPM_OTHER_GSPLAT is not set to a folder with another release of gsplat")
    done = train(folder, strategy=strategy, steps=24)
    assert done["gsplat"] != importlib.metadata.version("gsplat")
    assert done["held_out"]["psnr"] > 12
    assert not any(s["waits"] for s in done["steps"] if s["step"] % EVERY)
