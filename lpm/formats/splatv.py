"""The .splatv of web viewers for moving Gaussians: 64 bytes each, in the shape of a texture.

u32 magic 0x674B, u32 length of the JSON in bytes, the JSON, then rows of 16 words, 1024 Gaussians to a line of a
4096-wide RGBA32UI texture:
words 0-2 float32 x y z; 3-4 half2 quaternion wxyz; 5-6 half2 standard deviations x y z and one unused; 7 bytes r g b a;
8-12 half2 motion (linear x y z, quadratic, cubic) and one unused; 13-14 half2 turning of the quaternion per unit of
time, wxyz; 15 half2 (centre in time, width in time). With dt = t - centre, t in 0..1, a viewer shows x + m1 dt +
m2 dt^2 + m3 dt^3 and the opacity times exp(-(dt / width)^2).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, atomic_file, quiet
from lpm.formats.bounds import check_file, check_rows, check_some
from lpm.formats.bytes import logit, rgba, sh0_params
from lpm.formats.ply import CHUNK
from lpm.formats.rows import bounded, sound_rows
from lpm.gaussians.spherical_harmonics import SH_C0

MAGIC = 0x674B
PER_LINE = 1024  # Gaussians, of four texels each
ALWAYS = 10_000.0  # width in time of what never fades: exp(-1e-8) is 1 in float32, and a half float holds it
ROW = np.dtype(
    [
        ("means", "<f4", 3), ("quats", "<f2", 4), ("scales", "<f2", 4), ("rgba", "u1", 4), ("motion", "<f2", 10),
        ("omega", "<f2", 4), ("time", "<f2", 2),
    ]
)  # fmt: skip
TIME_SHAPES = {"motion": 9, "omega": 4, "time_center": 1, "time_width": 1}


def write_splatv(
    path: Path,
    params: Mapping[str, Tensor],
    cameras: list[dict[str, Any]] | None = None,
    progress: Progress = quiet,
) -> int:
    """Writes `params` to `path`, atomically, without the harmonics beyond the first. Rows that are not
    finite or have no rotation are left out.

    Args:
        params: as in lpm.gaussians, and optionally motion [N, 9], omega [N, 4], time_center [N, 1] and time_width
            [N, 1] (the file's own, sqrt(2) times a standard deviation); without them nothing moves or fades.
        cameras: what the viewer may start from; kept in the JSON as it is.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, a position is beyond reach, or the folder cannot be written.
    """
    params = bounded(params)
    get = {name: value.detach().float().cpu() for name, value in params.items()}
    n = len(get["means"])
    still = {name: torch.zeros(n, size) for name, size in TIME_SHAPES.items()}
    still["time_width"] += ALWAYS
    moving = {name: get.get(name, still[name]).reshape(n, -1) for name in TIME_SHAPES}
    finite = sound_rows(params).cpu() & torch.cat(list(moving.values()), 1).isfinite().all(1)
    keep = finite.nonzero().flatten()
    if len(keep) == 0:
        fail(path, f"{n} points, none of them finite and with a rotation", "at least one to write")
    lines = -(-len(keep) // PER_LINE)
    description = {
        "type": "splat", "size": lines * PER_LINE * ROW.itemsize, "texwidth": 4 * PER_LINE, "texheight": lines,
        "count": len(keep), "cameras": cameras or [],
    }  # fmt: skip
    text = json.dumps([description]).encode()
    text += b" " * (-len(text) % 4)  # the texture is read as whole words
    with atomic_file(path) as file:
        file.write(struct.pack("<II", MAGIC, len(text)) + text)
        for start in progress(range(0, len(keep), CHUNK), "writing"):
            i = keep[start : start + CHUNK]
            rows = np.zeros(len(i), ROW)
            rows["means"] = get["means"][i].numpy()
            rows["quats"] = torch.nn.functional.normalize(get["quats"][i], dim=1).numpy()
            rows["scales"][:, :3] = get["scales"][i].exp().clamp(6e-8, 65504).numpy()  # the range of a half float
            rows["rgba"] = rgba(get["features_dc"][i], get["opacities"][i])
            rows["motion"][:, :9] = moving["motion"][i].clamp(-65504, 65504).numpy()
            rows["omega"] = moving["omega"][i].clamp(-65504, 65504).numpy()
            rows["time"][:, 0] = moving["time_center"][i, 0].numpy()
            rows["time"][:, 1] = moving["time_width"][i, 0].clamp(6e-8, 65504).numpy()
            file.write(rows.tobytes())
        file.write(bytes((lines * PER_LINE - len(keep)) * ROW.itemsize))
    return n - len(keep)


def read_splatv(path: Path) -> dict[str, Tensor]:
    """Reads a .splatv: lpm.gaussians' parameters (features_rest [N, 0, 3]) and write_splatv's parameters of time.

    Raises:
        LpmError: no such file, another magic, a JSON that does not say what follows, or fewer bytes than it says.
    """
    size = check_file(path, "a .splatv file")
    with path.open("rb") as file:
        head = file.read(8)
        magic, length = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
        if magic != MAGIC:
            fail(path, f"magic {magic:#x}", f"{MAGIC:#x}, a .splatv file")
        check_rows(path, 1, length, size - 8)
        text = file.read(length)
    try:
        description = next(each for each in json.loads(text) if each["type"] == "splat")
        texels = int(description["texwidth"]) * int(description["texheight"])
        count = int(description.get("count", texels // 4))
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError, OverflowError, AttributeError):
        fail(path, "no description of a splat texture in its JSON", "type, texwidth and texheight")
    if not 0 <= count <= texels // 4:
        fail(path, f"{count:,} Gaussians in {texels:,} texels", "at most one to four texels")
    check_rows(path, count, ROW.itemsize, size - 8 - length)
    check_some(path, count)
    rows: NDArray[np.void] = np.memmap(path, ROW, "r", 8 + length, (count,))
    used = rows["scales"][:, :3].astype(np.float32).any(1)  # files of others do not say where the padding starts
    rows = rows[: int(np.flatnonzero(used)[-1]) + 1 if used.any() else 0]
    check_some(path, len(rows))
    colors = rows["rgba"].astype(np.float32) / 255
    params = sh0_params(
        means=rows["means"],
        scales=np.log(np.maximum(rows["scales"][:, :3].astype(np.float32), 6e-8)),
        quats=rows["quats"],
        features_dc=(colors[:, :3] - 0.5) / SH_C0,
        opacities=logit(colors[:, 3]),
    )
    time = {"motion": rows["motion"][:, :9], "omega": rows["omega"], "time_center": rows["time"][:, :1]}
    time["time_width"] = rows["time"][:, 1:]
    return {**params, **{name: torch.from_numpy(np.array(value, np.float32)) for name, value in time.items()}}
