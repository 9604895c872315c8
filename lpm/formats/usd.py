"""Gaussians in OpenUSD: .usd, .usdc, .usda and .usdz with a prim ParticleField3DGaussianSplat (usd-core 26.3 or later).

positions (point3f), orientations (quatf, unit), scales (linear standard deviations), opacities (0..1, linear),
radiance:sphericalHarmonicsDegree and ...Coefficients (float3, Gaussian by Gaussian, (degree + 1)^2 each, 3DGS's own
order and signs; the colour is 0.5 more than their sum). Of each array there may be a half-precision one, ending in h.
Source: schema.usda of UsdVol, as usd-core 26.11 ships it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import lpm
from lpm.checks import fail, need
from lpm.files import atomic_path
from lpm.formats.bounds import check_file, check_some
from lpm.formats.linear import Linear, Singles, from_linear, to_linear
from lpm.formats.placement import KEY, TO_PLY_AXES, Placement, joined, placement_of, similarity_of
from lpm.formats.ply_columns import REST
from lpm.gaussians.similarity import quaternion

TYPE = "ParticleField3DGaussianSplat"
HARMONICS = "radiance:sphericalHarmonicsCoefficients"
DEGREE = "radiance:sphericalHarmonicsDegree"
ENDINGS = (".usd", ".usdc", ".usda", ".usdz")
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
            fail(path, f"usd-core cannot write it ({_reason(error)})", "a folder that exists and has room")
    return dropped


def _reason(error: Any) -> str:
    """What usd-core says, without the places in its source."""
    return (
        " ".join(str(getattr(error.args[-1], "commentary", error)).split())[:160] if error.args else "no reason given"
    )


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
    check_file(path, "a USD file")
    vol = check_usd()
    from pxr import Tf, Usd, UsdGeom, UsdUtils

    silent = UsdUtils.CoalescingDiagnosticDelegate()  # else it prints what is said below
    try:
        stage = Usd.Stage.Open(str(path), Usd.Stage.LoadAll)
        prims = Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies())
        found = [prim for prim in prims if prim.IsA(getattr(vol, TYPE))]
        if not found:
            fail(path, f"no {TYPE} in it", "Gaussians", "meshes and points are not read")
        notes: list[str] = []
        places, parts = UsdGeom.XformCache(Usd.TimeCode.EarliestTime()), []
        for prim in found:
            matrix = np.array(places.GetLocalToWorldTransform(prim), np.float64).T  # USD's vectors are rows
            parts.append((_prim(path, prim, notes), similarity_of(path, str(prim.GetPath())[:60], matrix)))
        check_some(path, sum(len(params["means"]) for params, _ in parts))
        up = str(UsdGeom.GetStageUpAxis(stage)).lower()
        unit = UsdGeom.GetStageMetersPerUnit(stage)
        said = stage.GetRootLayer().customLayerData.get(KEY)
    except Tf.ErrorException as error:
        fail(path, f"cannot be read by usd-core ({_reason(error)})", "a whole USD file", "copy or export it again")
    finally:
        silent.TakeUncoalescedDiagnostics()
        del silent
    if abs(unit - 1) > 1e-6:
        notes.append(f"one of its units is {unit:g} m: read in its own units")
    try:
        ours = placement_of(json.loads(said)) if isinstance(said, str) else None
    except (ValueError, RecursionError):
        ours = None
    axes = FROM_Z_UP if up == "z" else TO_PLY_AXES
    params, placement = joined(parts, axes, ours, "z" if up == "z" else "y")
    return params, placement, list(dict.fromkeys(notes))


def _prim(path: Path, prim: Any, notes: list[str]) -> dict[str, Tensor]:
    """The Gaussians of one prim in its own axes."""
    from pxr import Usd

    first = Usd.TimeCode.EarliestTime()

    def array(name: str, width: int) -> Singles | None:
        for each in (name, f"{name}h"):
            attribute = prim.GetAttribute(each)
            values = attribute.Get(first) if attribute else None
            if values is not None and len(values):
                if attribute.ValueMightBeTimeVarying():
                    notes.append("it changes in time: read is the first time")
                found: Singles = np.asarray(values, np.float32).reshape(len(values), width)
                return found
        return None

    means = array("positions", 3)
    means = np.zeros((0, 3), np.float32) if means is None else means
    n = len(means)

    def column(name: str, width: int, default: list[float], times: int = 1) -> Singles:
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
    harmonics = column(HARMONICS, 3, [0.0] * 3, count).reshape(n, count, 3)
    return from_linear(
        Linear(
            means=means,
            scales=column("scales", 3, [1.0] * 3),
            xyzw=column("orientations", 4, [0.0, 0, 0, 1]),
            opacities=column("opacities", 1, [1.0])[:, 0],
            features_dc=harmonics[:, 0],
            features_rest=harmonics[:, 1 : 1 + REST[min(degree, 3)]],
        )
    )
