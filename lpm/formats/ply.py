"""Gaussians in the PLY layout that every viewer reads (INRIA's, Kerbl 2023).

One vertex a Gaussian, binary little-endian float32, in this order: x y z (world), nx ny nz (0), f_dc_0..2,
f_rest_0..3K-4 (SH, all of red, then green, then blue), opacity (logit), scale_0..2 (log of world), rot_0..3 (wxyz).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from plyfile import PlyData
from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.files import Progress, atomic_file, quiet
from lpm.formats.bounds import check_some
from lpm.formats.ply_header import Header, read_header
from lpm.gaussians.parameters import NAMES

CHUNK = 1 << 14  # rows at a time: 4 MB, which stays in the cache while columns are picked from it
REST = (0, 3, 8, 15)  # coefficients per channel beyond the first, by SH degree


def property_names(rest: int) -> list[str]:
    """Names of the columns for `rest` SH coefficients per channel beyond the first (0, 3, 8 or 15)."""
    return [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * rest)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]


def to_rows(params: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """Parameters (see lpm.gaussians) -> rows [N, columns] float32 in the order of property_names()."""
    get = {name: params[name].detach().float().cpu().numpy() for name in NAMES}
    n, rest = len(get["means"]), get["features_rest"].shape[1]
    rows = np.zeros((n, 17 + 3 * rest), np.float32)
    rows[:, 0:3] = get["means"]
    rows[:, 6:9] = get["features_dc"]
    rows[:, 9 : 9 + 3 * rest] = get["features_rest"].transpose(0, 2, 1).reshape(n, -1)
    rows[:, 9 + 3 * rest] = get["opacities"].reshape(n)
    rows[:, 10 + 3 * rest : 13 + 3 * rest] = get["scales"]
    rows[:, 13 + 3 * rest :] = get["quats"]
    return rows


def from_rows(rows: NDArray[np.float32], rest: int) -> dict[str, NDArray[np.float32]]:
    """Undoes to_rows(); the arrays are views of `rows` [N, columns]."""
    n, tail = len(rows), 9 + 3 * rest
    return {
        "means": rows[:, 0:3],
        "scales": rows[:, tail + 1 : tail + 4],
        "quats": rows[:, tail + 4 : tail + 8],
        "features_dc": rows[:, 6:9],
        "features_rest": rows[:, 9:tail].reshape(n, 3, rest).transpose(0, 2, 1),
        "opacities": rows[:, tail : tail + 1],
    }


def finite_rows(params: Mapping[str, Tensor]) -> Tensor:
    """[N] bool: every parameter of the Gaussian is a finite number."""
    n = len(params["means"])
    return torch.stack([torch.isfinite(params[name].detach()).reshape(n, -1).all(1) for name in NAMES]).all(0)


def pad_sh(params: Mapping[str, Tensor], degree: int) -> dict[str, Tensor]:
    """`params` with zero coefficients added up to `degree`; importers for Unity want degree 3 (248 bytes a row).

    Raises:
        LpmError: the degree is not 0 to 3, or the model has a higher one already.
    """
    if degree not in range(4):
        fail("--pad-sh", str(degree), "0, 1, 2 or 3")
    old = params["features_rest"]
    rest = REST[degree]
    if old.shape[1] > rest:
        fail("--pad-sh", f"{degree}, and the model has {old.shape[1]} coefficients beyond the first", "3 to keep them")
    zeros = old.new_zeros(len(old), rest - old.shape[1], 3)
    return {**params, "features_rest": torch.cat([old.detach(), zeros], 1)}


def write_ply(
    path: Path,
    params: Mapping[str, Tensor],
    extra: Mapping[str, NDArray[np.float32]] | None = None,
    progress: Progress = quiet,
) -> int:
    """Writes `params` to `path`, atomically. Rows with a NaN or infinity are left out, and only they.

    Args:
        extra: further float columns [N], written behind the others; readers that do not know them pass them over.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no finite row is left, or the folder cannot be written.
    """
    finite = finite_rows(params).cpu()
    n, kept = len(finite), int(finite.sum())
    if kept == 0:
        fail(path, f"{n} points, none of them finite", "at least one finite point to write")
    columns = [np.asarray(values, np.float32) for values in (extra or {}).values()]
    names = [*property_names(params["features_rest"].shape[1]), *(extra or {})]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {kept}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    with atomic_file(path) as file:
        file.write("\n".join(header).encode("ascii"))
        for start in progress(range(0, n, CHUNK), "writing"):
            part = slice(start, start + CHUNK)
            rows = to_rows({name: params[name][part] for name in NAMES})
            if columns:
                rows = np.column_stack([rows, *(column[part] for column in columns)])
            if kept < n:
                rows = rows[finite[part].numpy()]
            file.write(rows.astype("<f4", copy=False).data)
    return n - kept


def read_ply(path: Path, progress: Progress = quiet) -> dict[str, Tensor]:
    """Reads Gaussians from a PLY: INRIA's columns in any order, any SH degree up to 3, extra columns passed over.

    Text and both byte orders are read. Values are taken as they are, finite or not.

    Returns:
        Parameters as in lpm.gaussians, float32.

    Raises:
        LpmError: no such file, not a PLY, a column is missing, no rows, or fewer bytes than the header says.
    """
    header = read_header(path)
    element = header.element("vertex")
    if element is None:
        fail(path, "not a readable PLY (no vertices)", "a PLY with Gaussians")
    have = {name for name, _ in element.columns}
    rest, remainder = divmod(sum(name.startswith("f_rest_") for name in have), 3)
    if rest not in REST or remainder:
        fail(path, f"{3 * rest + remainder} f_rest columns", "0, 9, 24 or 45 of them (SH degree 0 to 3)")
    names = property_names(rest)
    missing = [name for name in names if name not in have and name not in ("nx", "ny", "nz")]
    if "packed_position" in have:
        fail(path, "a compressed PLY", "an uncompressed one", "read it with lpm.formats.read, or decompress it first")
    if missing:
        fail(path, f"no column {missing[0]}", "a Gaussian Splatting PLY", "is it a point cloud?")
    check_some(path, element.count)
    rows = header.map(element)
    return _gather(_through_plyfile(header) if rows is None else rows, names, rest, progress)


def _gather(rows: NDArray[np.void], names: list[str], rest: int, progress: Progress) -> dict[str, Tensor]:
    """Picks the columns `names` from structured `rows` [N], a chunk at a time."""
    n = len(rows)
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "features_rest": (rest, 3)}
    out = {name: np.empty((n, *shapes.get(name, (1,))), np.float32) for name in NAMES}
    assert rows.dtype.names is not None
    plain = rows.dtype == np.dtype([(name, "<f4") for name in rows.dtype.names])
    places = {name: i for i, name in enumerate(rows.dtype.names)}
    order = [places.get(name) for name in names]  # None: normals, which nobody needs
    straight = order == list(range(len(names)))
    for start in progress(range(0, n, CHUNK), "reading"):
        chunk = rows[start : start + CHUNK]
        matrix = np.asarray(chunk).view("<f4").reshape(len(chunk), -1) if plain else None
        if matrix is not None and straight:
            picked = matrix[:, : len(names)]
        else:
            picked = np.zeros((len(chunk), len(names)), np.float32)
            for i, (name, place) in enumerate(zip(names, order, strict=True)):
                if place is not None:
                    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity, like the rest of it
                        picked[:, i] = chunk[name] if matrix is None else matrix[:, place]
        for name, values in from_rows(picked, rest).items():
            out[name][start : start + CHUNK] = values
    return {name: torch.from_numpy(values) for name, values in out.items()}


def _through_plyfile(header: Header) -> NDArray[np.void]:
    """Structured rows of the vertices of a text file, or of one with lists (faces) before its vertices."""
    try:
        with np.errstate(all="ignore"):
            rows: NDArray[np.void] = PlyData.read(str(header.path))["vertex"].data
            return rows
    except Exception as error:  # whatever broken rows make of plyfile's parser
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise LpmError(f"{header.path}: not a readable PLY ({reason}); wanted a PLY with Gaussians") from error
