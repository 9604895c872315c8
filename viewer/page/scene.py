"""What is shown: Gaussians, made ready once, drawn by our rasterizer from wherever somebody looks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.cuda.native import native
from lpm.formats.moving import at_time, moves
from lpm.formats.ply import read_ply
from lpm.formats.ply_sequence import sequence_files
from lpm.formats.read import Loaded
from lpm.formats.rows import bounded, sound_rows
from lpm.render.native_backend import rasterize_strips
from lpm.render.rasterize import RasterizeMode, rasterize
from lpm.render.sky import dome
from lpm.viewer.page.camera import matrices
from lpm.viewer.page.render_thread import RenderRequest

Ready = dict[str, Tensor]
KEPT = 8
"""Time steps of a sequence of files that are kept in memory."""


def sound(params: Mapping[str, Tensor], name: str | Path = "params") -> dict[str, Tensor]:
    """`params` (lpm.gaussians) without rows that cannot be drawn: not finite, or a quaternion of length 0.

    Raises:
        LpmError: no row is left.
    """
    params = bounded(params)
    keep = sound_rows(params)
    if not bool(keep.any()):
        fail(name, "nothing finite to draw", "finite Gaussians")
    return {key: value.detach().float()[keep] for key, value in params.items()}


def activated(params: Mapping[str, Tensor], time: float = 0.0) -> Ready:
    """What the rasterizer takes, of sound `params`; of those that move (lpm.formats.moving), at `time`, 0..1."""
    params = at_time(params, time)
    return {
        "means": params["means"].contiguous(),
        "quats": torch.nn.functional.normalize(params["quats"], dim=1),
        "scales": params["scales"].exp(),
        "opacities": torch.sigmoid(params["opacities"]).reshape(-1),
        "sh0": params["features_dc"][:, None].contiguous(),
        "shN": params["features_rest"].contiguous(),
    }


class Shown:
    """Gaussians to show. `at(0.0)` are those of a scene that stands still."""

    outputs = ("rgb",)
    """What can be looked at."""

    def __init__(self, loaded: Loaded, device: str = "cpu") -> None:
        """Raises LpmError where there is nothing finite in `loaded`."""
        self.loaded, self.device = loaded, device
        self.params = sound(loaded.params, loaded.path)
        self.left_out = len(loaded.params["means"]) - len(self.params["means"])
        self.files = sequence_files(loaded.path.parent) if loaded.kind == "ply-sequence" else []
        self.moves = moves(self.params)
        self.framed = {name: value[: len(value) - loaded.dome] for name, value in self.params.items()}
        self.dome = None if loaded.sky is None else activated(dome(loaded.sky, self.params))
        self.at = functools.lru_cache(KEPT if self.files else 1)(self._at)

    @property
    def steps(self) -> int:
        """Number of time steps; 1 if it stands still, 0 if any time from 0 to 1 can be shown."""
        return 0 if self.moves else max(1, len(self.files))

    @property
    def degree(self) -> int:
        """Of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.params["features_rest"].shape[1] + 1) - 1

    def _at(self, time: float) -> Ready:
        params = self.params
        if self.files:
            file = self.files[round(time * (len(self.files) - 1))]
            params = sound(read_ply(file), file)
        ready = activated(params, time)
        if self.dome is not None:
            ready = {name: torch.cat([value, self.dome[name]]) for name, value in ready.items()}
        return {name: value.to(self.device) for name, value in ready.items()}

    def draw(
        self, request: RenderRequest, width: int, height: int, strips: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> NDArray[np.uint8] | None:
        """The picture [height, width, 3] uint8 that `request` asks for.

        Args:
            strips: into how many parts it is cut on the CPU; the picture does not depend on it.
            stop: asked before each part.

        Returns:
            None if stop() became true.
        """
        if stop():
            return None
        ready = self.at(request.time if self.steps != 1 else 0.0)
        viewmat, K = (matrix.to(self.device) for matrix in matrices(request.camera, width, height))
        positional = (
            ready["means"], ready["quats"], ready["scales"], ready["opacities"], (ready["sh0"], ready["shN"]), viewmat,
            K, width, height,
        )  # fmt: skip
        degree = math.isqrt(ready["shN"].shape[1] + 1) - 1
        background = torch.full((1, 3), float(request.background), device=self.device)
        mode: RasterizeMode = "antialiased" if request.antialiased else "classic"
        library = native() if self.device == "cpu" else None
        with torch.no_grad():
            if library is None or strips <= 1:
                colors = rasterize(
                    *positional, sh_degree=degree, backgrounds=background, rasterize_mode=mode
                )[0][0]  # fmt: skip
            else:
                rows = -(-height // strips)
                parts = []
                for part in rasterize_strips(
                    library, *positional, rows=rows, sh_degree=degree, backgrounds=background, rasterize_mode=mode
                ):
                    if stop():
                        return None
                    parts.append(part[0])
                colors = torch.cat(parts)
            # A value that is not finite (a harmonic of 1e38) becomes black, not an error in the page.
            return (colors.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu().numpy()
