"""What is to be run: one training run of the grid, and how the command line's words name it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from lpm.bench.starts import HoldOut, Start
from lpm.checks import fail
from lpm.strategy.registry import STRATEGIES, strategy_class

SECTOR = "sector.json"
"""File of a scene with the list of views that the hold-out `sector` leaves out."""
MOVING = "lpm-4d"
"""Base of rows that are trained by `lpm-splat-4d`."""

# Parts of `lpm`, each left out; and its settings that published methods or a sceptic would ask about.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-densify": ("lpm", {"densify": False}),
    "no-insert": ("lpm", {"insert": False}),
    "no-reset": ("lpm", {"reset": False}),
    "no-prune": ("lpm", {"prune": False}),
    # Placebos: the same amount at other places. (`random-zones`, a strategy by itself, moves the zones alone.)
    "random-places": ("lpm", {"random_zones": True, "random_places": True}),
    # Points that move, with what lpm.strategy.lpm4d knows of time.
    "4d": (MOVING, {}),
    "4d-same-time": (MOVING, {"zones_in_time": "same-time"}),
    "4d-time-blind": (MOVING, {"zones_in_time": "time-blind"}),
    "4d-no-zones": (MOVING, {"zones_in_time": "none"}),
    # Others' ways, with the same points in time.
    "4dgs": (MOVING, {"strategy": "4dgs"}),
    "stg": (MOVING, {"strategy": "stg"}),
    "freetime": (MOVING, {"strategy": "freetime"}),
    "4d-adc": (MOVING, {"strategy": "adc"}),
    "4d-mcmc": (MOVING, {"strategy": "mcmc"}),
}


@dataclass(frozen=True)
class SceneChoice:
    """A scene of the grid."""

    name: str
    data: str
    """Its folder, or `sample:NAME` for one that is made on the spot."""
    scale: float | None = None
    """Scale of its images; None: as `ns-train` chooses."""


@dataclass(frozen=True)
class Row:
    """A strategy with changed settings, under a name of its own."""

    name: str
    base: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run."""

    scene: str
    strategy: str
    seed: int
    cap: int
    steps: int
    start: Start
    data: str
    scale: float | None
    base: str
    settings: dict[str, Any]
    threads: int
    lpips: bool
    hold_out: HoldOut = "every-8th"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this run from the others of a result."""
        return key_of(asdict(self))

    @property
    def title(self) -> str:
        """One word for logs and file names."""
        start = "" if self.start == "sfm" else f"-{self.start}"
        side = "-sector" if self.hold_out == "sector" else ""
        return f"{self.scene}-{self.strategy}-{self.cap // 1000}k{start}{side}-{self.seed}"


def key_of(run: dict[str, Any]) -> tuple[Any, ...]:
    """The key of a run as results.json has it."""
    return *(run[name] for name in ("scene", "strategy", "seed", "cap", "steps", "start")), hold_out_of(run)


def hold_out_of(run: dict[str, Any]) -> HoldOut:
    """What a run as results.json has it left out; earlier versions, which do not say, every 8th view."""
    hold_out: HoldOut = run.get("hold_out", "every-8th")
    return hold_out


def parse_scene(text: str) -> SceneChoice:
    """`NAME=FOLDER`, `NAME=FOLDER@SCALE`, or the name of a sample scene. Raises LpmError."""
    from lpm.scenes.samples.moving import CLIPS
    from lpm.scenes.samples.worlds import SAMPLES

    name, equals, folder = text.partition("=")
    if not equals:
        if name not in (*SAMPLES, *CLIPS):
            samples = ", ".join((*SAMPLES, *CLIPS))
            fail("--scenes", repr(text), f"NAME=FOLDER, NAME=FOLDER@SCALE or a sample scene: {samples}")
        return SceneChoice(name, f"sample:{name}")
    folder, at, scale = folder.rpartition("@") if "@" in folder else (folder, "", "")
    try:
        factor = float(scale) if at else None
    except ValueError:
        fail("--scenes", repr(text), "a number after the @", "for example fox=data/fox@0.5")
    if not Path(folder).exists():
        fail("--scenes", f"{folder} does not exist", "a scene's folder")
    return SceneChoice(name, str(Path(folder).resolve()), factor)


def parse_row(text: str) -> Row:
    """`STRATEGY`, a row of ROWS, or `NAME=STRATEGY:FIELD=VALUE,...` with values in JSON. Raises LpmError."""
    if text in ROWS:
        return Row(text, *ROWS[text])
    head, _, tail = text.partition(":")
    name, _, base = head.partition("=")
    base = base or name
    if base not in (*STRATEGIES, MOVING):
        fail("--strategies", repr(text), f"one of {', '.join([*STRATEGIES, *ROWS])}, or NAME=STRATEGY:FIELD=VALUE,...")
    settings: dict[str, Any] = {}
    for part in filter(None, tail.split(",")):
        setting, equals, value = part.partition("=")
        try:
            settings[setting] = json.loads(value)
        except json.JSONDecodeError:
            if not equals or not value:
                fail("--strategies", repr(text), "FIELD=VALUE after the colon")
            settings[setting] = value
    if settings:
        own, model = known_settings(base)
        unknown = [setting for setting in settings if setting not in own | model]
        if unknown:
            wanted = f"one of {', '.join(sorted(own))}, or one of the model (lpm-train --help)"
            fail("--strategies", f"{text}: {base} has no setting {unknown[0]}", wanted)
    if settings and name == base:
        fail("--strategies", repr(text), "a name for the changed strategy", f"for example my-{base}={text}")
    return Row(name, base, settings)


def known_settings(base: str) -> tuple[set[str], set[str]]:
    """What can be set in a row of `base`: the strategy's own options, and those of the model."""
    from lpm.train.model_settings import ModelSettings, MovingModelSettings  # torch takes a second to import

    moving = base == MOVING
    model = MovingModelSettings if moving else ModelSettings
    own = strategy_class("lpm" if moving else base, moving).Options
    return {option.name for option in fields(own)}, {option.name for option in fields(model)}


def grid(
    scenes: Sequence[SceneChoice], rows: Sequence[Row], seeds: Sequence[int], caps: Sequence[int], steps: int,
    starts: Sequence[Start], threads: int, lpips: bool, hold_outs: Sequence[HoldOut] = ("every-8th",),
) -> list[Job]:  # fmt: skip
    """All runs, a seed and a cap of everything first: the table is of use early. Raises LpmError."""
    unknown = set(starts) - set(get_args(Start))
    if unknown:
        fail("--starts", ", ".join(sorted(unknown)), ", ".join(get_args(Start)))
    for scene in scenes if "sector" in hold_outs else ():
        if not (Path(scene.data) / SECTOR).is_file():
            fail("--hold-out", f"sector, and {scene.name} has no {SECTOR}", "scenes of `lpm-scene make random`")
    return [
        Job(scene.name, row.name, seed, cap, steps, start, scene.data, scene.scale, row.base, row.settings, threads,
            lpips, hold_out)
        for hold_out, start, cap, seed, scene, row in itertools.product(hold_outs, starts, caps, seeds, scenes, rows)
    ]  # fmt: skip
