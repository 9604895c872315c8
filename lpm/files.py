"""Files that appear whole or not at all, folders of one process at a time, the cache, and progress of long work."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from lpm.checks import LpmError, fail


@contextlib.contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """A new, empty, hidden folder beside `out`, for work that becomes `out` by a rename; it is gone afterwards.

    Raises:
        LpmError: an OSError in the body or while making the folder, such as a full disk.
    """
    folder = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # what a killed export left behind
        folder.mkdir()
        yield folder
        _sync_folder(out.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LpmError(f"{out}: cannot be written ({reason}); wanted a folder that exists and has room") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_new_folder(folder: Path) -> None:
    """Raises LpmError where `folder` has something in it, or is a file: a rename would not take its place."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        fail(folder, "there is something already", "a new or empty folder", "remove it, or give another name")


@contextlib.contextmanager
def atomic_path(out: Path) -> Iterator[Path]:
    """A path to write to (same name, so that programs see its ending); it becomes `out` if the body ends well."""
    with staging_folder(out) as folder:
        unfinished = folder / out.name
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name with none of the bytes
        os.replace(unfinished, out)


@contextlib.contextmanager
def atomic_file(out: Path) -> Iterator[BinaryIO]:
    """A binary file to write to; it becomes `out` if the body ends well, and leaves nothing if it does not."""
    with atomic_path(out) as path, path.open("wb") as file:
        yield file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(file: Path, folder: Path, got: str, remedy: str) -> Iterator[None]:
    """Holds the lock `file` of `folder`; the system lets go of it however this process ends.

    Raises:
        LpmError: another process has it; `got` says who, `remedy` what to do.
    """
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(folder, got, "one at a time", remedy)
        yield


Progress = Callable[[range, str], Iterable[int]]
"""progress(steps, "writing") gives the steps one by one and may show how far it is."""


def quiet(steps: range, doing: str) -> Iterable[int]:
    """Shows nothing."""
    return steps


def bar(steps: range, doing: str) -> Iterable[int]:
    """A bar on a terminal, removed at the end; nothing where the output goes into a file."""
    if len(steps) < 8 or not sys.stderr.isatty():
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, doing, console=Console(stderr=True), transient=True)


def cache_folder() -> Path:
    """Where built libraries are kept: $LPM_CACHE, else ~/.cache/lpm-splat."""
    return Path(os.environ.get("LPM_CACHE") or Path.home() / ".cache" / "lpm-splat").expanduser()
