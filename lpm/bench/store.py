"""results.json: written whole after every run, so that a grid that was interrupted goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lpm import files
from lpm.bench.jobs import key_of
from lpm.checks import fail
from lpm.files import atomic_file

PACKAGES = ("torch", "gsplat", "nerfstudio", "numpy", "opencv-python-headless", "flip-evaluator", "cvvdp")


def read(folder: Path) -> dict[str, Any]:
    """{"runs": [...], ...} of a folder; no runs if there are none yet. Raises LpmError if the file is broken."""
    path = folder / "results.json"
    if not path.is_file():
        return {"runs": []}
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        [key_of(run) for run in result["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        fail(path, f"not a result of lpm-bench ({error!r})", "one", "move it away")
    return result


def add(folder: Path, run: dict[str, Any], command: str) -> None:
    """Adds a run to results.json, in place of one with the same key."""
    result = read(folder)
    runs = [other for other in result["runs"] if key_of(other) != key_of(run)] + [run]
    commands = result.get("commands", [])
    result |= {
        "runs": sorted(runs, key=lambda r: tuple(map(str, key_of(r)))),
        "commands": commands if command in commands else [*commands, command],
        "versions": versions(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
    }
    with atomic_file(folder / "results.json") as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Versions of the packages that the results depend on."""
    import lpm

    found = {"lpm": lpm.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder; raises LpmError if another grid has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.alone(
        folder / ".lock", folder, "another lpm-bench is writing here", "wait for it, or pass another --out"
    ):
        yield
