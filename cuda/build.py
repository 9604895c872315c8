"""Compiles the CPU kernels into one shared library, once per machine and version of the sources.

The library has a plain C ABI and no torch headers: it builds in seconds and does not break when torch is upgraded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# No -ffast-math: it would set flush-to-zero for the whole process when the library is loaded.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-std=c++17", "-fPIC"]


class BuildError(RuntimeError):
    """The library could not be made. `remedy` is a half-sentence that a person can act on; the text tells all."""

    def __init__(self, text: str, remedy: str):
        super().__init__(text)
        self.remedy = remedy


def cache_folder() -> Path:
    """Where built libraries are kept: $LPM_CACHE, else ~/.cache/lpm-splat."""
    return Path(os.environ.get("LPM_CACHE") or Path.home() / ".cache" / "lpm-splat").expanduser()


def find_compiler() -> list[str]:
    """The command of a C++ compiler: $CXX, g++, or clang++. Raises BuildError if there is none."""
    wanted = os.environ.get("CXX")
    if wanted:
        command = shlex.split(wanted)
        if not shutil.which(command[0]):
            raise BuildError(f"CXX={wanted}: no such program", "set CXX to a C++17 compiler, or unset it")
        return command
    for name in ("g++", "clang++"):
        found = shutil.which(name)
        if found:
            return [found]
    raise BuildError("no C++ compiler: neither CXX is set nor are g++ or clang++ on PATH", "apt-get install g++")


def sources() -> list[Path]:
    """The translation units of the CPU library."""
    return sorted((FOLDER / "csrc").glob("*_cpu.cpp"))


def cache_key(compiler: list[str]) -> str:
    """Changes with whatever changes the machine code: sources, flags, compiler, and the processor behind `native`."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
    digest = hashlib.sha256()
    for part in ("1", *compiler, version.stdout, *FLAGS, platform.machine(), _processor()):
        digest.update(part.encode() + b"\0")
    for path in [*sources(), *sorted((FOLDER / "include").glob("*.h"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def _processor() -> str:
    """Model and instruction sets, where the system tells them: a home folder may be shared by unequal machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def build() -> Path:
    """Path of the shared library, compiled first if the cache lacks it. Raises BuildError with a complete report.

    Safe with several processes at once: one compiles under a lock, the others wait, and none sees half a file.
    """
    compiler = find_compiler()
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{folder}: {error}", "set LPM_CACHE to a writable folder") from error
    library = folder / f"lpm_cpu_{cache_key(compiler)}.so"
    if library.exists():
        return library
    try:
        with open(folder / "build.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also if this process is killed
            if not library.exists():
                _compile(compiler, library)
    except OSError as error:
        raise BuildError(f"{folder}: {error}", "set LPM_CACHE to a writable folder") from error
    return library


def _compile(compiler: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        work = Path(name)
        objects = [work / f"{path.stem}.o" for path in sources()]
        command = [*compiler, *FLAGS, "-I", str(FOLDER / "include"), "-c"]
        jobs = [[*command, str(s), "-o", str(o)] for s, o in zip(sources(), objects, strict=True)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_run, jobs))
        linked = work / library.name
        _run([*compiler, *FLAGS, "-shared", *map(str, objects), "-o", str(linked)])
        os.replace(linked, library)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise BuildError(
            f"compiler ended with code {result.returncode}\n$ {shlex.join(command)}\n{result.stdout}",
            "try another C++17 compiler with OpenMP through CXX",
        )
