"""What a run leaves for its replay: where each event added, removed and reset points, and now and then all points.

RUN/replay/ holds one small file per event, `step-000000300.npz`; zones and counts are in RUN/edits.jsonl already
(lpm.records). Nothing of nerfstudio is needed to write or to read it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.sending import sent

FOLDER = "replay"
"""Name of the folder in the run's folder."""
LIMIT = 2_000
"""Most positions of an event that are kept of each kind (added, removed, reset)."""
CLOUD_LIMIT = 20_000
"""Most points of a cloud that are kept."""


@dataclass
class Snapshot:
    """One event. Positions are in the training frame. To write, tensors of any device will do; reading gives arrays."""

    step: int
    added: NDArray[np.generic] | Tensor
    """[A, 3] float32: points that were split off or inserted, where they are after the event."""
    removed: NDArray[np.generic] | Tensor
    """[R, 3] float32: points that were pruned, where they were."""
    reset: NDArray[np.generic] | Tensor
    """[T, 3] float32: points that were made nearly transparent."""
    means: NDArray[np.generic] | Tensor | None = None
    """[M, 3] float32: all points after the event; only some events have them."""
    colors: NDArray[np.generic] | Tensor | None = None
    """[M, 3] uint8: their colours, sRGB."""
    psnr: float | None = None
    """PSNR of held-out photos, dB, where it was measured."""


def evenly_spaced(values: NDArray[np.generic] | Tensor, limit: int) -> NDArray[np.generic]:
    """At most `limit` rows of `values` [N, ...], evenly spaced in it: always the same ones, on the CPU."""
    n = len(values)
    rows = np.arange(min(n, limit)) * n // max(1, min(n, limit))
    if isinstance(values, Tensor):
        on_device = sent(torch.from_numpy(rows), values.device)
        return values.detach()[on_device].cpu().numpy()  # thinned first: less to move off a GPU
    chosen: NDArray[np.generic] = values[rows]
    return chosen


def write(folder: Path, snapshot: Snapshot) -> None:
    """Writes `snapshot` into `folder` (RUN/replay), whole or not at all; one of the same step is replaced.

    Rows that are not finite are left out. Takes 1 to 4 ms. Not compressed: it would take 10 and save a tenth.

    Raises:
        OSError: no room, or no right to write there.
    """
    arrays: dict[str, Any] = {"step": snapshot.step, "psnr": np.nan if snapshot.psnr is None else snapshot.psnr}
    for name in ("added", "removed", "reset"):
        places = evenly_spaced(getattr(snapshot, name), LIMIT).astype(np.float32)
        arrays[name] = places[np.isfinite(places).all(1)]
    if snapshot.means is not None:
        means = evenly_spaced(snapshot.means, CLOUD_LIMIT).astype(np.float32)
        finite = np.isfinite(means).all(1)
        arrays["means"] = means[finite]
        if snapshot.colors is not None:
            arrays["colors"] = evenly_spaced(snapshot.colors, CLOUD_LIMIT).astype(np.uint8)[finite]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{snapshot.step:09d}.npz"
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _read_one(path: Path) -> Snapshot:
    with zipfile.ZipFile(path) as archive:  # nothing is packed in what write() writes
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise ValueError("larger inside")
    with np.load(path) as saved:
        arrays = {name: saved[name] for name in saved.files}
    for name in ("added", "removed", "reset", "means", "colors"):
        if name in arrays and (arrays[name].ndim != 2 or arrays[name].shape[1] != 3):
            raise ValueError(f"{name} has shape {list(arrays[name].shape)}")
    psnr = float(arrays.pop("psnr"))
    return Snapshot(
        step=int(arrays["step"]), added=arrays["added"], removed=arrays["removed"], reset=arrays["reset"],
        means=arrays.get("means"), colors=arrays.get("colors"), psnr=psnr if np.isfinite(psnr) else None,
    )  # fmt: skip


def read(folder: Path) -> list[Snapshot]:
    """The snapshots in `folder` (RUN/replay), by step; none if it is not there. Broken ones are named and left out."""
    found, broken = [], []
    for path in sorted(folder.glob("step-*.npz")):
        try:
            found.append(_read_one(path))
        except Exception:  # whatever a broken or hostile file makes of numpy's reader
            broken.append(path)
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        print(f"{broken[0]}{more}: cannot be read and left out of the replay", file=sys.stderr)
    return sorted(found, key=lambda snapshot: snapshot.step)
