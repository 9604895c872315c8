"""Building and loading the native kernels: lazily, once, safely, and with a way out where there is no compiler."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lpm.cuda import build as building
from lpm.cuda.build import BuildError
from lpm.cuda.native import native

TINY = 'extern "C" int answer() { return ANSWER; }\n'
needs_compiler = pytest.mark.skipif(
    not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small library in place of the kernels, a cache of its own, and a compiler that keeps a log of its calls."""
    folder = tmp_path / "sources"
    for part in ("csrc", "include"):
        (folder / part).mkdir(parents=True)
    (folder / "include" / "answer.h").write_text("#define ANSWER 42\n")
    (folder / "csrc" / "tiny_cpu.cpp").write_text('#include "answer.h"\n' + TINY)
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\nexec {shutil.which("g++") or "clang++"} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("LPM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(building, "FOLDER", folder)
    return tmp_path


def compilations(folder: Path) -> int:
    log = (folder / "log").read_text().splitlines()
    return sum("-shared" in line for line in log)


def answer(library: Path) -> int:
    return ctypes.CDLL(str(library)).answer()


@needs_compiler
def test_built_once_and_again_when_the_sources_change(tiny, monkeypatch):
    first = building.build()
    assert answer(first) == 42
    assert building.build() == first
    assert compilations(tiny) == 1
    (tiny / "sources" / "include" / "answer.h").write_text("#define ANSWER 43\n")
    second = building.build()
    assert second != first
    assert answer(second) == 43
    monkeypatch.setattr(building, "FLAGS", [*building.FLAGS, "-DOTHER"])
    assert building.build() not in (first, second)
    second.unlink()
    monkeypatch.undo()
    assert compilations(tiny) == 3


@needs_compiler
def test_a_lost_library_is_built_again_and_nothing_else_is_left(tiny):
    first = building.build()
    first.unlink()
    assert building.build() == first
    assert sorted(p.name for p in first.parent.iterdir()) == sorted([first.name, "build.lock"])


@needs_compiler
def test_two_processes_build_once(tiny):
    code = f"""
import lpm.cuda.build as b, pathlib
b.FOLDER = pathlib.Path({str(building.FOLDER)!r})
print(b.build())"""
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    paths = {out.strip() for out, _ in outputs}
    assert len(paths) == 1
    assert answer(Path(paths.pop())) == 42
    assert compilations(tiny) == 1


@needs_compiler
def test_a_failed_build_reports_all(tiny):
    (tiny / "sources" / "csrc" / "tiny_cpu.cpp").write_text("this is not C++\n")
    with pytest.raises(BuildError) as error:
        building.build()
    text = str(error.value)
    assert "tiny_cpu.cpp" in text
    assert "-march=native" in text
    assert "error" in text.splitlines()[2] or "error" in text
    assert list((tiny / "cache").glob("*.so")) == []


def test_an_unknown_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler --fast")
    with pytest.raises(BuildError, match="CXX=no-such-compiler --fast: no such program") as error:
        building.find_compiler()
    assert "set CXX" in error.value.remedy


def test_importing_compiles_nothing(tmp_path):
    code = "import lpm, lpm.cuda, lpm.cuda.native, lpm.render.native_backend, lpm.render.rasterize"
    result = python(code, LPM_CACHE=str(tmp_path / "cache"), CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert not (tmp_path / "cache").exists()


RENDER = """
import torch
from lpm.render.rasterize import rasterize
K = torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
for _ in range(2):
    image, _, _ = rasterize(torch.tensor([[0.0, 0, 3]]), torch.ones(1, 4), torch.ones(1, 3), torch.ones(1),
                            torch.ones(1, 3), torch.eye(4)[None], K, 16, 16)
print(round(image.max().item(), 3))
"""


def test_without_a_compiler_the_twin_serves_and_says_so_once(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    environment = dict(PATH=str(empty), CXX="", LPM_CACHE=str(tmp_path / "cache"), LPM_NATIVE="")
    result = python(RENDER, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0.994"
    assert result.stderr.count("\n") == 1
    assert "the slow torch twins serve" in result.stderr
    assert "remedy: apt-get install g++" in result.stderr
    insisting = python(RENDER, **{**environment, "LPM_NATIVE": "cpu"})
    assert insisting.returncode == 1
    assert "LpmError: LPM_NATIVE: cpu, and the native kernels cannot be loaded" in insisting.stderr
    quiet = python(RENDER, **{**environment, "LPM_NATIVE": "off"})
    assert (quiet.stdout.strip(), quiet.stderr) == ("0.994", "")


@needs_compiler
def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    result = python(RENDER, LPM_CACHE=str(file), LPM_NATIVE="")
    assert result.stdout.strip() == "0.994"
    assert "remedy: set LPM_CACHE to a writable folder" in result.stderr


@needs_compiler
def test_the_projects_own_kernels_build(monkeypatch):
    """Tests of the kernels skip where there are none; with a compiler at hand that must not hide a broken source."""
    monkeypatch.setenv("LPM_NATIVE", "cpu")
    assert native() is not None
