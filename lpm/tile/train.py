"""One tile's training: on this machine, as a Ray task, or as a job of SLURM's array; and which tiles are left."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from lpm.checks import fail
from lpm.tile.split import read_plan

RUNS = "runs"
TRAIN = "from lpm.train.cli import main; main()"


def run_of(folder: Path, name: str) -> Path:
    """Where the run of a tile of `folder` is."""
    return folder / RUNS / name


def checkpoints(run: Path) -> list[Path]:
    """Of a run, oldest first."""
    return sorted(run.rglob("*.ckpt"))


def untrained(folder: Path, only: tuple[str, ...]) -> list[str]:
    """Tiles of `folder` that have to be trained yet, of those in `only` or of all; says which were trained before.

    Raises:
        LpmError: `only` names a tile that is none.
    """
    plan, _ = read_plan(folder)
    unknown = set(only) - set(plan["names"])
    if unknown:
        fail("--only", ", ".join(sorted(unknown)), f"of {', '.join(plan['names'])}")
    done = [name for name in only or plan["names"] if (run_of(folder, name) / "trained").exists()]
    for name in done:
        print(f"{name}: trained before")
    return [name for name in only or plan["names"] if name not in done]


def command_of(folder: Path, name: str, args: str) -> list[str]:
    """What lpm-train is given for a tile; a run that was begun goes on."""
    run = run_of(folder, name)
    where = ["--resume", str(run)] if checkpoints(run) else [str(folder / name), "--out", str(run)]
    return [*where, "--no-page", *shlex.split(args)]


def finish(folder: Path, name: str, code: int) -> None:
    """Notes that a tile is trained. Raises LpmError if lpm-train ended with another code than 0."""
    if code:
        fail(name, f"lpm-train ended with code {code}", "a whole run", "its output stands above; repeat to go on")
    (run_of(folder, name) / "trained").write_text("")


def train_here(folder: Path, name: str, args: str) -> None:
    """Trains a tile in a process of its own: its memory is given back. Raises LpmError; see finish."""
    command = command_of(folder, name, args)
    print(f"{name}: {shlex.join(['lpm-train', *command])}", flush=True)
    finish(folder, name, subprocess.run([sys.executable, "-c", TRAIN, *command]).returncode)
