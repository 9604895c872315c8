"""OUT/.prepare/live.html: cameras and points as far as they are found, while poses are being found.

A page that loads itself again, and its picture beside it; a browser shows both from the disk.
"""

from __future__ import annotations

import html
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from lpm.prepare.picture import Seen, draw_from_above, draw_matches

SHARE = 0.05
"""Of the time, that drawing may take."""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>{0}</title>
<body style="font: 15px system-ui, sans-serif; margin: 2em"><h1 style="font-size: 1.2em">{0}</h1>
<img src="live.png?{1}" alt="{0}" style="max-width: 100%"></html>
"""


class Live:
    """The page in `folder`, about images `names`."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        self.next = 0.0
        """When the next picture may be drawn, by time.perf_counter."""

    @property
    def page(self) -> Path:
        """What to open in a browser."""
        return self.folder / "live.html"

    def matches(self, pycolmap: Any) -> None:
        """Which images match, before there is a model; from the work folder's database."""
        with pycolmap.Database.open(self.folder / "database.db") as db:
            at = {image.image_id: self.names.index(image.name) for image in db.read_all_images()}
            found = list(zip(*db.read_two_view_geometry_num_inliers(), strict=True))
        counts = np.zeros((len(self.names), len(self.names)))
        for key, count in found:
            one, two = pycolmap.pair_id_to_image_pair(key)
            counts[at[one], at[two]] = counts[at[two], at[one]] = count
        unfinished = self.folder / "live.unfinished.png"
        draw_matches(counts, unfinished)
        self._publish(unfinished, f"{np.count_nonzero(np.triu(counts))} pairs of {len(self.names)} images match")

    def show(self, model: Any, doing: str, whole: bool = True) -> None:
        """Cameras and points of pycolmap's reconstruction `model`; `doing` says what has been done.

        Args:
            whole: draw it in any case, and not only where the last picture is old enough.
        """
        start = time.perf_counter()
        images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
        if len(images) < 2 or (not whole and start < self.next):
            return
        points = [point for point in model.points3D.values() if np.isfinite(point.xyz).all()]
        poses = [image.cam_from_world().rotation.matrix() for image in images]
        unfinished = self.folder / "live.unfinished.png"
        draw_from_above(
            Seen(
                np.array([image.projection_center() for image in images]),
                np.array(poses),
                np.array([point.xyz for point in points]).reshape(-1, 3),
                np.array([point.color for point in points], np.uint8).reshape(-1, 3),
            ),
            unfinished,
        )
        self._publish(unfinished, f"{doing}: {len(images)} of {len(self.names)} images have a pose")
        self.next = time.perf_counter() + (time.perf_counter() - start) / SHARE

    def _publish(self, picture: Path, told: str) -> None:
        os.replace(picture, self.folder / "live.png")
        unfinished = self.folder / "live.unfinished.html"
        unfinished.write_text(PAGE.format(html.escape(told), time.time_ns()), encoding="utf-8")
        os.replace(unfinished, self.page)
