"""The command `lpm-eval`: how near a run comes to the photos that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors


def evaluate(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    out: Path | None = None,
    scene: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    pictures: Path | None = None,
    video: Path | None = None,
) -> None:
    """Measure a run on its held-out photos: PSNR (dB), SSIM, LPIPS where its weights are at hand, FLIP (less is better)
    and, of cameras over time, ColorVideoVDP (JOD, 10 is best), where lpm-splat[metrics] is installed.

    Args:
        run: a run's folder, its config.toml, or one of its checkpoints.
        out: write all figures, photo by photo, to this JSON file.
        scene: where the scene is now, if it was moved.
        device: what draws; auto takes a CUDA GPU where there is one.
        pictures: write each held-out photo beside its render into this folder.
        video: write a film (.mp4 where ffmpeg is, else .webm) of each held-out photo, its render and its error side by
            side; of a scene that moves camera by camera over time.
    """
    from rich.console import Console
    from rich.table import Table

    from lpm.files import atomic_file, bar
    from lpm.train.opened_run import as_json, lost_views, measured, open_run
    from lpm.train.pictures import check_film, write_comparison, write_pairs

    if video is not None:
        check_film(video)
    console = Console(highlight=False)
    opened = open_run(run, device, scene, console.print, bar)
    result = measured(opened, bar)
    names = [name for name in result if name in result["views"][0]]
    table = Table("photo", *(f"{name} (less is better)" if name == "flip" else name for name in names), box=None)
    for row in result["views"]:
        table.add_row(row["view"], *(f"{row[name]:.4g}" if name in row else "" for name in names))
    table.add_row("[bold]mean", *(f"[bold]{result[name]:.4g}" for name in names))
    console.print(table)
    lost = lost_views(result["views"])
    if lost:
        console.print(f"6 dB or more below the median: {', '.join(lost)}", soft_wrap=True)
    for clip in result.get("clips", []):
        what = f"{clip['frames']} frames, {clip['fps']:g} a second"
        console.print(f"{clip['camera']} over time: ColorVideoVDP {clip['cvvdp']:.2f} JOD ({what})", soft_wrap=True)
    console.print(f"{opened.checkpoint}: step {result['step']:,}, {result['points']:,} points", soft_wrap=True)
    if out is not None:
        with atomic_file(out) as file:
            file.write(as_json(result))
    if pictures is not None:
        write_pairs(opened, pictures, bar)
        console.print(f"{pictures}: {len(result['views'])} pictures")
    if video is not None:
        console.print(f"{video}: {write_comparison(opened, video, bar)} pictures", soft_wrap=True)


def main() -> None:
    """Entry point of `lpm-eval`."""
    one_line_errors(lambda: tyro.cli(evaluate, prog="lpm-eval"))
