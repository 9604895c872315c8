"""Meshes with colours as PLY or glTF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from plyfile import PlyData, PlyElement

import lpm
from lpm.exporting.tsdf import Mesh
from lpm.files import atomic_file
from lpm.formats.gltf_container import glb_head
from lpm.formats.placement import Placement

ENDINGS = (".ply", ".glb")


def write_mesh(path: Path, mesh: Mesh, placement: Placement) -> None:
    """Writes `mesh` to `path`, .ply or .glb by its name; it appears whole.

    A PLY holds positions as they are in their frame, as doubles where there is an offset. A .glb is turned to glTF's
    +y up by the node above it, which holds the offset, too.
    """
    with atomic_file(path) as file:
        if path.suffix == ".glb":
            document, data = _glb(mesh, placement)
            file.write(glb_head(document, len(data)))
            file.write(data)
        else:
            _ply(mesh, placement).write(file)


def _ply(mesh: Mesh, placement: Placement) -> PlyData:
    kind = "f8" if placement.offset.any() else "f4"
    rows = np.empty(
        len(mesh.vertices), [(axis, kind) for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    )
    for i, axis in enumerate("xyz"):
        rows[axis] = mesh.vertices[:, i] + placement.offset[i]
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = mesh.colors[:, i]
    faces = np.empty(len(mesh.faces), [("vertex_indices", "i4", (3,))])
    faces["vertex_indices"] = mesh.faces
    return PlyData([PlyElement.describe(rows, "vertex"), PlyElement.describe(faces, "face")], byte_order="<")


def _glb(mesh: Mesh, placement: Placement) -> tuple[dict[str, Any], bytes]:
    """The JSON of glTF 2.0, and its buffer."""
    xyz = mesh.vertices.astype("<f4")
    rgb = mesh.colors / 255.0
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # glTF's vertex colours are linear
    rgba = np.concatenate([np.round(rgb * 65535), np.full((len(rgb), 1), 65535.0)], 1).astype("<u2")
    parts = [xyz.tobytes(), rgba.tobytes(), mesh.faces.astype("<u4").tobytes()]  # each a multiple of four bytes long
    starts = [0, len(parts[0]), len(parts[0]) + len(parts[1])]
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part), "target": target}
        for start, part, target in zip(starts, parts, (34962, 34962, 34963), strict=True)
    ]
    n = len(xyz)
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": n, "type": "VEC3",
         "min": xyz.min(0).tolist(), "max": xyz.max(0).tolist()},
        {"bufferView": 1, "componentType": 5123, "normalized": True, "count": n, "type": "VEC4"},
        {"bufferView": 2, "componentType": 5125, "count": mesh.faces.size, "type": "SCALAR"},
    ]  # fmt: skip
    turned = np.eye(4)
    turned[:3, :3] = placement.turn()
    turned[:3, 3] = turned[:3, :3] @ placement.offset
    document = {
        "asset": {"version": "2.0", "generator": f"lpm-splat {lpm.__version__}"},
        "extensionsUsed": ["KHR_materials_unlit"],  # light is in the colours already
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "matrix": turned.T.reshape(-1).tolist()}],
        "materials": [{"doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}],
        "meshes": [{"primitives": [
            {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0, "mode": 4},
        ]}],
        "buffers": [{"byteLength": sum(map(len, parts))}], "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    return document, b"".join(parts)
