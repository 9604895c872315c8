"""Masks: which file is whose, and what it says. Black says nothing; everything else counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.scenes.images import load_image, turned_file
from lpm.scenes.layout import PHOTOS, folder_called
from lpm.scenes.photo_files import key

FOLDERS = ("masks", "mask")
WORD = re.compile(r"[._\- ]masks?$|^masks?[._\- ]")
"""What Metashape (NAME_mask.png), RealityCapture (NAME.mask.png) and others put to the photo's name."""
LOSSY = (".jpg", ".jpeg", ".webp")


def load_mask(path: Path) -> NDArray[np.bool_]:
    """[H, W] where the mask at `path` lets pixels through: they are not black, and not transparent.

    One whose colours are the same all over says it by its transparency alone. What is dark in a JPEG is black: it has
    no clean zeros.

    Raises:
        LpmError: it cannot be decoded.
    """
    pixels = load_image(path)
    color = pixels[..., :3].max(2)
    known = color > (127 if turned_file(path).suffix.lower() in LOSSY else 0)
    if pixels.shape[2] == 4 and int(pixels[..., 3].min()) < 255:
        solid = pixels[..., 3] > 127
        return solid if (pixels[..., :3] == pixels[0, 0, :3]).all() else known & solid
    return np.asarray(known)


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of image `name`: COLMAP's own a.jpg.png, or a.png as nerfstudio has it, or the same name."""
    if Path(name).is_absolute():  # of a scene that may name files outside of its folder
        return None
    path = folder / name
    return next((p for p in (path.with_name(path.name + ".png"), path.with_suffix(".png"), path) if p.is_file()), None)


def mask_key(name: str) -> str:
    """What the name of a mask has in common with that of its photo: no endings, and not the word mask."""
    folder, _, last = key(name).rpartition("/")
    while (shorter := key(WORD.sub("", last))) not in (last, ""):
        last = shorter
    return f"{folder}/{last}" if folder else last


def find_masks(root: Path, photos: Path, names: Sequence[str]) -> list[Path] | None:
    """The masks of the photos `names`, which are relative to the folder `photos`; None where there are none.

    They are in masks/ below `root`, called as their photos are, with the word mask or other endings as the case may be;
    or beside the photos, called NAME_mask.png or so.

    Raises:
        LpmError: there is a folder of masks, but none for some of the photos, or for all.
    """
    folder = folder_called(root, FOLDERS)
    place = folder or photos
    files = sorted(
        (p for p in place.rglob("*") if p.suffix.lower() in PHOTOS and p.is_file()), key=lambda p: len(p.name)
    )
    if folder is None:
        files = [path for path in files if WORD.search(key(path.name))]
    if not files:
        return None
    by_key: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_key.setdefault(mask_key(file.relative_to(place).as_posix()), file)
        by_name.setdefault(mask_key(file.name), []).append(file)
    last = [key(Path(name).name) for name in names]
    found = []
    for name, short in zip(names, last, strict=True):
        path = (find_mask(folder, name) if folder else None) or by_key.get(key(name))
        if path is None and last.count(short) == 1 == len(by_name.get(short, ())):
            path = by_name[short][0]  # all in one folder
        found.append(path)
    lacking = [name for name, path in zip(names, found, strict=True) if path is None]
    if not lacking:
        return [path for path in found if path is not None]
    if folder is None:
        return None
    if len(lacking) == len(names):
        got = f"{len(files)} files, none of which is called as a photo is ({files[0].name})"
        fail(folder, got, f"{names[0]}.png for {names[0]}, and so on", f"rename the masks, or remove {folder.name}/")
    more = f" and {len(lacking) - 1} others of {len(names)} images" if len(lacking) > 1 else ""
    wanted = "a mask for every image or for none"
    fail(folder, f"no mask for {lacking[0]}{more}", wanted, f"add it or remove {folder.name}/")
