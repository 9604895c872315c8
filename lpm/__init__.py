"""3D and 4D Gaussian Splatting with localized point management (arXiv 2406.04251).

What `__all__` names is the public face (docs/api.md); all else may change. Importing this package is light: each name
is imported when it is first asked for, nothing is compiled, no GPU is needed, and nerfstudio stays out.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpm.checks import LpmError
    from lpm.formats.moving import for_splatv
    from lpm.formats.picture import draw
    from lpm.formats.ply import write_ply
    from lpm.formats.read import load
    from lpm.formats.splat import write_splat
    from lpm.formats.splatv import write_splatv
    from lpm.gaussians import edits, motion
    from lpm.gaussians.optim_state import apply as apply_edit
    from lpm.gaussians.parameters import from_points
    from lpm.gaussians.similarity import Similarity, move
    from lpm.multiview.covisibility import covisible
    from lpm.multiview.plane_sweep import plane_sweep
    from lpm.multiview.points_from_photos import points_from_photos
    from lpm.multiview.views import Views, unproject
    from lpm.render.losses import l1_dssim
    from lpm.render.rasterize import rasterize
    from lpm.scenes.read import read_scene
    from lpm.scenes.split import hold_out
    from lpm.strategy.adc import AdcStrategy
    from lpm.strategy.lpm import LpmStrategy
    from lpm.strategy.lpm4d import Lpm4dStrategy
    from lpm.strategy.schedule import Schedule
    from lpm.zones.error_maps import tile_errors
    from lpm.zones.examine import examine

__version__ = "0.1.0"
__all__ = [
    "AdcStrategy",
    "Lpm4dStrategy",
    "LpmError",
    "LpmStrategy",
    "Schedule",
    "Similarity",
    "Views",
    "apply_edit",
    "covisible",
    "draw",
    "edits",
    "examine",
    "for_splatv",
    "from_points",
    "hold_out",
    "l1_dssim",
    "load",
    "motion",
    "move",
    "plane_sweep",
    "points_from_photos",
    "rasterize",
    "read_scene",
    "tile_errors",
    "unproject",
    "write_ply",
    "write_splat",
    "write_splatv",
]

_HOMES = {
    "lpm.checks": ("LpmError",),
    "lpm.scenes.read": ("read_scene",),
    "lpm.scenes.split": ("hold_out",),
    "lpm.gaussians.edits": ("edits",),
    "lpm.gaussians.motion": ("motion",),
    "lpm.gaussians.optim_state": ("apply_edit",),
    "lpm.gaussians.parameters": ("from_points",),
    "lpm.gaussians.similarity": ("Similarity", "move"),
    "lpm.multiview.covisibility": ("covisible",),
    "lpm.multiview.plane_sweep": ("plane_sweep",),
    "lpm.multiview.points_from_photos": ("points_from_photos",),
    "lpm.multiview.views": ("Views", "unproject"),
    "lpm.render.rasterize": ("rasterize",),
    "lpm.render.losses": ("l1_dssim",),
    "lpm.formats.moving": ("for_splatv",),
    "lpm.formats.picture": ("draw",),
    "lpm.formats.read": ("load",),
    "lpm.formats.ply": ("write_ply",),
    "lpm.formats.splat": ("write_splat",),
    "lpm.formats.splatv": ("write_splatv",),
    "lpm.zones.error_maps": ("tile_errors",),
    "lpm.zones.examine": ("examine",),
    "lpm.strategy.schedule": ("Schedule",),
    "lpm.strategy.adc": ("AdcStrategy",),
    "lpm.strategy.lpm": ("LpmStrategy",),
    "lpm.strategy.lpm4d": ("Lpm4dStrategy",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES, _OTHER_NAMES = ("edits", "motion"), {"apply_edit": "apply"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lpm' has no attribute {name!r}")
    module = import_module(_HOME_OF[name])
    value = module if name in _MODULES else getattr(module, _OTHER_NAMES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
