"""Help texts come at once: what takes a second to import is imported once there is something to do."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = dict(re.findall(r"^(lpm-\w+) = \"(.+:\w*main)\"$", (ROOT / "pyproject.toml").read_text(), re.M))
HEAVY = ("torch", "scipy", "cv2", "plotly", "viser", "gsplat", "nerfstudio")
FURTHER = [("lpm-scene", "list"), ("lpm-export", "ply", "--help"), ("lpm-bench", "run", "--help"),
           ("lpm-tile", "split", "--help")]  # fmt: skip


@pytest.mark.parametrize("words", [*((name, "--help") for name in COMMANDS), *FURTHER], ids=" ".join)
def test_a_help_text_imports_nothing_heavy(words):
    module, function = COMMANDS[words[0]].split(":")
    code = f"""
import atexit, sys
atexit.register(lambda: print("heavy:", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))
sys.argv = {list(words)!r}
from {module} import {function}
{function}()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100
    assert done.stderr.strip() == "heavy: []"


def test_light_lists_are_those_of_the_work():
    """What a help text names without importing the work is what the work has."""
    from lpm.bench import jobs, starts
    from lpm.scenes.samples import make, moving, names, worlds

    assert list(names.SAMPLES) == list(worlds.SAMPLES)
    assert list(names.CLIPS) == list(moving.CLIPS)
    assert list(names.BY_SEED) == [*make.BY_SEED, "random-moving"]
    assert get_args(starts.Start) == get_args(jobs.Start)


def test_the_hosts_help_text_waits_for_nothing_that_only_we_bring():
    """nerfstudio imports torch by itself; torchmetrics brings matplotlib and half of scipy: more than a second."""
    pytest.importorskip("nerfstudio")
    code = "import sys, lpm.plugin.config; print('torchmetrics.functional.image' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.splitlines()[-1] == "False"
