"""The photos that a scene names, found on this machine: with another ending, in another case, or not there at all."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lpm.checks import fail
from lpm.scenes.layout import PHOTOS, Layout
from lpm.scenes.video import is_frame

NAMED = 3
"""Photos that a remark names; of the others it tells how many."""


def key(name: str) -> str:
    """What names have in common that differ only in their ending, the case of letters, or what separates folders."""
    # macOS keeps accents apart from their letters.
    name = unicodedata.normalize("NFC", name).casefold().replace("\\", "/").removeprefix("./")
    return next((name[: -len(end)] for end in PHOTOS if name.endswith(end) and name != end), name)


@lru_cache(maxsize=64)
def _listing(folder: str) -> dict[str, tuple[str, ...]]:
    """The names in `folder` by their key."""
    found: dict[str, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = []
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {k: tuple(v) for k, v in found.items()}


def alike(path: Path, root: Path) -> Path | None:
    """A photo below `root` that differs from `path` in nothing but its ending or the case of letters."""
    if not path.is_relative_to(root) or ".." in path.parts:
        return None
    found = root
    *folders, name = path.relative_to(root).parts
    for part in folders:
        if not (found / part).is_dir():
            others = [other for other in _listing(str(found)).get(key(part), ()) if (found / other).is_dir()]
            if not others:
                return None
            part = others[0]
        found /= part
    ending, order = Path(name).suffix.casefold(), (".png", *PHOTOS)
    fits = [other for other in _listing(str(found)).get(key(name), ()) if Path(other).suffix.casefold() in PHOTOS]
    fits.sort(key=lambda other: (Path(other).suffix.casefold() != ending, order.index(Path(other).suffix.casefold())))
    return next((found / other for other in fits if (found / other).is_file()), None)


def find_photos(
    layout: Layout, names: Sequence[str], below: str = "", *, notes: list[str], may_lack: bool = False
) -> dict[str, Path]:
    """The files of the photos that the scene calls `names`, by name; those that are not there are left out.

    Args:
        below: the folder in the scene's that names are relative to. notes: what was done is added to it, in lines.
        may_lack: all may be missing.

    Raises:
        LpmError: more than half are not there, which is no choice of photos but a wrong folder, or a name leaves the
            scene's folder.
    """
    _listing.cache_clear()
    paths = {name: layout.file(name, below) for name in names}
    found: dict[str, Path] = {}
    taken: set[Path] = set()
    others = []
    # Those that are called just so come first: what another name is taken for must not be theirs.
    for name in sorted(paths, key=lambda name: paths[name] != layout.root / below / name):
        path = paths[name]
        if not (path.is_file() or is_frame(path)):
            near = alike(path, layout.root)
            if near is None:
                continue
            path = near
            if not lacks_ending(name, path):  # as Blender and instant-ngp have it
                others.append(name)
        if path not in taken or path == layout.root / below / name:
            found[name] = path
            taken.add(path)
    missing = sorted(name for name in names if name not in found)
    if 2 * len(missing) > len(names) and not may_lack:
        more = f"; {len(missing)} of {len(names)} photos are missing" if len(missing) > 1 else ""
        wanted = f"the photos that {layout.source.name} names"
        fail(paths[missing[0]], "no such file" + more, wanted, "restore them, or correct their paths")
    if missing:
        notes.append(f"{_some(missing)} of {len(names)} photos are not there and are left out")
    others = [name for name in others if name in found]
    if others:
        example = f"{others[0]}: {found[others[0]].name}"
        notes.append(f"{len(others)} of {len(names)} photos are there under another name and taken ({example})")
    return found


def lacks_ending(name: str, path: Path) -> bool:
    """Whether `name` is that of the file at `path` without its ending."""
    return path.stem == Path(name).name


def own_name(name: str, path: Path, folder: Path) -> str:
    """How the photo at `path`, which a scene calls `name`, is called in the scene's `folder`."""
    called_so = path == folder / name or path.with_suffix("") == folder / name
    return name if called_so or not path.is_relative_to(folder) else path.relative_to(folder).as_posix()


def kept_lists(
    lists: dict[str, list[str]], names: Sequence[str], found: dict[str, Path], folder: Path, notes: list[str]
) -> dict[str, list[str]]:
    """A scene's own `lists` by the names of `own_name`, without photos that are not `found`; none, where nothing is
    left of one.

    Args:
        names: of all photos. notes: what was done is added to it, in lines.
    """
    called = {key(name): own_name(name, found[name], folder) if name in found else None for name in names}
    kept = {split: [called.get(key(name), name) for name in given] for split, given in lists.items()}
    there = {split: [name for name in given if name is not None] for split, given in kept.items()}
    empty = [split for split, given in there.items() if lists[split] and not given]
    if not empty:
        return there
    notes.append(f"no photo of the {empty[0]} list is there: the scene's own lists are not used")
    return {}


def _some(names: Sequence[str]) -> str:
    """How many of `names` there are, and the first of them."""
    return f"{len(names)} ({', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)})"
