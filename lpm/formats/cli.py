"""The command lpm-export: what was trained, or any file of Gaussians, written for other programs.

The work is lpm.formats.export, imported once it is known what is to be done: a help text waits for no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors

PadSh = Annotated[Literal[0, 1, 2, 3] | None, arg(name="pad-sh")]


@dataclass
class Options:
    """What every format takes."""

    frame: Literal["train", "world"] | None = None
    """train: as nerfstudio turned, centred and scaled the scene (default for runs). world: as the photos' poses are;
    positions, sizes, rotations and view-dependent colours are turned back. Files keep the frame they have."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Keep only Gaussians with their centre in this box: x y z of its lowest corner, then its highest, in --frame."""
    min_opacity: float = 0.0
    """Keep only Gaussians at least this opaque, 0 to 1."""
    time: float | None = None
    """Of a model that moves: the time to write, 0 (first frame) to 1 (last). Formats that move write all times."""
    part: Literal["all", "still", "moving"] = "all"
    """Of a model that moves: only the points that stand still and stay, or only the others. A clip takes less room as
    one PLY of the still ones and a sequence of the moving ones."""
    sky: bool = True
    """Of a model with a sky: put a dome of large Gaussians that show it around the scene. Not around what --crop cuts
    out, nor around --part moving."""
    sidecar: bool = True
    """Write OUT.json with the frame, the up direction, and how the model was trained."""


Source = Annotated[Path, arg(metavar="RUN|CHECKPOINT|FILE")]


def export_ply(
    run: Positional[Source], out: Positional[Path], common: Options, pad_sh_to: PadSh = None, doubles: bool = False
) -> None:
    """The layout of 3DGS, which SuperSplat, Unity, Blender and web viewers open; nothing is lost.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The PLY to write.
        common: What every format takes.
        pad_sh_to: Fill up with zeros to this SH degree; Unity's importers want 3.
        doubles: Write x y z as doubles, for programs that know them (CloudCompare, PDAL); viewers of Gaussians mostly
            do not. Without it positions beyond float32 are written less an offset.
    """
    from lpm.formats.export import to_ply

    to_ply(run, out, common, pad_sh_to, doubles)


def export_splat(run: Positional[Source], out: Positional[Path], common: Options) -> None:
    """antimatter15's 32 bytes a Gaussian; without view-dependent colour.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The .splat to write.
        common: What every format takes.
    """
    from lpm.formats.export import to_splat

    to_splat(run, out, common)


def export_splatv(run: Positional[Source], out: Positional[Path], common: Options) -> None:
    """64 bytes a Gaussian for viewers of moving Gaussians; a model that does not move stands still.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The .splatv to write.
        common: What every format takes.
    """
    from lpm.formats.export import to_splatv

    to_splatv(run, out, common)


def export_ply_sequence(
    run: Positional[Source], out: Positional[Path], common: Options, steps: int | None = None, pad_sh_to: PadSh = None
) -> None:
    """A folder of numbered PLYs, one for each time step, each with all that is there then; if nothing moves, the same.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The folder to make.
        common: What every format takes.
        steps: Number of time steps, from the first frame to the last; default 50 if something moves, else 1.
        pad_sh_to: Fill up with zeros to this SH degree; Unity's importers want 3.
    """
    from lpm.formats.export import to_ply_sequence

    to_ply_sequence(run, out, common, steps, pad_sh_to)


def export_spz(run: Positional[Source], out: Positional[Path], common: Options, spz_version: Literal[3, 4] = 3) -> None:
    """Niantic's packed format: a tenth of a PLY, with rounded values; Spark, Babylon, PlayCanvas, Scaniverse.

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The .spz to write.
        common: What every format takes.
        spz_version: 3, which more programs read, or 4, packed by Zstandard.
    """
    from lpm.formats.export import to_spz

    to_spz(run, out, common, spz_version)


def _plain_command(name: str, endings: tuple[str, ...], what: str) -> Callable[..., None]:
    def export(run: Positional[Source], out: Positional[Path], common: Options) -> None:
        from lpm.formats.export import to_usd

        to_usd(run, out, common, *endings)

    return _named(export, name, endings[0], what)


def _gltf_command(name: str, what: str) -> Callable[..., None]:
    def export(
        run: Positional[Source], out: Positional[Path], common: Options, compression: Literal["none", "spz"] = "none"
    ) -> None:
        from lpm.formats.export import to_gltf

        to_gltf(run, out, common, compression, f".{name}")

    packed = (
        "spz: a ninth of the size, rounded, by the draft KHR_gaussian_splatting_compression_spz_2; for CesiumJS. Other "
        "viewers show nothing of it."
    )
    return _named(export, name, f".{name}", what, f"compression: {packed}")


def _tool_command(name: str, ending: str, what: str) -> Callable[..., None]:
    def export(run: Positional[Source], out: Positional[Path], common: Options) -> None:
        from lpm.formats.export import with_tool

        with_tool(ending, run, out, common)

    return _named(export, name, ending, f"{what} Needs Node (npm's splat-transform writes it).")


def _named(export: Callable[..., None], name: str, ending: str, what: str, more: str = "") -> Callable[..., None]:
    """`export` with its help text; `more`: the line of an option of its own."""
    export.__doc__ = f"""{what}

    Args:
        run: A run's folder, its config.yml, a checkpoint, or a file of Gaussians of any kind.
        out: The {ending} to write.
        common: What every format takes.
        {more}
    """
    export.__name__ = f"export_{name}"
    return export


GLTF_FORMATS = {
    "glb": "glTF with KHR_gaussian_splatting in one file; three.js, Babylon, PlayCanvas; nothing is lost.",
    "gltf": "The same as glb in two files: a JSON to read, and the numbers in a .bin beside it.",
}


PLAIN_FORMATS = {
    "usd": ((".usd", ".usdc", ".usda"), "OpenUSD's ParticleField3DGaussianSplat; nothing is lost. Needs usd-core."),
    "usdz": ((".usdz",), "The same as usd in a package. Needs usd-core (pip install 'lpm-splat[usd]')."),
}


TOOL_FORMATS = {
    "compressed-ply": (".compressed.ply", "SuperSplat's and PlayCanvas' PLY of 16 bytes a Gaussian and more for SH."),
    "sog": (".sog", "PlayCanvas' smallest format, for the web."),
    "html": (".html", "A page with the scene and a viewer in it; opens in a browser."),
}


def export_main(more: Mapping[str, Callable[..., None]] | None = None) -> None:
    """The command lpm-export. `more`: formats that need what later rooms know; of two of a name, they are taken."""
    app = tyro.extras.SubcommandApp()
    app.command(name="ply")(export_ply)
    app.command(name="splat")(export_splat)
    app.command(name="splatv")(export_splatv)
    app.command(name="ply-sequence")(export_ply_sequence)
    app.command(name="spz")(export_spz)
    for name, what in GLTF_FORMATS.items():
        app.command(name=name)(_gltf_command(name, what))
    for name, (endings, what) in PLAIN_FORMATS.items():
        app.command(name=name)(_plain_command(name, endings, what))
    more = more or {}
    tools = {name: _tool_command(name, *said) for name, said in TOOL_FORMATS.items()}
    for name, command in {**tools, **more}.items():
        app.command(name=name)(command)
    one_line_errors(
        lambda: app.cli(
            prog="lpm-export",
            description="Export what was trained, or any file of Gaussians, to other renderers.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    )
