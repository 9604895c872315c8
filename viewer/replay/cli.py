"""The command lpm-replay: a finished run's events, to scrub through in a browser or as one file to send around."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from lpm.checks import fail, need, one_line_errors


def replay(
    run: Annotated[Positional[Path], arg(metavar="RUN")], host: str = "127.0.0.1", port: int = 7008,
    html: Path | None = None,
) -> None:  # fmt: skip
    """Show what point management did in a run, event by event: zones, points added and removed, curves.

    Args:
        run: A run's folder, or the config.yml in it.
        host: Address to listen on; 0.0.0.0 lets others on the network look, too.
        port: Port to listen on.
        html: Write one HTML file, which needs nothing beside it and no network, and end.
    """
    need("plotly", "replay")
    from lpm.viewer.compat import serve, stop
    from lpm.viewer.replay.data import load
    from lpm.viewer.replay.html import write_html
    from lpm.viewer.replay.page import Page

    loaded = load(run)
    if html is not None:
        if html.suffix.lower() not in (".html", ".htm"):
            fail("--html", str(html), "a name that ends in .html")
        write_html(html, loaded)
        return
    server = serve(host, port, "lpm-replay")
    try:
        Page(server, loaded).run(threading.Event())
    except KeyboardInterrupt:
        pass
    finally:
        stop(server)
        time.sleep(0.1)


def main() -> None:
    """The command lpm-replay."""
    one_line_errors(lambda: tyro.cli(replay, prog="lpm-replay"))
