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

    Viewers of nerfstudio before 1.0 kept a keyframe's matrix column by column, as three.js has it, mostly as text.

    Raises:
        LpmError: it is something else, a matrix in it is not a camera, or it is for pictures that are not perspective.
    """
    wanted = "a camera path of lpm-view or nerfstudio"
    try:
        values = json.loads(content)
        rows, kind = values["keyframes"], values.get("camera_type") or "perspective"
        seconds = float(values.get("default_transition_sec") or _seconds(values) or 2.0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        fail(name, "no keyframes in it", wanted)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_KEYFRAMES:
        fail(name, "no list of keyframes in it", f"1 to {MOST_KEYFRAMES} keyframes")
    if not (math.isfinite(seconds) and 0 < seconds <= 3600):
        fail(name, f"{seconds} seconds between keyframes", "more than 0 and at most 3600")
    if kind != "perspective":
        remedy = "ns-render draws panoramas and fisheyes of a run of ns-train"
        fail(name, f"camera_type {str(kind)[:40]}", "perspective", remedy)
    matrices, told, texts = [], [], False
    for i, row in enumerate(rows):
        try:
            texts = texts or isinstance(row["matrix"], str)
            matrices.append(np.array(_parsed(row["matrix"]), np.float64).reshape(4, 4))
            properties = {key: value for key, value in _parsed(row.get("properties") or [])}
            fov = float(row["fov"] if "fov" in row else properties["FOV"])
            told.append((math.radians(fov), float(row.get("aspect") or 4 / 3)))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            fail(f"{name}, keyframe {i}", "no matrix of 16 numbers and fov", wanted)
    if texts or any(_is_transposed(matrix) for matrix in matrices):
        matrices = [matrix.T for matrix in matrices]
    out = []
    for i, (matrix, (fov, aspect)) in enumerate(zip(matrices, told, strict=True)):
        turned = matrix[:3, :3] @ matrix[:3, :3].T
        sound = np.isfinite(matrix).all() and np.abs(turned - np.eye(3)).max() <= 1e-2
        if not sound or np.linalg.det(matrix) < 0 or np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
            fail(f"{name}, keyframe {i}", "a matrix that is not a rotation and a place", wanted)
        camera = camera_at(matrix @ FLIP, fov, aspect)
        if not camera.usable():
            fail(f"{name}, keyframe {i}", f"fov {math.degrees(fov):g} degrees", "more than 0 and less than 180")
        out.append(camera)
    return out, seconds


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _seconds(values: dict[str, Any]) -> float:
    """From one keyframe to the next, where a file only says how long all of it is; else 0."""
    steps = len(values["keyframes"]) - (0 if values.get("is_cycle") else 1)
    return float(values.get("seconds") or 0) / steps if steps > 0 else 0.0


def _is_transposed(matrix: NDArray[np.float64]) -> bool:
    """Whether a place stands in the last row, and none in the last column."""
    return bool(np.abs(matrix[3, :3]).max() > 0 and np.abs(matrix[:3, 3]).max() == 0)
