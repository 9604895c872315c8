"""OUT/report.html: one file that tells how the reconstruction went; report.png and report.json beside it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lpm.prepare.figures import FEW, Figures
from lpm.prepare.picture import draw

THUMBNAILS = 60
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em } img { max-width: 100% }
table { border-collapse: collapse } td { padding: .15em 1.2em .15em 0; vertical-align: top }
.verdict { border-left: 5px solid; padding: .4em 1em; background: #f6f6f6 } .good { color: #1a7f37 }
.poor { color: #b35900 } .verdict span, li { color: #222 } code { background: #eee; padding: .1em .3em }
.thumbs { display: flex; flex-wrap: wrap; gap: 10px } figure { margin: 0; font-size: 12px; width: 160px }
figcaption { overflow-wrap: anywhere }
"""


def inlined(data: bytes, kind: str) -> str:
    """An address that holds the image itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(path: Path) -> str:
    """The image at `path`, 160 pixels wide, as an inlined JPEG."""
    with Image.open(path) as image:
        image.draft("RGB", (320, 320))
        small = image.convert("RGB")
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return inlined(buffer.getvalue(), "jpeg")


def rows(figures: Figures, more: dict[str, str]) -> dict[str, str]:
    """The report's table: what is measured, and its value."""
    coverage = [view.coverage for view in figures.views]
    worst = min(figures.views, key=lambda view: view.coverage)
    return {
        "images with a pose": f"{len(figures.views)} of {figures.total}",
        "mean reprojection error": f"{figures.error:.3f} px",
        "points": f"{figures.points:,}",
        "mean track length": f"{figures.track:.2f} images",
        "coverage": f"{100 * sum(coverage) / len(coverage):.0f} % of an image has features on average; "
        f"least {100 * worst.coverage:.0f} % ({worst.name})",
        "camera": "; ".join(figures.cameras[:4]) + f" and {len(figures.cameras) - 4} more" * (len(figures.cameras) > 4),
        **more,
    }


def page(
    title: str, figures: Figures, table: dict[str, str], todo: Sequence[str], skipped: Sequence[Sequence[str]],
    picture: bytes, images: Path, command: str,
) -> str:  # fmt: skip
    """The page's text.

    Args:
        todo: what to do about what is not good.
        skipped: [name, why] of photos that could not be used.
        picture: PNG.
        images: folder of the images, for thumbnails of those without a pose.
        command: what to run next.
    """
    e = html.escape
    good = len(figures.views) >= FEW * figures.total and not figures.doubts
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{e(title)}</title><style>{STYLE}</style>",
        f"<h1>{e(title)}</h1>",
        f"<div class='verdict {'good' if good else 'poor'}'><span><b>{len(figures.views)} of {figures.total} images "
        f"got a pose</b>, with a mean reprojection error of {figures.error:.2f} px.</span>",
    ]
    if todo:
        parts.append("<ul>" + "".join(f"<li>{e(text)}</li>" for text in todo) + "</ul>")
    parts.append(f"</div><p>Next: <code>{e(command)}</code></p>")
    parts.append(f"<img src='{inlined(picture, 'png')}' alt='cameras and points from above; features by image'>")
    parts.append("<table>" + "".join(f"<tr><td>{e(k)}<td>{e(v)}" for k, v in table.items()) + "</table>")
    if figures.missing:
        parts.append(f"<h2>{len(figures.missing)} images without a pose</h2><div class='thumbs'>")
        for name in figures.missing[:THUMBNAILS]:
            source = thumbnail(images / name)
            parts.append(f"<figure><img src='{source}' alt=''><figcaption>{e(name)}</figcaption></figure>")
        parts.append("</div>")
        if len(figures.missing) > THUMBNAILS:
            parts.append("<p>And " + e(", ".join(figures.missing[THUMBNAILS:])) + "</p>")
    if skipped:
        parts.append(f"<h2>{len(skipped)} files that were left out</h2><ul>")
        parts += [f"<li>{e(name)}: {e(why)}</li>" for name, why in skipped]
        parts.append("</ul>")
    return "\n".join(parts) + "</html>\n"


def write(
    new: Path, title: str, figures: Figures, more: dict[str, str], todo: Sequence[str],
    skipped: Sequence[Sequence[str]], images: Path, command: str, facts: dict[str, Any],
) -> None:  # fmt: skip
    """Writes report.html, report.png and report.json into `new`.

    Args:
        more: further rows of the table.
        facts: further entries of report.json.
    """
    draw(figures, new / "report.png")
    table = rows(figures, more)
    text = page(title, figures, table, todo, skipped, (new / "report.png").read_bytes(), images, command)
    (new / "report.html").write_text(text, encoding="utf-8")
    numbers = figures.numbers() | {"skipped": list(skipped), "advice": list(todo)} | facts
    (new / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
