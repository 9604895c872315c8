"""The scene that is trained on: images, masks and model as perspective cameras without distortion see them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lpm.prepare import views
from lpm.prepare.progress import every
from lpm.prepare.sfm import load_pycolmap
from lpm.prepare.work import fresh, remove

JPEG_QUALITY = 100
"""What compression adds differs from image to image, and shows as error in training."""


def undistort(
    work: Path, own_masks: bool, new: Path, done: Callable[[int], None], fov: float | None = None
) -> list[str]:
    """Writes new/images, new/sparse/0 (PINHOLE, with points and tracks) and, where there are any, new/masks.

    Args:
        work: has images/, masks/ where there are any, and model/.
        done: called with the number of images that are there so far.
        fov: degrees across that one view of a photo is to have; None: all that is seen.

    Returns:
        what was made of photos that lpm.prepare.views cuts, in words; none where COLMAP undistorts them.
    """
    pycolmap = load_pycolmap()
    if views.needed(pycolmap.Reconstruction(work / "model"), fov):
        return views.write(work, own_masks, fov, new, JPEG_QUALITY, done)
    raw = fresh(new / "raw")
    # A native call, which tells nothing: its files are counted.
    with every(0.5, lambda: done(sum(path.is_file() for path in (raw / "images").rglob("*")))):
        pycolmap.undistort_images(raw, work / "model", work / "images", jpeg_quality=JPEG_QUALITY)
    os.replace(raw / "images", new / "images")
    (new / "sparse").mkdir()
    os.replace(raw / "sparse", new / "sparse" / "0")
    remove(raw)
    model = pycolmap.Reconstruction(work / "model")
    for image in model.images.values():
        if not image.has_pose:
            continue
        camera = model.cameras[image.camera_id]
        with Image.open(work / "images" / image.name) as photo:
            alpha = np.asarray(photo.getchannel("A")) if photo.mode == "RGBA" else None
        if alpha is not None:
            path = new / "images" / image.name
            with Image.open(path) as opaque:
                picture = opaque.convert("RGB")
            picture.putalpha(Image.fromarray(bent(pycolmap, alpha, camera)))
            picture.save(path, compress_level=3)
        if own_masks:
            values = np.asarray(Image.open(work / "masks" / f"{image.name}.png"))
            target = new / "masks" / f"{image.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            # A pixel that is mixed with an ignored one is ignored.
            Image.fromarray(np.where(bent(pycolmap, values, camera) > 250, 255, 0).astype("u1")).save(target)
    return []


def bent(pycolmap: Any, values: NDArray[np.uint8], camera: Any) -> NDArray[np.uint8]:
    """`values` [H, W] of a photo by `camera`, undistorted as its image is."""
    options = pycolmap.UndistortCameraOptions()
    bitmap, _ = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(np.ascontiguousarray(values)), camera)
    grey: NDArray[np.uint8] = bitmap.to_array().reshape(bitmap.height, bitmap.width)
    return grey
