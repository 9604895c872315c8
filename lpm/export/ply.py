"""Gaussians in the PLY layout that every viewer reads (INRIA's, Kerbl 2023).

One vertex a Gaussian, binary little-endian float32, in this order: x y z (world), nx ny nz (0), f_dc_0..2,
f_rest_0..3K-4 (SH, all of red, then green, then blue), opacity (logit), scale_0..2 (log of world), rot_0..3 (wxyz).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from lpm.checks import LpmError, fail


def property_names(rest: int) -> list[str]:
    """Names of the columns for `rest` SH coefficients per channel beyond the first (0, 3, 8 or 15)."""
    return [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * rest)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]


def to_rows(params: dict[str, Tensor]) -> np.ndarray:
    """Parameters (see lpm.gaussians) -> rows [N, columns] float32 in the order of property_names()."""
    get = {name: value.detach().float().cpu().numpy() for name, value in params.items()}
    n, rest = len(get["means"]), get["features_rest"].shape[1]
    rows = np.zeros((n, 17 + 3 * rest), np.float32)
    rows[:, 0:3] = get["means"]
    rows[:, 6:9] = get["features_dc"]
    rows[:, 9 : 9 + 3 * rest] = get["features_rest"].transpose(0, 2, 1).reshape(n, -1)
    rows[:, 9 + 3 * rest] = get["opacities"].reshape(n)
    rows[:, 10 + 3 * rest : 13 + 3 * rest] = get["scales"]
    rows[:, 13 + 3 * rest :] = get["quats"]
    return rows


def write_ply(path: Path, params: dict[str, Tensor]) -> int:
    """Writes `params` to `path`, atomically. Rows with a NaN or infinity are left out, and only they.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no finite row is left, or the folder cannot be written.
    """
    rows = to_rows(params)
    finite = np.isfinite(rows).all(1)
    dropped = int(len(rows) - finite.sum())
    if dropped == len(rows):
        fail(path, f"{len(rows)} points, none of them finite", "at least one finite point to write")
    if dropped:
        rows = rows[finite]
    names = property_names(params["features_rest"].shape[1])
    vertices = rows.view(np.dtype([(name, "<f4") for name in names])).reshape(-1)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(unfinished))
        os.replace(unfinished, path)
    except OSError as error:
        raise LpmError(f"{path}: cannot be written ({error.strerror}); wanted a folder with room") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return dropped


def read_ply(path: Path) -> dict[str, Tensor]:
    """Reads Gaussians from a PLY: INRIA's columns in any order, any SH degree up to 3, extra columns passed over.

    Returns:
        Parameters as in lpm.gaussians, float32.

    Raises:
        LpmError: no such file, not a PLY, or a column is missing.
    """
    if not path.is_file():
        fail(path, "no such file", "a PLY with Gaussians")
    try:
        vertex = PlyData.read(str(path))["vertex"]
        have = {p.name for p in vertex.properties}
        rest = sum(name.startswith("f_rest_") for name in have) // 3
        if rest not in (0, 3, 8, 15):
            fail(path, f"{3 * rest} f_rest columns", "0, 9, 24 or 45 of them (SH degree 0 to 3)")
        missing = [name for name in property_names(rest) if name not in have and name not in ("nx", "ny", "nz")]
        if missing:
            fail(path, f"no column {missing[0]}", "a Gaussian Splatting PLY", "is it a point cloud?")
        columns = {name: np.asarray(vertex[name], np.float32) for name in property_names(rest) if name in have}
    except (PlyParseError, KeyError, UnicodeDecodeError) as error:
        raise LpmError(f"{path}: not a readable PLY ({str(error)[:120]}); wanted a PLY with Gaussians") from error
    n = len(vertex)

    def stack(*names: str) -> Tensor:
        out = np.empty((n, len(names)), np.float32)
        for i, name in enumerate(names):
            out[:, i] = columns[name]
        return torch.from_numpy(out)

    f_rest = stack(*(f"f_rest_{i}" for i in range(3 * rest)))
    return {
        "means": stack("x", "y", "z"),
        "scales": stack("scale_0", "scale_1", "scale_2"),
        "quats": stack("rot_0", "rot_1", "rot_2", "rot_3"),
        "features_dc": stack("f_dc_0", "f_dc_1", "f_dc_2"),
        "features_rest": f_rest.reshape(n, 3, rest).transpose(1, 2).contiguous(),
        "opacities": stack("opacity"),
    }
