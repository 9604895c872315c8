"""The pictures of a result: quality against points, against time, over a clip, and bars by scene."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from lpm.bench.jobs import hold_out_of
from lpm.bench.statistics import paired

Runs = list[dict[str, Any]]


def draw(runs: Runs, folder: Path) -> list[str]:
    """Writes the plots that the runs allow, and says so where matplotlib is missing; their file names."""
    if importlib.util.find_spec("matplotlib") is None:
        print("No plots: matplotlib is not installed; pip install 'lpm-splat[bench]'")
        return []
    import matplotlib

    matplotlib.use("Agg")
    usual = [r for r in runs if r["start"] == "sfm"]
    usual = [r for r in usual if hold_out_of(r) == "every-8th"] or usual  # never mixed with a sector's
    names = []
    plots = (("bars.png", bars), ("points.png", points), ("time.png", seconds), ("moments.png", moments))
    for name, function in plots:
        figure = function(usual) if usual else None
        if figure is not None:
            figure.savefig(folder / name, dpi=110, bbox_inches="tight")
            names.append(name)
    return names


def _figure(width: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def main_of(runs: Runs) -> str:
    """The strategy that others are compared with: `4d` where it was run, else `lpm`."""
    return "4d" if any(r["strategy"] == "4d" for r in runs) else "lpm"


def _colors(runs: Runs) -> dict[str, Any]:
    import matplotlib

    names = sorted({r["strategy"] for r in runs}, key=lambda s: (s != main_of(runs), s))
    return {name: matplotlib.colormaps["tab20" if len(names) > 10 else "tab10"](i) for i, name in enumerate(names)}


def _width(strategy: str, runs: Runs) -> float:
    """Width of the line of a strategy: the main one stands out."""
    return 2.5 if strategy == main_of(runs) else 1.2


def _at_one_cap(runs: Runs) -> Runs:
    """Of each scene the runs at the cap with most of them."""
    caps: dict[str, list[int]] = {}
    for run in runs:
        caps.setdefault(run["scene"], []).append(run["cap"])
    most = {scene: max(sorted(set(of)), key=of.count) for scene, of in caps.items()}
    return [r for r in runs if r["cap"] == most[r["scene"]]]


def bars(runs: Runs) -> Any:
    """main_of(runs) less each other strategy by scene, with its interval, at each scene's cap with most runs."""
    runs = _at_one_cap(runs)
    caps = " or ".join(f"{cap:,}" for cap in sorted({r["cap"] for r in runs}))
    main = main_of(runs)
    mine = [r for r in runs if r["strategy"] == main]
    others = [s for s in _colors(runs) if s != main]
    scenes = sorted({r["scene"] for r in mine})
    if not mine or not others:
        return None
    figure, (axis,) = _figure(2.5 + 2.2 * (len(scenes) + 1))
    width = 0.8 / len(others)
    for i, strategy in enumerate(others):
        label = f"less {strategy}"
        for j, scene in enumerate((*scenes, None)):
            group = [r for r in runs if r["strategy"] == strategy and scene in (None, r["scene"])]
            found = paired([r for r in mine if scene in (None, r["scene"])], group)
            if found is None or (scene is None and {r["scene"] for r in group} != set(scenes)):
                continue
            x = j + (i - (len(others) - 1) / 2) * width
            axis.bar(x, found.mean, width * 0.9, color=_colors(runs)[strategy], label=label)
            label = "_"  # once in the legend
            axis.plot([x, x], [found.low, found.high], color="black", linewidth=1)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(scenes) + 1), [*scenes, "all"])
    axis.set_ylabel(f"held-out PSNR: {main} less another (dB)")
    axis.set_title(f"at most {caps} points; lines: 95 % intervals over seeds and views")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def points(runs: Runs) -> Any:
    """PSNR, mean over the scenes, against the number of points, of what was run with at least two caps."""
    scenes = {r["scene"] for r in runs}
    colors = _colors(runs)
    lines: dict[str, list[tuple[float, float]]] = {}
    for strategy in colors:
        line = lines[strategy] = []
        for cap in sorted({r["cap"] for r in runs}):
            group = [r for r in runs if (r["strategy"], r["cap"]) == (strategy, cap)]
            if {r["scene"] for r in group} == scenes:
                line.append((statistics.mean(r["points"] for r in group), _over_scenes(group, "psnr")))
    lines = {strategy: line for strategy, line in lines.items() if len(line) > 1}
    if not lines:  # one cap, or other scenes at each
        return None
    figure, (axis,) = _figure(6)
    for strategy, line in lines.items():
        axis.plot(*zip(*line, strict=True), marker="o", color=colors[strategy], label=strategy)
    axis.set_xlabel("points")
    axis.set_ylabel("held-out PSNR, mean over scenes (dB)")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def seconds(runs: Runs) -> Any:
    """PSNR against the time since the start, preprocessing included, at each scene's cap with most
    runs; one panel a scene."""
    runs = [r for r in _at_one_cap(runs) if r["curve"]]
    scenes = sorted({r["scene"] for r in runs})
    if not runs:
        return None
    figure, axes = _figure(4.2 * len(scenes), len(scenes))
    for axis, scene in zip(axes, scenes, strict=True):
        for strategy, color in _colors(runs).items():
            curves = [r["curve"] for r in runs if (r["scene"], r["strategy"]) == (scene, strategy)]
            x, y = ([], [])  # for the legend
            if curves:
                x, y = (np.mean([[p[key] for p in curve] for curve in curves], 0) for key in ("seconds", "psnr"))
            axis.plot(x, y, marker=".", color=color, label=strategy, linewidth=_width(strategy, runs))
        axis.set_title(scene)
        axis.set_xlabel(f"{runs[0]['clock']} seconds, preprocessing included")
    axes[0].set_ylabel("held-out PSNR (dB)")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def moments(runs: Runs) -> Any:
    """PSNR of the pixels that move against the time of the held-out view, at each scene's cap with most runs; one
    panel a scene."""
    runs = _at_one_cap(runs)
    seen = [(r["scene"], r["strategy"], view["time"], view["psnr_dynamic"])
            for r in runs for view in r["views"] if "psnr_dynamic" in view]  # fmt: skip
    scenes = sorted({row[0] for row in seen})
    if not scenes:
        return None
    figure, axes = _figure(max(6.0, 4.2 * len(scenes)), len(scenes))
    for axis, scene in zip(axes, scenes, strict=True):
        for strategy, color in _colors(runs).items():
            here = [row[2:] for row in seen if row[:2] == (scene, strategy)]
            capture_times = sorted({time for time, _ in here})
            means = [statistics.mean(psnr for at, psnr in here if at == time) for time in capture_times]
            axis.plot(capture_times, means, marker=".", color=color, label=strategy, linewidth=_width(strategy, runs))
        axis.set_title(scene)
        axis.set_xlabel("time in the clip")
    axes[0].set_ylabel("held-out PSNR where it moves (dB)")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _over_scenes(runs: Runs, key: str) -> float:
    scenes = sorted({r["scene"] for r in runs})
    of_scenes: list[float] = [statistics.mean(r[key] for r in runs if r["scene"] == scene) for scene in scenes]
    return statistics.mean(of_scenes)
