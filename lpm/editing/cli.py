"""The command lpm-edit: crop, transform, level, simplify and merge Gaussians.

The work is lpm.editing.work, imported once it is known what is to be done: a help text waits for no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors

Source = Annotated[Path, arg(metavar="RUN|CHECKPOINT|FILE")]
Out = Annotated[Path, arg(metavar="OUT")]
Point = tuple[float, float, float]


@dataclass
class Common:
    """What every edit takes."""

    overwrite: bool = False
    """Replace OUT if it is there."""
    picture: bool = True
    """Write OUT.edit.jpg: four sides before (above) and after (below)."""


@dataclass
class Region:
    """What crop keeps; of several, what lies in all of them."""

    box: tuple[float, float, float, float, float, float] | None = None
    """A box: x y z of its lowest corner, then of its highest."""
    sphere: tuple[float, float, float, float] | None = None
    """A ball: x y z of its centre, then its radius."""
    cameras: Path | None = None
    """A scene's folder: the convex hull of its cameras, grown by --margin."""
    margin: float = 0.5
    """Of the hull: how far beyond the cameras it reaches, in diagonals of the box around them."""
    invert: bool = False
    """Keep what lies outside instead."""


def crop(source: Positional[Source], out: Positional[Out], region: Region, common: Common) -> None:
    """Keep the Gaussians whose centre lies in a region, in the frame of the file.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        region: What is kept.
        common: What every edit takes.
    """
    from lpm.editing import work

    work.crop(source, out, region, common)


def transform(
    source: Positional[Source], out: Positional[Out], common: Common, scale: float = 1.0,
    rotate: tuple[float, float, float, float] | None = None, move: Point = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    """Scale about the origin, then turn, then move; view-dependent colours turn along.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        common: What every edit takes.
        scale: Factor, above 0.
        rotate: x y z of an axis, and the angle in degrees by the right hand.
        move: x y z.
    """
    from lpm.editing import work

    work.transform(source, out, scale, rotate, move, common)


def level(
    source: Positional[Source], out: Positional[Out], common: Common, up: Point | None = None,
    length: tuple[float, float, float, float, float, float, float] | None = None,
) -> None:  # fmt: skip
    """Turn the ground level: z up, the ground at z = 0; and scale, if a length is known.

    The ground is the plane with most opaque Gaussians on it and few below it, at most 45 degrees off the up direction.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        common: What every edit takes.
        up: x y z of about where up is in the file; default: what the file says, else -y, as in COLMAP's axes.
        length: x y z of two points in the file, and how many metres they are apart: one unit becomes a metre.
    """
    from lpm.editing import work

    work.level(source, out, up, length, common)


def simplify(source: Positional[Source], out: Positional[Out], common: Common, points: int) -> None:
    """Put neighbours together until so many are left; each pair keeps its place, extent, colour and light.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        common: What every edit takes.
        points: How many Gaussians stay.
    """
    from lpm.editing import work

    work.simplify(source, out, points, common)


def merge(first: Positional[Source], second: Positional[Source], out: Positional[Out], common: Common) -> None:
    """Put two into one file, in the frame of the first.

    Args:
        first: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        second: The other one; where both say how their frames lie to the world, it is brought into the first one's.
        out: The file to write; its ending says which format.
        common: What every edit takes.
    """
    from lpm.editing import work

    work.merge(first, second, out, common)


def main() -> None:
    """The command lpm-edit."""
    app = tyro.extras.SubcommandApp()
    for command in (crop, transform, level, simplify, merge):
        app.command(command)
    one_line_errors(
        lambda: app.cli(
            prog="lpm-edit",
            description="Crop, turn, level, simplify and merge Gaussians of a run or a file.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    )
