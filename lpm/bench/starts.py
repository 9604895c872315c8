"""The points that a run may start from."""

from typing import Literal

Start = Literal["sfm", "thinned", "thinned+photos", "random", "photos"]
HoldOut = Literal["every-8th", "sector"]
