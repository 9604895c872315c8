"""The command `lpm-bench`."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Union

import tyro
from rich.console import Console

from lpm.bench.starts import HoldOut, Start
from lpm.checks import LpmError, one_line_errors

MAIN = ("lpm", "adc", "absgrad", "mcmc", "paper", "lower-tau", "random-zones")


@dataclass
class Run:
    """Train the runs that are missing, then write tables and plots. Repeat an interrupted command to go on with it."""

    out: Path
    """Folder of results.json, results.md and the plots."""
    scenes: tuple[str, ...] = ("room", "garden")
    """NAME=FOLDER, NAME=FOLDER@SCALE (of the images), or a sample scene by name."""
    strategies: tuple[str, ...] = MAIN
    """Strategies, parts of lpm left out (no-densify, no-insert, no-reset, no-prune), or
    NAME=STRATEGY:FIELD=VALUE,... for one with changed settings."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each sets the parameters, the order of views and the strategy's choices."""
    caps: tuple[int, ...] = (30_000,)
    """Points at most; the scene's points are thinned to half of it where there are more."""
    steps: int = 3_000
    """Training steps of every run."""
    starts: tuple[Start, ...] = ("sfm",)
    """Points to start from: all of the scene's, a tenth of them, without or with those that comparing the photos finds,
    random ones, or only what comparing the photos finds."""
    hold_out: tuple[HoldOut, ...] = ("every-8th",)
    """Views to measure by: every 8th (of a scene with lists of its own, theirs), or a side of the scene, which the
    sector.json of `lpm-scene make random` lists."""
    jobs: int = 1
    """Runs side by side, each on cores / jobs threads. Times are comparable only within one setting."""
    lpips: bool = False
    """Measure LPIPS, too, where its weights are at hand."""

    def __call__(self, console: Console) -> None:
        from lpm.bench import store
        from lpm.bench.grid import run_all
        from lpm.bench.jobs import grid, parse_row, parse_scene
        from lpm.bench.report import write

        threads = max(1, (os.cpu_count() or 1) // max(1, self.jobs))
        scenes, rows = [parse_scene(text) for text in self.scenes], [parse_row(text) for text in self.strategies]
        starts, hold_outs = self.starts, self.hold_out
        jobs = grid(scenes, rows, self.seeds, self.caps, self.steps, starts, threads, self.lpips, hold_outs)
        command = shlex.join(["lpm-bench", *sys.argv[1:]])
        with store.alone(self.out):
            failed = run_all(jobs, self.out, max(1, self.jobs), command, console)
            if len(failed) < len(jobs):
                write(self.out)
                console.print(f"Tables: {self.out / 'results.md'}")
        if failed:
            raise LpmError(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}; see {self.out / 'logs'}")


@dataclass
class Report:
    """Write results.md and the plots anew from results.json."""

    out: Path
    """Folder of results.json."""

    def __call__(self, console: Console) -> None:
        from lpm.bench.report import write

        write(self.out)
        console.print(f"Tables: {self.out / 'results.md'}")


Command = Union[  # noqa: UP007  # tyro reads the annotations of a union
    Annotated[Run, tyro.conf.subcommand("run")], Annotated[Report, tyro.conf.subcommand("report")]
]


def main() -> None:
    """Compare strategies under the same rules: same points, steps, seeds and held-out views."""
    one_line_errors(lambda: tyro.cli(Command, description=main.__doc__)(Console()))
