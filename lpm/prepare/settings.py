"""What `lpm-prepare` can be told, and what of it decides which stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lpm.checks import fail

CameraModel = Literal[
    "auto", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "FOV", "OPENCV_FISHEYE",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "EQUIRECTANGULAR",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """From photos or a video to a scene that `lpm-train OUT` and `ns-train lpm-splat --data OUT` train on.

    Poses come from COLMAP's structure from motion (pycolmap). Repeat an interrupted command to go on with it.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS|VIDEO")]
    """Folder of photos, or a video file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to make: images/, sparse/0/, masks/ where there are any, report.html."""
    frames: int = 150
    """Frames to take from a video: the sharpest one of each of this many equal parts."""
    max_images: int | None = None
    """Use at most this many of the photos, evenly chosen by name."""
    masks: Path | None = None
    """Folder of masks (NAME.jpg.png or NAME.png; 0 is ignored), or one image for all photos. By default the folder
    masks/ among the photos, or beside their images/ folder, where there is one."""
    camera_model: CameraModel = "auto"
    """COLMAP's camera model. auto: SIMPLE_RADIAL while the reconstruction grows, RADIAL in the end. OPENCV from the
    start for wide lenses, OPENCV_FISHEYE for fisheyes. EQUIRECTANGULAR: 360 degree photos; auto takes photos that are
    exactly twice as wide as high for such. The scene is undistorted in any case."""
    lens_fov: float | None = None
    """Undistort to one view of so many degrees across. By default to all that is seen; where that is more than 120
    degrees, to several views, faces of a cube."""
    cameras: Literal["shared", "folder", "each"] = "shared"
    """Which photos share their intrinsics: those of the same size, model and focal length by their EXIF; those of one
    folder and size; or none."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which images are compared in full: every pair, or neighbours by name. auto: every pair up to 40 photos; of more,
    those that look alike by their strongest features, and the next few by name."""
    feature_size: int = 1600
    """Features are sought at this many pixels on the longer side at most."""
    mapper: Literal["global", "incremental"] = "global"
    """How poses are found first: of all images at once, or image after image. Where that fails, or its model looks
    wrong, the other one is tried and the better model taken."""
    max_features: int | None = None
    """At most this many features an image. By default 4000 for a megapixel (of what is searched), growing with the
    image's side; fewer beyond 60 photos, up to twice as many for fewer photos; always 2000 to 8192."""
    distance: tuple[str, str, float] | None = None
    """Two photos, and how many metres apart they were taken: the scene is then in metres. GPS in the photos says so,
    too, where they are spread much wider than it errs."""
    seed: int = 0
    """Of the random choices in reconstruction."""
    accept: bool = False
    """Make the scene also where the model looks wrong."""
    overwrite: bool = False
    """Replace the scene that an earlier lpm-prepare made in OUT."""

    def check(self) -> None:
        """Raises LpmError for numbers that cannot be used."""
        for name, least in (("frames", 3), ("max_images", 3), ("feature_size", 64), ("max_features", 100), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                fail(f"--{name.replace('_', '-')}", str(value), f"at least {least}")
        if self.lens_fov is not None:
            from lpm.scenes.cuts import check_fov

            check_fov(self.lens_fov)
