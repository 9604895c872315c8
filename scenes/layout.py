"""Which of the supported folder layouts a scene has, told from its files alone."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lpm.checks import LpmError, fail
from lpm.scenes.texts import lines
from lpm.scenes.video import SUFFIXES

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
VIDEOS = (*SUFFIXES, ".m4v")
COLMAP_FOLDERS = ("sparse", "colmap/sparse", "")
COLMAP_TABLES = ("cameras", "images")
REMEDY = (
    "name a folder with transforms.json (nerfstudio), sparse/0/cameras.bin and images.bin (COLMAP; .txt too), "
    "transforms_train.json (Blender, D-NeRF), poses_bounds.npy with photos (LLFF) or a video per camera (Neural 3D "
    "Video), dataset.json with camera/ (Nerfies, HyperNeRF, DyCheck), or cameras_parameters.txt (Technicolor)"
)


Kind = Literal["transforms", "colmap", "blender", "video", "llff", "nerfies", "technicolor"]


@dataclass(frozen=True)
class Layout:
    """A recognised layout."""

    kind: Kind
    """Who reads it."""
    root: Path
    """The scene's folder; image paths are relative to it."""
    source: Path
    """The file, or folder (colmap), that holds the cameras."""
    passed_over: tuple[str, ...] = ()
    """Other layouts that are there as well, in words; the first one found in the order above wins."""
    told: str = ""
    """What is read, in words."""
    outside: bool = False
    """Whether its files may name others that lie outside of the folder."""

    def file(self, name: object, below: str = "") -> Path:
        """The path of the file that the scene calls `name`, relative to the folder `below` in the scene's.

        Raises:
            LpmError: `name` is no name, or leaves the scene's folder (`..`, an absolute path) where it may not: a scene
                from elsewhere would make others of this machine's files part of what is trained and shared. Links in
                the folder are followed: who unpacked it made them. A file of the scene's own that ends so is taken
                instead.
        """
        if not isinstance(name, str) or "\0" in name or not name:
            fail(self.source, f"{name!r} for a file", "the name of a file", "correct it")
        path = self.root / below / name
        if not os.path.exists(path) or not (self.outside or self.holds(path)):
            path = next((other for other in self.elsewhere(name, below) if os.path.exists(other)), path)
        if not (self.outside or self.holds(path)):
            remedy = "move the file there, or if you trust the scene add `lpm-data --outside-files True` to the command"
            fail(self.source, f"{name} lies outside of {self.root}", "files of the scene's folder", remedy)
        plain = Path(os.path.normpath(path))
        return plain if ".." in path.parts and plain.exists() else path

    def holds(self, path: Path) -> bool:
        """Whether `path` is one of the scene's folder; links are followed."""
        return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(self.root))

    def elsewhere(self, name: str, below: str) -> Iterator[Path]:
        """Where a file may be whose name was written by Windows, on another machine or for another folder: at the end
        of its path, below the folder `below` or the scene's."""
        parts = [
            part for part in re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/").split("/") if part not in ("", ".")
        ]
        for first in range(len(parts)):
            if ".." not in parts[first:]:
                for folder in dict.fromkeys((below, "", "images")):
                    yield self.root.joinpath(folder, *parts[first:])


def folder_called(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in `root` that is called as one of `names`, in whatever case; None where there is none."""
    found = [f for f in sorted(root.iterdir()) if f.name.casefold() in names and f.is_dir()]
    return min(found, key=lambda f: f.name not in names, default=None)


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


def colmap_models(root: Path) -> dict[Path, int]:
    """Folders of COLMAP's models below `root`, the one to read first, and how many images each has.

    A mapper that does not get all photos into one model writes several, and the largest need not be the first.
    """
    found: dict[Path, int] = {}
    for place in COLMAP_FOLDERS:
        inner = sorted((root / place).glob("*"), key=lambda f: (len(f.name), f.name)) if place else []
        found |= {folder: _count(folder) for folder in [*inner, root / place] if _is_model(folder)}
        if found:
            break
    return dict(sorted(found.items(), key=lambda item: -item[1])) if len(found) > 1 else found


def _is_model(folder: Path) -> bool:
    return any(all((folder / f"{table}.{end}").is_file() for table in COLMAP_TABLES) for end in ("bin", "txt"))


def _count(folder: Path) -> int:
    """How many images the model in `folder` says that it has; -1 where that cannot be read."""
    try:
        if (folder / "images.bin").is_file():
            with (folder / "images.bin").open("rb") as file:
                return int(struct.unpack("<Q", file.read(8))[0])
        words = (len(line.split()) for line in lines(folder / "images.txt") if not line.startswith("#"))
        return sum(count >= 10 and count % 3 > 0 for count in words)  # features come in threes
    except (OSError, ValueError, struct.error):
        return -1


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
    models = colmap_models(data)
    for model, count in models.items():
        told = f"COLMAP's {'model' if model == data else model.relative_to(data)}"
        told += f" ({count} images)" if len(models) > 1 else ""
        found.append((told, Layout("colmap", data, model)))
    if (data / "transforms_train.json").is_file():
        found.append(("transforms_train.json", Layout("blender", data, data / "transforms_train.json")))
    if (data / "poses_bounds.npy").is_file():
        clips = any(path.suffix.lower() in SUFFIXES for path in data.iterdir())
        kind: Kind = "video" if clips or photo_folder(data) is None else "llff"
        found.append(("poses_bounds.npy", Layout(kind, data, data / "poses_bounds.npy")))
    if (data / "dataset.json").is_file() and (data / "camera").is_dir():
        found.append(("dataset.json", Layout("nerfies", data, data / "dataset.json")))
    if (data / "cameras_parameters.txt").is_file():
        found.append(("cameras_parameters.txt", Layout("technicolor", data, data / "cameras_parameters.txt")))
    if not found:
        if (data / ".prepare").is_dir():
            fail(data, "lpm-prepare was not finished here", "a scene", "repeat its command to go on with it")
        inside = sorted(path.name + "/" * path.is_dir() for path in data.iterdir())
        got = "neither cameras nor poses in it (it holds " + (", ".join(inside[:6]) or "nothing") + ")"
        looked = "transforms.json, sparse/0/, colmap/sparse/0/, sparse/, transforms_train.json"
        looked += ", poses_bounds.npy, dataset.json, cameras_parameters.txt"
        videos = sorted(path for path in data.iterdir() if path.suffix.lower() in VIDEOS)
        bare = data if photo_folder(data) is not None else next(iter(videos), None)
        makes = (
            f"lpm-prepare {bare} OUT (or ns-train with --prepare True) makes a scene; or " if bare is not None else ""
        )
        fail(data, got, f"one of {looked}", makes + REMEDY)
    first = found[0][1]
    return replace(first, told=found[0][0], passed_over=tuple(name for name, _ in found[1:]))
