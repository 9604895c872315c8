"""Where there can be no birth: another photo looks through the place, at something farther away that it draws rightly.

Depths by the photos are wrong at times, most of all where two photos alone are compared, or where errors alone meet
(lpm.zones.error_hull). A point that is born there stands before a surface, where the photos that it was found in hardly
see the mistake, and every view from elsewhere does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lpm.multiview.views import in_image, project, unproject
from lpm.sending import sent
from lpm.strategy.event import Event
from lpm.zones.zone import OPAQUE, ViewZones

NEARER = 0.9
"""Share of the drawn depth below which a place stands before what is drawn."""


def seen_through(event: Event, clock: Tensor, static: Sequence[Tensor]) -> list[Tensor]:
    """Per view of event.zones [rows, columns] bool: tiles at whose depth by the photos there is nothing, since another
    view of the event shows what is behind, and its error there is below event.threshold.

    Args:
        clock: [V] when each training photo was taken. Only photos of the same time tell of each other.
        static: per view of event.zones [rows, columns] bool, tiles of which photos of any time tell.
    """
    zones = event.zones
    if not zones:
        return []
    device, cells = zones[0].depth.device, [zone.depth.numel() for zone in zones]
    owner = torch.repeat_interleave(
        torch.arange(len(zones), device=device), sent(cells, device), output_size=sum(cells)
    )
    places = torch.cat([_places(zone) for zone in zones])
    any_time = torch.cat([tiles.flatten() for tiles in static])
    times = clock[sent([zone.view for zone in zones], device)]
    found = torch.zeros_like(any_time)
    for i, (zone, seen, error) in enumerate(zip(zones, event.evidence, event.errors, strict=True)):
        pixels, z = project(places, zone.viewmat, zone.K)
        (width, height), (drawn_height, drawn_width) = zone.size, seen.depth.shape
        inside = in_image(pixels, z, sent([width, height], device))
        x, y = torch.where(inside[:, None], pixels, 0.0).unbind(-1)
        row, column = (y / zone.tile).long(), (x / zone.tile).long()
        y, x = (y * drawn_height / height).long(), (x * drawn_width / width).long()
        error = error[row, column]
        right = (error > 0) & (error <= event.threshold)  # it is 0 where a mask hides the whole tile
        tells = (owner != i) & (any_time | (times[owner] == times[i])) & right
        behind = (seen.alpha[y, x] > OPAQUE) & (z < NEARER * seen.depth[y, x])
        found |= inside & tells & behind
    return [part.reshape(zone.depth.shape) for part, zone in zip(found.split(cells), zones, strict=True)]


def _places(zone: ViewZones) -> Tensor:
    """[rows * columns, 3] the middle of each tile at its depth by the photos, world; NaN where that is not known."""
    rows, columns = zone.depth.shape
    row, column = torch.meshgrid(*(torch.arange(n, device=zone.depth.device) for n in (rows, columns)), indexing="ij")
    pixels = (torch.stack([column, row], -1).reshape(-1, 2) + 0.5) * zone.tile
    return unproject(pixels, zone.depth.flatten(), zone.viewmat, zone.K)
