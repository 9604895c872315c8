"""Gaussians in glTF by KHR_gaussian_splatting: .glb, or .gltf with a .bin beside it.

A primitive of points (mode 0) with these attributes, each an accessor of its own: POSITION; KHR_gaussian_splatting:
ROTATION (unit quaternion xyzw), SCALE (standard deviations, linear), OPACITY (0..1, linear), SH_DEGREE_l_COEF_n (r g b;
l = 0..3, n = 0..2l, real harmonics with the Condon-Shortley phase: 3DGS's own order and signs; the colour is 0.5 more
than their sum). COLOR_0 is for viewers that know no Gaussians and show points. Axes: right, up (+y), back.
Source: Khronos, KHR_gaussian_splatting (ratified 2026), which the loaders of three.js, Babylon and PlayCanvas follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import lpm
from lpm.checks import fail
from lpm.files import Progress, atomic_file, quiet, staging_folder
from lpm.formats.bounds import MOST_EXPANSION, check_some
from lpm.formats.gltf_container import Gltf, glb_head
from lpm.formats.gltf_nodes import placed_meshes
from lpm.formats.linear import Linear, from_linear, to_linear
from lpm.formats.placement import KEY, TO_PLY_AXES, Placement, joined, placement_of
from lpm.formats.ply_columns import REST
from lpm.gaussians.similarity import quaternion
from lpm.gaussians.spherical_harmonics import SH_C0

NAME = "KHR_gaussian_splatting"
COLOR_SPACE = "srgb_rec709_display"
Part = tuple[str, str, Callable[[], NDArray[Any]]]


def harmonic_names(rest: int) -> list[str]:
    """Attributes of `rest` SH coefficients beyond the first, in the order of features_rest."""
    degrees = [(l, n) for l in range(1, 4) for n in range(2 * l + 1)]
    return [f"{NAME}:SH_DEGREE_{l}_COEF_{n}" for l, n in degrees[:rest]]


def write_gltf(
    path: Path, params: Mapping[str, Tensor], placement: Placement | None = None, progress: Progress = quiet
) -> int:
    """Writes `params` to `path`, a .glb or (by its ending) a .gltf; rows that nobody can draw are left out.

    The files appear whole: of a .gltf the .bin first, after a .gltf that was there is gone.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, or the folder cannot be written.
    """
    linear, dropped = to_linear(path, params)
    parts = _parts(linear)
    document, lengths = _document(linear, parts, placement or Placement())

    def write(file: Any) -> None:
        for i in progress(range(len(parts)), "writing"):
            file.write(np.ascontiguousarray(parts[i][2]()).data)
            file.write(bytes(-lengths[i] % 4))

    total = document["buffers"][0]["byteLength"]
    if path.suffix.lower() != ".gltf":
        with atomic_file(path) as file:
            file.write(glb_head(document, total))
            write(file)
        return dropped
    beside = path.with_suffix(".bin")
    document["buffers"][0]["uri"] = beside.name
    with staging_folder(path) as folder:
        with (folder / beside.name).open("wb") as file:
            write(file)
        (folder / path.name).write_text(json.dumps(document, indent=1) + "\n")
        path.unlink(missing_ok=True)
        (folder / beside.name).replace(beside)
        (folder / path.name).replace(path)
    return dropped


def _parts(linear: Linear) -> list[Part]:
    """Attribute, accessor type and numbers of each, made when they are written."""

    def color() -> NDArray[np.uint8]:
        rgb = np.clip(linear.features_dc * SH_C0 + 0.5, 0, 1)
        rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # glTF's vertex colours are linear
        rgba: NDArray[np.uint8] = np.round(np.column_stack([rgb, linear.opacities]) * 255).astype(np.uint8)
        return rgba

    parts: list[Part] = [
        ("POSITION", "VEC3", lambda: linear.means),
        ("COLOR_0", "VEC4", color),
        (f"{NAME}:ROTATION", "VEC4", lambda: linear.xyzw),
        (f"{NAME}:SCALE", "VEC3", lambda: linear.scales),
        (f"{NAME}:OPACITY", "SCALAR", lambda: linear.opacities),
        (f"{NAME}:SH_DEGREE_0_COEF_0", "VEC3", lambda: linear.features_dc),
    ]
    for k, name in enumerate(harmonic_names(linear.features_rest.shape[1])):
        parts.append((name, "VEC3", partial(linear.features_rest.__getitem__, (slice(None), k))))
    return parts


def _document(linear: Linear, parts: list[Part], placement: Placement) -> tuple[dict[str, Any], list[int]]:
    """The JSON, and the bytes of each part."""
    n, start, views, accessors = len(linear.means), 0, list[dict[str, Any]](), list[dict[str, Any]]()
    lengths = [
        n * (4 if name == "COLOR_0" else 4 * {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[kind]) for name, kind, _ in parts
    ]
    for (name, kind, _), length in zip(parts, lengths, strict=True):
        views.append({"buffer": 0, "byteOffset": start, "byteLength": length, "target": 34962})
        accessor: dict[str, Any] = {"bufferView": len(accessors), "componentType": 5126, "count": n, "type": kind}
        if name == "COLOR_0":
            accessor |= {"componentType": 5121, "normalized": True}
        if name == "POSITION":
            accessor |= {"min": linear.means.min(0).tolist(), "max": linear.means.max(0).tolist()}
        accessors.append(accessor)
        start += length + -length % 4
    w, x, y, z = (float(v) for v in quaternion(placement.turn()))
    extension = {"kernel": "ellipse", "colorSpace": COLOR_SPACE, "projection": "perspective"}
    extension["sortingMethod"] = "cameraDistance"
    attributes = {name: i for i, (name, _, _) in enumerate(parts)}
    document = {
        "asset": {"version": "2.0", "generator": f"lpm-splat {lpm.__version__}", "extras": {KEY: placement.as_json()}},
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": [x, y, z, w]}],
        "meshes": [{"primitives": [{"attributes": attributes, "mode": 0, "extensions": {NAME: extension}}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }
    return document, lengths


def read_gltf(path: Path) -> tuple[dict[str, Tensor], Placement, list[str]]:
    """Reads all Gaussians of a .glb or .gltf.

    A file of ours gives them as they were written; of others lpm.formats.placement.joined.

    Returns:
        Parameters as in lpm.gaussians; up direction, offset and mode where the file tells them; what of the file is
        not as it looks, a line each.

    Raises:
        LpmError: no such file, not glTF 2.0, no Gaussians in it, an attribute that is missing or of another length, or
            whatever lpm.formats.gltf_container and gltf_nodes refuse.
    """
    gltf = Gltf(path)
    notes: list[str] = []
    found = []
    for mesh, to_scene in placed_meshes(gltf):
        for primitive in gltf.items(gltf.entry("meshes", mesh), "primitives"):
            if isinstance(primitive, dict) and NAME in gltf.object(primitive, "extensions"):
                found.append((primitive, to_scene))
    if not found:
        fail(path, f"no points with {NAME} in it", "Gaussians", "a mesh is not read")
    counts = [gltf.whole(gltf.entry("accessors", _position(gltf, primitive)), "count") for primitive, _ in found]
    distinct = {_position(gltf, primitive): count for (primitive, _), count in zip(found, counts, strict=True)}
    check_some(path, sum(counts))
    if sum(counts) > MOST_EXPANSION * sum(distinct.values()):  # nodes that show the same ones again and again
        gltf.wrong(f"{sum(distinct.values()):,} Gaussians shown {len(found):,} times", f"at most {MOST_EXPANSION}")
    asset = gltf.json["asset"].get("extras")
    ours = placement_of(asset.get(KEY)) if isinstance(asset, dict) else None
    parts = [(_primitive(gltf, primitive, notes), to_scene) for primitive, to_scene in found]
    params, placement = joined(parts, TO_PLY_AXES, ours, "y")
    return params, placement, list(dict.fromkeys(notes))


def _position(gltf: Gltf, primitive: dict[str, Any]) -> Any:
    return gltf.object(primitive, "attributes").get("POSITION")


def _primitive(gltf: Gltf, primitive: dict[str, Any], notes: list[str]) -> dict[str, Tensor]:
    """The Gaussians of one primitive in its own axes."""
    attributes = gltf.object(primitive, "attributes")
    extension = gltf.object(gltf.object(primitive, "extensions"), NAME)
    packed = sorted(gltf.object(extension, "extensions"))
    if packed and f"{NAME}:SCALE" not in attributes:
        gltf.wrong(f"Gaussians packed by {packed[0][:60]}", "plain ones", "unpack it with the program that it is from")
    said = extension.get("kernel", "ellipse"), extension.get("colorSpace", COLOR_SPACE)
    if said[0] != "ellipse":
        notes.append(f"its kernel {str(said[0])[:30]!r} is not known: read as 3DGS's ellipse")
    if said[1] != COLOR_SPACE:
        notes.append(f"its colours are of {str(said[1])[:30]!r}: read as {COLOR_SPACE}")
    n = gltf.whole(gltf.entry("accessors", _position(gltf, primitive)), "count")

    def column(name: str, width: int) -> NDArray[np.float32]:
        if name not in attributes:
            gltf.wrong(f"Gaussians without {name}", "all attributes of KHR_gaussian_splatting")
        values = gltf.accessor(attributes[name], width)
        if len(values) != n:
            gltf.wrong(f"{len(values):,} of {name} for {n:,} Gaussians", "one for each")
        return values

    degree = max((l for l in range(4) if f"{NAME}:SH_DEGREE_{l}_COEF_0" in attributes), default=0)
    rest = np.empty((n, REST[degree], 3), np.float32)
    for k, name in enumerate(harmonic_names(REST[degree])):
        rest[:, k] = column(name, 3)
    return from_linear(
        Linear(
            means=column("POSITION", 3),
            scales=column(f"{NAME}:SCALE", 3),
            xyzw=column(f"{NAME}:ROTATION", 4),
            opacities=column(f"{NAME}:OPACITY", 1)[:, 0],
            features_dc=column(f"{NAME}:SH_DEGREE_0_COEF_0", 3),
            features_rest=rest,
        )
    )
