"""The command `lpm-prepare`."""

from __future__ import annotations

import sys

import tyro
from rich.console import Console

from lpm.checks import one_line_errors
from lpm.prepare.settings import Settings


def command() -> None:
    """Reads the command line and makes the scene."""
    settings = tyro.cli(Settings, prog="lpm-prepare")
    from lpm.prepare.run import prepare

    try:
        prepare(settings, Console())
    except KeyboardInterrupt:
        print("interrupted; repeat the command to go on", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Entry point of `lpm-prepare`."""
    one_line_errors(command)
