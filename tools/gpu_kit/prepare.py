#!/usr/bin/env python3
"""Makes `.gpu/`: all that a bare machine with a GPU and without a network needs beside this checkout.

    python tools/gpu_kit/prepare.py --data FOLDER [--gsplat 1.4.0 1.5.3] [--scenes fox]      (or: make gpu-kit)

Wheels of packages.txt for Python 3.12, gsplat's, one of this tree as it is, and scenes of FOLDER. What is there already
is kept. The checkout and `.gpu/` together may hold LIMIT. There, in the checkout:

    python3 .gpu/on_machine.py --seconds 540
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / ".gpu"
LIMIT = 64 * 2**20
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)
TREE = ("lpm", "cuda", "scenes", "viewer", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
"""What the wheel is made of."""


def packages() -> list[str]:
    """NAME==VERSION of packages.txt."""
    lines = Path(__file__).with_name("packages.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def wheel_of(folder: Path, package: str) -> Path | None:
    """The wheel of NAME==VERSION in `folder`, if it is there."""
    name, _, version = package.partition("==")
    return next(iter(folder.glob(f"{name.lower().replace('-', '_')}-{version}-*.whl")), None)


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    where = tempfile.gettempdir()  # in the checkout, pip would find folders of it
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=where)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}")


def fetch(folder: Path, package: str, python: str) -> None:
    """Downloads one wheel for Linux on x86-64, unless it is there."""
    if wheel_of(folder, package) is None:
        tags = [f"manylinux_2_{n}_x86_64" for n in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
        platforms = [word for tag in tags for word in ("--platform", tag)]
        of = ("--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms)
        pip("download", "--quiet", "--no-deps", *of, "--dest", str(folder), package)


def git_files(*paths: str) -> list[Path]:
    """Files that git tracks or does not ignore, changed or not; relative to the checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return sorted({Path(name) for name in out.split("\0") if name and (ROOT / name).is_file()})


def own_wheel(folder: Path) -> None:
    """This tree as it is; built from a copy, since setuptools leaves a folder where it works."""
    for old in folder.glob("lpm_splat-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as name:
        for path in git_files(*TREE):
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, Path(name) / path)
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), name)


def size_of(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LPM_TEST_DATA"), help="folder of scenes")
    parser.add_argument("--scenes", nargs="*", default=["fox"])
    parser.add_argument("--gsplat", nargs="+", default=["1.4.0"], help="releases to carry")
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU")
    options = parser.parse_args()
    if options.scenes and not options.data:
        parser.error("--data: the folder of scenes is not given, nor is LPM_TEST_DATA set")
    for name in ("wheels", "gsplat", "data"):
        (KIT / name).mkdir(parents=True, exist_ok=True)
    for package in packages():
        fetch(KIT / "wheels", package, options.python)
    for version in options.gsplat:
        fetch(KIT / "gsplat", f"gsplat=={version}", options.python)
    own_wheel(KIT / "wheels")
    for scene in options.scenes:
        shutil.copytree(options.data / scene, KIT / "data" / scene, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("on_machine.py"), KIT)
    for part in ("wheels", "gsplat", "data"):
        print(f"{size_of([p for p in (KIT / part).rglob('*') if p.is_file()]) / 2**20:6.1f} MiB  .gpu/{part}")
    tree = size_of([ROOT / path for path in git_files()])
    everything = tree + size_of([p for p in KIT.rglob("*") if p.is_file()])
    print(f"{everything / 2**20:6.1f} MiB  in all, of it the checkout {tree / 2**20:.1f}; at most {LIMIT // 2**20}")
    if everything > LIMIT:
        sys.exit("too much: leave out a scene or a release of gsplat, and remove it from .gpu/")


if __name__ == "__main__":
    main()
