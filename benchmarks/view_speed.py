#!/usr/bin/env python3
"""Times what lpm-view does for a page, on the server: the picture after a camera move, and pictures while it moves.

    python benchmarks/view_speed.py                        # prints JSON
    python benchmarks/view_speed.py --points 200000 --size 960x540

The scene is random, as in benchmarks/raster_cpu.py; "shown" means drawn and packed as a JPEG, ready to be sent. A real
RenderThread does it, so its waiting for the camera to settle is in the time of the full picture.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from lpm.formats.read import Loaded
from lpm.viewer.page.camera import Camera, camera_at, frame
from lpm.viewer.page.render_thread import SETTLED, RenderRequest, RenderThread
from lpm.viewer.page.scene import Shown


def random_scene(n: int, degree: int = 3) -> dict[str, torch.Tensor]:
    """`n` Gaussians in a ball, as large as their distance, as trained ones are."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=generator)

    return {
        "means": noise(3),
        "scales": noise(3) * 0.4 + math.log(1.2 * n ** (-1 / 3)),
        "quats": noise(4),
        "features_dc": noise(3),
        "features_rest": 0.1 * noise((degree + 1) ** 2 - 1, 3),
        "opacities": 2 * noise(1),
    }


def around(start: Camera, angle: float) -> Camera:
    """`start` turned by `angle` radians about the z axis through the origin."""
    c2w = start.c2w
    turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    return camera_at(np.column_stack([turn @ c2w[:3, :3], turn @ c2w[:3, 3]]), start.fov, start.aspect)


def measure(points: int, width: int, height: int, seconds: float) -> dict[str, object]:
    """Moves the camera for `seconds`, 50 times a second, then lets it rest; three times."""
    shown = Shown(Loaded(random_scene(points), Path("random.ply"), "ply"))
    arrived: list[tuple[float, bool, int]] = []

    def show(picture: np.ndarray, moving: bool) -> None:
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60 if moving else 92])
        arrived.append((time.monotonic(), moving, picture.shape[0] * picture.shape[1]))

    def failed(error: Exception) -> None:
        raise error

    render_thread = RenderThread(shown.draw, show, failed)
    render_thread.start()
    start, _ = frame(shown.params, torch.tensor([0.0, 0.0, 1.0]), width / height)
    longer = max(width, height)
    rates, shares, rests = [], [], []
    for _ in range(3):
        arrived.clear()
        begin, i = time.monotonic(), 0
        while (now := time.monotonic()) - begin < seconds:
            render_thread.ask(RenderRequest(around(start, 0.5 * (now - begin)), longer))
            i += 1
            time.sleep(max(0.0, begin + i / 50 - time.monotonic()))
        stopped = time.monotonic()
        moved = [each for each in arrived if each[1]]
        rates.append(len(moved) / (stopped - begin))
        shares.append(statistics.median(each[2] for each in moved) / (width * height))
        while not any(not moving for at, moving, _ in arrived if at > stopped):
            time.sleep(0.005)
        rests.append(next(at for at, moving, _ in arrived if at > stopped and not moving) - stopped)
    render_thread.end()
    render_thread.join()
    return {
        "points": points, "width": width, "height": height,
        "pictures_per_second_moving": [round(rate, 1) for rate in rates],
        "share_of_pixels_moving": [round(share, 3) for share in shares],
        "seconds_from_rest_to_full_picture": [round(rest, 3) for rest in rests],
        "of_which_waiting_for_rest": SETTLED,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--size", default="480x270", help="of a full picture, WIDTHxHEIGHT")
    parser.add_argument("--seconds", type=float, default=4.0, help="that the camera moves, each of three times")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    result = measure(options.points, width, height, options.seconds)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({**result, "threads": torch.get_num_threads(), **machine}, indent=1))


if __name__ == "__main__":
    main()
