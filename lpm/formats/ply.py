"""Gaussians in the PLY layout that every viewer reads (INRIA's, Kerbl 2023).

One vertex a Gaussian, binary little-endian float32, in this order: x y z (world), nx ny nz (0), f_dc_0..2,
f_rest_0..3K-4 (SH, all of red, then green, then blue), opacity (logit), scale_0..2 (log of world), rot_0..3 (wxyz).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from plyfile import PlyData
from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.files import Progress, atomic_file, quiet
from lpm.formats.bounds import check_some
from lpm.formats.ply_columns import REST, Columns, property_names, understand
from lpm.formats.ply_header import Header, read_header
from lpm.formats.rows import bounded, sound_rows
from lpm.gaussians.far import Floats, numbers, offset_of
from lpm.gaussians.parameters import NAMES

CHUNK = 1 << 14  # rows at a time: 4 MB, which stays in the cache while columns are picked from it


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
    comments: Sequence[str] = (),
    far: Floats | None = None,
) -> int:
    """Writes `params` to `path`, atomically. Rows with a NaN or infinity, or without a rotation, are left out.

    Args:
        extra: further float columns [N], written behind the others; readers that do not know them pass them over.
        comments: for the header. They stand behind the columns: some readers take its third line for the count.
        far: [3] added to the positions, which then are written as doubles.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, or the folder cannot be written.
    """
    params = bounded(params)
    sound = sound_rows(params).cpu()
    n, kept = len(sound), int(sound.sum())
    if kept == 0:
        fail(path, f"{n} points, none of them finite and with a rotation", "at least one to write")
    columns = [np.asarray(values, np.float32) for values in (extra or {}).values()]
    names = [*property_names(params["features_rest"].shape[1]), *(extra or {})]
    kinds = ["double" if far is not None and name in "xyz" else "float" for name in names]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {kept}"]
    header += [f"property {kind} {name}" for kind, name in zip(kinds, names, strict=True)]
    header += [*(f"comment {text}" for text in comments), "end_header", ""]
    with atomic_file(path) as file:
        file.write("\n".join(header).encode("ascii"))
        for start in progress(range(0, n, CHUNK), "writing"):
            part = slice(start, start + CHUNK)
            rows = to_rows({name: params[name][part] for name in NAMES})
            if columns:
                rows = np.column_stack([rows, *(column[part] for column in columns)])
            if kept < n:
                rows = rows[sound[part].numpy()]
            if far is None:
                file.write(rows.astype("<f4", copy=False).data)
                continue
            mixed = np.empty(len(rows), [("xyz", "<f8", 3), ("rest", "<f4", rows.shape[1] - 3)])
            mixed["xyz"], mixed["rest"] = rows[:, :3].astype(np.float64) + far, rows[:, 3:]
            file.write(mixed.tobytes())
    return n - kept


def read_ply(path: Path, progress: Progress = quiet) -> dict[str, Tensor]:
    """Reads Gaussians from a PLY: INRIA's columns in any order, and what lpm.formats.ply_columns knows beside them.

    Text and both byte orders are read. Values are taken as they are, finite or not; infinite opacities are bounded.
    Positions count from where the file has them: a comment that shifts them is lpm.formats.read's business.

    Returns:
        Parameters as in lpm.gaussians, float32; of a file that moves also write_splatv's parameters of time.

    Raises:
        LpmError: no such file, not a PLY, a column is missing, no rows, fewer bytes than the header says, or positions
            in double that float32 cannot tell apart.
    """
    params, offset = read_far(read_header(path), progress)
    if offset.any():
        got = f"positions about {numbers(offset)}, beyond float32"
        fail(path, got, "a file to read with lpm.formats.read.load, which keeps them as an offset")
    return params


def read_far(header: Header, progress: Progress = quiet) -> tuple[dict[str, Tensor], Floats]:
    """read_ply(), and what has to be added to the positions where doubles are beyond float32 (lpm.gaussians.far)."""
    path = header.path
    element = header.element("vertex")
    if element is None:
        fail(path, "not a readable PLY (no vertices)", "a PLY with Gaussians")
    columns = understand(header, element)
    check_some(path, element.count)
    mapped = header.map(element)
    rows = _through_plyfile(header) if mapped is None else mapped
    params = _gather(rows, columns, progress)
    offset = np.zeros(3)
    if any(columns.kinds[axis] == "f8" for axis in "xyz"):
        xyz = np.stack([np.asarray(rows[axis], np.float64) for axis in "xyz"], 1)
        offset = offset_of(xyz, params["scales"].double().mean(1).exp().numpy())
        if offset.any():
            with np.errstate(over="ignore"):
                params["means"] = torch.from_numpy((xyz - offset).astype(np.float32))
    return bounded(columns.finish(params, lambda name: rows[name])), offset


def _gather(rows: NDArray[np.void], columns: Columns, progress: Progress) -> dict[str, Tensor]:
    """Picks 3DGS's columns from structured `rows` [N], a chunk at a time; 0 in those that are absent."""
    n, names, rest = len(rows), columns.names, columns.rest
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "features_rest": (rest, 3)}
    out = {name: np.empty((n, *shapes.get(name, (1,))), np.float32) for name in NAMES}
    assert rows.dtype.names is not None
    plain = rows.dtype == np.dtype([(name, "<f4") for name in rows.dtype.names])
    places = {name: i for i, name in enumerate(rows.dtype.names)}
    order = [places.get(name) for name in names]
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
