"""Zones as boxes: the 12 edges of each, as lines or as a mesh of thin bars, and the colours of kinds and edits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Colours 0..255. As in docs/images/method_event.jpg, but for under-resolved zones: green points are those added.
ZONE_COLORS: dict[str, tuple[int, int, int]] = {
    "false-front": (225, 40, 40),
    "missing": (40, 90, 240),
    "under-resolved": (250, 145, 20),
    "no-evidence": (150, 150, 150),
}
EDIT_COLORS: dict[str, tuple[int, int, int]] = {
    "added": (30, 190, 70),
    "removed": (215, 60, 90),
    "reset": (240, 190, 0),
}

# Corners of a zone (lpm.records.ZoneRecord): four around the near face, then the same four of the far face.
EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)], np.int64
)
# Two triangles on each side of a bar, which has four corners at its start (0..3) and four at its end (4..7).
BAR_FACES = np.array([(0, 1, 5), (0, 5, 4), (1, 2, 6), (1, 6, 5), (2, 3, 7), (2, 7, 6), (3, 0, 4), (3, 4, 7)], np.int64)


def edge_ends(corners: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Start and end of the 12 edges of each box: [Z * 12, 2, 3] of `corners` [Z, 8, 3]."""
    return np.asarray(corners, np.float64).reshape(-1, 8, 3)[:, EDGES].reshape(-1, 2, 3)


def edges_mesh(
    corners: NDArray[np.floating[Any]], thickness: float | NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A mesh of square bars, `thickness` wide, along the 12 edges of each box; viser 0.2.7 draws no lines.

    Args:
        corners: [Z, 8, 3], four of the near face in turn, then the four of the far face.
        thickness: Width of the bars, in the units of `corners`; one for all, or [Z] one for each box.

    Returns:
        Vertices [Z * 96, 3] float32 and faces [Z * 96, 3] int64 (indices of vertices, seen from outside).
    """
    start, end = edge_ends(corners).transpose(1, 0, 2)
    width = np.broadcast_to(thickness, (len(start) // 12,)).repeat(12)[:, None]
    along = end - start
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 0, along / np.where(length > 0, length, 1), (0.0, 0.0, 1.0))
    # Across: any direction that is not nearly along; the axis that the edge has least of.
    across = np.cross(along, np.eye(3)[np.abs(along).argmin(1)])
    across *= 0.5 * width / np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(along, across)
    around = np.stack([across + upward, -across + upward, -across - upward, across - upward], 1)  # [E, 4, 3]
    vertices = np.concatenate([start[:, None] + around, end[:, None] + around], 1)  # [E, 8, 3]
    faces = BAR_FACES[None] + 8 * np.arange(len(vertices))[:, None, None]
    return vertices.reshape(-1, 3).astype(np.float32), faces.reshape(-1, 3)
