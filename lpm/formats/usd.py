"""Gaussians in OpenUSD: .usd, .usdc, .usda and .usdz with a prim ParticleField3DGaussianSplat (usd-core 26.3 or later).

positions (point3f), orientations (quatf, unit), scales (linear standard deviations), opacities (0..1, linear),
radiance:sphericalHarmonicsDegree and ...Coefficients (float3, Gaussian by Gaussian, (degree + 1)^2 each, 3DGS's own
order and signs; the colour is 0.5 more than their sum). Of each array there may be a half-precision one, ending in h.
Source: schema.usda of UsdVol, as usd-core 26.11 ships it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import lpm
from lpm.checks import LpmError, fail, need
from lpm.files import atomic_path
from lpm.formats import usd_stage
from lpm.formats.bounds import check_file
from lpm.formats.linear import Linear, Singles, from_linear, to_linear
from lpm.formats.placement import KEY, TO_PLY_AXES, Placement, joined, placement_of, similarity_of
from lpm.formats.ply_columns import REST
from lpm.formats.usd_stage import TYPE, reason_of
from lpm.gaussians.similarity import quaternion

SECONDS, BYTES_A_SECOND = 60.0, 1e6
"""What usd-core may take for a file, beside what its size adds: a whole one takes a hundredth of it."""
REMEDY = "copy or export it again"
FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""From USD's axes with z up (right, front, up) to right, down, front."""


def check_usd() -> Any:
    """pxr.UsdVol; raises LpmError where usd-core is missing or too old for Gaussians."""
    need("pxr", "usd")
    from pxr import Usd, UsdVol

    if not hasattr(UsdVol, TYPE):
        version = ".".join(map(str, Usd.GetVersion()[1:]))
        fail("usd-core", f"version {version}", "26.3 or later", "pip install --upgrade 'usd-core>=26.3'")
    return UsdVol


def write_usd(path: Path, params: Mapping[str, Tensor], placement: Placement | None = None) -> int:
    """Writes `params` to `path`, atomically; rows that nobody can draw are left out. One unit is said to be a metre.

    The stage's up axis is z where the Gaussians' own is, else y, to which the prim above them turns it.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: usd-core is missing, no row is left, or the folder cannot be written.
    """
    check_usd()
    from pxr import Sdf, Tf, Usd

    linear, dropped = to_linear(path, params)
    with atomic_path(path) as unfinished:
        layer = unfinished if path.suffix.lower() != ".usdz" else unfinished.with_name("scene.usdc")
        try:
            stage = Usd.Stage.CreateNew(str(layer))
            _define(stage, linear, placement or Placement())
            stage.Save()
            del stage
            if layer != unfinished:
                with Sdf.ZipFileWriter.CreateNew(str(unfinished)) as package:
                    package.AddFile(str(layer), layer.name)
        except Tf.ErrorException as error:
            fail(path, f"usd-core cannot write it ({reason_of(error)})", "a folder that exists and has room")
    return dropped


def _define(stage: Any, linear: Linear, placement: Placement) -> None:
    """Puts the Gaussians into an empty stage."""
    from pxr import Gf, UsdGeom, UsdVol, Vt

    def array(kind: str, values: Singles) -> Any:
        return getattr(Vt, kind).FromNumpy(np.ascontiguousarray(values))

    up = "z" if placement.up is not None and abs(placement.up[2] - 1) < 1e-6 else "y"
    UsdGeom.SetStageUpAxis(stage, getattr(UsdGeom.Tokens, up))
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = stage.GetRootLayer()
    root.customLayerData = {KEY: json.dumps(placement.as_json())}
    root.documentation = f"written by lpm-splat {lpm.__version__}"
    top = UsdGeom.Xform.Define(stage, "/Scene")
    w, x, y, z = (float(v) for v in quaternion(placement.turn(up)))
    top.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Quatd(w, x, y, z))
    stage.SetDefaultPrim(top.GetPrim())
    splat = getattr(UsdVol, TYPE).Define(stage, "/Scene/Gaussians")
    splat.CreatePositionsAttr(array("Vec3fArray", linear.means))
    splat.CreateOrientationsAttr(array("QuatfArray", linear.xyzw))  # as they lie in its memory
    splat.CreateScalesAttr(array("Vec3fArray", linear.scales))
    splat.CreateOpacitiesAttr(array("FloatArray", linear.opacities))
    harmonics = np.concatenate([linear.features_dc[:, None], linear.features_rest], 1)
    splat.CreateRadianceSphericalHarmonicsDegreeAttr(REST.index(harmonics.shape[1] - 1))
    splat.CreateRadianceSphericalHarmonicsCoefficientsAttr(array("Vec3fArray", harmonics.reshape(-1, 3)))
    splat.CreateSortingModeHintAttr("zDepth")
    reach = 3 * linear.scales.max(1, keepdims=True)
    ends = np.stack([(linear.means - reach).min(0), (linear.means + reach).max(0)])
    splat.CreateExtentAttr(array("Vec3fArray", ends))


def read_usd(path: Path) -> tuple[dict[str, Tensor], Placement, list[str]]:
    """Reads all Gaussians of a USD file, those in files that it refers to among them.

    A file of ours gives them as they were written; of others lpm.formats.placement.joined. What moves in time is read
    at the first time. Arrays that are longer than the positions are cut, shorter ones passed over, as the schema says.

    Returns:
        Parameters as in lpm.gaussians; up direction, offset and mode where the file tells them; what of the file is
        not as it looks, a line each.

    Raises:
        LpmError: usd-core is missing, no such file, it cannot be read, no Gaussians in it, or a prim stretches them.
    """
    size = check_file(path, "a USD file")
    check_usd()
    with tempfile.TemporaryDirectory(prefix="lpm-usd-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", usd_stage.__name__, str(path.absolute()), name, KEY]
        try:
            done = subprocess.run(command, capture_output=True, cwd=name, timeout=SECONDS + size / BYTES_A_SECOND)
        except (OSError, subprocess.TimeoutExpired) as error:
            fail(path, f"usd-core does not come to an end with it ({type(error).__name__})", "a whole USD file", REMEDY)
        if done.returncode == 2:
            raise LpmError(done.stdout.decode(errors="replace").strip().replace(str(path.absolute()), str(path)))
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"code {done.returncode}"]
            fail(path, f"usd-core fails with it ({lines[-1][:120]})", "a whole USD file", REMEDY)
        found = json.loads((folder / "stage.json").read_text())
        notes: list[str] = found["notes"]
        parts = []
        for i, prim in enumerate(found["prims"]):
            get = {name: np.load(folder / f"{name}{i}.npy", "r") for name in ("means", "scales", "xyzw", "opacities")}
            harmonics = np.load(folder / f"harmonics{i}.npy", "r")
            params = from_linear(Linear(**get, features_dc=harmonics[:, 0], features_rest=harmonics[:, 1:]))
            parts.append((params, similarity_of(path, prim["name"], np.array(prim["matrix"]))))
    if abs(found["unit"] - 1) > 1e-6:
        notes.append(f"one of its units is {found['unit']:g} m: read in its own units")
    try:
        ours = placement_of(json.loads(found["said"]))
    except (ValueError, RecursionError):
        ours = None
    up = "z" if found["up"] == "z" else "y"
    params, placement = joined(parts, FROM_Z_UP if up == "z" else TO_PLY_AXES, ours, up)
    return params, placement, list(dict.fromkeys(notes))
