"""Gaussians in glTF by KHR_gaussian_splatting: .glb, or .gltf with a .bin beside it.

A primitive of points (mode 0) with these attributes, each an accessor of its own: POSITION; KHR_gaussian_splatting:
ROTATION (unit quaternion xyzw), SCALE (standard deviations, linear), OPACITY (0..1, linear), SH_DEGREE_l_COEF_n (r g b;
l = 0..3, n = 0..2l, real harmonics with the Condon-Shortley phase: 3DGS's own order and signs; the colour is 0.5 more
than their sum). COLOR_0 is for viewers that know no Gaussians and show points. Axes: right, up (+y), back.
Source: Khronos, KHR_gaussian_splatting (ratified 2026), which the loaders of three.js, Babylon and PlayCanvas follow.
Packed as SPZ: lpm.formats.gltf_spz.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import lpm
from lpm.checks import fail
from lpm.files import Progress, atomic_file, quiet, staging_folder
from lpm.formats import gltf_spz
from lpm.formats.bounds import MOST_EXPANSION, check_some
from lpm.formats.gltf_container import Gltf, glb_head
from lpm.formats.gltf_nodes import placed_meshes
from lpm.formats.linear import Linear, from_linear, to_linear
from lpm.formats.placement import KEY, TO_PLY_AXES, Placement, joined, placement_of
from lpm.formats.ply_columns import REST
from lpm.formats.spz_write import pack_spz
from lpm.gaussians.similarity import quaternion
from lpm.gaussians.spherical_harmonics import SH_C0

NAME = "KHR_gaussian_splatting"
COLOR_SPACE = "srgb_rec709_display"
Part = tuple[str, str, Callable[[], NDArray[Any]]]
Bounds = tuple[list[float], list[float]]


def harmonic_names(rest: int) -> list[str]:
    """Attributes of `rest` SH coefficients beyond the first, in the order of features_rest."""
    degrees = [(l, n) for l in range(1, 4) for n in range(2 * l + 1)]
    return [f"{NAME}:SH_DEGREE_{l}_COEF_{n}" for l, n in degrees[:rest]]


def write_gltf(
    path: Path, params: Mapping[str, Tensor], placement: Placement | None = None, progress: Progress = quiet,
    compression: Literal["none", "spz"] = "none",
) -> int:  # fmt: skip
    """Writes `params` to `path`, a .glb or (by its ending) a .gltf; rows that nobody can draw are left out.

    `compression`: spz rounds as a .spz does, for the few programs that read lpm.formats.gltf_spz's draft.

    The files appear whole: of a .gltf the .bin first, after a .gltf that was there is gone.

    Returns:
        The number of rows left out.

    Raises:
        LpmError: no row is left, the scene is too wide for SPZ's 24 bits, or the folder cannot be written.
    """
    placement = placement or Placement()
    if compression == "spz":
        packed = pack_spz(path, params, 2, placement.rasterize_mode == "antialiased", gltf_spz.AXES)
        names, dropped = _placeholders(params["features_rest"].shape[1]), packed.left_out
        document, lengths = _document(packed.count, packed.bounds, names, placement, sum(map(len, packed.body)))
        pieces: list[Callable[[], Any]] = [lambda: b"".join(packed.body)]
    else:
        linear, dropped = to_linear(path, params)
        parts, bounds = _parts(linear), (linear.means.min(0).tolist(), linear.means.max(0).tolist())
        document, lengths = _document(len(linear.means), bounds, [part[:2] for part in parts], placement)
        pieces = [part[2] for part in parts]

    def write(file: Any) -> None:
        for i in progress(range(len(pieces)), "writing"):
            piece = pieces[i]()
            file.write(piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data)
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


def _placeholders(rest: int) -> list[tuple[str, str]]:
    """Attributes whose numbers are in a .spz with `rest` harmonics beyond the first, and their accessors' types."""
    return [
        ("POSITION", "VEC3"), ("COLOR_0", "VEC4"), (f"{NAME}:ROTATION", "VEC4"), (f"{NAME}:SCALE", "VEC3"),
        *((name, "VEC3") for name in harmonic_names(rest)),
    ]  # fmt: skip


def _document(
    n: int, bounds: Bounds, parts: list[tuple[str, str]], placement: Placement, packed: int | None = None
) -> tuple[dict[str, Any], list[int]]:
    """The JSON of attributes `parts` (with their types), and the bytes of each piece of the buffer.

    `packed`: the bytes of a .spz that is all of the buffer.
    """
    start, views, accessors = 0, list[dict[str, Any]](), list[dict[str, Any]]()
    lengths = [packed] if packed is not None else [
        n * (4 if name == "COLOR_0" else 4 * {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[kind]) for name, kind in parts
    ]  # fmt: skip
    for length in lengths:
        views.append({"buffer": 0, "byteOffset": start, "byteLength": length})
        start += length + -length % 4
    for name, kind in parts:
        accessor: dict[str, Any] = {"componentType": 5126, "count": n, "type": kind}
        if packed is None:
            accessor["bufferView"] = len(accessors)
            views[len(accessors)]["target"] = 34962
        if name == "COLOR_0":
            accessor |= {"componentType": 5121, "normalized": True}
        if name == "POSITION":
            accessor |= {"min": bounds[0], "max": bounds[1]}
        accessors.append(accessor)
    w, x, y, z = (float(v) for v in quaternion(placement.turn()))
    extension: dict[str, Any] = {"kernel": "ellipse", "colorSpace": COLOR_SPACE, "projection": "perspective"}
    extension["sortingMethod"] = "cameraDistance"
    attributes = {name: i for i, (name, _) in enumerate(parts)}
    document: dict[str, Any] = {
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
    if packed is not None:
        extension["extensions"] = {gltf_spz.NAME: {"bufferView": 0}}
        document["extensionsUsed"] = document["extensionsRequired"] = [NAME, gltf_spz.NAME]
        matrix = np.eye(4)
        matrix[:3, :3] = placement.turn().T  # column by column
        document["nodes"] = [{"mesh": 0, "matrix": matrix.reshape(-1).tolist()}]  # CesiumJS passes rotations over
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
    views = (gltf_spz.payload(gltf, _extension(gltf, primitive)) for primitive, _ in found)
    gltf_spz.check_total(gltf, [(v, count) for v, count in zip(views, counts, strict=True) if v is not None])
    asset = gltf.json["asset"].get("extras")
    ours = placement_of(asset.get(KEY)) if isinstance(asset, dict) else None
    parts, antialiased = [], False
    for primitive, to_scene in found:
        params, smooth = _primitive(gltf, primitive, notes)
        parts.append((params, to_scene))
        antialiased |= smooth
    params, placement = joined(parts, TO_PLY_AXES, ours, "y")
    if antialiased and placement.rasterize_mode is None:
        placement.rasterize_mode = "antialiased"
    return params, placement, list(dict.fromkeys(notes))


def _position(gltf: Gltf, primitive: dict[str, Any]) -> Any:
    return gltf.object(primitive, "attributes").get("POSITION")


def _extension(gltf: Gltf, primitive: dict[str, Any]) -> dict[str, Any]:
    return gltf.object(gltf.object(primitive, "extensions"), NAME)


def _primitive(gltf: Gltf, primitive: dict[str, Any], notes: list[str]) -> tuple[dict[str, Tensor], bool]:
    """The Gaussians of one primitive in its own axes, and whether they say that they were trained antialiased."""
    attributes = gltf.object(primitive, "attributes")
    extension = _extension(gltf, primitive)
    packed = sorted(gltf.object(extension, "extensions"))
    view = gltf_spz.payload(gltf, extension)
    if packed and view is None and f"{NAME}:SCALE" not in attributes:
        gltf.wrong(f"Gaussians packed by {packed[0][:60]}", "plain ones", "unpack it with the program that it is from")
    said = extension.get("kernel", "ellipse"), extension.get("colorSpace", COLOR_SPACE)
    if said[0] != "ellipse":
        notes.append(f"its kernel {str(said[0])[:30]!r} is not known: read as 3DGS's ellipse")
    if said[1] != COLOR_SPACE:
        notes.append(f"its colours are of {str(said[1])[:30]!r}: read as {COLOR_SPACE}")
    n = gltf.whole(gltf.entry("accessors", _position(gltf, primitive)), "count")
    if view is not None:
        return gltf_spz.unpack(gltf, view, n, notes)

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
    linear = Linear(
        means=column("POSITION", 3),
        scales=column(f"{NAME}:SCALE", 3),
        xyzw=column(f"{NAME}:ROTATION", 4),
        opacities=column(f"{NAME}:OPACITY", 1)[:, 0],
        features_dc=column(f"{NAME}:SH_DEGREE_0_COEF_0", 3),
        features_rest=rest,
    )
    return from_linear(linear), False
