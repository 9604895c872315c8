"""Loads the CPU kernels at first use and calls them through ctypes.

LPM_NATIVE=off does without native kernels (the torch twins serve); LPM_NATIVE=cpu insists on those for the CPU (an
error where they cannot be built) and takes no others, LPM_NATIVE=cuda insists on those for CUDA (lpm.cuda.device);
unset or `auto` takes all that can be had and says once where they cannot.

A process that ran OpenMP code must not fork and run it again: the child waits forever for threads it does not have.
Start workers with `spawn` or `forkserver` (`multiprocessing.get_context("spawn")`, DataLoader's
`multiprocessing_context="spawn"`), or keep rasterizing out of them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.cuda.build import BuildError, build
from lpm.files import cache_folder

_INT, _LONG, _REAL, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
_CODES = {"i": _INT, "l": _LONG, "d": _REAL, "p": _POINTER}
# Argument types by function, one letter each (i int, l int64, d double, p pointer); all exist as _f32 and _f64.
_SIGNATURES = {
    "project_forward": ("i li pppp pp ii dddd ii pl pll ppp ppp", _LONG),
    "project_backward": ("i li pppp pp ii d ii pl pll pp ppppp ii pppp ppp", None),
    "bin_count": ("i li pppp pli ii ppp", _LONG),
    "bin_fill": ("i li pp pp ii ppp", None),
    "raster_forward": ("i li ii p pli pi ppp p ppp", None),
    "raster_backward": ("i li ii p pli pi ppp pp ppp pp p pppppp", None),
    "raster_colors_backward": ("i li ii p pli ppp pp p p i pp", None),
    "l1_ssim": ("i lli pp d pp p", None),
    "tile_errors": ("i llii pp p d p", None),
    "zncc": ("i l pp i l i p ll ppp pp p", None),
    "zone_votes": ("i li pp p ppp pp p", None),
    "not_finite": ("i lp", _LONG),
}
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def argument_types(letters: str) -> list[type]:
    """ctypes of a signature: i int, l int64, d double, p pointer."""
    return [_CODES[letter] for letter in letters.replace(" ", "")]


class NativeLibrary:
    """The loaded library. `call` passes tensors as pointers, and torch's number of threads on every call.

    The count of threads is an argument since OpenMP's own setting belongs to the calling thread: autograd runs the
    backward pass in a thread of its own.
    """

    def __init__(self, path: str):
        self.path = path
        self._library = ctypes.CDLL(path)
        self._functions: dict[tuple[str, torch.dtype], Callable[..., int]] = {}

    def _function(self, name: str, dtype: torch.dtype) -> Callable[..., int]:
        function = self._functions.get((name, dtype))
        if function is None:
            letters, result = _SIGNATURES[name]
            function = getattr(self._library, f"lpm_{name}_{_SUFFIX[dtype]}")
            function.argtypes = argument_types(letters)
            function.restype = result
            self._functions[name, dtype] = function
        return function

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | float | None) -> int:
        """Calls lpm_<name>_<dtype>(threads, *arguments). Tensors must be contiguous, on the CPU, and kept alive."""
        values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        return self._function(name, dtype)(torch.get_num_threads(), *values)

    def slot_size(self, channels: int, absgrad: bool, dtype: torch.dtype) -> int:
        """Values in a gradient slot of the raster kernel's backward pass."""
        values: int = self._library.lpm_raster_slot_size(channels, int(absgrad), int(dtype == torch.float64))
        return values

    def colors_slot_size(self, channels: int, dtype: torch.dtype) -> int:
        """The same of its backward pass for colours alone."""
        values: int = self._library.lpm_raster_colors_slot_size(channels, int(dtype == torch.float64))
        return values


def native() -> NativeLibrary | None:
    """The CPU kernels, or None where the torch twins must serve. Compiles at the first call on a machine.

    Raises LpmError for an unknown LPM_NATIVE, and under LPM_NATIVE=cpu where the kernels cannot be built or loaded.
    """
    wanted = wanted_kernels()
    if wanted == "off":
        return None
    loaded = _load()
    if isinstance(loaded, NativeLibrary):
        return loaded
    if wanted == "cpu":
        fail("LPM_NATIVE", "cpu, and the native kernels cannot be loaded", "a compiler", f"{loaded.remedy}: {loaded}")
    warn_once(loaded)
    return None


def wanted_kernels() -> str:
    """LPM_NATIVE: auto, cpu, cuda or off. Raises LpmError for anything else."""
    wanted = os.environ.get("LPM_NATIVE", "") or "auto"
    if wanted not in ("auto", "cpu", "cuda", "off"):
        fail("LPM_NATIVE", repr(wanted), "auto, cpu, cuda or off")
    return wanted


@functools.cache
def _load() -> NativeLibrary | BuildError:
    try:
        path = str(build())
        try:
            return NativeLibrary(path)
        except OSError as error:
            return BuildError(f"{path}: {error}", f"delete {cache_folder()}")
    except BuildError as error:
        return error


@functools.cache
def warn_once(error: BuildError, what: str = "the slow torch twins serve") -> None:
    """Says on one line why there are no kernels; a compiler's whole report goes into a file."""
    first_line = str(error).splitlines()[0]
    if "\n" in str(error):
        report = cache_folder() / "build-error.txt"
        report.write_text(str(error))
        first_line += f" (complete report: {report})"
    print(f"lpm: {what}, since {first_line}; remedy: {error.remedy}", file=sys.stderr)
