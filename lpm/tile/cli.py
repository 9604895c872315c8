"""The command lpm-tile: split a large scene, train its tiles, merge them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from lpm.checks import fail, one_line_errors

if TYPE_CHECKING:
    from lpm.tile.cells import Cells


def split(
    data: Positional[Path], out: Positional[Path], /, tiles: int = 4, overlap: float = 0.15, least: float = 0.2
) -> None:
    """Cut the scene DATA into tiles, each a scene of its own in OUT.

    Args:
        data: the scene's folder; it must have SfM points.
        out: the folder to make.
        tiles: how many; each gets about as many of the points.
        overlap: by how much of its size a tile is larger when its images are chosen.
        least: share of the points that an image shows which must lie in a tile for the image to belong to it.
    """
    from lpm.tile.split import split as write

    plan = write(data, out, tiles, overlap, least)
    table = Table("tile", "images", "points", box=None)
    for tile in plan["tiles"]:
        table.add_row(tile["name"], str(tile["images"]), f"{tile['points']:,}")
    console = Console()
    console.print(table)
    if plan["unused"]:
        console.print(
            f"{len(plan['unused'])} of {plan['images']} images belong to no tile (see tiles.json); --least 0.1"
        )
    console.print(f"next: lpm-tile train {shlex.quote(str(out))}", soft_wrap=True)


def train(
    folder: Positional[Path], /, only: tuple[str, ...] = (),
    args: Annotated[str, arg(metavar="'ARGS'")] = "", on: Annotated[str | None, arg(metavar="ray://HOST:PORT")] = None,
) -> None:  # fmt: skip
    """Train the tiles of FOLDER, one after the other or on a Ray cluster. Repeat the command to go on where it stopped.

    Args:
        folder: what `lpm-tile split` made.
        only: names of the tiles to train here, such as tile_00; other machines may train the others.
        args: further options of lpm-train, in quotes, with =: --args="--max-points 500000".
        on: a Ray cluster that trains several tiles at a time (pip install 'lpm-splat[ray]' on its machines, which must
            see FOLDER under the same path); ray: the one that this machine is in, else one of this machine alone.
    """
    from lpm.tile.train import train_here, untrained

    names = untrained(folder, only)
    if on is not None and names:
        from lpm.tile.on_ray import train as train_on_ray

        train_on_ray(folder, names, args, on)
    else:
        for name in names:
            train_here(folder, name, args)
    print(f"next: lpm-tile merge {shlex.quote(str(folder))} scene.ply")


def slurm(
    folder: Positional[Path], out: Positional[Path], /, args: Annotated[str, arg(metavar="'ARGS'")] = "",
    gpus: int = 1, cpus: int = 8, hours: int = 12,
) -> None:  # fmt: skip
    """Write a script that trains the tiles of FOLDER as an array of SLURM jobs: `sbatch OUT`.

    Args:
        folder: what `lpm-tile split` made; the machines must see it under the same path.
        out: the script to write.
        args: further options of lpm-train, in quotes, with =.
        gpus: of a job; 0 trains on CPUs.
        cpus: of a job.
        hours: after which a job is ended.
    """
    from lpm.tile.slurm import write
    from lpm.tile.train import untrained

    for name, value, least in (("gpus", gpus, 0), ("cpus", cpus, 1), ("hours", hours, 1)):
        if value < least:
            fail(f"--{name}", str(value), f"at least {least}")
    names = untrained(folder, ())
    if not names:
        fail(folder, "all tiles are trained", "one that is not", "lpm-tile merge")
    write(folder, out, names, args, gpus, cpus, hours)
    print(f"{out}: {len(names)} jobs; next: sbatch {shlex.quote(str(out))}")


def merge(folder: Positional[Path], out: Positional[Path], /) -> None:
    """Merge the trained tiles of FOLDER into one PLY, in the frame of the scene's poses.

    Args:
        folder: what `lpm-tile split` made and `lpm-tile train` trained.
        out: the PLY to write. `lpm-export` makes any other format of it.
    """
    from lpm.formats.ply import write_ply
    from lpm.formats.ply_columns import written_comments
    from lpm.formats.sidecar import Sidecar, write_sidecar
    from lpm.gaussians.far import numbers
    from lpm.tile.merge import merge as join
    from lpm.tile.split import read_plan
    from lpm.tile.train import checkpoints, run_of

    plan, cells = read_plan(folder)
    if out.suffix != ".ply":
        fail(out, "an unknown kind of file", "a name that ends in .ply", "lpm-export makes other formats of it")
    runs = [run_of(folder, name) for name in plan["names"]]
    missing = [name for name, run in zip(plan["names"], runs, strict=True) if not checkpoints(run)]
    if missing:
        fail(folder, f"{', '.join(missing)} not trained", "a run of every tile", f"lpm-tile train {folder}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("merging", total=len(runs))
        whole = join(runs, cells, lambda: progress.advance(task))
    mode, far = whole.rasterize_mode, bool(whole.offset.any())
    dropped = write_ply(out, whole.params, comments=written_comments(mode, whole.offset))
    count = len(whole.params["means"]) - dropped
    offset = whole.offset.tolist() if far else None
    written = Sidecar(
        count, "world", None, None, mode, _up(cells), shlex.join(sys.argv), out.name, offset=offset
    )  # fmt: skip
    write_sidecar(out, written)
    note = f"; float32 cannot hold its positions: they are less {numbers(whole.offset)}, as its sidecar says"
    print(f"{out}: {count:,} Gaussians of {len(runs)} tiles{note if far else ''}")


def _up(cells: Cells) -> list[float]:
    """Across the ground: the axes are (a, up x a)."""
    import numpy as np

    return [round(float(v), 6) for v in np.cross(*cells.axes)]


def main() -> None:
    """The command lpm-tile."""
    one_line_errors(
        lambda: tyro.extras.subcommand_cli_from_dict(
            {"split": split, "train": train, "slurm": slurm, "merge": merge}, prog="lpm-tile",
            description="Split a scene that is larger than one memory, train its tiles, merge them.",
        )
    )  # fmt: skip
