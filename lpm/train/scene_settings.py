"""Settings of how a scene is read and placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class SceneSettings:
    """How a scene is read and placed."""

    orientation_method: Literal["pca", "up", "vertical", "none"] = "up"
    """How the scene is turned: by default the cameras' mean up direction becomes z."""
    center_method: Literal["poses", "focus", "none"] = "poses"
    """What becomes the origin: the cameras' mean, the point they look at, or what it was."""
    auto_scale_poses: bool = True
    """Scale so that the cameras fit into +-1."""
    scale_factor: float = 1.0
    """A further factor on positions."""
    load_3D_points: bool = True
    """Start from the scene's points where it has them."""
    max_points: int | None = None
    """Keep at most this many of the points, drawn at random with a fixed seed."""
    unchecked: bool = False
    """Train even if the check at the start finds that photos and poses cannot belong together (docs/scenes.md)."""
    outside_files: bool = False
    """Read files that the scene names outside of its folder (`..`, absolute paths)."""
    lens_fov: float | None = None
    """Photos by fisheyes and the like are undistorted to one view of so many degrees across. None: to one of all that
    is seen, up to 120 degrees; wider ones to several, faces of a cube."""
    depth_unit_scale_factor: float = 1e-3
    """Of a scene with depths (depth_file_path): its unit for one of the files'. Millimetres for metres by default."""
    alpha_color: Literal["white", "black"] | None = "white"
    """Background for Blender's images, which are transparent there; None leaves their alpha to the method."""


@dataclass
class DataSettings(SceneSettings):
    """How a scene is read and placed, and how much of its photos is kept."""

    cache_gb: float | None = None
    """Memory that decoded photos may take, in GiB; those for which there is no room are decoded ahead of their step.
    None: half of what is free. The result does not depend on it."""
    device_cache_gb: float | None = None
    """The same of a GPU's memory, apart from the other."""
