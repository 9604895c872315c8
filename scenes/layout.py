"""Which of the supported folder layouts a scene has, told from its files alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lpm.checks import LpmError, fail
from lpm.scenes.video import SUFFIXES

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEOS = (*SUFFIXES, ".m4v")
COLMAP_FOLDERS = ("sparse/0", "colmap/sparse/0", "sparse")
COLMAP_TABLES = ("cameras", "images")
REMEDY = (
    "name a folder with transforms.json (nerfstudio), sparse/0/cameras.bin and images.bin (COLMAP; .txt too), "
    "transforms_train.json (Blender, D-NeRF), poses_bounds.npy with a video per camera (Neural 3D Video), "
    "dataset.json with camera/ (Nerfies, HyperNeRF, DyCheck), or cameras_parameters.txt (Technicolor)"
)


@dataclass(frozen=True)
class Layout:
    """A recognised layout."""

    kind: Literal["transforms", "colmap", "blender", "video", "nerfies", "technicolor"]
    """Who reads it."""
    root: Path
    """The scene's folder; image paths are relative to it."""
    source: Path
    """The file, or folder (colmap), that holds the cameras."""
    passed_over: tuple[str, ...] = ()
    """Other layouts that are there as well, in words; the first one found in the order above wins."""
    outside: bool = False
    """Whether its files may name others that lie outside of the folder."""

    def file(self, name: object, below: str = "") -> Path:
        """The path of the file that the scene calls `name`, relative to the folder `below` in the scene's.

        Raises:
            LpmError: `name` is no name, or leaves the scene's folder (`..`, an absolute path) where it may not: a scene
                from elsewhere would make others of this machine's files part of what is trained and shared. Links in
                the folder are followed: who unpacked it made them.
        """
        if not isinstance(name, str) or "\0" in name or not name:
            fail(self.source, f"{name!r} for a file", "the name of a file", "correct it")
        path = self.root / below / name
        if not self.outside and not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.root)):
            remedy = "move the file there, or if you trust the scene add `lpm-data --outside-files True` to the command"
            fail(self.source, f"{name} lies outside of {self.root}", "files of the scene's folder", remedy)
        return path


def photo_folder(data: Path) -> Path | None:
    """The folder that directly has photos: `data` or its images/; None where neither has."""
    for folder in (data, data / "images"):
        if folder.is_dir() and any(path.suffix.lower() in PHOTOS for path in folder.iterdir()):
            return folder
    return None


def holds_photos_only(data: Path) -> bool:
    """Whether `data` is a video, or a folder with photos in it and none of the layouts: without poses."""
    if data.is_file():
        return data.suffix.lower() in VIDEOS
    if not data.is_dir() or photo_folder(data) is None:
        return False
    try:
        detect(data)
    except LpmError:
        return not (data / ".prepare").is_dir()
    return False


def colmap_model(root: Path) -> Path | None:
    """The folder of COLMAP's model below `root`, or None."""
    for name in COLMAP_FOLDERS:
        folder = root / name
        if any(all((folder / f"{table}.{end}").is_file() for table in COLMAP_TABLES) for end in ("bin", "txt")):
            return folder
    return None


def detect(data: Path) -> Layout:
    """Recognises the layout of the folder `data` (or of the folder around it, if `data` is a .json file).

    Precedence: transforms.json, then COLMAP, then Blender and the layouts of moving scenes, because transforms.json is
    what tools write *after* COLMAP.

    Raises:
        LpmError: there is no such folder, or none of the layouts is in it; the text says what was looked for.
    """
    data = Path(data).expanduser()
    if data.is_file() and data.suffix == ".json":
        return Layout("transforms", data.parent, data)
    if data.is_file() and data.suffix.lower() in VIDEOS:
        fail(data, "a video", "a scene's folder", f"lpm-prepare {data} OUT makes one from it")
    if not data.is_dir():
        fail(data, "no such folder" if not data.exists() else "not a folder", "a scene's folder", "check the path")
    found: list[tuple[str, Layout]] = []
    if (data / "transforms.json").is_file():
        found.append(("transforms.json", Layout("transforms", data, data / "transforms.json")))
    model = colmap_model(data)
    if model is not None:
        found.append((f"COLMAP's {model.relative_to(data)}", Layout("colmap", data, model)))
    if (data / "transforms_train.json").is_file():
        found.append(("transforms_train.json", Layout("blender", data, data / "transforms_train.json")))
    if (data / "poses_bounds.npy").is_file():
        found.append(("poses_bounds.npy", Layout("video", data, data / "poses_bounds.npy")))
    if (data / "dataset.json").is_file() and (data / "camera").is_dir():
        found.append(("dataset.json", Layout("nerfies", data, data / "dataset.json")))
    if (data / "cameras_parameters.txt").is_file():
        found.append(("cameras_parameters.txt", Layout("technicolor", data, data / "cameras_parameters.txt")))
    if not found:
        if (data / ".prepare").is_dir():
            fail(data, "lpm-prepare was not finished here", "a scene", "repeat its command to go on with it")
        inside = sorted(path.name + "/" * path.is_dir() for path in data.iterdir())
        got = "neither cameras nor poses in it (it holds " + (", ".join(inside[:6]) or "nothing") + ")"
        looked = ", ".join(["transforms.json", *(f"{name}/" for name in COLMAP_FOLDERS), "transforms_train.json"])
        looked += ", poses_bounds.npy, dataset.json, cameras_parameters.txt"
        videos = sorted(path for path in data.iterdir() if path.suffix.lower() in VIDEOS)
        bare = data if photo_folder(data) is not None else next(iter(videos), None)
        makes = (
            f"lpm-prepare {bare} OUT (or ns-train with --prepare True) makes a scene; or " if bare is not None else ""
        )
        fail(data, got, f"one of {looked}", makes + REMEDY)
    first = found[0][1]
    return Layout(first.kind, first.root, first.source, tuple(name for name, _ in found[1:]))
