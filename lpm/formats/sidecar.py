"""The JSON beside an export: where its frame comes from and how to draw it. `scene.ply` has `scene.ply.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lpm
from lpm.checks import LpmError
from lpm.files import atomic_file
from lpm.gaussians.similarity import from_dataparser

VERSION = 1
LARGEST = 1 << 20  # bytes


@dataclass
class Sidecar:
    """What an export says about itself."""

    count: int
    """Number of Gaussians (of the first time step)."""
    frame: str
    """"train" (as nerfstudio turned, centred and scaled the scene), "world" (as the photos' poses are), "unknown"."""
    dataparser_transform: list[list[float]] | None
    """[3][4] and the next field: train = scale * (transform @ world)."""
    dataparser_scale: float | None
    rasterize_mode: str | None
    """"classic" or "antialiased", as trained."""
    up: list[float] | None
    """The scene's up direction in the export's frame."""
    command: str
    """What wrote the export."""
    file: str
    """Name of the export."""
    sky: int | None = None
    """How many of the Gaussians, the last ones, are a dome that shows the sky."""
    offset: list[float] | None = None
    """[3] to be added to the file's positions for those in `frame`, where float32 cannot hold them."""
    georeference: dict[str, Any] | None = None
    """What is known of metres and the place on earth in the frame "world" (docs/prepare.md)."""


def sidecar_path(export: Path) -> Path:
    """Where the sidecar of `export` is."""
    return export.with_name(export.name + ".json")


def write_sidecar(export: Path, sidecar: Sidecar) -> None:
    """Writes the sidecar of `export`, atomically."""
    values = {"lpm_splat": lpm.__version__, "version": VERSION, **asdict(sidecar)}
    with atomic_file(sidecar_path(export)) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())


def read_sidecar(export: Path) -> Sidecar | None:
    """The sidecar of `export`; None where there is none, or something else has its name."""
    path = sidecar_path(export)
    if not path.is_file() or path.stat().st_size > LARGEST:
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        sidecar = Sidecar(**{name: values.get(name) for name in Sidecar.__dataclass_fields__})  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return sidecar if values.get("version") == VERSION and _plausible(sidecar) else None


def _plausible(sidecar: Sidecar) -> bool:
    matrix, scale = sidecar.dataparser_transform, sidecar.dataparser_scale
    if not isinstance(sidecar.count, int) or not _is_offset(sidecar.offset):
        return False
    if sidecar.sky is not None and not (isinstance(sidecar.sky, int) and 0 <= sidecar.sky < 10**9):
        return False
    if not isinstance(sidecar.georeference, dict | None):
        return False
    if sidecar.rasterize_mode not in ("classic", "antialiased", None):
        return False
    if matrix is None or scale is None:
        return True
    try:
        sidecar.dataparser_scale = float(scale)
        sidecar.dataparser_transform = np.array(matrix, dtype=np.float64).tolist()
        from_dataparser(np.array(sidecar.dataparser_transform), sidecar.dataparser_scale)
    except (TypeError, ValueError, OverflowError, LpmError):
        return False
    return True


def _is_offset(values: Any) -> bool:
    if values is None:
        return True
    numbers = isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)
    return numbers and all(abs(value) < 1e300 for value in values)
