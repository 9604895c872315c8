"""The report's picture: cameras and points from above, and how well each image is held by its features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpm.prepare.figures import Figures, Floats

SHOWN = 60_000
"""Points drawn at most."""


class Seen(NamedTuple):
    """What the view from above shows; of a model that is not finished."""

    centres: Floats
    """[V, 3] where the cameras are."""
    rotations: Floats
    """[V, 3, 3] world to camera, OpenCV axes."""
    xyz: Floats
    """[N, 3] points."""
    rgb: NDArray[np.uint8]
    """[N, 3] their colours; all black where they are not known yet."""


def frame(figures: Figures | Seen) -> Floats:
    """[3, 3] rows: right, forward and up of the view from above; forward is the shorter way of the cameras' places."""
    up = -figures.rotations[:, 1].mean(0)
    offset = figures.centres - figures.centres.mean(0)
    if np.linalg.norm(up) < 0.3:  # cameras that look down or up have no common one
        up = np.linalg.svd(offset)[2][2]
    up /= np.linalg.norm(up)
    level = offset - np.outer(offset @ up, up)
    right = np.linalg.svd(level)[2][0]
    right -= up * (right @ up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def limits(points: Floats, cameras: Floats) -> tuple[tuple[float, float], tuple[float, float]]:
    """x and y limits [2] around all `cameras` [V, 2] and most of the `points` [N, 2], which have strays.

    Of what is farther away than twice the cameras' spread only the middle counts: a far background would leave
    the rest tiny.
    """
    low, high = cameras.min(0), cameras.max(0)
    reach = 2.0 * float((high - low).max())
    if len(points):
        outer, inner = np.percentile(points, (3, 97), axis=0), np.percentile(points, (10, 90), axis=0)
        low = np.minimum(low, np.minimum(inner[0], np.maximum(outer[0], low - reach)))
        high = np.maximum(high, np.maximum(inner[1], np.minimum(outer[1], high + reach)))
    pad = 0.06 * float((high - low).max()) + 1e-9
    return (low[0] - pad, high[0] + pad), (low[1] - pad, high[1] + pad)


def frustums(figures: Figures | Seen, axes: Floats, size: float) -> Floats:
    """[V, 4, 2] outlines of the cameras as triangles in the first two of `axes` [3, 3]: tip, both far corners, tip."""
    corners = np.array([[0, 0, 0], [-0.5, 0, 1.0], [0.5, 0, 1.0], [0, 0, 0]]) * size
    world = corners @ figures.rotations + figures.centres[:, None]
    plane: Floats = (world - figures.centres.mean(0)) @ axes[:2].T
    return plane


def draw(figures: Figures, path: Path) -> None:
    """Writes the picture to `path` (.png)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(1.55, 1))
    _from_above(figure.add_subplot(grid[:, 0]), figures)
    index = np.arange(len(figures.views))
    views = figures.views
    rows: tuple[tuple[str, list[float], tuple[int, int] | None], ...] = (
        ("image covered by features (%)", [100 * view.coverage for view in views], (0, 100)),
        ("features with a 3D point", [view.features for view in views], None),
        ("reprojection error (px)", [view.error for view in views], None),
    )
    for row, (title, values, span) in enumerate(rows):
        axis = figure.add_subplot(grid[row, 1])
        axis.bar(index, values, width=1.0 if len(index) > 80 else 0.85, color=_colors(len(index)))
        mean = float(np.mean(values)) if values else 0.0
        axis.axhline(mean, color="black", linewidth=0.8, linestyle="--")
        number = f"{mean:.3g}" if mean < 1000 else f"{mean:,.0f}"
        axis.set_title(f"{title}; mean over images: {number}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
        axis.set_xlim(-0.6, len(index) - 0.4)
        if span:
            axis.set_ylim(*span)
        if row == len(rows) - 1:
            axis.set_xlabel("images by name")
        else:
            axis.tick_params(labelbottom=False)
    figure.savefig(path, dpi=100)


def draw_from_above(seen: Seen, path: Path) -> None:
    """Writes the view from above alone to `path` (.png)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    _from_above(figure.add_subplot(), seen)
    figure.savefig(path, dpi=100)


def draw_matches(counts: Floats, path: Path) -> None:
    """Writes the verified matches of each pair of images, `counts` [V, V], to `path` (.png)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    shown = axis.imshow(np.where(counts > 0, counts, np.nan), cmap="viridis", interpolation="nearest")
    figure.colorbar(shown, ax=axis, label="verified matches")
    axis.set_xlabel("images by name")
    axis.set_ylabel("images by name")
    figure.savefig(path, dpi=100)


def _colors(count: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["plasma"](np.linspace(0.05, 0.85, max(count, 1)))


def _from_above(axis: Any, figures: Figures | Seen) -> None:
    from matplotlib.collections import PolyCollection

    axes = frame(figures)
    middle = figures.centres.mean(0)
    points = (figures.xyz - middle) @ axes.T
    keep = np.random.default_rng(0).permutation(len(points))[:SHOWN]
    keep = keep[np.argsort(points[keep, 2])]  # what is higher lies on top
    cameras = (figures.centres - middle) @ axes[:2].T
    x, y = limits(points[:, :2], cameras)
    # Pale colours would vanish on white.
    area = float(np.clip(12_000 / max(len(keep), 1), 0.6, 5))
    colors = figures.rgb[keep] / 255.0 * 0.85 if figures.rgb.any() else "0.5"
    axis.scatter(*points[keep, :2].T, s=area, c=colors, linewidths=0, rasterized=True)
    size = 0.03 * max(x[1] - x[0], y[1] - y[0])
    colors = _colors(len(cameras))
    axis.plot(*cameras.T, color="0.6", linewidth=0.6, zorder=3)
    axis.add_collection(
        PolyCollection(
            list(frustums(figures, axes, size)), facecolors=colors, edgecolors="black", linewidths=0.5, zorder=4
        )
    )
    axis.set_xlim(*x)
    axis.set_ylim(*y)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_facecolor("0.97")
    axis.set_title(f"from above: {len(cameras)} cameras (dark to bright by name), {len(points):,} points", fontsize=10)
