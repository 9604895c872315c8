#!/usr/bin/env python3
"""Makes the wheel that needs no compiler: `make wheel` writes dist/lpm_splat-*-py3-none-manylinux_2_28_x86_64.whl.

The CPU kernels are compiled for three levels of x86-64 and chosen from at load (lpm.cuda.build.prebuilt). They have a
plain C ABI and belong to no version of Python. The tree is copied first: a checkout compiles for its own processor.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lpm.cuda.build import build_levels

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = "manylinux_2_28_x86_64"
PARTS = ("lpm", "cuda", "scenes", "viewer", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def make(out: Path) -> Path:
    """Makes the wheel in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree, made = Path(folder) / "tree", Path(folder) / "made"
        tree.mkdir()
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "prebuilt"))
            else:
                shutil.copy(source, tree / name)
        build_levels(tree / "cuda" / "prebuilt")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(made), str(tree)], check=True)
        (plain,) = made.glob("*.whl")
        subprocess.run(
            [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", PLATFORM, str(plain)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (tagged,) = made.glob("*.whl")
        return Path(shutil.copy(tagged, out / tagged.name))


if __name__ == "__main__":
    wheel = make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist")
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
