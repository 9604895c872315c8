"""The whole of the command lpm-export: the formats of lpm.formats, and what a model is first made into another for.

The work is imported once it is known what is to be done: a help text waits for no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lpm.formats.cli import Options, Source, export_main

Device = Literal["auto", "cpu", "cuda"]


@dataclass
class Lod:
    """Levels of detail; all but --lod count only with it."""

    lod: bool = False
    """Write OUT as a folder of streamed SOG, lod-meta.json and chunks: coarser levels for what is far away."""
    levels: int = 4
    """How many, the whole model among them; each has half the points of the one before."""
    scene: Path | None = None
    """A scene's folder or a run: levels are re-fitted from its cameras. Default: the run's that the source is, else
    cameras are drawn around the points."""
    refit_steps: int = 500
    """Steps of training of each level against renders of the whole model; 0: none, merged by what files tell alone."""
    seed: int = 0
    """Of the order of cameras and of backgrounds."""
    device: Device = "auto"
    """What trains; auto takes a CUDA GPU where there is one."""


def export_sog(run: Positional[Source], out: Positional[Path], common: Options, lod: Lod) -> None:
    """PlayCanvas' smallest format, for the web; with --lod in levels of detail that are streamed. Needs Node (npm's
    splat-transform writes it).

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The .sog to write; with --lod a new folder.
        common: What every format takes.
        lod: Levels of detail.
    """
    if lod.lod:
        from lpm.exporting.levels import to_levels

        to_levels(run, out, common, lod)
    else:
        from lpm.formats.export import with_tool

        with_tool(".sog", run, out, common)


@dataclass
class Surface:
    """How the surface is found."""

    resolution: int = 256
    """Voxels along the longest side of the box."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """The box: x y z of its lowest corner, then its highest, in --frame. Default: around what cameras see, less what is
    far behind."""
    truncation: float = 3.0
    """Voxels from a surface, 1 to 8, within which a depth says how far it is; more is smoother, and thin things go."""
    views: int = 3
    """A surface that fewer cameras than this tell of is left out: one alone can be wrong about what it shows."""
    smallest: float = 0.005
    """Connected parts with less than this share of all triangles are dropped."""
    time: float | None = None
    """Of a model that moves: the time, 0 (first frame) to 1 (last)."""
    scene: Path | None = None
    """A scene's folder or a run: depths are seen from its cameras. Default: the run's that the source is, else cameras
    are drawn around the points."""
    device: Device = "auto"
    """What draws and fuses; auto takes a CUDA GPU where there is one."""


def export_mesh(
    run: Positional[Source], out: Positional[Path], how: Surface, frame: Literal["train", "world"] | None = None
) -> None:
    """Triangles with colours, .ply or .glb: depths as the scene's cameras see them, fused. Needs scikit-image.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The .ply or .glb to write.
        how: How the surface is found.
        frame: As of the other formats.
    """
    from lpm.exporting.mesh import to_mesh

    to_mesh(run, out, frame, how)


@dataclass
class Playing:
    """How it plays, and from where it is seen at first."""

    steps: int = 50
    """Times to write, from the first frame to the last."""
    fps: float = 25.0
    """Of them so many are shown in a second."""
    scene: Path | None = None
    """A scene's folder or a run: its first camera is where the player begins. Default: the run's that the source is,
    else a place beside the points."""


def export_clip(run: Positional[Source], out: Positional[Path], common: Options, how: Playing) -> None:
    """A folder that plays what moves in a browser, streamed: what stands still once, the rest as an SPZ for each time.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians that move.
        out: The folder to make; index.html in it is the player (three.js and Spark, from a CDN).
        common: What every format takes.
        how: How it plays.
    """
    from lpm.exporting.clip import to_clip

    to_clip(run, out, common, how)


def main() -> None:
    """The command lpm-export."""
    export_main({"sog": export_sog, "mesh": export_mesh, "clip": export_clip})
