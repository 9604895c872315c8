"""The command lpm-edit: crop, clean, transform, level, simplify and merge Gaussians.

The work is lpm.editing.work, cleaning and simplifying, imported once it is known what is to be done: a help text waits
for no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors

Source = Annotated[Path, arg(metavar="RUN|CHECKPOINT|FILE")]
Out = Annotated[Path, arg(metavar="OUT")]
Point = tuple[float, float, float]
REFIT_STEPS = 2000


@dataclass
class Common:
    """What every edit takes."""

    overwrite: bool = False
    """Replace OUT if it is there."""
    picture: bool = True
    """Write OUT.edit.jpg: four sides, or what four photos of the scene show, before (above) and after (below)."""


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


@dataclass
class Floaters:
    """What clean takes; 0 switches a rule off. The last four need --scene."""

    faint: float = 0.005
    """Opacity below this (0..1)."""
    needle: float = 30.0
    """So many times as long as the middle axis, and 3 times as long as what is around it."""
    giant: float = 0.5
    """A standard deviation of this share of the distance from the scene's middle, or of its radius if that is more."""
    lonely: float = 10.0
    """Its 8 nearest are so many of its longest standard deviation away, and 3 times as far as usual."""
    few: int = 2
    """Fewer than so many photos draw it, whatever stands before it."""
    front: int = 2
    """At least so many photos, and 3 in 4 of those that can tell, see it before surfaces that SfM's points are on."""
    around: float = 2.0
    """A camera stands inside of so many of its standard deviations."""
    against: int = 2
    """At least so many photos see it, and 7 in 10 of these would be met better without it, clearly so on average."""


Device = Literal["auto", "cpu", "cuda"]


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


def simplify(
    source: Positional[Source], out: Positional[Out], common: Common, points: int, scene: Path | None = None,
    refit_steps: int = REFIT_STEPS, seed: int = 0, device: Device = "auto",
) -> None:  # fmt: skip
    """Put neighbours together until so many are left, then train these to look like all. Photos are not needed.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        common: What every edit takes.
        points: How many Gaussians stay.
        scene: A scene's folder or a run: both are looked at from its cameras. Default: the run's that the source is,
            else cameras are drawn around the points.
        refit_steps: Steps of training against renders of all Gaussians; 0: none, and merged by what files tell alone.
        seed: Of the order of cameras and of backgrounds.
        device: What trains; auto takes a CUDA GPU where there is one.
    """
    from lpm.editing import simplifying

    simplifying.simplify(source, out, points, scene, refit_steps, seed, device, common)


def clean(
    source: Positional[Source], out: Positional[Out], floaters: Floaters, common: Common, scene: Path | None = None,
    refit_steps: int = 100, device: Device = "auto",
) -> None:  # fmt: skip
    """Take floaters away: by statistics alone, and with a scene by what its cameras, points and photos know.

    Args:
        source: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The file to write; its ending says which format.
        floaters: What is taken.
        common: What every edit takes.
        scene: The scene's folder, or a run of it.
        refit_steps: With --scene RUN: steps that fit opacities of what stays to the photos; 0: all stays as it is.
        device: What draws; auto takes a CUDA GPU where there is one.
    """
    from lpm.editing import cleaning

    cleaning.clean(source, out, floaters, scene, refit_steps, device, common)


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
    for command in (crop, clean, transform, level, simplify, merge):
        app.command(command)
    one_line_errors(
        lambda: app.cli(
            prog="lpm-edit",
            description="Crop, clean, turn, level, simplify and merge Gaussians of a run or a file.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    )
