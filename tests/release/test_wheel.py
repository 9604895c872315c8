"""The wheel of `make wheel`: any Linux, no compiler, the same pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAINS = """
import sys
# What is installed in place would lend its modules.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(getattr(finder, "__module__", ""))]
import lpm
from lpm.cuda.build import LEVELS, prebuilt
from lpm.cuda.native import native
from lpm.train.cli import train
trainer = train([sys.argv[1], "--steps", "40", "--out", sys.argv[2], "--no-page", "--device", "cpu"])
print("LOADED", lpm.__file__, native().path, prebuilt())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_wheel.py"), str(out)], check=True, cwd=ROOT)
    (made,) = out.glob("*.whl")
    return made


def test_its_name_says_where_it_runs(wheel):
    assert wheel.name.endswith("-py3-none-manylinux_2_28_x86_64.whl")
    assert wheel.stat().st_size < 5e6


def test_libraries_want_no_newer_system(wheel, tmp_path):
    """glibc 2.28 and GCC 8's libstdc++, as the name promises; libgomp is torch's."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    libraries = sorted((tmp_path / "lpm" / "cuda" / "prebuilt").glob("*.so"))
    assert [library.stem for library in libraries] == ["lpm_cpu_v2", "lpm_cpu_v3", "lpm_cpu_v4"]
    for library in libraries:
        told = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True).stdout
        for name, newest in (("GLIBC_", (2, 28)), ("GLIBCXX_", (3, 4, 25)), ("CXXABI_", (1, 3, 11))):
            for word in told.replace("(", " ").replace(")", " ").split():
                if word.startswith(name):
                    version = tuple(int(n) for n in word.removeprefix(name).split("."))
                    assert version <= newest, f"{library.name} wants {word}"


def test_it_trains_without_a_compiler(wheel, tmp_path):
    from tiny_scene import make_transforms

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "bin").mkdir()
    environment = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG")}
    environment |= {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(tmp_path / "site"), "LPM_NATIVE": "cpu",
                    "LPM_CACHE": str(tmp_path / "cache")}  # fmt: skip
    scene = make_transforms(tmp_path / "scene")
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRAINS, str(scene), str(tmp_path / "run")], env=environment, capture_output=True,
        text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    where, path, found = done.stdout.split("LOADED ")[1].split()
    assert Path(where).is_relative_to(tmp_path / "site")
    assert path == found
    assert "prebuilt" in path
    assert not list((tmp_path / "cache").glob("lpm_cpu*"))  # nothing was compiled
