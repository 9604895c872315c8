"""All settings of a run by `lpm-train`, and the file that holds them."""

from __future__ import annotations

import sys
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from lpm.checks import LpmError, fail
from lpm.files import atomic_file
from lpm.train.model_settings import ModelOptions, ModelSettings, MovingModelOptions, MovingModelSettings
from lpm.train.scene_settings import DataSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "config.toml"
"""Name of the file in a run's folder."""
STEPS = {"cpu": 3_000, "cuda": 30_000}
MAX_POINTS = {"cpu": 60_000, "cuda": 1_000_000}
S = TypeVar("S")


@dataclass
class PageSettings:
    """The page in the browser that shows a run."""

    port: int = 7007
    """Port to listen on, or the next one that is free."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets others on the network look, too."""
    stay: bool = False
    """Keep the page open when the run is complete, until Ctrl-C."""


@dataclass
class RunSettings:
    """A run on a scene that stands still; None means "automatic"."""

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")] = Path()
    """The scene's folder, its transforms.json, or a folder of photos."""
    out: Path | None = None
    """The run's folder. None: outputs/SCENE/DATE_TIME."""
    steps: int | None = None
    """Steps of the whole run; a resumed run goes on to this number. None: 3,000 on a CPU, 30,000 on a GPU."""
    strategy: str = "lpm"
    """How points are managed: lpm (localized point management), paper (the same as published), adc (3DGS), absgrad
    (AbsGS), mcmc (3DGS-MCMC), igs (Improved-GS), fastgs, steepgs, conegs, the controls lower-tau and random-zones, or
    MODULE:CLASS, one of your own."""
    max_points: int | None = None
    """Cap on the number of points. None: 60,000 on a CPU, 1,000,000 on a GPU. 0: no cap."""
    scale: float | None = None
    """Size of the photos. None: 1/2, 1/3, ... so that the longest side is <= 480 pixels on a CPU, 1600 on a GPU."""
    eval_every: int = 8
    """Every n-th photo by name, from the first on, is held out; 0 holds out nothing. A scene's own lists win."""
    seed: int = 42
    """Of all random numbers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What trains; auto takes a CUDA GPU where there is one."""
    page: bool = True
    """Show the run in the browser while it trains."""
    save_every: int = 500
    """Steps from one checkpoint to the next."""
    measure_every: int = 500
    """Steps from one measurement of held-out quality to the next; 0: only at the end."""
    keep_all: bool = False
    """Keep every checkpoint, not the last two."""
    points_from_photos: bool = True
    """Where the scene has few points (below 2,000) or none: draw some from its depths, or find some by comparing the
    photos (seconds). False: start from those there are, or else random ones."""
    data: DataSettings = field(default_factory=DataSettings)
    """How the scene is read and placed."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """The model, and how its points are managed."""
    rates: dict[str, float] = field(default_factory=dict)
    """First learning rates, by group, where they are to be others; of features_rest for runs of any length."""
    viewer: PageSettings = field(default_factory=PageSettings)
    """The page."""

    moving: ClassVar[bool] = False
    method: ClassVar[str] = "lpm-splat"

    def resolve(self, device: str) -> None:
        """Puts numbers in the place of what is automatic on `device`."""
        self.steps = STEPS[device] if self.steps is None else self.steps
        self.max_points = MAX_POINTS[device] if self.max_points is None else self.max_points
        if self.steps < 1:
            fail("--steps", str(self.steps), "at least 1")

    def model_settings(self) -> ModelSettings:
        """What makes the model, of a run whose settings are resolved."""
        kind = MovingModelSettings if self.moving else ModelSettings
        chosen = {option.name: getattr(self.model, option.name) for option in fields(self.model)}
        return kind(**chosen, strategy=self.strategy, max_points=self.max_points, max_steps=self.steps)


@dataclass
class MovingRunSettings(RunSettings):
    """A run on a scene that moves; None means "automatic"."""

    points_from_photos: bool = False
    """Where the scene has neither points nor depths: find some by comparing the photos of each time."""
    random_points: int = 20_000
    """Points to start from where the scene has none, along random rays of the first frame."""
    model: MovingModelOptions = field(default_factory=MovingModelOptions)
    """The model, and how its points are managed."""

    moving: ClassVar[bool] = True
    method: ClassVar[str] = "lpm-splat-4d"


def write_settings(path: Path, settings: RunSettings) -> None:
    """Writes `settings` as TOML; None is written as "none"."""
    lines = [f"# Settings of a run of lpm-splat; `lpm-train --config {path.name}` makes another with them.",
             f'method = "{settings.method}"']  # fmt: skip
    _table(lines, "", settings)
    with atomic_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _table(lines: list[str], name: str, values: Any) -> None:
    items = values.items() if isinstance(values, dict) else ((f.name, getattr(values, f.name)) for f in fields(values))
    tables = []
    for key, value in items:
        if is_dataclass(value) or isinstance(value, dict):
            tables.append((f"{name}.{key}" if name else key, value))
        else:
            lines.append(f"{key} = {_literal(value)}")
    for key, value in tables:
        lines += ["", f"[{key}]"]
        _table(lines, key, value)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    text = "none" if value is None else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_settings(path: Path) -> RunSettings:
    """The settings in the TOML file `path`; what it does not name is as it is by default.

    Raises:
        LpmError: it cannot be read, or names something that is not there, or has a value of another kind.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LpmError(f"{path}: cannot be read ({error}); wanted a TOML file as lpm-train writes it") from error
    method = found.pop("method", RunSettings.method)
    kinds = {kind.method: kind for kind in (RunSettings, MovingRunSettings)}
    if method not in kinds:
        fail(f"{path}: method", repr(method), f"one of {', '.join(kinds)}")
    return _filled(kinds[method](), found, str(path))


def _filled(default: S, found: dict[str, Any], where: str) -> S:
    hints = get_type_hints(type(default), include_extras=False)
    names = {option.name for option in fields(default)}  # type: ignore[arg-type]
    for key, value in found.items():
        if key not in names:
            fail(f"{where}: {key}", "not a setting", "a name that lpm-train --help lists", "correct or remove it")
        now = getattr(default, key)
        if is_dataclass(now) and isinstance(value, dict):
            _filled(now, value, f"{where}: {key}")
        else:
            setattr(default, key, _typed(value, hints[key], f"{where}: {key}"))
    return default


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value`, as TOML has it, as `hint` wants it. Raises LpmError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value == "none" and type(None) in inner:
            return None
        for kind in inner:
            if kind is not type(None):
                return _typed(value, kind, where)
    if origin is Literal:
        if value not in inner:
            fail(where, repr(value), f"one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(item, inner[1], f"{where}.{key}") for key, item in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        fail(where, repr(value), hint.__name__)
    return value
