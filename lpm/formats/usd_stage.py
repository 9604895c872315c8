"""What usd-core finds in a USD file, put into a folder as plain arrays. It runs as a process of its own.

usd-core trusts what a binary file says of itself: one wrong number of 6 kB let it take 10 GB for half a minute. So it
has limited memory here, and whatever becomes of it becomes one line in lpm.formats.usd.

python -m lpm.formats.usd_stage FILE FOLDER
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.checks import LpmError, fail
from lpm.formats.bounds import check_some

TYPE = "ParticleField3DGaussianSplat"
HARMONICS = "radiance:sphericalHarmonicsCoefficients"
DEGREE = "radiance:sphericalHarmonicsDegree"
ROOM = 4 << 30
"""Bytes of address space beside so many times the file: usd-core alone reserves about 2 GB."""
TIMES = 16
Array = NDArray[np.float32]


def read_stage(path: Path, folder: Path, key: str) -> None:
    """Writes stage.json and, for each prim i, means i.npy, ... into `folder`.

    stage.json: up (y, z), unit (metres), said (what the file has under `key`), notes, and for each prim its name and
    matrix [4][4] to the stage's axes, which turns columns.

    Raises:
        LpmError: it cannot be read, or no Gaussians are in it.
    """
    from pxr import Tf, Usd, UsdGeom, UsdUtils, UsdVol

    silent = UsdUtils.CoalescingDiagnosticDelegate()  # else it prints what is said below
    notes: list[str] = []
    prims: list[dict[str, Any]] = []
    try:
        stage = Usd.Stage.Open(str(path), Usd.Stage.LoadAll)
        places, count = UsdGeom.XformCache(Usd.TimeCode.EarliestTime()), 0
        for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
            if prim.IsA(getattr(UsdVol, TYPE)):
                arrays = _arrays(path, prim, notes)
                for name, values in arrays.items():
                    np.save(folder / f"{name}{len(prims)}.npy", values)
                count += len(arrays["means"])
                matrix = np.array(places.GetLocalToWorldTransform(prim), np.float64).T  # USD's vectors are rows
                prims.append({"name": str(prim.GetPath())[:60], "matrix": matrix.tolist()})
        if not prims:
            fail(path, f"no {TYPE} in it", "Gaussians", "meshes and points are not read")
        check_some(path, count)
        found = {
            "up": str(UsdGeom.GetStageUpAxis(stage)).lower(), "unit": float(UsdGeom.GetStageMetersPerUnit(stage)),
            "said": str(stage.GetRootLayer().customLayerData.get(key, "")), "notes": notes, "prims": prims,
        }  # fmt: skip
    except Tf.ErrorException as error:
        fail(path, f"cannot be read by usd-core ({reason_of(error)})", "a whole USD file", "copy or export it again")
    finally:
        silent.TakeUncoalescedDiagnostics()
    (folder / "stage.json").write_text(json.dumps(found))


def reason_of(error: Any) -> str:
    """What usd-core says in an exception, without the places in its source."""
    return " ".join(str(getattr(error.args[-1], "commentary", error)).split())[:160] if error.args else "no reason"


def _arrays(path: Path, prim: Any, notes: list[str]) -> dict[str, Array]:
    """Numbers of the Gaussians of one prim in its own axes: those of lpm.formats.linear, and harmonics [N, K, 3]."""
    from pxr import Usd

    first = Usd.TimeCode.EarliestTime()

    def array(name: str, width: int) -> Array | None:
        for each in (name, f"{name}h"):
            attribute = prim.GetAttribute(each)
            values = attribute.Get(first) if attribute else None
            if values is not None and len(values):
                if attribute.ValueMightBeTimeVarying():
                    notes.append("it changes in time: read is the first time")
                found: Array = np.asarray(values, np.float32).reshape(len(values), width)
                return found
        return None

    means = array("positions", 3)
    means = np.zeros((0, 3), np.float32) if means is None else means
    n = len(means)

    def column(name: str, width: int, default: list[float], times: int = 1) -> Array:
        values = array(name, width)
        if values is not None and len(values) < n * times:
            notes.append(f"{len(values):,} of {name} for {n:,} Gaussians are too few, and passed over")
            values = None
        if values is None:
            return np.broadcast_to(np.array(default, np.float32), (n * times, width))
        return values[: n * times]

    degree = int(prim.GetAttribute(DEGREE).Get())
    if not 0 <= degree <= 10:
        fail(path, f"SH degree {degree}", "0 to 3")
    if degree > 3:
        notes.append(f"its harmonics have degree {degree}: read are those up to degree 3")
    count = (degree + 1) ** 2
    return {
        "means": means,
        "scales": column("scales", 3, [1.0] * 3),
        "xyzw": column("orientations", 4, [0.0, 0, 0, 1]),
        "opacities": column("opacities", 1, [1.0])[:, 0],
        "harmonics": column(HARMONICS, 3, [0.0] * 3, count).reshape(n, count, 3)[:, :16],
    }


def alone(work: Callable[[], None], size: int) -> int:
    """Does `work` on a file of `size` bytes with limited memory; the exit code: 2 with a line on stdout, else 0."""
    limit = ROOM + TIMES * size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        work()
    except LpmError as error:
        print(error)
        return 2
    return 0


def main() -> None:
    """The process."""
    path, folder, key = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    sys.exit(alone(lambda: read_stage(path, folder, key), path.stat().st_size))


if __name__ == "__main__":
    main()
