"""The trainers of tests/plugin."""

from plugin.conftest import make_trainer, tiny

__all__ = ["make_trainer", "tiny"]
