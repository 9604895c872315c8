"""Entry points of the commands that need no nerfstudio."""

from lpm.export.commands import export_main
from lpm.export.inspect import inspect_main

__all__ = ["export_main", "inspect_main"]
