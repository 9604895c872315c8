"""A path of the camera through keyframes, smooth in place and direction; kept as nerfstudio's camera path."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from lpm.checks import fail
from lpm.viewer.page.camera import Camera, camera_at

FPS = 30
MOST_KEYFRAMES = 10_000
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera axes (x right, y up, z back), which nerfstudio writes, to OpenCV's and back."""


def sample(keyframes: list[Camera], at: NDArray[np.float64]) -> list[Camera]:
    """The cameras at the times `at` [T], where keyframe i is at time i; times before and after are those of the ends.

    Places go along a cubic spline, directions along scipy's RotationSpline (both twice continuously differentiable);
    between two keyframes along a straight line and the shorter arc.
    """
    if not keyframes:
        return []
    at = np.clip(np.asarray(at, np.float64), 0, len(keyframes) - 1)
    if len(keyframes) == 1:
        return [keyframes[0] for _ in at]
    knots = np.arange(len(keyframes))
    places = np.array([camera.position for camera in keyframes])
    turns = Rotation.from_quat(np.array([np.roll(camera.wxyz, -1) for camera in keyframes]))
    positions = CubicSpline(knots, places, bc_type="natural")(at)
    matrices = RotationSpline(knots, turns)(at).as_matrix()
    fovs = np.interp(at, knots, [camera.fov for camera in keyframes])
    return [
        camera_at(np.column_stack([matrix, position]), fov, keyframes[0].aspect)
        for matrix, position, fov in zip(matrices, positions, fovs, strict=True)
    ]


def frames(keyframes: list[Camera], seconds: float, fps: float = FPS) -> list[Camera]:
    """The cameras of a film, `seconds` from one keyframe to the next."""
    count = max(1, round((len(keyframes) - 1) * seconds * fps)) + 1 if len(keyframes) > 1 else len(keyframes)
    return sample(keyframes, np.linspace(0, max(0, len(keyframes) - 1), count))


def _opengl(camera: Camera) -> list[float]:
    rows: list[float] = (camera.c2w @ FLIP).flatten().tolist()
    return rows


def to_json(keyframes: list[Camera], seconds: float, size: tuple[int, int], fps: int = FPS) -> bytes:
    """The path as `ns-render camera-path` and nerfstudio's viewer read it (of a run: in its own, training frame).

    Args:
        keyframes: at least one.
        seconds: from one keyframe to the next.
        size: width and height of the pictures that ns-render shall make.
        fps: pictures a second.
    """
    film = frames(keyframes, seconds, fps)
    aspect = size[0] / size[1]
    values: dict[str, Any] = {
        "default_fov": math.degrees(keyframes[0].fov),
        "default_transition_sec": seconds,
        "keyframes": [
            {
                "matrix": _opengl(camera), "fov": math.degrees(camera.fov), "aspect": aspect,
                "override_transition_enabled": False, "override_transition_sec": None,
            }
            for camera in keyframes
        ],
        "camera_type": "perspective",
        "render_width": size[0],
        "render_height": size[1],
        "fps": fps,
        "seconds": max(len(film) / fps, 1 / fps),
        "is_cycle": False,
        "smoothness_value": 0.0,
        "camera_path": [
            {"camera_to_world": _opengl(camera), "fov": math.degrees(camera.fov), "aspect": aspect} for camera in film
        ],
    }  # fmt: skip
    return (json.dumps(values, indent=1) + "\n").encode()


def from_json(content: bytes, name: str | Path = "camera path") -> tuple[list[Camera], float]:
    """Keyframes, and seconds from one to the next, of a file that `to_json` or nerfstudio wrote.

    Raises:
        LpmError: it is something else, or a matrix in it is not a camera.
    """
    wanted = "a camera path of lpm-view or nerfstudio"
    try:
        values = json.loads(content)
        rows = values["keyframes"]
        seconds = float(values.get("default_transition_sec") or 2.0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fail(name, "no keyframes in it", wanted)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_KEYFRAMES:
        fail(name, "no list of keyframes in it", f"1 to {MOST_KEYFRAMES} keyframes")
    if not (math.isfinite(seconds) and 0 < seconds <= 3600):
        fail(name, f"{seconds} seconds between keyframes", "more than 0 and at most 3600")
    out = []
    for i, row in enumerate(rows):
        try:
            matrix = np.array(row["matrix"], np.float64).reshape(4, 4)
            fov, aspect = math.radians(float(row["fov"])), float(row.get("aspect") or 4 / 3)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            fail(f"{name}, keyframe {i}", "no matrix of 16 numbers and fov", wanted)
        turned = matrix[:3, :3] @ matrix[:3, :3].T
        if not np.isfinite(matrix).all() or np.abs(turned - np.eye(3)).max() > 1e-2 or np.linalg.det(matrix) < 0:
            fail(f"{name}, keyframe {i}", "a matrix that is not a rotation and a place", wanted)
        camera = camera_at(matrix @ FLIP, fov, aspect)
        if not camera.usable():
            fail(f"{name}, keyframe {i}", f"fov {row['fov']} degrees", "more than 0 and less than 180")
        out.append(camera)
    return out, seconds
