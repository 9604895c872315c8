"""The command lpm-inspect: what is in a file or a run, in numbers and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from lpm.checks import one_line_errors


def inspect_command(
    source: Positional[Annotated[Path, arg(metavar="FILE|RUN")]], render: Path | None = None, size: int = 640
) -> None:
    """Say what is in a file of Gaussians or in a run.

    Args:
        source: A run's folder, a checkpoint, or a file of Gaussians of any kind.
        render: Also draw it into this picture (.png or .jpg): four sides of what 98 % of the Gaussians fill.
        size: Width of the picture in pixels.
    """
    from rich.console import Console

    from lpm.files import bar
    from lpm.formats.findings import report
    from lpm.formats.read import load

    loaded = load(source, bar)
    report(loaded, Console(highlight=False, soft_wrap=True))
    if render is not None:
        from lpm.formats.picture import render_picture

        render_picture(render, loaded, size)
        print(f"{render}: written")


def inspect_main() -> None:
    """The command lpm-inspect."""
    one_line_errors(lambda: tyro.cli(inspect_command, prog="lpm-inspect"))
