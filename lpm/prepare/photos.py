"""The photos that are used, made ready: upright, readable by COLMAP, with the mask of each."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lpm.checks import LpmError, fail
from lpm.prepare.work import fresh
from lpm.scenes.images import load_image, reason
from lpm.scenes.layout import PHOTOS, VIDEOS, photo_folder
from lpm.scenes.masks import find_mask

HEIC = (".heic", ".heif")
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw")
LEAST_SIDE = 64
ORIENTATION, MAKE, MODEL, EXIF, FOCAL, FOCAL_35 = 0x0112, 0x010F, 0x0110, 0x8769, 0x920A, 0xA405
GPS, LATITUDE, LONGITUDE, ALTITUDE = 0x8825, 2, 4, 6
"""EXIF's directory of GPS, and tags there; the tag before each says N or S, E or W, or whether below the sea."""
SAVE: dict[str, Any] = {"quality": 97, "subsampling": 0}


@dataclass(frozen=True)
class Photo:
    """One image in the work folder."""

    name: str
    """Relative to the folder of images."""
    size: tuple[int, int]
    """Width and height, pixels."""
    lens: str
    """Equal where photos can share intrinsics."""
    focal: float | None = None
    """Pixels, where it is known exactly: of a pinhole that looks along the middle of the photo."""
    place: tuple[float, float, float] | None = None
    """Latitude, longitude (degrees) and altitude (metres) by EXIF's GPS."""


def photo_paths(source: Path) -> tuple[Path, list[Path]]:
    """The folder that has the photos, and the photos in it by name, those in formats that are not read included.

    Raises:
        LpmError: there is no such folder, or no photo in it.
    """
    if not source.is_dir():
        got = "is no video or folder" if source.exists() else "no such file or folder"
        fail(source, got, "a folder of photos, or a video (" + ", ".join(VIDEOS) + ")", "check the path")
    root = photo_folder(source) or source
    found = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name != "masks" and not name.startswith("."))
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    paths = sorted(path for path in found if path.suffix.lower() in (*PHOTOS, *HEIC, *RAW))
    if not paths:
        videos = sorted(path for path in found if path.suffix.lower() in VIDEOS)
        remedy = f"lpm-prepare {videos[0]} takes frames from the video" if videos else "name the folder that has them"
        fail(source, "no photos in it", "a folder of photos (" + ", ".join(PHOTOS) + ")", remedy)
    return root, paths


def chosen(paths: Sequence[Path], most: int | None) -> list[Path]:
    """At most `most` of the `paths`, evenly spaced."""
    if most is None or len(paths) <= most:
        return list(paths)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, most).round().astype(int)]


def masks_of(source: Path, root: Path, given: Path | None) -> Path | None:
    """The folder of masks, or the one mask of all photos; None where there is none. Raises LpmError."""
    if given is not None:
        if not given.exists():
            fail("--masks", f"{given} does not exist", "a folder of masks, or one image")
        return given
    return next((folder for folder in (source / "masks", root / "masks") if folder.is_dir()), None)


def lens_of(exif: Image.Exif, size: tuple[int, int]) -> str:
    """What tells two cameras apart: size of the image, model, focal length."""
    inner = exif.get_ifd(EXIF)
    parts = (exif.get(MODEL), inner.get(FOCAL), inner.get(FOCAL_35))
    return " ".join([f"{size[0]}x{size[1]}", *(str(part).strip("\0 ") for part in parts if part)])


def place_of(exif: Image.Exif) -> tuple[float, float, float] | None:
    """Latitude and longitude in degrees and altitude in metres by EXIF; None where they are not all there."""
    tags = exif.get_ifd(GPS)
    try:
        angles = [
            sum(float(part) / 60**i for i, part in enumerate(tags[tag])) * (-1 if tags[tag - 1] in ("S", "W") else 1)
            for tag in (LATITUDE, LONGITUDE)
        ]
        below = tags.get(ALTITUDE - 1) in (1, b"\1")
        place = *angles, float(tags[ALTITUDE]) * (-1 if below else 1)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    usable = np.isfinite(place).all() and abs(place[0]) <= 90 and abs(place[1]) <= 180 and place[:2] != (0, 0)
    return (place[0], place[1], place[2]) if usable else None


def kept_exif(exif: Image.Exif) -> Image.Exif:
    """What COLMAP guesses the focal length from, without the orientation."""
    result = Image.Exif()
    for tag in (MAKE, MODEL):
        if tag in exif:
            result[tag] = exif[tag]
    inner = exif.get_ifd(EXIF)
    result.get_ifd(EXIF).update({tag: inner[tag] for tag in (FOCAL, FOCAL_35) if tag in inner})
    return result


@functools.cache
def reads_heic() -> bool:
    """Has Pillow read HEIC, as phones write it; False where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def upright(path: Path, orientation: int) -> Image.Image:
    """The image with its EXIF `orientation` applied, RGB or RGBA, 8 bits. Raises LpmError if it cannot be decoded."""
    image = Image.fromarray(load_image(path))
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def free(name: str, images: Path, suffix: str | None = None) -> Path:
    """Where in the folder `images` a photo goes, whatever else is there: without spaces, which COLMAP's lists of pairs
    do not bear, and with `suffix` in place of its own if one is given."""
    target = images / re.sub(r"\s", "_", name)
    if suffix is not None and target.suffix.lower() != suffix:
        target = target.with_suffix(suffix)
    while target.is_symlink() or target.exists():
        target = target.with_name(f"{target.stem}_{target.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def ready(path: Path, name: str, images: Path) -> tuple[Photo, Image.Image | None, int]:
    """Puts the photo into `images` as `name` (.png or .jpg as it needs): a link where it can be used as it is.

    Returns the photo, its transparency (L, 255 is opaque) if it has any, and its EXIF orientation.

    Raises:
        LpmError: it cannot be read, or is tiny.
    """
    if path.suffix.lower() in HEIC and not reads_heic():
        fail(path.name, f"{path.suffix} needs a decoder", "JPEG, PNG, TIFF or WebP", "pip install pillow-heif")
    if path.suffix.lower() in RAW:
        fail(path.name, f"{path.suffix} is not read", "JPEG, PNG, TIFF or WebP", "convert it")
    with Image.open(path) as image:
        exif, size, kind, mode = image.getexif(), image.size, image.format, image.mode
        plain = kind in ("JPEG", "PNG") and mode in ("RGB", "L") and "transparency" not in image.info
        orientation = exif.get(ORIENTATION, 1)
        if min(size) < LEAST_SIDE:
            fail(path.name, f"{size[0]}x{size[1]} is tiny", f"{LEAST_SIDE} pixels a side")
        link = plain and orientation in (0, 1)
        if link:
            image.draft(mode, (size[0] // 8, size[1] // 8))  # tells a truncated JPEG in an eighth of the time
            image.load()
    if link:
        target = free(name, images)
        target.symlink_to(path.resolve())
        return Photo(target.relative_to(images).as_posix(), size, lens_of(exif, size), place=place_of(exif)), None, 1
    picture = upright(path, orientation)
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if alpha is not None and alpha.getextrema()[0] == 255:
        alpha, picture = None, picture.convert("RGB")
    target = free(name, images, ".jpg" if alpha is None else ".png")
    picture.save(target, exif=kept_exif(exif), **(SAVE if alpha is None else {"compress_level": 1}))
    name, lens = target.relative_to(images).as_posix(), lens_of(exif, picture.size)
    return Photo(name, picture.size, lens, place=place_of(exif)), alpha, orientation


def read_mask(path: Path, photo: Photo, orientation: int) -> Image.Image:
    """The mask of `photo` (L; 0 is ignored, 255 used), turned as the photo was where it fits only so.

    Raises:
        LpmError: it cannot be read, or has another size than its photo.
    """
    values = load_image(path)[:, :, :3].max(2)
    # A JPEG has no clean zeros.
    mask = Image.fromarray(
        np.where(values > (127 if path.suffix.lower() in (".jpg", ".jpeg") else 0), 255, 0).astype("u1")
    )
    if mask.size != photo.size and orientation not in (0, 1):
        mask.getexif()[ORIENTATION] = orientation
        mask = ImageOps.exif_transpose(mask)
    if mask.size != photo.size:
        got = f"mask of {mask.size[0]}x{mask.size[1]}"
        wanted = f"{photo.size[0]}x{photo.size[1]} as {photo.name} has"
        fail(path, got, wanted, "make the mask as large as its photo")
    return mask


def write_masks(
    photos: Sequence[tuple[Photo, str, Image.Image | None, int]], source: Path | None, masks: Path
) -> tuple[int, bool]:
    """Writes NAME.png of every photo into `masks` where any has a mask or transparency.

    Args:
        photos: each with its name in the user's folder, transparency, orientation.
        source: folder of masks, or one of all photos.

    Returns:
        how many photos have a mask of their own, and whether there are any files in `masks`.
    """
    own = 0
    if source is None and all(alpha is None for _, _, alpha, _ in photos):
        return 0, False
    for photo, name, alpha, orientation in photos:
        path = None if source is None else source if source.is_file() else find_mask(source, name)
        mask = Image.new("L", photo.size, 255) if path is None else read_mask(path, photo, orientation)
        own += path is not None
        if alpha is not None:
            mask = Image.fromarray(np.where(np.asarray(alpha) > 0, np.asarray(mask), 0).astype("u1"))
        target = masks / f"{photo.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        mask.save(target, compress_level=1)
    if source is not None and own == 0:
        fail(source, "no mask of any of the photos", f"{photos[0][1]}.png and so on", "name masks as their photos")
    return own, True


def collect(
    root: Path, paths: Sequence[Path], masks: Path | None, work: Path, done: Callable[[], None]
) -> dict[str, Any]:
    """Makes `work`/images and, where there are masks or transparency, `work`/masks.

    Returns:
        photos (as dicts), skipped ([name, why] each), own_masks (how many photos have one), masks (whether written).
    """
    images, mask_folder = fresh(work / "images"), fresh(work / "masks")
    good: list[tuple[Photo, str, Image.Image | None, int]] = []
    skipped = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            photo, alpha, orientation = ready(path, name, images)
            good.append((photo, name, alpha, orientation))
        except (LpmError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            skipped.append([name, reason(error)])
        done()
    if len(good) < 3:
        got = f"{len(good)} photos that can be used"
        why = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        fail(root, got + why, "at least 3, better 30 to 300", "take more photos from different places")
    own, written = write_masks(good, masks, mask_folder)
    photos = [asdict(photo) for photo, *_ in good]
    return {"photos": photos, "skipped": skipped, "own_masks": own, "masks": written}
