"""Photos without poses given where a scene is wanted: the scene is made beside them, once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lpm.scenes.layout import holds_photos_only


def scene_beside(place: Path) -> Path:
    """`place`; of a folder of photos without poses, or a video, the scene beside it, made by lpm-prepare if need be.

    Raises:
        LpmError: see lpm.prepare.run.prepare.
    """
    if not holds_photos_only(place):
        return place
    from lpm.prepare.run import prepare
    from lpm.prepare.settings import Settings

    out = place.resolve().with_name(f"{place.resolve().stem}-prepared")
    if not (out / "report.html").is_file():  # its last file
        print(f"{place}: photos without poses; lpm-prepare finds them and makes {out}", flush=True)
        prepare(Settings(place, out), Console())
    return out
