"""The trainers of tests/plugin."""

from plugin.conftest import face, make_trainer, tiny

__all__ = ["face", "make_trainer", "tiny"]
