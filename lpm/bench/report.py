"""results.md from results.json: what was run, means and ranges, paired differences, and what is missing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpm.bench import moving, plots, store
from lpm.bench.jobs import hold_out_of
from lpm.bench.starts import HoldOut
from lpm.bench.statistics import paired
from lpm.checks import fail
from lpm.files import atomic_file
from lpm.train.opened_run import lost_views

Runs = list[dict[str, Any]]


def write(folder: Path) -> None:
    """Writes FOLDER/results.md and the plots beside it. Raises LpmError where there are no results."""
    result = store.read(folder)
    if not result["runs"]:
        fail(folder / "results.json", "no runs", "a result of `lpm-bench run`")
    pictures = plots.draw(result["runs"], folder)
    with atomic_file(folder / "results.md") as file:
        file.write(markdown(result, pictures).encode())


def setting(run: dict[str, Any]) -> tuple[int, int, str, HoldOut]:
    """What runs that can be compared have in common: (cap, steps, start, hold-out)."""
    return run["cap"], run["steps"], run["start"], hold_out_of(run)


def settings_of(runs: Runs) -> list[tuple[int, int, str, HoldOut]]:
    """The groups of runs that can be compared (setting)."""
    return sorted({setting(run) for run in runs})


def markdown(result: dict[str, Any], pictures: Sequence[str]) -> str:
    """The text of results.md."""
    runs: Runs = result["runs"]
    parts = ["# Strategies under the same rules", "Made by `lpm-bench`; every number is of held-out views."]
    parts += [f"![{name}]({name})" for name in pictures]
    for cap, steps, start, hold_out in settings_of(runs):
        group = [r for r in runs if setting(r) == (cap, steps, start, hold_out)]
        words = {
            "sfm": "",
            "thinned": ", from a tenth of the SfM points",
            "thinned+photos": ", from a tenth of the SfM points and what the photos show",
            "random": ", from random points",
            "photos": ", from points that the photos show",
        }[start]
        side = ", a side of the scene held out" if hold_out == "sector" else ""
        parts.append(f"## At most {cap:,} points, {steps:,} steps{words}{side}")
        main = plots.main_of(group)
        compared = [against(group, metric, main) for metric in ("psnr", "ssim", "flip", *moving.METRICS)]
        tables = [quality(group), perceptual(group), where_it_moves(group), *compared, costs(group)]
        parts += [table for table in tables if table]  # with one strategy there is nothing to compare
    parts.append("## What is missing\n\n" + (missing(runs) or "Nothing: every strategy has every scene and seed."))
    machine, versions = result.get("machine", {}), result.get("versions", {})
    clocks = " or ".join(sorted({r["clock"] for r in runs}))
    threads = sorted({r["threads"] for r in runs})
    software = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts.append(
        f"## How it was made\n\n{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores; "
        f"threads per run: {', '.join(map(str, threads))}. Seconds are those of the {clocks} clock; those of events "
        f"always of the wall clock. {software}."
    )
    parts.append("```bash\n" + "\n".join(result.get("commands", [])) + "\n```")
    return "\n\n".join(parts) + "\n"


def by(runs: Runs, *names: str) -> dict[tuple[Any, ...], Runs]:
    """Runs grouped by fields."""
    groups: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return groups


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def order(runs: Runs) -> list[str]:
    """Strategies, the best mean over the scenes first; those that lack a scene last."""
    scenes = {r["scene"] for r in runs}
    cells = by(runs, "strategy", "scene")

    def place(strategy: str) -> tuple[int, float]:
        has = [statistics.mean(r["psnr"] for r in cells[strategy, scene]) for scene in scenes
               if (strategy, scene) in cells]  # fmt: skip
        return len(scenes) - len(has), -statistics.mean(has)

    return sorted({r["strategy"] for r in runs}, key=place)


def quality(runs: Runs) -> str:
    """PSNR (mean, range over the seeds) and SSIM by strategy and scene, and how many of all held-out views are lost."""
    scenes, cells = sorted({r["scene"] for r in runs}), by(runs, "strategy", "scene")
    rows = []
    for strategy in order(runs):
        row, means = [f"`{strategy}`"], []
        for scene in scenes:
            group = cells.get((strategy, scene))
            if group is None:
                row.append("")
                continue
            psnr = [r["psnr"] for r in group]
            means.append(statistics.mean(psnr))
            ssim = statistics.mean(r["ssim"] for r in group)
            row.append(f"{means[-1]:.2f} ({min(psnr):.2f} to {max(psnr):.2f}), {ssim:.4f}")
        row.append(f"{statistics.mean(means):.2f}" if len(means) == len(scenes) else "")
        own = [r for r in runs if r["strategy"] == strategy]
        row.append(f"{sum(map(lost, own))} of {sum(len(r['views']) for r in own)}")
        rows.append(row)
    last = ["mean PSNR", "lost views (6 dB or more below their run's median)"]
    return table(["strategy", *(f"{scene}: PSNR (range over seeds), SSIM" for scene in scenes), *last], rows)


def lost(run: dict[str, Any]) -> int:
    """How many held-out views a run lost (lost_views); earlier versions did not count them."""
    return int(run["lost"]) if "lost" in run else len(lost_views(run["views"]))


def perceptual(runs: Runs) -> str:
    """FLIP and, of clips, ColorVideoVDP (means) by strategy and scene; of runs that have them."""
    runs = [r for r in runs if "flip" in r or "cvvdp" in r]
    scenes, cells = sorted({r["scene"] for r in runs}), by(runs, "strategy", "scene")
    rows = []
    for strategy in order(runs):
        row = [f"`{strategy}`"]
        for scene in scenes:
            group, parts = cells.get((strategy, scene), []), []
            for name, digits, unit in (("flip", 4, ""), ("cvvdp", 2, " JOD")):
                values = [r[name] for r in group if name in r]
                parts += [f"{statistics.mean(values):.{digits}f}{unit}"] if values else []
            row.append(", ".join(parts))
        rows.append(row)
    what = "FLIP (less is better)" + (", ColorVideoVDP (10 is best)" if any("cvvdp" in r for r in runs) else "")
    return table(["strategy", *(f"{scene}: {what}" for scene in scenes)], rows) if rows else ""


def where_it_moves(runs: Runs) -> str:
    """PSNR (mean, range over the seeds) and SSIM of the pixels that move, and of the others; of runs that have them."""
    rows = []
    for (strategy, scene), group in sorted(by([r for r in runs if "psnr_dynamic" in r], "strategy", "scene").items()):
        row = [f"`{strategy}`", scene]
        for part in ("dynamic", "static"):
            psnr = [r[f"psnr_{part}"] for r in group]
            ssim = [r[f"ssim_{part}"] for r in group if f"ssim_{part}" in r]
            cell = f"{statistics.mean(psnr):.2f} ({min(psnr):.2f} to {max(psnr):.2f})"
            row.append(cell + (f", {statistics.mean(ssim):.4f}" if ssim else ""))
        rows.append(row)
    head = ["strategy", "scene", "where it moves: PSNR (range over seeds), SSIM", "elsewhere"]
    return table(head, rows) if rows else ""


def against(runs: Runs, metric: str, of: str = "lpm") -> str:
    """`of` less every other strategy, paired by seed and view, by scene and over all of them."""
    mine = [r for r in runs if r["strategy"] == of and metric in r]
    if not mine:
        return ""
    digits, unit = (2, " (dB)") if metric.startswith("psnr") else (4, "")
    scenes, rows = sorted({r["scene"] for r in mine}), []
    for strategy in order(runs):
        if strategy == of:
            continue
        row = [f"`{strategy}`"]
        for scene in (*scenes, None):
            other = [r for r in runs if r["strategy"] == strategy and scene in (None, r["scene"])]
            found = paired([r for r in mine if scene in (None, r["scene"])], other, metric)
            complete = found is not None and (scene or {r["scene"] for r in other} == set(scenes))
            row.append(
                f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
                if found is not None and complete
                else ""
            )
        rows.append(row)
    if not rows:
        return ""
    name, _, part = metric.partition("_")
    unit = " (less is better)" if metric == "flip" else unit
    title = name.upper() + {"": "", "dynamic": " where it moves", "static": " elsewhere"}[part] + unit
    return table([f"{title}: `{of}` less", *scenes, "all (95 % interval)"], rows)


def costs(runs: Runs) -> str:
    """Points, seconds by stage and memory, means over scenes and seeds."""
    rows = []
    for strategy in order(runs):
        group = [r for r in runs if r["strategy"] == strategy]
        mean = {name: statistics.mean(r["seconds"][name] for r in group) for name in group[0]["seconds"]}
        rows.append([
            f"`{strategy}`", f"{len(group)}", f"{statistics.mean(r['points'] for r in group):,.0f}",
            f"{mean['setup']:.0f}", f"{mean['training']:.0f}", f"{mean['events']:.1f}", f"{mean['total']:.0f}",
            f"{max(r['peak_memory_mb'] for r in group):,}",
        ])  # fmt: skip
    places = " or ".join(sorted({r.get("memory_of", "host") for r in runs}))
    memory = "most MB" if places == "host" else f"most MB ({places})"
    head = ["strategy", "runs", "points", "setup (s)", "training (s)", "of it events (s)", "total (s)", memory]
    return table(head, rows)


def missing(runs: Runs) -> str:
    """Runs that are missing for a full grid over the scenes, strategies and seeds that are there."""
    lines = []
    scenes, seeds = sorted({r["scene"] for r in runs}), sorted({r["seed"] for r in runs})
    strategies = sorted({r["strategy"] for r in runs})
    for cap, steps, start, hold_out in settings_of(runs):
        have = {(r["strategy"], r["scene"], r["seed"]) for r in runs if setting(r) == (cap, steps, start, hold_out)}
        side = ", a side held out" if hold_out == "sector" else ""
        for strategy in strategies:
            lacks = [f"{scene} {seed}" for scene in scenes for seed in seeds if (strategy, scene, seed) not in have]
            if lacks:
                what = "all" if len(lacks) == len(scenes) * len(seeds) else ", ".join(lacks)
                lines.append(f"- {cap:,} points, {start}{side}, `{strategy}` (scene, seed): {what}")
    return "\n".join(lines)
