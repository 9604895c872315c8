"""Loads the CUDA kernels (csrc/device.cu) at first use and calls them through ctypes, on the current stream.

The CPU library has the same kernels as loops on the host: on_host() gives them to the tests, which so check, where
there is no GPU, the very source that runs on one.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.cuda.build import BuildError, build_cuda
from lpm.cuda.native import argument_types, native, wanted_kernels, warn_once
from lpm.files import cache_folder

_SIGNATURES = {
    "loss": "p lli pp d ii pp dd p pp p",
    "zone_votes": "p li pp p ppp pp p",
    "seen_by_few": "p lii d pp p p",
    "nearest_centre": "p li pp p",
    "follow_rows": "p ll pp pp",
    "zncc": "p l pp i l i p ll ppp pp p",
}
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class DeviceLibrary:
    """The loaded library; `call` passes tensors as pointers."""

    def __init__(self, path: str, host: bool = False):
        """`host`: the kernels of `path` are loops on the CPU."""
        self.path, self.host = path, host
        self._library = ctypes.CDLL(path)
        self._library.lpm_device_error.restype = ctypes.c_char_p
        self._library.lpm_device_loss_scratch.restype = ctypes.c_int64
        self._library.lpm_device_loss_scratch.argtypes = argument_types("lli i")
        for name, letters in _SIGNATURES.items():
            for suffix in _SUFFIX.values():
                getattr(self._library, f"lpm_device_{name}_{suffix}").argtypes = argument_types(letters)

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | float | None) -> None:
        """Calls lpm_device_<name>_<dtype>(stream, *arguments). Tensors must be contiguous, and all on one device.

        Raises:
            LpmError: the kernel could not be started.
        """
        values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        function = getattr(self._library, f"lpm_device_{name}_{_SUFFIX[dtype]}")
        if self.host:
            function(torch.get_num_threads(), *values)
            return
        with torch.cuda.device(next(a.device for a in arguments if isinstance(a, Tensor))):
            status = function(torch.cuda.current_stream().cuda_stream, *values)
        if status:
            said = self._library.lpm_device_error(status).decode()
            fail(f"CUDA kernel {name}", said, "a start", f"LPM_NATIVE=cpu does without; or delete {cache_folder()}")

    def loss_scratch(self, height: int, width: int, channels: int, like: Tensor) -> Tensor:
        """Memory that the kernel `loss` works in."""
        size = self._library.lpm_device_loss_scratch(height, width, channels, int(like.dtype == torch.float64))
        return torch.empty(size, dtype=torch.uint8, device=like.device)


def device_kernels(device: torch.device) -> DeviceLibrary | None:
    """The CUDA kernels for tensors on `device`, or None where the torch twins must serve.

    Compiles at the first call on a machine. Raises LpmError under LPM_NATIVE=cuda where they cannot be had.
    """
    wanted = wanted_kernels()
    if device.type != "cuda" or wanted in ("off", "cpu"):
        return None
    loaded = _load(torch.cuda.get_device_capability(device))
    if isinstance(loaded, DeviceLibrary):
        return loaded
    if wanted == "cuda":
        fail("LPM_NATIVE", "cuda, and the CUDA kernels cannot be loaded", "nvcc", f"{loaded.remedy}: {loaded}")
    warn_once(loaded, "torch serves in place of the CUDA kernels")
    return None


def on_host() -> DeviceLibrary | None:
    """The same kernels as loops on the CPU, for tests; None without a compiler."""
    kernels = native()
    return None if kernels is None else DeviceLibrary(kernels.path, host=True)


@functools.cache
def _load(capability: tuple[int, int]) -> DeviceLibrary | BuildError:
    try:
        path = str(build_cuda(capability))
        try:
            return DeviceLibrary(path)
        except OSError as error:
            return BuildError(f"{path}: {error}", f"delete {cache_folder()}")
    except BuildError as error:
        return error
