"""The kit for a bare machine with a GPU: its stages end in time and tell what they did; what it carries is pinned."""

import importlib.util
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[2] / "tools" / "gpu_kit"


def module(name):
    spec = importlib.util.spec_from_file_location(name, KIT / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def on_machine():
    return module("on_machine")


def test_a_stage_that_hangs_is_cut_off_and_the_next_goes_on(on_machine, tmp_path, monkeypatch):
    stages = on_machine.Stages(tmp_path, 60, dict(os.environ))
    hang = "import subprocess, sys, time; print('begun', flush=True); subprocess.run(['sleep', '100'])"
    monkeypatch.setattr(stages, "left", lambda: 8.0)
    assert not stages.run("hangs", 100, [sys.executable, "-c", hang])
    assert stages.run("goes", 100, [sys.executable, "-c", "print('1 passed in 0.1s')"])
    assert not stages.run("fails", 100, [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(stages, "left", lambda: 2.0)
    assert not stages.run("late", 100, [sys.executable, "-c", ""])
    told = (tmp_path / "stages.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in told] == ["hangs", "goes", "fails", "late"]
    assert [line.split(", ")[1] for line in told] == ["cut off", "exit 0", "exit 3", "no time"]
    assert stages.code == 1
    assert "begun" in (tmp_path / "log.txt").read_text()
    assert on_machine.failures(tmp_path) == ["1 passed in 0.1s"]


def test_stages_run_side_by_side_and_end_with_the_whole(on_machine, tmp_path):
    stages = on_machine.Stages(tmp_path, 60, dict(os.environ))
    meet = "import pathlib, sys, time\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\n"
    meet += "while not other.exists(): time.sleep(0.05)\n"
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    stages.start("one", [sys.executable, "-c", meet, a, b])
    stages.start("two", [sys.executable, "-c", meet, b, a])
    assert stages.finish("one", 30)
    assert stages.finish("two", 30)
    stages.start("endless", [sys.executable, "-c", "import time; time.sleep(1000)"])
    stages.stop()
    assert not stages.finish("endless", 1)  # it is gone
    assert "endless" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "stages.txt").read_text().splitlines()[-1].endswith("cut off")


def test_wheels_are_unpacked_without_an_installer(on_machine, tmp_path, monkeypatch):
    monkeypatch.setattr(on_machine, "KIT", tmp_path)
    for folder, name in (("wheels", "one-1.0-py3-none-any"), ("gsplat", "gsplat-1.4.0-py3-none-any"),
                         ("gsplat", "gsplat-1.5.3-py3-none-any")):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / folder / f"{name}.whl", "w") as wheel:
            wheel.writestr(f"{name.split('-')[0]}/version.txt", name)
    on_machine.unpack(tmp_path / "site", "1.5.3")
    assert (tmp_path / "site" / "one" / "version.txt").is_file()
    assert "1.5.3" in (tmp_path / "site" / "gsplat" / "version.txt").read_text()


def test_its_tests_are_there():
    root = KIT.parents[1]
    for path in (path for paths in module("on_machine").TESTS.values() for path in paths):
        assert "mark.gpu" in (root / path).read_text(), path
    marked = {str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py")
              if re.search(r"pytest\.mark\.gpu\b", path.read_text())}  # fmt: skip
    assert marked == {path for paths in module("on_machine").TESTS.values() for path in paths}


def test_what_it_carries_is_pinned():
    prepare = module("prepare")
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", package) for package in prepare.packages())
    pinned = dict(line.split("==") for line in (KIT.parents[1] / "constraints.txt").read_text().splitlines()
                  if "==" in line and not line.startswith("#"))  # fmt: skip
    carried = dict(package.split("==") for package in prepare.packages())
    assert {name: carried[name] for name in carried.keys() & pinned.keys()} == {
        name: pinned[name] for name in carried.keys() & pinned.keys()
    }


def test_a_wheel_is_found_by_its_name(tmp_path):
    prepare = module("prepare")
    (tmp_path / "pytorch_msssim-1.0.0-py3-none-any.whl").touch()
    assert prepare.wheel_of(tmp_path, "pytorch-msssim==1.0.0") is not None
    assert prepare.wheel_of(tmp_path, "pytorch-msssim==1.0.1") is None


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_the_toolkit_is_found_behind_a_wrapper(on_machine, tmp_path, monkeypatch):
    real = on_machine.toolkit()
    assert (real / "bin" / "nvcc").is_file()
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {real}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert on_machine.toolkit() == real
