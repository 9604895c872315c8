"""The commands that need no nerfstudio: lpm-export."""

from __future__ import annotations

from pathlib import Path

import tyro
from tyro.conf import Positional

from lpm.checks import one_line_errors
from lpm.export.ply import write_ply
from lpm.runs import find_checkpoint, load_gaussians


def export_ply(run: Positional[Path], out: Positional[Path]) -> None:
    """Write the Gaussians of a run as a PLY that SuperSplat, Unity, Blender and web viewers open.

    Args:
        run: A run's folder, its config.yml, or a checkpoint (.ckpt).
        out: The PLY to write.
    """
    source = find_checkpoint(run)
    params = load_gaussians(source)
    dropped = write_ply(out, params)
    note = f"; {dropped:,} points with non-finite values were left out" if dropped else ""
    kept = len(params["means"]) - dropped
    print(f"{out}: {kept:,} Gaussians from {source.name}, {out.stat().st_size / 1e6:.1f} MB{note}")


def export_main() -> None:
    """The command lpm-export."""
    app = tyro.extras.SubcommandApp()
    app.command(name="ply")(export_ply)
    one_line_errors(lambda: app.cli(prog="lpm-export", description="Export what was trained to other renderers."))
