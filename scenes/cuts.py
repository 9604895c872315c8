"""Pinhole views cut out of photos by other lenses: one where the lens is narrow enough, else faces of a cube.

A pinhole spreads directions far from its axis over ever more pixels, and 90 degrees away over infinitely many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lpm.checks import fail
from lpm.scenes.lenses import Floats, Lens

ONE_VIEW = 60.0
"""Degrees from the axis, across and down, up to which one view is made of a photo."""
WIDEST = 160.0
"""Degrees across that one view may be asked to have."""
TRIMMED = 0.05
"""At most this share of a view is trimmed away so that it is whole; one that would lose more has a mask."""
GRID = 400
"""Rows and columns of a view that are looked at to tell whether it is whole."""
STRIP = 128
"""Rows of a view that are worked on at once: memory."""
LEAST = 0.01
"""Of all that a lens sees, what a face of the cube must hold to become a view."""
FACES: dict[str, Floats] = {
    name: np.array([right, below, np.cross(right, below)], np.float64).T
    for name, right, below in (
        ("front", (1, 0, 0), (0, 1, 0)),
        ("right", (0, 0, -1), (0, 1, 0)),
        ("back", (-1, 0, 0), (0, 1, 0)),
        ("left", (0, 0, 1), (0, 1, 0)),
        ("up", (1, 0, 0), (0, 0, 1)),
        ("down", (1, 0, 0), (0, 0, -1)),
    )
}
"""[3, 3] whose columns are the axes (right, down, forward) of a view in those of its lens."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One pinhole view of a photo by `lens`."""

    lens: Lens
    name: str
    """A name of FACES; empty where it is the only view of its photo."""
    turn: Floats
    """[3, 3] camera axes (OpenCV's) of the view as columns, in those of the lens."""
    intrinsics: Floats
    """[4] fx, fy, cx, cy of the view at full size, pixels."""
    size: tuple[int, int]
    """Width and height of the view at full size, pixels."""
    whole: bool
    """Whether the lens sees all of the view; else a mask says where it does."""
    _maps: dict[object, tuple[NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=dict, repr=False)

    def rays(self, intrinsics: Floats, x: Floats, y: Floats) -> Floats:
        """[..., 3] directions, in the axes of the lens, of the view's pixels `x`, `y` [...], if it has `intrinsics`."""
        fx, fy, cx, cy = intrinsics
        local = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1)
        turned: Floats = local @ self.turn.T
        return turned

    def places(
        self, intrinsics: Floats, size: tuple[int, int], photo: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Where in the photo each pixel of the view is, [H, W, 2] from the middle of its first pixel; and whether it
        is there, [H, W].

        Args:
            intrinsics, size: of the view, at whatever scale. photo: (width, height), at whatever scale.
        """
        key = (tuple(intrinsics.tolist()), size, photo)
        found = self._maps.get(key)
        if found is None:
            found = np.empty((size[1], size[0], 2), np.float32), np.empty((size[1], size[0]), bool)
            for top in range(0, size[1], STRIP):
                strip = np.s_[top : top + STRIP]
                x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1])[strip] + 0.5)
                pixels, there = self.lens.sees(self.rays(intrinsics, x, y))
                pixels = pixels * (photo[0] / self.lens.size[0], photo[1] / self.lens.size[1]) - 0.5
                found[0][strip], found[1][strip] = np.where(there[..., None], pixels, -9), there
            self._maps.clear()  # photos of one lens come one after another, at one scale
            self._maps[key] = found
        return found

    def take(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.uint8] | None = None,
        intrinsics: Floats | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The view [h, w, C] of a photo [H, W, C], and where it has pixels that the mask lets through, [h, w].

        Args:
            mask: [H, W] of the photo; 0 is ignored, and so is what is mixed with it.
            intrinsics, size: of the view, if it is not to be of full size.
        """
        height, width = pixels.shape[:2]
        places, there = self.places(
            self.intrinsics if intrinsics is None else intrinsics, self.size if size is None else size, (width, height)
        )
        if self.lens.model == "EQUIRECTANGULAR":  # its left and right edges are one
            pixels = np.concatenate([pixels[:, -2:], pixels, pixels[:, :2]], 1)
            mask = None if mask is None else np.concatenate([mask[:, -2:], mask, mask[:, :2]], 1)
            places = places + np.array([2, 0], np.float32)
        view = _remapped(pixels, places, cv2.INTER_CUBIC)
        view = view.reshape(*there.shape, *pixels.shape[2:])
        view[~there] = 0
        if mask is not None:
            solid = np.where(mask > 0, 255, 0).astype(np.uint8)
            there = there & (_remapped(solid, places, cv2.INTER_LINEAR) > 250)
        return view, there

    def centred(self, longer: int) -> Cut:
        """What this view shows, looked at along its own middle, `longer` pixels along the longer side; for pictures.

        A face at the side is cropped: its axis is at its edge.
        """
        fx, fy, cx, cy = self.intrinsics
        edges = np.array([(0.5, 0.5), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1)]) * self.size
        rays = np.concatenate([(edges - (cx, cy)) / (fx, fy), np.ones((5, 1))], 1)
        middle = rays[0] / np.linalg.norm(rays[0])
        across = np.cross([0, 0, 1], middle)
        sine = max(float(np.linalg.norm(across)), 1e-12)
        turn = Rotation.from_rotvec(across / sine * math.atan2(sine, middle[2])).as_matrix()
        seen = rays[1:] @ turn
        half = np.abs(seen[:, :2] / seen[:, 2:])
        half_x, half_y = float(half[:2, 0].max()), float(half[2:, 1].max())
        focal = longer / (2 * max(half_x, half_y))
        size = max(round(2 * half_x * focal), 1), max(round(2 * half_y * focal), 1)
        return Cut(
            self.lens, self.name, self.turn @ turn, np.array([focal, focal, size[0] / 2, size[1] / 2]), size, False
        )

    def pose(self, c2w: Floats) -> Floats:
        """[4, 4] camera to world of the view, of the photo's `c2w` [4, 4]; OpenGL's axes both."""
        flip = np.diag([1.0, -1.0, -1.0])
        turned = c2w.copy()
        turned[:3, :3] = c2w[:3, :3] @ flip @ self.turn @ flip
        return turned


def _remapped(picture: NDArray[np.uint8], places: NDArray[np.float32], how: int) -> NDArray[np.uint8]:
    """`picture` [H, W] or [H, W, C] at `places` [h, w, 2] (x, y; pixels from the first one's centre)."""
    # None, which OpenCV's types do not know: an empty array in its place is read beyond its end by OpenCV 5.0.
    nothing: Any = None
    return np.asarray(cv2.remap(picture, places, nothing, how, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def check_fov(fov: float | None) -> None:
    """Raises LpmError unless one view can have `fov` degrees across; None: it is not asked for."""
    if fov is not None and not 1 <= fov <= WIDEST:
        fail("--lens-fov", f"{fov:g}", f"1 to {WIDEST:g} degrees across", "leave it out to see all, in several views")


def reach(lens: Lens) -> tuple[float, float, float, float]:
    """Degrees from the axis that `lens` sees to the left, right, up and down."""
    angle = np.radians(np.arange(0, 180, 0.02))
    found = []
    for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there = lens.sees(np.stack([x * np.sin(angle), y * np.sin(angle), np.cos(angle)], -1))[1]
        found.append(0.02 * (len(there) if there.all() else max(int(there.argmin()) - 1, 0)))
    return found[0], found[1], found[2], found[3]


def cuts(lens: Lens, fov: float | None, name: str) -> list[Cut]:
    """The views of photos by `lens`; their pixels are as fine as the photo's are at the lens's axis.

    Args:
        fov: degrees across that one view is to have; None: one view of all that is seen, or faces of a cube where that
            is more than ONE_VIEW to a side. name: whose lens it is, for messages.

    Raises:
        LpmError: the lens sees nothing along its axis, or `fov` is not possible.
    """
    check_fov(fov)
    if fov is None and lens.model in ("PINHOLE", "SIMPLE_PINHOLE"):
        values = lens.params if lens.model == "PINHOLE" else (lens.params[0], *lens.params)
        return [Cut(lens, "", FACES["front"], np.array(values), lens.size, True)]
    sides = reach(lens)
    if min(sides) <= 0:
        got = f"{lens.model} {[float(f'{value:.6g}') for value in lens.params]} of {lens.size[0]}x{lens.size[1]}"
        fail(name, got, "a lens whose axis meets its picture", "run the pose estimation again")
    if fov is None and max(sides) > ONE_VIEW:
        return faces(lens, sides)
    if fov is not None:
        across = fov / 2
        down = math.degrees(math.atan(math.tan(math.radians(across)) * lens.size[1] / lens.size[0]))
        sides = min(sides[0], across), min(sides[1], across), min(sides[2], down), min(sides[3], down)
    left, right, up, down = (math.tan(math.radians(min(side, WIDEST / 2))) for side in sides)
    return [trimmed(view(lens, "", FACES["front"], np.array([-left, -up, right, down])))]


def view(lens: Lens, name: str, turn: Floats, box: Floats) -> Cut:
    """The view of what lies in `box` [4] (x / z and y / z, least and most) of the axes `turn`."""
    fx, fy = lens.focal()
    low = np.floor(box[:2] * (fx, fy) + 1e-6)
    size = np.maximum(np.round(box[2:] * (fx, fy) - low), 1)
    made = Cut(lens, name, turn, np.array([fx, fy, -low[0], -low[1]]), (int(size[0]), int(size[1])), False)
    return replace(made, whole=bool(looked_at(made)[0].all()))


def looked_at(cut: Cut) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Which pixels of `cut` its lens sees: [h, w] of at most GRID rows and columns, and which these are."""
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, GRID)).round().astype(np.int64)) for n in cut.size[::-1])
    x, y = np.meshgrid(columns + 0.5, rows + 0.5)
    return cut.lens.sees(cut.rays(cut.intrinsics, x, y))[1], rows, columns


def trimmed(cut: Cut) -> Cut:
    """`cut` without the rims that the lens does not see all of, if little is lost with them."""
    there, rows, columns = looked_at(cut)
    top, left, bottom, right = 0, 0, *there.shape
    while not (part := there[top:bottom, left:right]).all():
        rims = [part[0], part[:, 0], part[-1], part[:, -1]]
        worst = int(np.argmax([(~rim).mean() for rim in rims]))
        if rims[worst].all():
            return cut  # what is not seen lies within
        top, left = top + (worst == 0), left + (worst == 1)
        bottom, right = bottom - (worst == 2), right - (worst == 3)
        if (bottom - top) * (right - left) < (1 - TRIMMED) * there.size:
            return cut
    x, y = int(columns[left]), int(rows[top])
    size = int(columns[right - 1]) + 1 - x, int(rows[bottom - 1]) + 1 - y
    return Cut(cut.lens, cut.name, cut.turn, cut.intrinsics - (0, 0, x, y), size, True)


def faces(lens: Lens, sides: tuple[float, float, float, float]) -> list[Cut]:
    """The faces of a cube around `lens`, each cropped to what the lens sees of it.

    A lens that reaches far only to the sides (or only up and down) needs no faces above and below: the one in front is
    as high as what is seen. `sides`: of `reach`.
    """
    wide, high = max(sides[:2]) > ONE_VIEW, max(sides[2:]) > ONE_VIEW
    wanted = {"front": True, "right": wide, "back": wide, "left": wide, "up": high, "down": high}
    n, seen = 200, {}
    edges = np.linspace(-1, 1, n + 1)
    for name in (name for name, needed in wanted.items() if needed):
        across = 1.0 if wide or name in ("up", "down") else math.tan(math.radians(max(sides[:2])))
        down = 1.0 if high or name in ("right", "back", "left") else math.tan(math.radians(max(sides[2:])))
        x, y = np.meshgrid((edges[:-1] + edges[1:]) / 2 * across, (edges[:-1] + edges[1:]) / 2 * down)
        there = lens.sees(np.stack([x, y, np.ones_like(x)], -1) @ FACES[name].T)[1]
        solid = (1 + x * x + y * y) ** -1.5 * across * down  # of the sphere, what a cell of the face covers
        columns, rows = np.flatnonzero(there.any(0)), np.flatnonzero(there.any(1))
        if len(columns):
            low, high_end = (edges[[a[0], b[0]]] for a, b in ((columns, rows), (columns[::-1] + 1, rows[::-1] + 1)))
            box = np.concatenate([low * (across, down), high_end * (across, down)])
            seen[name] = float((solid * there).sum()), box
    total = sum(share for share, _ in seen.values())
    return [view(lens, name, FACES[name], box) for name, (share, box) in seen.items() if share >= LEAST * total]
