"""Formats that npm's @playcanvas/splat-transform writes: compressed PLY, SPZ, SOG, streamed SOG, HTML."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from lpm.checks import fail
from lpm.files import cache_folder

PACKAGE = "@playcanvas/splat-transform"
# Newer ones need Node 22; this one runs under Node 18, and what the tests know about it was seen with it.
VERSION = "2.7.1"
SECONDS = 3600.0
LEVELS_NAME = "lod-meta.json"
"""By this name programs know streamed SOG."""


def node_folder() -> Path:
    """Where Node packages are looked for beside PATH: `node` in LPM_CACHE or ~/.cache/lpm-splat."""
    return cache_folder() / "node"


def find_tool(say: Callable[[str], None] = print) -> list[str]:
    """The command that starts splat-transform: from PATH, from node_folder(), or npx, which downloads it and says so.

    Raises:
        LpmError: Node is not on this machine.
    """
    on_path = shutil.which("splat-transform")
    if on_path:
        return [on_path]
    remedy = "install Node 18 or newer (nodejs.org), or export ply, splat or splatv, which need nothing"
    node = shutil.which("node")
    if node is None:
        fail("splat-transform", "no Node on this machine", "Node, which this format's writer runs on", remedy)
    script = node_folder() / "node_modules" / PACKAGE / "bin" / "cli.mjs"
    if script.is_file():
        return [node, str(script)]
    npx = shutil.which("npx")
    if npx is None:
        fail("splat-transform", "Node without npx", "npx, which comes with npm", f"npm install -g {PACKAGE}")
    say(f"splat-transform is not installed: npx fetches {PACKAGE}@{VERSION} from the npm registry into its own cache")
    return [npx, "--yes", f"{PACKAGE}@{VERSION}"]


def run_tool(arguments: Sequence[str | Path], say: Callable[[str], None] = print, seconds: float = SECONDS) -> str:
    """Runs splat-transform, for at most so many seconds, and returns what it printed.

    Raises:
        LpmError: it is not there, or it failed; its last line is in the text.
    """
    command = [*find_tool(say), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", timeout=seconds, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        fail("splat-transform", type(error).__name__, "a run that ends", f"try it by hand: {' '.join(command)[:300]}")
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = next((line for line in lines if "rror" in line), lines[-1] if lines else "nothing said")
        fail("splat-transform", f"ended with code {done.returncode} ({said[:200]})", "code 0", "see `node --version`")
    return done.stdout


def convert(source: Path, out: Path, options: Sequence[str] = (), say: Callable[[str], None] = print) -> None:
    """Converts `source` to `out`; both formats are told by the names' endings."""
    # Without a GPU the tool would end; on the CPU it takes longer, and gives the same.
    gpu = ["-g", "cpu"] if out.suffix in (".sog", ".html") else []
    run_tool(["-w", *gpu, source, *options, out], say)
    if not out.is_file() or out.stat().st_size == 0:
        fail(out, "nothing was written by splat-transform", "a file")


def check_levels(say: Callable[[str], None] = print) -> None:
    """Raises LpmError where splat-transform is not there, or too old for streamed SOG: before minutes of work."""
    if LEVELS_NAME not in run_tool(["--help"], say):
        wanted = f"one that writes {LEVELS_NAME}, as {VERSION} does"
        fail("splat-transform", "one that writes no levels of detail", wanted, f"npm install -g {PACKAGE}")


def bundle_levels(
    levels: Sequence[Path], environment: Path | None, folder: Path, say: Callable[[str], None] = print
) -> None:
    """Streamed SOG in the new folder `folder`: an index, LEVELS_NAME, and chunks in folders of their own.

    Args:
        levels: PLYs, the finest first. Each is tagged with its number, as the tool's guide to streamed SOG has it.
        environment: a PLY of what is always shown, as a sky is.
    """
    tagged = [word for i, path in enumerate(levels) for word in (path, "-l", str(i))]
    if environment is not None:
        tagged += [environment, "-l", "-1"]
    folder.mkdir()
    say("splat-transform writes the chunks; harmonics take it minutes on a CPU")
    run_tool(["-g", "cpu", *tagged, folder / LEVELS_NAME], say, SECONDS * len(levels))
    if not (folder / LEVELS_NAME).is_file():
        fail(folder / LEVELS_NAME, "nothing was written by splat-transform", "a file")
