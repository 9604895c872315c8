"""`torchrun lpm-train`: several processes (gloo, CPU) train one model."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from lpm.runs import checkpoint
from lpm.runs.folder import find_checkpoint
from lpm.scenes.samples.make import make

STEPS, DIES = 45, 27
# What torchrun starts: lpm-train, which keeps its parameters at the end, or ends in the middle.
PROGRAM = f"""
import os, sys, torch
from lpm.train import cli
from lpm.train.trainer import Trainer
dies, out = int(os.environ["DIES"]), sys.argv.pop(1)
step = Trainer.step
def steps(self, number):
    if dies == int(os.environ["RANK"]) and number == {DIES}:
        os._exit(9)
    step(self, number)
Trainer.step = steps
def main():
    trainer = cli.train(sys.argv[1:])
    torch.save(dict(trainer.model.gauss_params), out + os.environ["RANK"] + ".pt")
cli.one_line_errors(main)
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return make("room", tmp_path_factory.mktemp("scene") / "room", 10, (64, 48), 0)


def trained(room, tmp_path, *options, dies=-1, world=2):
    """The processes that torchrun would start, with its variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [room, "--out", tmp_path / "run", "--steps", STEPS, "--max-points", 3100, "--no-page", "--device", "cpu"]
    words += ["--model.refine-every", 20, "--model.warmup-length", 10, "--measure-every", 20, *options]
    command = [sys.executable, "-c", PROGRAM, f"{tmp_path}/", *map(str, words)]
    told = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DIES": str(dies)}
    started = [
        subprocess.Popen(
            command, env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    said = [process.communicate(timeout=200)[0] for process in started]
    return [process.returncode for process in started], said


@pytest.mark.timeout(300)
def test_two_processes_keep_one_model_and_it_goes_on(room, tmp_path):
    codes, (first, second) = trained(room, tmp_path)
    assert codes == [0, 0], first + second
    assert "held-out photos: PSNR" in first
    assert second == ""  # the first one speaks
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())  # to the bit
    assert len((tmp_path / "run" / "edits.jsonl").read_text().splitlines()) >= 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == STEPS
    codes, (first, second) = trained(room, tmp_path, "--resume", tmp_path / "run", "--steps", STEPS + 10)
    assert codes == [0, 0], first + second
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert checkpoint.load(find_checkpoint(tmp_path / "run"))["step"] == STEPS + 9


@pytest.mark.timeout(300)
def test_a_dead_process_ends_the_run_with_a_saved_state(room, tmp_path):
    codes, (first, _) = trained(room, tmp_path, dies=1)
    assert codes == [2, 9]
    assert "another process of this run has ended" in first
    assert checkpoint.load(find_checkpoint(tmp_path / "run"))["step"] == DIES - 1


@pytest.mark.timeout(300)
def test_what_is_not_made_for_several_processes_is_refused(room, tmp_path):
    codes, said = trained(room, tmp_path, "--strategy", "mcmc")
    assert codes == [2, 2]
    assert said[0].splitlines()[-1].startswith("error: --strategy: mcmc by 2 processes; wanted lpm")
    assert not (tmp_path / "run").exists()
