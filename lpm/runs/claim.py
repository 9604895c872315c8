"""One process at a time in a run's folder, and no folder left behind by a run that never began."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lpm.checks import fail

LOCK = ".lock"
"""In a run's folder; who trains there holds it, and the system lets go of it however that process ends."""


_held: dict[Path, int] = {}


def claim(folder: Path) -> None:
    """Makes `folder`, if it is not there, and takes it for this process alone, until release().

    Raises:
        LpmError: another process has it, or nothing can be written there; what was made for it is gone again.
    """
    folder = folder.absolute()
    if folder in _held:
        return
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        os.pwrite(handle, b"\n", 0)  # a full disk takes names
    except OSError as error:
        remove_empty(folder, there)
        wanted = "a folder that can be written and has room"
        fail(folder, f"cannot be written ({error.strerror})", wanted, "give another with --output-dir")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        remedy = "wait until it ends, or give another --timestamp"
        fail(folder, "another run is writing there", "a folder for each run", remedy)
    except OSError:  # a file system without locks
        pass
    for left in folder.glob(".*.unfinished"):  # by a run that was killed
        left.unlink()
    _held[folder] = handle


def release(folder: Path) -> None:
    """Gives back what claim() took."""
    if folder.absolute() in _held:
        os.close(_held.pop(folder.absolute()))


def remove_empty(folder: Path, top: Path) -> None:
    """Removes `folder` and those above it, up to `top`, which stays, as far as nothing but our lock is in them."""
    while folder != top and top in folder.parents and folder.is_dir() and {p.name for p in folder.iterdir()} <= {LOCK}:
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
        folder = folder.parent
