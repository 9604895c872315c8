"""Where the nodes of a glTF scene put their meshes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lpm.formats.gltf_container import Gltf
from lpm.formats.placement import similarity_of
from lpm.gaussians.far import Floats
from lpm.gaussians.parameters import rotations
from lpm.gaussians.similarity import Similarity


def placed_meshes(gltf: Gltf) -> list[tuple[int, Similarity]]:
    """Each mesh of the file's scene as often as a node shows it, and from its own axes to the scene's.

    Raises:
        LpmError: nodes that are each other's children, or one above a mesh that stretches it.
    """
    scenes, nodes = gltf.items(gltf.json, "scenes"), gltf.items(gltf.json, "nodes")
    if scenes:
        roots = gltf.items(gltf.entry("scenes", gltf.whole(gltf.json, "scene", 0)), "nodes")
    else:
        children = {str(c) for node in nodes for c in gltf.items(node, "children")}
        roots = [i for i in range(len(nodes)) if str(i) not in children]
    waiting: list[tuple[Any, Floats]] = [(root, np.eye(4)) for root in roots]
    seen: set[int] = set()
    found = []
    while waiting:
        index, above = waiting.pop()
        node = gltf.entry("nodes", index)
        if index in seen:
            gltf.wrong(f"node {index} below two others", "a tree")
        seen.add(index)
        matrix = above @ _matrix(gltf, node)
        if "mesh" in node:
            found.append((gltf.whole(node, "mesh"), similarity_of(gltf.path, f"node {index}", matrix)))
        waiting += [(child, matrix) for child in gltf.items(node, "children")]
    return found


def _matrix(gltf: Gltf, node: dict[str, Any]) -> Floats:
    """[4, 4] from the node's axes to those above it."""
    if "matrix" in node:
        return gltf.numbers(node, "matrix", [0.0] * 16).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = gltf.numbers(node, "rotation", [0, 0, 0, 1.0])
    length = np.linalg.norm((x, y, z, w))
    if not 1e-6 < length < np.inf:
        gltf.wrong("a rotation of length 0", "a quaternion")
    turned = rotations(torch.tensor([[w, x, y, z]], dtype=torch.float64))[0].numpy()
    matrix[:3, :3] = turned * gltf.numbers(node, "scale", [1.0] * 3)
    matrix[:3, 3] = gltf.numbers(node, "translation", [0.0] * 3)
    return matrix
