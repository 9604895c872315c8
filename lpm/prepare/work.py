"""OUT/.prepare: which stages are done and with what settings, so that an interrupted command goes on.

The scene's own folders appear in OUT only when everything is done, `sparse` last: without it OUT is no scene.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from lpm.checks import LpmError, fail
from lpm.files import alone

T = TypeVar("T")
NAME = ".prepare"
MADE = ("images", "masks", "georeference.json", "report.html", "report.png", "report.json", "sparse")
"""What a finished scene consists of, in the order in which it appears."""


class Work:
    """The work folder of a scene `out`; made by `opened`."""

    def __init__(self, out: Path, say: Callable[[str], None]) -> None:
        self.out, self.folder, self.say = out, out / NAME, say
        self.state: dict[str, Any] = {}
        self.redo = False
        """Whether an earlier stage was done in this command, so that later ones are stale."""
        with contextlib.suppress(OSError, ValueError):
            self.state = json.loads((self.folder / "state.json").read_text())

    def path(self, name: str) -> Path:
        """A file or folder of the work folder."""
        return self.folder / name

    def stage(self, name: str, settings: dict[str, Any], run: Callable[[bool], T]) -> T:
        """What `run(anew)` gives, or what it gave when it was last done with the same `settings` (JSON both).

        `anew` is false where the stage was interrupted under these settings, and what is there can be gone on with.
        """
        settings = json.loads(json.dumps(settings))
        before = self.state.get(name, {})
        same = before.get("settings") == settings and not self.redo
        if same and "result" in before:
            self.say(f"{name}: done before")
            done: T = before["result"]
            return done
        changed = [
            key for key in settings if key in before.get("settings", {}) and before["settings"][key] != settings[key]
        ]
        if changed and not self.redo:
            self.say(f"{name}: {', '.join(changed)} changed since the last command; done again from here")
        self.redo = True
        self.state[name] = {"settings": settings}
        self._save()
        start = time.perf_counter()
        result: T = json.loads(json.dumps(run(not same)))
        self.state[name] |= {"result": result, "seconds": round(time.perf_counter() - start, 1)}
        self._save()
        return result

    def seconds(self) -> dict[str, float]:
        """How long each stage took, when it was done to its end."""
        return {name: stage["seconds"] for name, stage in self.state.items() if "seconds" in stage}

    def _save(self) -> None:
        unfinished = self.path("state.json.unfinished")
        unfinished.write_text(json.dumps(self.state))
        os.replace(unfinished, self.path("state.json"))

    def publish(self, new: Path) -> None:
        """Moves what is in the folder `new` into OUT, in place of an earlier scene."""
        for name in reversed(MADE):
            remove(self.out / name)
        for name in MADE:
            if (new / name).exists():
                os.replace(new / name, self.out / name)
        remove(new)

    def keep(self, new: Path, name: str) -> Path:
        """Moves the folder `new` to `name` in the work folder, in place of an earlier one; where it is now."""
        remove(self.path(name))
        return new.rename(self.path(name))

    def size(self) -> int:
        """Bytes in the work folder, links not followed."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fresh(folder: Path) -> Path:
    """`folder`, new and empty."""
    remove(folder)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def opened(out: Path, overwrite: bool, say: Callable[[str], None]) -> Iterator[Work]:
    """Holds `out` for one command.

    Raises:
        LpmError: `out` has a finished scene and `overwrite` is false, it holds what is not of this command, another
            command works in it, or something cannot be written.
    """
    if out.exists() and not out.is_dir():
        fail(out, "is a file", "a folder to make", "name another")
    work = out / NAME
    if out.is_dir() and not work.is_dir() and any(out.iterdir()):
        inside = ", ".join(sorted(path.name for path in out.iterdir())[:4])
        fail(out, f"holds {inside}", "a new or empty folder, or one that lpm-prepare made", "name another")
    if (out / "sparse").exists() and not overwrite:
        fail(out, "has a finished scene", "a new folder", "name another, or add --overwrite to replace it")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / "lock", out, "another lpm-prepare works here", "wait for it, or name another folder"):
            yield Work(out, say)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LpmError(f"{error.filename or out}: cannot be written ({reason}); wanted a folder with room") from error


@contextlib.contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Appends what the process writes to stderr to `path`: COLMAP's log, which no switch turns off for good."""
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
