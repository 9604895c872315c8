"""A contact sheet: many images of a scene in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lpm.checks import fail
from lpm.scenes.images import load_image

GAP = 4


def contact_sheet(images: Sequence[Path], out: Path, columns: int = 4, rows: int = 3, width: int = 240) -> None:
    """Writes `columns` x `rows` of the `images`, evenly chosen, each `width` pixels wide, to `out` (.jpg or .png).

    Raises:
        LpmError: an image cannot be decoded, or `out` has another suffix.
    """
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        fail(out, f"suffix {out.suffix or 'none'}", ".jpg or .png", "name the sheet so")
    count = min(columns * rows, len(images))
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, count).round().astype(int)]
    small = []
    for path in chosen:
        picture = Image.fromarray(load_image(path)[:, :, :3])
        small.append(
            picture.resize((width, max(round(picture.height * width / picture.width), 1)), Image.Resampling.LANCZOS)
        )
    height = max(picture.height for picture in small)
    across, down = min(columns, count), -(-count // columns)
    sheet = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), "white")
    for i, picture in enumerate(small):
        sheet.paste(picture, ((i % columns) * (width + GAP), (i // columns) * (height + GAP)))
    sheet.save(out, quality=78)
