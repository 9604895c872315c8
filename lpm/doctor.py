"""The command lpm-doctor: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lpm
from lpm.checks import one_line_errors

State = Literal["ok", "optional", "broken"]
MARKS = {"ok": "[green]ok[/green]", "optional": "[yellow]not there[/yellow]", "broken": "[red]broken[/red]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    """ok; optional: something works without it, or slower; broken: training does not start."""
    found: str
    remedy: str = ""


def version_of(package: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    version, fits = platform.python_version(), sys.version_info >= (3, 10)
    found = f"{version}, {platform.system()} {platform.machine()}"
    return Finding("Python", "ok" if fits else "broken", found, "" if fits else "Python 3.10 or later")


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        gpus = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Finding("torch", "ok", f"{torch.__version__}, {gpus}")
    remedy = ""
    if shutil.which("nvidia-smi"):  # somebody has a GPU and does not use it
        remedy = "an NVIDIA driver is here: install the torch build for it (pytorch.org), or update the driver"
    return Finding("torch", "ok", f"{torch.__version__}, no GPU: trains on {os.cpu_count()} CPU cores", remedy)


def _torchvision() -> Finding:
    """In a process of its own: an import that fails halfway leaves its traces."""
    if version_of("torchvision") is None:
        return Finding("torchvision", "optional", "not installed (LPIPS of held-out photos)", "see pytorch.org")
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    version = version_of("torchvision")
    if done.returncode == 0:
        return Finding("torchvision", "ok", str(version))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    remedy = "lpm-doctor --fix" if "nms" in last else "install the build that fits your torch (pytorch.org)"
    return Finding("torchvision", "broken", f"{version} does not import: {last}", remedy)


def _package(name: str, module: str, why: str, needed: bool, remedy: str) -> Finding:
    version = version_of(name) or version_of(name.removesuffix("-headless"))
    if version is None:
        return Finding(name, "broken" if needed else "optional", f"not installed ({why})", remedy)
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises
        return Finding(name, "broken", f"{version} does not import: {type(error).__name__}: {error}", remedy)
    return Finding(name, "ok", version)


def _methods() -> Finding:
    points = {point.name for point in importlib.metadata.entry_points(group="nerfstudio.method_configs")}
    missing = {"lpm-splat", "lpm-splat-4d"} - points
    if missing:
        return Finding("ns-train methods", "broken", f"{', '.join(sorted(missing))} not registered",
                       "pip install --force-reinstall --no-deps lpm-splat")  # fmt: skip
    return Finding("ns-train methods", "ok", "lpm-splat, lpm-splat-4d")


def _cpu_kernels() -> Finding:
    from lpm.cuda.build import BuildError, build

    try:
        return Finding("CPU kernels", "ok", str(build()))
    except BuildError as error:
        first = str(error).splitlines()[0]
        return Finding("CPU kernels", "optional", f"{first}: a CPU trains fifty times slower", error.remedy)


def _cuda_kernels() -> Finding:
    import torch

    from lpm.cuda.build import BuildError, build_cuda

    if not torch.cuda.is_available():
        return Finding("CUDA kernels", "optional", "no GPU that torch can use")
    try:
        return Finding("CUDA kernels", "ok", str(build_cuda(torch.cuda.get_device_capability())))
    except BuildError as error:
        return Finding("CUDA kernels", "optional", f"{str(error).splitlines()[0]}: torch twins serve", error.remedy)


def _program(name: str, why: str, remedy: str) -> Finding:
    found = shutil.which(name)
    return Finding(name, "ok" if found else "optional", found or f"not on PATH ({why})", "" if found else remedy)


def _libusb() -> Finding:
    if ctypes.util.find_library("usb-1.0"):
        return Finding("libusb", "ok", "for ns-export")
    return Finding("libusb", "optional", "not there: ns-export does not start; lpm-export needs nothing",
                   "apt-get install libusb-1.0-0")  # fmt: skip


def _cache() -> Finding:
    from lpm.files import cache_folder

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".written-by-doctor").write_text("")
        (folder / ".written-by-doctor").unlink()
    except OSError as error:
        return Finding("cache", "broken", f"{folder}: {error.strerror}", "set LPM_CACHE to a writable folder")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Finding("cache", "ok", f"{folder}, {size / 2**20:.0f} MiB; free on its disk: "
                   f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB")  # fmt: skip


NERFSTUDIO = "pip install 'lpm-splat[nerfstudio]', with Python 3.10 to 3.12"
METRICS = "pip install 'lpm-splat[metrics]'"
CHECKS: list[Callable[[], Finding]] = [
    _python,
    _torch,
    _torchvision,
    lambda: _package("nerfstudio", "nerfstudio", "ns-train; lpm-train needs none", False, NERFSTUDIO),
    lambda: _package("gsplat", "gsplat", "the CUDA rasterizer", False, "pip install 'lpm-splat[gpu]'"),
    _methods,
    lambda: _package("viser", "viser", "the viewer", True, "pip install 'viser>=0.2.7'"),
    lambda: _package("plyfile", "plyfile", "PLY files", True, "pip install plyfile"),
    lambda: _package("opencv-python-headless", "cv2", "photos and flow", True, "pip install opencv-python-headless"),
    lambda: _package("pycolmap", "pycolmap", "lpm-prepare", False, "pip install 'lpm-splat[prepare]'"),
    lambda: _package("matplotlib", "matplotlib", "plots of lpm-bench", False, "pip install 'lpm-splat[bench]'"),
    lambda: _package("flip-evaluator", "flip_evaluator", "FLIP of held-out photos", False, METRICS),
    lambda: _package("cvvdp", "pycvvdp", "ColorVideoVDP of clips", False, METRICS),
    _cpu_kernels,
    _cuda_kernels,
    lambda: _program("ffmpeg", "ns-render, and films of lpm-view", "apt-get install ffmpeg"),
    lambda: _program("npx", "SPZ, SOG, HTML and compressed PLY", "install Node 18 or later, nodejs.org"),
    _libusb,
    _cache,
]  # fmt: skip


def findings() -> Iterator[Finding]:
    """All lines of the report, as they are found. The kernels are compiled if they are not yet."""
    for check in CHECKS:
        yield check()


def install_hook(site: Path | None = None) -> Path:
    """Copies lpm.torchvision_hook into the environment (`site`: its site-packages), where every start imports it."""
    site = site or Path(sysconfig.get_paths()["purelib"])
    target = site / "lpm_torchvision_hook.py"
    shutil.copy(Path(__file__).with_name("torchvision_hook.py"), target)
    target.with_suffix(".pth").write_text("import lpm_torchvision_hook\n")
    return target


def doctor(fix: bool = False) -> None:
    """Tells what is installed, what is missing, and what to do. Ends with 1 where training would not start.

    Args:
        fix: first mend what can be mended from here: let torchvision's CUDA build import beside a CPU build of torch.
    """
    console = Console()
    if fix:
        console.print(f"written: {install_hook()}", soft_wrap=True)
    table = Table("", "", title=f"lpm-splat {lpm.__version__}", title_justify="left", box=None)
    for column in ("found", "what to do"):
        table.add_column(column, overflow="fold")
    bad, missing = 0, set()
    with console.status("looking"):
        for finding in findings():
            bad += finding.state == "broken"
            if finding.state != "ok":
                missing.add(finding.name)
            table.add_row(finding.name, MARKS[finding.state], escape(finding.found), escape(finding.remedy))
    console.print(table)
    commands = "lpm-train" if "nerfstudio" in missing else "lpm-train and ns-train lpm-splat"
    console.print(f"{bad} of these must be mended first." if bad else f"{commands} will start.")
    sys.exit(1 if bad else 0)


def main() -> None:
    """The command lpm-doctor."""
    one_line_errors(lambda: tyro.cli(doctor, prog="lpm-doctor"))
