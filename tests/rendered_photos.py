"""Photos of a sample scene with exact poses, and how far a reconstruction is from them."""

from __future__ import annotations

import numpy as np

VIEWS, SIZE, FOCAL = 12, (288, 216), 260.0


def alignment(truth, found):
    """Largest rotation error (degrees) and centre error (of the cameras' spread) after the best similarity."""
    a, b = truth[:, :3, 3], found[:, :3, 3]
    a0, b0 = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(a0.T @ b0)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = u @ sign @ vt
    scale = (np.diag(s) @ sign).trace() / (b0**2).sum()
    away = np.linalg.norm(scale * b0 @ turn.T - a0, axis=1).max() / np.linalg.norm(a0, axis=1).mean()
    between = np.einsum("nij,nkj->nik", turn @ found[:, :3, :3], truth[:, :3, :3])
    cos = np.clip((between.trace(axis1=1, axis2=2) - 1) / 2, -1, 1)
    return np.degrees(np.arccos(cos)).max(), away
