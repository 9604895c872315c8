"""What lpm-export does: choose what is to be written of a source, write it, and say so in a sidecar and in one line."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail
from lpm.files import atomic_path, bar
from lpm.formats import splat_transform
from lpm.formats.cli import Options
from lpm.formats.gltf import write_gltf
from lpm.formats.moving import at_time, for_splatv, moves, moving_rows
from lpm.formats.placement import Placement
from lpm.formats.ply import pad_sh, write_ply
from lpm.formats.ply_columns import written_comments
from lpm.formats.ply_sequence import write_ply_sequence
from lpm.formats.read import Loaded, load
from lpm.formats.select import select
from lpm.formats.sidecar import Sidecar, write_sidecar
from lpm.formats.splat import write_splat
from lpm.formats.splatv import write_splatv
from lpm.formats.spz_write import write_spz
from lpm.formats.usd import check_usd, write_usd
from lpm.gaussians.far import Floats, numbers
from lpm.gaussians.similarity import move_far
from lpm.render.sky import dome

Params = dict[str, Tensor]

# What draws with 3DGS's low-pass filter and does not dim what the filter enlarged.
ANTIALIASED = (
    "warning: this model was trained antialiased, and few viewers look whether a file says so. Viewers that draw as "
    "the original 3DGS does show its small and far Gaussians too bold: GaussianSplats3D unless its option antialiased "
    "is set, antimatter15's splat and splatv, and others that do not say they compensate (see docs/export.md). Spark "
    "draws it right as it is. What has to be dimmed depends on the viewer's distance, so it cannot be written into "
    "the file; for those viewers train with --pipeline.model.rasterize-mode classic."
)


@dataclass
class Chosen:
    """What is to be written of a source."""

    params: Params
    frame: str
    """train, world or unknown."""
    dome: int
    """How many of `params`, the last ones, show the sky."""
    offset: Floats
    """[3] to be added to the means for positions in `frame`; zeros where float32 holds them."""


def prepare(source: Path, common: Options, still: bool = True) -> tuple[Loaded, Chosen]:
    """The source, and what is to be written of it.

    `still`: what moves is taken at the time asked for, else at the first.
    """
    loaded = load(source, bar)
    for note in loaded.notes:
        print(f"{loaded.path.name}: {note}", file=sys.stderr)
    if loaded.rasterize_mode == "antialiased":
        print(ANTIALIASED, file=sys.stderr)
    if common.time is not None and not 0 <= common.time <= 1:
        fail("--time", str(common.time), "a number from 0 to 1")
    if common.part != "all":
        rows = moving_rows(loaded.params) == (common.part == "moving")
        if not bool(rows.any()):
            fail("--part", f"{common.part}, and there are no such points", "a part that is there", "leave --part out")
        loaded.params = {name: value[rows] for name, value in loaded.params.items()}
    if still and common.time is None and moves(loaded.params):
        print("The model moves; its first frame is written. --time 0.5 takes it from the middle.", file=sys.stderr)
    params = at_time(loaded.params, common.time or 0.0) if still else loaded.params
    return loaded, choose(loaded, params, common)


def choose(loaded: Loaded, params: Params, common: Options) -> Chosen:
    """The `params` of `loaded` in the frame asked for, cropped, with the sky if it is wanted."""
    frame, shown, offset = loaded.frame, loaded.dome, loaded.offset
    wanted = common.sky and common.crop is None and common.part != "moving"
    behind = dome(loaded.sky, params) if wanted and loaded.sky is not None else None
    if common.frame is not None and common.frame != frame:
        if loaded.world_to_train is None or frame == "unknown":
            fail(
                "--frame",
                f"{common.frame}, and nothing beside {loaded.path} says how the frames lie",
                "dataparser_transforms.json in the run's folder, or the sidecar of an export",
                "leave --frame out",
            )
        if moves(params):
            fail("--frame", f"{common.frame} for moving Gaussians", "the frame they are in", "leave --frame out")
        by = loaded.world_to_train
        by = (by if common.frame == "train" else by.inverse()).of_less(offset)
        params, offset = move_far(params, by)
        behind, frame = behind and move_far(behind, by, offset)[0], common.frame
    params = select(params, common.crop, common.min_opacity, offset)
    if behind is not None:
        params = {k: torch.cat([v, behind[k]]) for k, v in params.items()}
        return Chosen(params, frame, len(behind["means"]), offset)
    return Chosen(params, frame, shown if common.crop is None else 0, offset)


def up_direction(loaded: Loaded, frame: str) -> list[float] | None:
    """The scene's up direction in `frame`: the dataparser makes it z in the train frame."""
    if frame == "train":
        return [0.0, 0.0, 1.0]
    if frame == loaded.frame and loaded.up is not None:
        return loaded.up
    if frame == "world" and loaded.world_to_train is not None:
        return [round(float(v), 6) for v in loaded.world_to_train.rotation.T @ np.array([0.0, 0.0, 1.0])]
    return None


def finish(
    out: Path, loaded: Loaded, chosen: Chosen, dropped: int, common: Options, doubles: bool = False,
    program: str = "lpm-export",
) -> None:  # fmt: skip
    """Writes the sidecar and says what was done; `dropped`: rows left out since nobody can draw them."""
    kept = len(chosen.params["means"]) - dropped
    less = bool(chosen.offset.any()) and not doubles
    if common.sidecar:
        by = loaded.world_to_train
        matrix = None if by is None else np.column_stack([by.rotation, by.translation / by.scale]).tolist()
        write_sidecar(
            out,
            Sidecar(
                count=kept,
                frame=chosen.frame,
                dataparser_transform=matrix,
                dataparser_scale=None if by is None else by.scale,
                rasterize_mode=loaded.rasterize_mode,
                up=up_direction(loaded, chosen.frame),
                command=shlex.join([program, *sys.argv[1:]]),
                file=out.name,
                sky=chosen.dome or None,
                offset=chosen.offset.tolist() if less else None,
                georeference=loaded.georeference,
            ),
        )
    note = f"; {dropped:,} points with non-finite values or without a rotation were left out" if dropped else ""
    if less:
        where = "its sidecar" if common.sidecar else "a comment in it"
        note += f"; float32 cannot hold its positions: they are less {numbers(chosen.offset)}, as {where} says"
    files = [file for file in out.rglob("*") if file.is_file()] if out.is_dir() else [out]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{out}: {kept:,} Gaussians from {loaded.path.name}, {size:.1f} MB{note}")


def comments(loaded: Loaded, chosen: Chosen) -> list[str]:
    """What a PLY of `chosen` says about itself."""
    return written_comments(loaded.rasterize_mode, chosen.offset)


def check_offset(chosen: Chosen, common: Options) -> None:
    """Raises LpmError where positions count from an offset, and nothing of what is written would say so."""
    if chosen.offset.any() and not common.sidecar:
        got = f"given, and float32 cannot hold positions about {numbers(chosen.offset)}"
        fail("--no-sidecar", got, "a sidecar, which holds an offset", "leave --no-sidecar out, or export a ply")


def to_ply(run: Path, out: Path, common: Options, pad_sh_to: int | None, doubles: bool) -> None:
    """A PLY of 3DGS."""
    loaded, chosen = prepare(run, common)
    if pad_sh_to is not None:
        chosen.params = pad_sh(chosen.params, pad_sh_to)
    if doubles:
        said, far = written_comments(loaded.rasterize_mode, np.zeros(3)), chosen.offset
        dropped = write_ply(out, chosen.params, progress=bar, comments=said, far=far)
    else:
        dropped = write_ply(out, chosen.params, progress=bar, comments=comments(loaded, chosen))
    finish(out, loaded, chosen, dropped, common, doubles)


def to_splat(run: Path, out: Path, common: Options) -> None:
    """antimatter15's .splat."""
    loaded, chosen = prepare(run, common)
    check_offset(chosen, common)
    finish(out, loaded, chosen, write_splat(out, chosen.params, bar), common)


def to_splatv(run: Path, out: Path, common: Options) -> None:
    """A .splatv, with all times unless one is asked for."""
    loaded, chosen = prepare(run, common, still=common.time is not None)
    check_offset(chosen, common)
    if chosen.params["features_rest"].shape[1]:
        print("A .splatv holds one colour a point: what depends on the direction of view is lost.", file=sys.stderr)
    finish(out, loaded, chosen, write_splatv(out, for_splatv(chosen.params), progress=bar), common)


def to_ply_sequence(run: Path, out: Path, common: Options, steps: int | None, pad_sh_to: int | None) -> None:
    """A folder of PLYs, one for each of `steps` times."""
    if common.time is not None:
        fail("--time", "given", "nothing: a sequence has all times", "export a ply of one time")
    loaded, first = prepare(run, replace(common, time=0.0))
    count = (50 if moves(loaded.params) else 1) if steps is None else steps

    def one(i: int) -> Params:
        params = choose(loaded, at_time(loaded.params, i / max(1, count - 1)), common).params
        return params if pad_sh_to is None else pad_sh(params, pad_sh_to)

    written = write_ply_sequence(out, one, count, progress=bar, comments=comments(loaded, first))
    finish(out, loaded, first, written // max(1, count), common)


def placement(loaded: Loaded, chosen: Chosen) -> Placement:
    """What a glTF or USD of `chosen` says about its place."""
    return Placement(up_direction(loaded, chosen.frame), loaded.rasterize_mode, chosen.offset)


def to_gltf(run: Path, out: Path, common: Options, compression: Literal["none", "spz"], ending: str) -> None:
    """A .glb or .gltf."""
    check_ending(out, ending)
    loaded, chosen = prepare(run, common)
    dropped = write_gltf(out, chosen.params, placement(loaded, chosen), bar, compression)
    finish(out, loaded, chosen, dropped, common)


def to_spz(run: Path, out: Path, common: Options, version: Literal[3, 4]) -> None:
    """A .spz."""
    check_ending(out, ".spz")
    loaded, chosen = prepare(run, common)
    check_offset(chosen, common)
    dropped = write_spz(out, chosen.params, version, loaded.rasterize_mode == "antialiased")
    finish(out, loaded, chosen, dropped, common)


def to_usd(run: Path, out: Path, common: Options, *endings: str) -> None:
    """A USD file."""
    check_ending(out, *endings)
    check_usd()  # before a run is read
    loaded, chosen = prepare(run, common)
    finish(out, loaded, chosen, write_usd(out, chosen.params, placement(loaded, chosen)), common)


def check_ending(out: Path, *endings: str) -> None:
    """Raises LpmError for a name that does not say what the file is."""
    if not out.name.endswith(endings):
        wanted = " or ".join(endings)
        fail(out, f"a name that does not end in {wanted}", f"a name ending in {wanted}, by which programs tell it")


def with_tool(ending: str, run: Path, out: Path, common: Options) -> None:
    """Writes a PLY into a temporary folder and lets splat-transform make `out` of it, under a name with `ending`."""
    check_ending(out, ending)
    splat_transform.find_tool(lambda text: None)  # before minutes of work
    loaded, chosen = prepare(run, common)
    check_offset(chosen, common)
    with tempfile.TemporaryDirectory(prefix="lpm-export-") as folder:
        plain = Path(folder) / "scene.ply"
        dropped = write_ply(plain, chosen.params, progress=bar, comments=comments(loaded, chosen))
        with atomic_path(out) as unfinished:
            splat_transform.convert(plain, unfinished)
    finish(out, loaded, chosen, dropped, common)
