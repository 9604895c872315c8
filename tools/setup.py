#!/usr/bin/env python3
"""Makes `.venv` with the pinned packages; does nothing when it is already as wanted. Called by `make setup`.

`setup.py core` leaves nerfstudio out, and makes `.venv-core`.

Only the standard library is used, since nothing is installed yet. Run it with the Python the environment is for.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = sys.argv[1:] == ["core"]
VENV = ROOT / (".venv-core" if CORE else ".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".lpm-setup"
WANTED = ["pyproject.toml", "constraints.txt", "tools/setup.py", "lpm/torchvision_hook.py"]
# nerfstudio asks for these two, they come as C++ sources only, and nothing that lpm-splat runs imports them.
SOURCE_ONLY = {"fpsample": "1.0.2", "pyliblzfse": "0.4.1"}


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def fail(text: str) -> None:
    sys.exit(f"[setup] error: {text}")


def fingerprint() -> str:
    digest = hashlib.sha256(str(ROOT).encode() + sys.version.encode())
    for name in WANTED:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        print("\n".join(result.stdout.splitlines()[-25:]), file=sys.stderr)
        fail(f"pip {' '.join(arguments[:3])} ... ended with code {result.returncode}; its last lines stand above")


def pinned(name: str) -> str:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith(name + "=="):
            return line.strip()
    return name


def install_stand_ins() -> None:
    """Installs empty stand-ins for SOURCE_ONLY where no compiler could build them; using one says what is missing."""
    for name, version in SOURCE_ONLY.items():
        folder = VENV / "stand-ins" / name
        folder.mkdir(parents=True, exist_ok=True)
        module = {"pyliblzfse": "liblzfse"}.get(name, name)
        (folder / f"{module}.py").write_text(
            "def __getattr__(name):\n"
            "    if name.startswith('__'):\n        raise AttributeError(name)\n"
            f'    raise ImportError("{name} was left out: no C++ compiler was found when the environment was made")\n'
        )
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\n[tool.setuptools]\npy-modules = ["{module}"]\n'
        )
        pip("install", "--no-build-isolation", str(folder))


def install_nerfstudio(compiler: bool) -> None:
    if not compiler:
        install_stand_ins()
    say("installing nerfstudio, gsplat and what they need (2 of 3, a few minutes)")
    pip("install", "-c", "constraints.txt", pinned("nerfstudio"), pinned("gsplat"), pinned("torchvision"))
    say("installing lpm-splat itself, editable (3 of 3)")
    pip("install", "-c", "constraints.txt", "-e", ".[dev]")
    # What `lpm-doctor --fix` does: torchvision's CUDA build beside a CPU torch.
    subprocess.run([str(PYTHON), "-c", "from lpm.doctor import install_hook; install_hook()"], check=True)
    if not ctypes.util.find_library("usb-1.0"):
        say("no libusb-1.0: ns-export will not start (apt-get install libusb-1.0-0); lpm-export needs nothing")


def main() -> None:
    if sys.argv[1:] not in ([], ["nerfstudio"], ["core"]):
        fail(f"FACE={' '.join(sys.argv[1:])}: nerfstudio or core is wanted")
    if CORE and sys.version_info < (3, 10):
        fail(f"Python 3.10 or later is needed, this is {sys.version.split()[0]}")
    if not CORE and not (3, 10) <= sys.version_info[:2] <= (3, 12):
        remedy = "try `make setup PYTHON=python3.11`, or `make setup FACE=core`, which leaves nerfstudio out"
        fail(f"Python 3.10 to 3.12 is needed, this is {sys.version.split()[0]}; {remedy}")
    os.chdir(ROOT)
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    start = time.time()
    if not PYTHON.exists():
        say(f"making {VENV.name}")
        if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
            fail("python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv")
    compiler = shutil.which(shlex.split(os.environ.get("CXX") or "g++")[0]) or shutil.which("clang++")
    say("installing torch")
    pip("install", "--upgrade", "pip", "setuptools<81", "wheel")
    pip("install", pinned("torch"))
    if not compiler:
        say("no C++ compiler: the slow torch rasterizer will serve; apt-get install g++ makes it 50 times faster")
    if CORE:
        say("installing lpm-splat and what it needs, editable (2 of 2)")
        pip("install", "-e", ".[zstd]")
    else:
        install_nerfstudio(bool(compiler))
    pip("check")
    STAMP.write_text(wanted)
    say(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
