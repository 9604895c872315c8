"""Tiles on several machines: a Ray cluster of which one machine dies, and the script for SLURM."""

import json
import os
import subprocess
import sys
import time

import pytest

from lpm.checks import LpmError
from lpm.scenes.samples.make import make
from lpm.tile import on_ray
from lpm.tile.split import split
from lpm.tile.train import run_of, untrained

PROGRAM = "from lpm.tile.cli import main; main()"


def tiles(tmp_path, count):
    folder = tmp_path / "tiles"
    split(make("street", tmp_path / "scene", 24, (96, 72)), folder, count, 0.15, 0.2)
    return folder


@pytest.mark.timeout(300)
def test_a_machine_dies(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'lpm-splat[ray]'")
    from ray.cluster_utils import Cluster

    folder = tiles(tmp_path, 4)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    dying = cluster.add_node(num_cpus=1)
    command = [sys.executable, "-c", PROGRAM, "train", folder, "--on", cluster.address]
    args = "--args=--steps 400 --save-every 40 --max-points 400 --measure-every 0"
    process = subprocess.Popen([*command, args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 200
        while not list(folder.glob("runs/*/trained")) or len(list(folder.glob("runs/*"))) < 3:
            assert process.poll() is None, process.communicate(timeout=9)[0]
            assert time.monotonic() < end
            time.sleep(0.1)
        first = [path.parent for path in folder.glob("runs/*/trained")]
        stamps = {path: path.stat().st_mtime_ns for run in first for path in run.rglob("*.ckpt")}
        cluster.remove_node(dying, allow_graceful=False)
        output = process.communicate(timeout=200)[0]
    finally:
        process.kill()
        cluster.shutdown()
    assert process.returncode == 0, output
    assert "4 tiles on 3 machines, 1 CPUs each" in output
    assert untrained(folder, ()) == []
    for run in folder.glob("runs/*"):
        assert json.loads((run / "metrics.json").read_text())["step"] == 400
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}  # what was done is not done again


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LpmError, match=r"ray: is not installed; wanted it, .*lpm-splat\[ray\]"):
        on_ray.train(tmp_path, ["tile_00"], "", "ray")


def test_a_machine_without_the_folder(tmp_path):
    assert on_ray.task(str(tmp_path), "tile_00", "").endswith("must be on a disk that all machines share")


def test_slurm(tmp_path):
    folder, script = tiles(tmp_path, 2), tmp_path / "job.sh"
    command = [sys.executable, "-c", PROGRAM, "slurm", folder, script, "--gpus", "0", "--args=--steps 30 --seed 3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 jobs; next: sbatch" in done.stdout
    assert "--array=0-1" in script.read_text()
    assert "gpus" not in script.read_text()
    (tmp_path / "lpm-tile").write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    (tmp_path / "lpm-tile").chmod(0o755)
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "2"}
    told = subprocess.run([script], env=os.environ | job, capture_output=True, text=True, check=True).stdout
    assert told == f"train|{folder}|--only|tile_01|--args=--steps 30 --seed 3|"
    run_of(folder, "tile_01").mkdir(parents=True)
    (run_of(folder, "tile_01") / "trained").write_text("")
    assert "1 jobs" in subprocess.run(command, capture_output=True, text=True).stdout
