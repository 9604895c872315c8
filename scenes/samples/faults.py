"""What is wrong with people's photos, planted in known amounts: poses that are off, noise, drifting exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lpm.scenes.scene import Floats


def nudged(poses: Floats, intrinsics: Floats, pixels: Floats, rng: np.random.Generator) -> Floats:
    """[V, 4, 4] the `poses` (camera to world), each turned so that its picture moves by up to `pixels` [V].

    What the camera shows at its middle moves by a little less, at the corners by that much; the direction is drawn.
    Turned only: a picture that moves as a whole is what is left of a calibration after the bundle is adjusted.

    Args:
        intrinsics: [4] fx, fy, cx, cy in pixels; the corner of the picture is at (0, 0).
    """
    across = rng.uniform(0, 2 * np.pi, len(poses))
    corner = (intrinsics[2] / intrinsics[0]) ** 2 + (intrinsics[3] / intrinsics[1]) ** 2
    angle = 0.99 * pixels / (intrinsics[0] * (1 + corner))  # .99: a turn is not quite linear
    turns = Rotation.from_rotvec(angle[:, None] * np.stack([np.cos(across), np.sin(across), 0 * across], 1))
    off = poses.copy()
    off[:, :3, :3] = poses[:, :3, :3] @ turns.as_matrix()
    return off


def noisy(rgb: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """`rgb` [H, W, 3] (0..1) with the noise of a sensor: of standard deviation `sigma` where it is white, .45 of that
    where it is black."""
    spread = sigma * np.sqrt(0.2 + 0.8 * np.clip(rgb, 0, 1))
    seen: NDArray[np.float32] = (rgb + spread * rng.standard_normal(rgb.shape)).astype(np.float32)
    return seen


def drift(amount: float, views: int) -> Floats:
    """[views] gains that go up by the share `amount` and down again, with every 8th view, which is held out, at 1."""
    gains: Floats = (1 + amount) ** np.sin(np.pi * np.arange(views) / 8)
    gains[::8] = 1.0
    return gains
