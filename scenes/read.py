"""Any supported folder -> Scene, checked as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lpm.checks import LpmError, fail
from lpm.scenes.cut_up import cut_up
from lpm.scenes.images import image_size
from lpm.scenes.layout import detect
from lpm.scenes.layouts.colmap import read_colmap
from lpm.scenes.layouts.multiview_video import read_multiview_video
from lpm.scenes.layouts.nerfies import read_nerfies
from lpm.scenes.layouts.technicolor import read_technicolor
from lpm.scenes.layouts.transforms import read_blender, read_transforms
from lpm.scenes.scene import Scene

READERS = {
    "transforms": read_transforms,
    "colmap": read_colmap,
    "blender": read_blender,
    "video": read_multiview_video,
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
        scene.notes.insert(
            0, f"{layout.root}: {layout.source.name} is read; also there: {', '.join(layout.passed_over)}"
        )
    for mask, size in zip(scene.masks or [], scene.sizes.tolist(), strict=False):
        if image_size(mask) != tuple(size):
            got = "x".join(map(str, image_size(mask)))
            fail(mask, f"mask of {got}", f"{size[0]}x{size[1]} as its image has", "make the mask as large as its image")
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
    lenses, scene.lenses = scene.lenses, None
    return scene if lenses is None else cut_up(scene, lenses, lens_fov)
