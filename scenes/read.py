"""Any supported folder -> Scene, checked as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lpm.checks import LpmError, fail
from lpm.scenes.cut_up import cut_up
from lpm.scenes.images import TURNED, fitting, misfit
from lpm.scenes.layout import detect
from lpm.scenes.layouts.colmap import read_colmap
from lpm.scenes.layouts.llff import read_llff
from lpm.scenes.layouts.multiview_video import read_multiview_video
from lpm.scenes.layouts.nerfies import read_nerfies
from lpm.scenes.layouts.technicolor import read_technicolor
from lpm.scenes.layouts.transforms import read_blender, read_transforms
from lpm.scenes.scene import Scene
from lpm.scenes.seen import looks_away

READERS = {
    "transforms": read_transforms,
    "colmap": read_colmap,
    "blender": read_blender,
    "video": read_multiview_video,
    "llff": read_llff,
    "nerfies": read_nerfies,
    "technicolor": read_technicolor,
}


def read_scene(data: Path, outside_files: bool = False, lens_fov: float | None = None) -> Scene:
    """Reads the scene in the folder `data`; writes nothing, decodes no image.

    Args:
        outside_files: the scene may name files outside of its folder.
        lens_fov: degrees across that pinhole views of photos by fisheyes have; None: see lpm.scenes.cuts.

    Raises:
        LpmError: on anything in it that cannot be used, naming the file, what was wanted, and a remedy.
    """
    layout = replace(detect(data), outside=outside_files)
    try:
        scene = READERS[layout.kind](layout)
    except LpmError:
        raise
    except Exception as error:  # whatever a broken or hostile file makes of a reader
        got = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        fail(layout.source, got, "a scene that is whole", "export it again, or restore its files")
    if layout.passed_over:
        other = "; move it away to have the next" if layout.kind == "colmap" else ""
        also = f"{layout.root}: {layout.told} is read; also there: {', '.join(layout.passed_over)}"
        scene.notes.insert(0, also + other)
    if scene.masks is not None:
        scene.masks = [fitted(mask, size) for mask, size in zip(scene.masks, scene.sizes.tolist(), strict=True)]
    for depth in scene.depths or []:
        if not depth.is_file():
            fail(depth, "no such file", "the depths that a frame names", "restore it, or remove depth_file_path")
    if scene.points is None:
        scene.notes.append(f"{layout.root}: no file of points")
    elif len(scene.points.xyz) == 0:
        fail(
            scene.points.source,
            "zero points",
            "at least one starting point",
            "run the reconstruction again, or remove the file to start from random points",
        )
    elif scene.points.xyz.shape[1:] != (3,):
        fail(scene.points.source, f"an array {list(scene.points.xyz.shape)}", "[N, 3]", "export the points again")
    elif not np.isfinite(scene.points.xyz).all():
        bad = int((~np.isfinite(scene.points.xyz)).any(1).argmax())
        fail(scene.points.source, f"non-finite position in point {bad}", "finite numbers", "export the points again")
    if scene.points is not None and (away := looks_away(scene)):
        scene.notes.append(f"warning: {away}")
    if (turned := sum(path.name == TURNED for path in scene.images)) > 0:
        scene.notes.append(
            f"{turned} of {len(scene)} photos are turned as their EXIF says: their cameras' sizes are so"
        )
    lenses, scene.lenses = scene.lenses, None
    return scene if lenses is None else cut_up(scene, lenses, lens_fov)


def fitted(mask: Path, size: list[int]) -> Path:
    """`mask`, turned as its EXIF says if it is of `size` only so. Raises LpmError where it is not of `size`."""
    wanted = size[0], size[1]
    found = fitting(mask, wanted)
    if found is None:
        got = misfit(mask, wanted).replace("image", "mask", 1)
        fail(mask, got, f"{size[0]}x{size[1]} as its image has", "make the mask as large as its image")
    return found
