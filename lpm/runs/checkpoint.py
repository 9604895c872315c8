"""Checkpoints that survive a kill at any moment, load under `weights_only=True`, and resume exactly."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lpm.checks import LpmError, fail

# What splatfacto's checkpoints hold beside tensors: learning rates as numpy floats. They carry no code.
_NUMPY_NUMBERS: list[Any] = [np.float64(0).__reduce__()[0], np.dtype, np.dtypes.Float64DType]


def atomic_save(state: dict[str, Any], path: Path, scratch: Path) -> None:
    """Writes `state` to `path`; whatever happens, `path` holds the old file or the whole new one.

    Args:
        scratch: folder on the same file system for the unfinished file. Not the folder of `path`: nerfstudio's tools
            take every name in a checkpoint folder for a checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = scratch / f".{path.name}.unfinished"
    try:
        with unfinished.open("wb") as file:
            _save(plain(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the name can be lost with the power, though the bytes are there
    finally:
        os.close(folder)


def _save(state: Any, file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch closes its archive over an error of the file, and speaks of that
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def plain(value: Any) -> Any:
    """`value` with numpy scalars and arrays made Python numbers and tensors: torch >= 2.6 refuses to load them."""
    if isinstance(value, dict):
        return type(value)({key: plain(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else value


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU, without running any code that might be in it.

    Raises:
        LpmError: the file is missing, cut off, or not a checkpoint of lpm-splat.
    """
    if not path.is_file():
        fail(path, "no such file", "a checkpoint", "look in the run's nerfstudio_models folder")
    try:
        _check_sizes(path)
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file makes of the unpickler
        text = "it holds more than tensors and numbers" if "weights_only" in str(error) else type(error).__name__
        raise LpmError(f"{path}: cannot be read ({text}); wanted a checkpoint of lpm-splat or splatfacto") from error
    if not isinstance(state, dict) or "pipeline" not in state or not isinstance(state.get("step"), int):
        fail(path, "no `pipeline` and `step` in it", "a checkpoint written by lpm-splat")
    for name, value in state["pipeline"].items() if isinstance(state["pipeline"], dict) else ():
        # A view of one number can have any shape, and would be all of it when it is first worked on.
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            fail(path, f"{name} {list(value.shape)} is not in it", "a checkpoint with all its values")
    return state


def _check_sizes(path: Path) -> None:
    """Raises ValueError for an archive that is larger inside: torch packs nothing, so somebody wants to fill memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("larger inside")


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every random number generator that training draws from."""
    name, keys, position, has_gauss, cached = cast(
        "tuple[str, NDArray[np.uint32], int, int, float]", np.random.get_state()
    )
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what random_state() gave. CUDA generators are set where their number is the same."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(state["cuda"])
