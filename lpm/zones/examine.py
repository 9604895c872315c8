"""Zones of a model by one call: its photos drawn, their errors, and where in space these come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views
from lpm.render.rasterize import RasterizeMode, rasterize
from lpm.zones.error_maps import TILE, ErrorMaps, spread
from lpm.zones.find import find_zones
from lpm.zones.point_errors import look
from lpm.zones.zone import ViewZones, records_of


@dataclass
class Findings:
    """What examine() finds out about one photo."""

    view: int
    errors: Tensor
    """[rows, columns] mean error of each tile of 16 pixels, 0 (as the photo) to about 1."""
    zones: ViewZones
    """The bad tiles: their depths, their kinds, and which belong together."""
    kinds: list[str]
    """Of each zone: false-front, under-resolved, missing or no-evidence."""
    point_error: Tensor
    """[N] E_i: the error of this photo, as the points are to blame for it."""


@torch.no_grad()
def examine(
    params: Mapping[str, Tensor], views: Views, chosen: Sequence[int], points: Tensor | None = None,
    share: float = 0.15, least: float = 0.02, rasterize_mode: RasterizeMode = "classic",
) -> list[Findings]:  # fmt: skip
    """Where the `chosen` photos are drawn wrongly, and what is wrong there, as LpmStrategy sees it at an event.

    Takes about a tenth of a second a photo of `views`: features of all are matched.

    Args:
        params: the model (lpm.gaussians), which is drawn. views: all photos; depths come from comparing them.
        points: [N, 3] (world) that tell which photos show the same; the model's own if not given.
        share: of all tiles of the chosen photos so many are bad at most; and their error is at least `least`.
    """
    graph = PhotoGraph(views, params["means"].detach() if points is None else points)
    errors, evidence = ErrorMaps(tile=TILE), []
    for v in chosen:
        camera = views.viewmats[v], views.Ks[v], (int(views.images[v].shape[1]), int(views.images[v].shape[0]))
        errors.update(v, 0, _drawn(params, *camera, rasterize_mode), _truth(views, v), views.usable(v))
        error = spread(errors.maps[v], camera[2], TILE)
        evidence.append(look(params, *camera, error, rasterize_mode))
    tiles = sum(errors.maps[v].numel() for v in chosen)
    threshold = errors.bad_threshold(share, least)
    nowhere = torch.full((len(views), 1), -1, device=views.device)
    neighbours = nowhere if graph.why_no_zones() else graph.neighbours(lambda v: torch.full((1, 1), torch.nan))
    zones = find_zones(graph, neighbours, list(chosen), errors, evidence, threshold, tiles)
    counts = [torch.zeros_like(found.near) for found in zones]
    records = records_of(zones, [errors.maps[v] for v in chosen], counts)
    return [
        Findings(v, errors.maps[v], found, [r.kind for r in records if r.view == v], seen.point_error)
        for v, found, seen in zip(chosen, zones, evidence, strict=True)
    ]


def _truth(views: Views, v: int) -> Tensor:
    image = views.images[v][..., :3].to(views.device)
    return image if image.is_floating_point() else image.float() / 255


def _drawn(
    params: Mapping[str, Tensor], viewmat: Tensor, K: Tensor, size: tuple[int, int], mode: RasterizeMode
) -> Tensor:
    rest = params["features_rest"]
    image, _, _ = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        (params["features_dc"][:, None], rest), viewmat[None], K[None], *size,
        sh_degree=math.isqrt(rest.shape[1] + 1) - 1, rasterize_mode=mode,
    )  # fmt: skip
    return image[0].clamp(0, 1)
