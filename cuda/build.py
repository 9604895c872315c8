"""Compiles the kernels into shared libraries, for the CPU and for CUDA, once per machine and version of the sources.

They have a plain C ABI and no torch headers: they build in seconds and do not break when torch is upgraded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lpm.files import cache_folder

FOLDER = Path(__file__).resolve().parent
# No -ffast-math: it would set flush-to-zero for the whole process when the library is loaded.
CUDA_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC"]
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-std=c++17", "-fPIC"]


class BuildError(RuntimeError):
    """The library could not be made. `remedy` is a half-sentence that a person can act on; the text tells all."""

    def __init__(self, text: str, remedy: str):
        super().__init__(text)
        self.remedy = remedy


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


def find_nvcc() -> list[str]:
    """The command of nvcc: $CUDACXX, $CUDA_HOME/bin/nvcc, PATH, /usr/local/cuda. Raises BuildError if there is none."""
    wanted = os.environ.get("CUDACXX")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [wanted] if wanted else [*([f"{home}/bin/nvcc"] if home else []), "nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, places)), None)
    if found is None:
        raise BuildError(f"no nvcc: none of {', '.join(places)}", "install a CUDA toolkit, or set CUDA_HOME to one")
    return [found]


# What a wheel brings, best first: the level of x86-64 that it is compiled for, and what a processor of that level has.
LEVELS = {
    "v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "v3": ("avx2", "fma", "bmi1", "bmi2", "f16c"),
    "v2": ("sse4_2", "ssse3", "popcnt"),
}
PREBUILT = FOLDER / "prebuilt"


def prebuilt() -> Path | None:
    """The library that came with the wheel and suits this processor; None where there is none, as in a checkout."""
    flags = set(_flags())
    for level, wanted in LEVELS.items():
        library = PREBUILT / f"lpm_cpu_{level}.so"
        if library.is_file() and flags.issuperset(wanted):
            return library
    return None


def _flags() -> list[str]:
    """The instruction sets of this processor, as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])


def build_levels(folder: Path) -> list[Path]:
    """Compiles a library for every level into `folder`, for any Linux with glibc 2.17 or later.

    libstdc++ and libgomp are those that torch has loaded: a process must have one of each.
    """
    compiler, made = find_compiler(), []
    folder.mkdir(parents=True, exist_ok=True)
    for level in LEVELS:
        flags = [*(f for f in FLAGS if f != "-march=native"), f"-march=x86-64-{level}", "-mtune=generic",
                 "-include", str(FOLDER / "include" / "old_glibc.h")]  # fmt: skip
        library = folder / f"lpm_cpu_{level}.so"
        _compile(compiler, library, flags)
        made.append(library)
    return made


def toolkit() -> Path | None:
    """The CUDA toolkit's folder by nvcc's own word, true also where PATH finds a wrapper; None where there is none.

    torch takes the folder above whatever nvcc is on PATH, and extensions (gsplat) then miss headers and libraries.
    """
    try:
        command = [*find_nvcc(), "--dryrun", "-E", "-x", "cu", os.devnull]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (BuildError, OSError, subprocess.TimeoutExpired):
        return None
    tops = [line.partition("TOP=")[2].strip() for line in told.stderr.splitlines() if "TOP=" in line]
    return Path(tops[0]).resolve() if tops and tops[0] else None


def show_toolkit() -> None:
    """Tells torch and gsplat where the toolkit is (CUDA_HOME, PATH), unless what they would find has headers."""
    home, found = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"), shutil.which("nvcc")
    place = Path(home) if home else Path(found).parent.parent if found else None
    if place is None or (place / "include" / "cuda_runtime.h").is_file():
        return
    real = toolkit()
    if real is not None and real != place:
        os.environ["CUDA_HOME"], os.environ["PATH"] = str(real), f"{real / 'bin'}{os.pathsep}{os.environ['PATH']}"
        extension = sys.modules.get("torch.utils.cpp_extension")
        if extension is not None:
            extension.CUDA_HOME = str(real)  # type: ignore[attr-defined]  # it has looked already


def sources() -> list[Path]:
    """The translation units of the CPU library."""
    return sorted((FOLDER / "csrc").glob("*_cpu.cpp"))


def cache_key(compiler: list[str], flags: list[str]) -> str:
    """Changes with whatever changes the machine code: sources, flags, compiler, and the processor behind `native`."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
    digest = hashlib.sha256()
    for part in ("2", *compiler, version.stdout, *flags, platform.machine(), _processor()):
        digest.update(part.encode() + b"\0")
    for path in sorted(path for folder in ("csrc", "include") for path in (FOLDER / folder).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def cuda_flags(nvcc: list[str], capability: tuple[int, int] | None) -> list[str]:
    """PTX for the oldest GPUs that this nvcc knows (7.0 or later), and code for `capability` if it knows that."""
    told = subprocess.run([*nvcc, "--list-gpu-arch"], capture_output=True, text=True)
    known = sorted(int(word.split("_")[1]) for word in told.stdout.split() if word.startswith("compute_"))
    if told.returncode or not known:
        raise BuildError(f"{nvcc[0]} --list-gpu-arch:\n{told.stdout}{told.stderr}", "install CUDA 11.5 or later")
    oldest = min(arch for arch in known if arch >= 70)
    flags = [*CUDA_FLAGS, "-gencode", f"arch=compute_{oldest},code=compute_{oldest}"]
    own = 10 * capability[0] + capability[1] if capability else None
    return flags + (["-gencode", f"arch=compute_{own},code=sm_{own}"] if own in known else [])


def _processor() -> str:
    """Model and instruction sets, where the system tells them: a home folder may be shared by unequal machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def build() -> Path:
    """Path of the CPU library: the wheel's, or compiled first if the cache lacks it.

    Raises BuildError with a complete report.
    """
    found = prebuilt()
    if found is not None:
        return found
    compiler = find_compiler()
    return _cached(f"lpm_cpu_{cache_key(compiler, FLAGS)}.so", lambda library: _compile(compiler, library, FLAGS))


def build_cuda(capability: tuple[int, int] | None = None) -> Path:
    """The same of the CUDA library; `capability` of the GPU that it will run on, e.g. (9, 0)."""
    nvcc = find_nvcc()
    flags = cuda_flags(nvcc, capability)

    def compile_to(library: Path) -> None:
        with tempfile.TemporaryDirectory(dir=library.parent) as name:
            made = Path(name) / library.name
            _run([*nvcc, *flags, "--shared", str(FOLDER / "csrc" / "device.cu"), "-o", str(made)])
            os.replace(made, library)

    return _cached(f"lpm_cuda_{cache_key(nvcc, flags)}.so", compile_to)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """Safe with several processes at once: one compiles under a lock, the others wait, and none sees half a file."""
    folder = cache_folder()
    library = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if library.exists():
            return library
        with open(folder / "build.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also if this process is killed
            if not library.exists():
                make(library)
    except OSError as error:
        raise BuildError(f"{folder}: {error}", "set LPM_CACHE to a writable folder") from error
    return library


def _compile(compiler: list[str], library: Path, flags: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        work = Path(name)
        objects = [work / f"{path.stem}.o" for path in sources()]
        command = [*compiler, *flags, "-I", str(FOLDER / "include"), "-c"]
        jobs = [[*command, str(s), "-o", str(o)] for s, o in zip(sources(), objects, strict=True)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_run, jobs))
        linked = work / library.name
        _run([*compiler, *flags, "-shared", *map(str, objects), "-o", str(linked)])
        os.replace(linked, library)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise BuildError(
            f"compiler ended with code {result.returncode}\n$ {shlex.join(command)}\n{result.stdout}",
            "try another C++17 compiler: CXX names it (with OpenMP), CUDACXX names nvcc",
        )
