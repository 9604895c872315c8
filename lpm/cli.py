"""The commands that need no nerfstudio: lpm-export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lpm.checks import one_line_errors
from lpm.export.ply import write_ply
from lpm.runs import find_checkpoint, load_gaussians


@dataclass
class ExportPly:
    """Write the Gaussians of a run as a PLY that SuperSplat, Unity, Blender and web viewers open."""

    run: tyro.conf.Positional[Path]
    """A run's folder, its config.yml, or a checkpoint (.ckpt)."""
    out: tyro.conf.Positional[Path]
    """The PLY to write."""

    def main(self) -> None:
        """Writes the file and says what is in it."""
        source = find_checkpoint(self.run)
        params = load_gaussians(source)
        dropped = write_ply(self.out, params)
        kept = len(params["means"]) - dropped
        note = f"; {dropped:,} points with non-finite values were left out" if dropped else ""
        print(f"{self.out}: {kept:,} Gaussians from {source.name}, {self.out.stat().st_size / 1e6:.1f} MB{note}")


Formats = Annotated[ExportPly, tyro.conf.subcommand("ply")]


def export_main() -> None:
    """The command lpm-export."""
    command = tyro.extras.SubcommandApp()
    command.command(name="ply")(_ply)
    one_line_errors(lambda: command.cli(prog="lpm-export", description="Export what was trained to other renderers."))


def _ply(args: tyro.conf.OmitArgPrefixes[ExportPly]) -> None:
    """Write the Gaussians of a run as a PLY that SuperSplat, Unity, Blender and web viewers open."""
    args.main()
