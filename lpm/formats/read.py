"""Gaussians from whatever holds them: a run, a checkpoint, or a file of any program, told by its content."""

from __future__ import annotations

import struct
import tempfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.formats import splat_transform, splatv
from lpm.formats.bounds import check_file
from lpm.formats.compressed_ply import is_compressed, read_compressed_ply
from lpm.formats.gltf import read_gltf
from lpm.formats.gltf_container import MAGIC as GLB_MAGIC
from lpm.formats.ply import read_far
from lpm.formats.ply_columns import comments_of, understand
from lpm.formats.ply_header import Header, read_header
from lpm.formats.ply_sequence import NUMBERED, sequence_files
from lpm.formats.sidecar import read_sidecar, sidecar_path
from lpm.formats.splat import looks_like_splat, read_splat
from lpm.formats.spz import MAGIC as SPZ_MAGIC
from lpm.formats.spz import read_spz
from lpm.formats.usd import read_usd
from lpm.gaussians.far import offset_of
from lpm.gaussians.similarity import Similarity, from_dataparser
from lpm.runs.folder import (
    CONFIGS,
    load_gaussians,
    load_sky,
    read_checkpoint,
    run_folder,
    run_frame,
    run_georeference,
    run_rasterize_mode,
)

WANTED = (
    "a run's folder, a checkpoint, or a .ply, .compressed.ply, .splat, .splatv, .spz, .glb, .gltf, .usd, .usdz, .sog "
    "or .ksplat file"
)


@dataclass
class Loaded:
    """Gaussians and what is known about where they are from."""

    params: dict[str, Tensor]
    """lpm.gaussians' parameters, and write_splatv's parameters of time where the file has them."""
    path: Path
    """The file that was read."""
    kind: str
    """checkpoint, ply, compressed-ply, ply-sequence, splat, splatv, spz, glb, gltf, usd, usdz, sog or ksplat."""
    frame: str = "unknown"
    """train, world or unknown."""
    world_to_train: Similarity | None = None
    rasterize_mode: str | None = None
    """How it was trained: classic, antialiased, or None where nothing says it."""
    sky: Tensor | None = None
    """Coefficients [K, 3] (lpm.render.sky) of what is behind `params`, in their frame; None: nothing."""
    dome: int = 0
    """How many of `params`, the last ones, show such a sky."""
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """[3] to be added to the means for positions in `frame` (lpm.gaussians.far)."""
    up: list[float] | None = None
    """The up direction that the file itself tells."""
    georeference: dict[str, Any] | None = None
    """What is known of metres and the place on earth in the frame "world" (docs/prepare.md)."""
    notes: list[str] = field(default_factory=list)
    """What of the file is not as it looks; one line each, for whoever shows or writes it."""


def kind_of(path: Path) -> str:
    """What `path` is, by its first bytes; a .splat, which has no magic, by whether its rows can be Gaussians.

    Raises:
        LpmError: there is nothing, or it is none of the known kinds.
    """
    if path.is_dir():
        return "ply-sequence" if any(NUMBERED.match(p.name) for p in path.glob("*.ply")) else "checkpoint"
    if path.name in CONFIGS:
        return "checkpoint"
    check_file(path, WANTED)
    with path.open("rb") as file:
        head = file.read(8)
    magic = struct.unpack("<I", head[:4])[0] if len(head) >= 4 else 0
    if head[:3] == b"ply":
        return "compressed-ply" if is_compressed(read_header(path)) else "ply"
    if head[:2] == b"\x1f\x8b" or magic == SPZ_MAGIC:
        return "spz"
    if magic == splatv.MAGIC:
        return "splatv"
    if magic == GLB_MAGIC:
        return "glb"
    if head == b"PXR-USDC" or head.startswith(b"#usda") or path.suffix in (".usd", ".usda", ".usdc"):
        return "usd"
    if head.lstrip()[:1] == b"{" or path.suffix == ".gltf":
        return "gltf"
    if head[:2] == b"PK":
        return _kind_of_zip(path)
    if path.suffix == ".ksplat":  # whose rows can look like those of a .splat
        return "ksplat"
    if path.suffix == ".ckpt":
        return "checkpoint"
    if path.suffix == ".splat" or looks_like_splat(path):
        return "splat"
    fail(path, f"a file that begins with {head[:8]!r}", WANTED)


def load(path: Path, progress: Progress = quiet) -> Loaded:
    """Reads the Gaussians of `path`, whatever it is; what its sidecar or its run knows about them comes along.

    Of a numbered sequence of PLYs the first time step is read.

    Raises:
        LpmError: nothing there, an unknown kind, or whatever is wrong with the file.
    """
    kind = kind_of(path)
    if kind == "checkpoint":
        checkpoint, state = read_checkpoint(path)
        run = run_folder(checkpoint)
        placed = run_frame(run)
        return Loaded(
            load_gaussians(checkpoint, state), checkpoint, kind, "train",
            None if placed is None else from_dataparser(*placed), run_rasterize_mode(run), load_sky(state),
            georeference=run_georeference(run),
        )  # fmt: skip
    source = sequence_files(path)[0] if kind == "ply-sequence" else path
    loaded = _read(source, kind, progress)
    means, sizes = loaded.params["means"], loaded.params["scales"].double().mean(1).exp()
    if offset_of(means.double().numpy(), sizes.numpy()).any():
        far = float(means[means.isfinite().all(1)].abs().max())
        loaded.notes.append(
            f"its positions lie up to {far:.3g} from the origin, where float32 has steps of {far * 2**-23:.2g}: too "
            "coarse for its Gaussians; whoever wrote it should take an offset off"
        )
    sidecar = read_sidecar(path)
    if sidecar is not None and sidecar.count != len(loaded.params["means"]):
        got = f"{sidecar.count} Gaussians, and the file has {len(loaded.params['means'])}"
        loaded.notes.append(f"{sidecar_path(path).name} is of another file ({got}): passed over")
    elif sidecar is not None:
        loaded.frame = sidecar.frame if sidecar.frame in ("train", "world") else "unknown"
        loaded.rasterize_mode = sidecar.rasterize_mode or loaded.rasterize_mode
        loaded.georeference = sidecar.georeference
        loaded.dome = min(sidecar.sky or 0, len(loaded.params["means"]) - 1)
        if sidecar.offset is not None and not loaded.offset.any():
            loaded.offset = np.array(sidecar.offset, np.float64)
        if sidecar.dataparser_transform is not None and sidecar.dataparser_scale is not None:
            loaded.world_to_train = from_dataparser(np.array(sidecar.dataparser_transform), sidecar.dataparser_scale)
    return loaded


def _read(path: Path, kind: str, progress: Progress) -> Loaded:
    """What the file itself tells, without its sidecar."""
    if kind in ("ply", "ply-sequence"):
        header = read_header(path)
        params, offset = read_far(header, progress)
        loaded = _with_comments(Loaded(params, path, kind, offset=offset), header)
        vertices = header.element("vertex")
        assert vertices is not None  # else it could not be read
        columns = understand(header, vertices)
        loaded.notes += columns.notes
        if "filter_3D" in columns.kinds:  # Mip-Splatting's other half
            loaded.rasterize_mode = loaded.rasterize_mode or "antialiased"
    elif kind == "compressed-ply":
        loaded = _with_comments(Loaded(read_compressed_ply(path), path, kind), read_header(path))
    elif kind == "splat":
        loaded = Loaded(read_splat(path), path, kind)
    elif kind == "splatv":
        loaded = Loaded(splatv.read_splatv(path), path, kind)
    elif kind == "spz":
        params, head = read_spz(path)
        loaded = Loaded(params, path, kind, rasterize_mode="antialiased" if head.antialiased else None)
        loaded.notes += head.notes
    elif kind in ("glb", "gltf", "usd", "usdz"):
        params, placement, notes = read_gltf(path) if kind.startswith("gl") else read_usd(path)
        loaded = Loaded(params, path, kind, rasterize_mode=placement.rasterize_mode, offset=placement.offset)
        loaded.up, loaded.notes = placement.up, notes
    else:
        loaded = _through_tool(path, kind, progress)
    return loaded


def _with_comments(loaded: Loaded, header: Header) -> Loaded:
    said = comments_of(header)
    loaded.rasterize_mode, loaded.up, loaded.offset = said.rasterize_mode, said.up, loaded.offset + said.offset
    return loaded


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if "meta.json" in names:
        return "sog"
    first = names[0] if names else ""  # a .usdz shows the first file in it
    return "usdz" if path.suffix == ".usdz" or first.endswith((".usd", ".usdc", ".usda")) else "checkpoint"


def _through_tool(path: Path, kind: str, progress: Progress) -> Loaded:
    """What splat-transform can read and we cannot."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "converted.ply"
        splat_transform.convert(path, out)
        return replace(_read(out, "ply", progress), path=path, kind=kind)
