"""A checkpoint is there whole or not at all, opens without running code, and gives back what went in."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from lpm.checks import LpmError
from lpm.gaussians.spherical_harmonics import SH_C0
from lpm.runs import checkpoint
from lpm.runs.folder import find_checkpoint, latest_checkpoint, load_gaussians

WRITER = """
import sys, torch
from pathlib import Path
from lpm.runs import checkpoint
run = Path(sys.argv[1])
folder = run / "nerfstudio_models"
step = 0
while True:
    step += 1
    state = {"step": step, "pipeline": {"x": torch.full((400_000,), float(step))}}
    path = folder / f"step-{step:09d}.ckpt"
    checkpoint.atomic_save(state, path, scratch=run)
    for other in folder.glob("*.ckpt"):
        if other != path:
            other.unlink()
    print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.023, 0.05])
def test_kill_9_leaves_a_whole_checkpoint(tmp_path, delay):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        last = int(process.stdout.readline())
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "nerfstudio_models"
    assert all(name.endswith(".ckpt") for name in os.listdir(folder))  # nerfstudio's tools parse every name there
    state = checkpoint.load(latest_checkpoint(folder))
    assert state["step"] >= last
    assert (state["pipeline"]["x"] == state["step"]).all()


def test_a_full_disk_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "models" / "step-000000001.ckpt"
    checkpoint.atomic_save({"step": 1, "pipeline": {}}, path, tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.atomic_save({"step": 2, "pipeline": {}}, path, tmp_path)
    monkeypatch.undo()
    assert checkpoint.load(path)["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models"]


def test_random_states_come_back(tmp_path):
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    path = tmp_path / "a.ckpt"
    checkpoint.atomic_save({"step": 0, "pipeline": {}, "random": checkpoint.random_state()}, path, tmp_path)
    first = random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()
    checkpoint.set_random_state(checkpoint.load(path)["random"])
    assert (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()) == first


def test_numpy_numbers_become_plain(tmp_path):
    """nerfstudio's schedulers keep numpy floats, which torch >= 2.6 refuses to load."""
    path = tmp_path / "a.ckpt"
    state = {"step": 0, "pipeline": {}, "lr": [np.float64(0.5)], "rows": np.arange(3)}
    checkpoint.atomic_save(state, path, tmp_path)
    back = checkpoint.load(path)
    assert type(back["lr"][0]) is float
    assert back["rows"].tolist() == [0, 1, 2]


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_here",)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"junk"), "cannot be read"),
        (lambda path: torch.save({"step": 0, "pipeline": Evil()}, path), "cannot be read"),
        (lambda path: torch.save({"weights": 1}, path), "no `pipeline`"),
    ],
)
def test_bad_checkpoints_are_named(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step-000000007.ckpt"
    make(path)
    with pytest.raises(LpmError, match=words) as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not (tmp_path / "was_here").exists()


def test_runs_are_found_by_folder_config_or_file(tmp_path):
    folder = tmp_path / "nerfstudio_models"
    for step in (10, 200):
        checkpoint.atomic_save({"step": step, "pipeline": {}}, folder / f"step-{step:09d}.ckpt", tmp_path)
    newest = folder / "step-000000200.ckpt"
    assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "config.yml") == find_checkpoint(folder) == newest
    assert find_checkpoint(folder / "step-000000010.ckpt").name == "step-000000010.ckpt"
    with pytest.raises(LpmError, match="no checkpoint"):
        find_checkpoint(tmp_path / "..")
    with pytest.raises(LpmError, match="no such folder"):
        find_checkpoint(tmp_path / "nope")


def test_splatfactos_numpy_numbers_load(tmp_path):
    """nerfstudio's own checkpoints hold learning rates as numpy floats."""
    path = tmp_path / "step-000000001.ckpt"
    torch.save({"step": 1, "pipeline": {}, "schedulers": {"means": {"_last_lr": [np.float64(1e-3)]}}}, path)
    assert checkpoint.load(path)["schedulers"]["means"]["_last_lr"] == [1e-3]


def test_colours_without_harmonics_are_exported_as_harmonics(tmp_path):
    shapes = dict(means=3, scales=3, quats=4, features_dc=3, opacities=1)
    params = {f"_model.gauss_params.{k}": torch.randn(5, n) for k, n in shapes.items()}
    params["_model.gauss_params.features_rest"] = torch.zeros(5, 0, 3)
    path = tmp_path / "step-000000001.ckpt"
    checkpoint.atomic_save({"step": 1, "pipeline": params}, path, tmp_path)
    drawn = torch.sigmoid(params["_model.gauss_params.features_dc"])
    torch.testing.assert_close(load_gaussians(path)["features_dc"] * SH_C0 + 0.5, drawn)
