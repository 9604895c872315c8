"""The names of directions, as the command line has them."""

from typing import Literal

Axis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
