"""The command `lpm-train`: trains on a scene, shows the run in the browser, and goes on with one that was stopped."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from lpm.checks import fail, one_line_errors

if TYPE_CHECKING:  # a help text needs none of it
    from lpm.scenes.scene import Scene
    from lpm.train.run_settings import RunSettings
    from lpm.train.terminal import Terminal
    from lpm.train.trainer import Trainer

HELP = """Train Gaussians on a scene: photos with poses, as COLMAP, nerfstudio and many others write them. Of a folder
of photos without poses, or a video, lpm-prepare finds them first.

The run's folder gets checkpoints, settings (config.toml), held-out quality (metrics.json) and what point management
did. `lpm-view RUN` shows the result and `lpm-export ply RUN` writes it for other programs.

Beside the options below: --resume RUN goes on with a run that was stopped (with --steps, to another number);
--config FILE takes the settings of a run's config.toml; --moving trains points that move, which a scene with times gets
by itself (`lpm-train --moving --help` shows what can be set there; --still trains points that do not)."""


def _take(words: list[str], name: str, has_value: bool) -> str | None:
    """Takes the option `name` out of `words`: its value, "" if it has none, None where it is not there."""
    for i, word in enumerate(words):
        head, equals, tail = word.partition("=")
        if head == name:
            if not has_value or equals:
                del words[i]
                return tail
            if i + 1 == len(words):
                fail(name, "nothing after it", "a path")
            value = words[i + 1]
            del words[i : i + 2]
            return value
    return None


def _degrees(text: str | None) -> float | None:
    """What --data.lens-fov says; raises LpmError for what is no number."""
    if text is None or text == "None":
        return None
    try:
        return float(text)
    except ValueError:
        fail("--data.lens-fov", text, "degrees, or None")


def parse(words: list[str]) -> tuple[RunSettings, Scene, Path | None]:
    """The settings that the command line `words` asks for, the scene, and what to go on with. Raises LpmError."""
    from lpm.train.run_settings import FILE, MovingRunSettings, RunSettings, read_settings

    words = list(words)
    resume, file = _take(words, "--resume", True), _take(words, "--config", True)
    moving, still = (_take(words, name, False) is not None for name in ("--moving", "--still"))
    default: RunSettings | None = None
    if resume is not None:
        run = Path(resume)
        folder = run if run.is_dir() else run.parent.parent if run.suffix == ".ckpt" else run.parent
        if not (folder / FILE).is_file():
            fail(
                folder, f"no {FILE} in it", "the folder of a run of lpm-splat", "give the one that it named at its end"
            )
        default = read_settings(folder / FILE)
        default.out = folder
    elif file is not None:
        default = read_settings(Path(file))
        default.out = None  # that run's own folder
    given = Path(words[0]) if words and not words[0].startswith("-") else None
    place = given or (default.scene if default is not None and default.scene != Path() else None)
    asks = "--help" in words or "-h" in words
    scene = None
    if place is not None and not asks:
        fov = _take(list(words), "--data.lens-fov", True)
        known = default.data.lens_fov if default is not None and fov is None else _degrees(fov)
        scene, place = _read(place, "--data.outside-files" in words, known)
    if default is None:
        moves = moving or (scene is not None and scene.capture_times is not None and not still)
        default = MovingRunSettings() if moves else RunSettings()
    settings = tyro.cli(type(default), default=default, args=words, prog="lpm-train", description=HELP)
    if scene is None or place is None:
        fail("SCENE", "none given", "a scene's folder", "`lpm-scene make room room` makes one to try")
    settings.scene = place.resolve()
    return settings, scene, None if resume is None else Path(resume)


def _read(place: Path, outside: bool, fov: float | None) -> tuple[Scene, Path]:
    """The scene in `place`, and where it is: of photos without poses, where lpm-prepare put it."""
    from lpm.prepare.beside import scene_beside
    from lpm.scenes.layout import holds_photos_only
    from lpm.scenes.read import read_scene
    from lpm.train.processes import count

    if count() > 1 and holds_photos_only(place):
        fail(place, "photos without poses", "a scene, where several processes train", f"lpm-prepare {place} SCENE")
    place = scene_beside(place)
    return read_scene(place, outside, fov), place


def run_folder(settings: RunSettings) -> Path:
    """The folder of a new run."""
    return settings.out or Path("outputs") / settings.scene.name / f"{datetime.now():%Y-%m-%d_%H%M%S}"


def train(words: list[str]) -> Trainer:
    """What `lpm-train` does; the trainer, when it is done."""
    settings, scene, resume = parse(words)
    from lpm.plausibility.check import stop_if_serious
    from lpm.train.processes import joined, speaks

    folder = run_folder(settings)
    if resume is None and any(folder.rglob("*.ckpt")):
        fail(folder, "holds a run", "a new folder", f"go on with it by --resume {folder}, or give another --out")
    if resume is None and not settings.data.unchecked:
        stop_if_serious(scene, print if speaks() else lambda line: None, "--data.unchecked")
    with joined(settings, folder) as (place, terminal):
        return _train(settings, scene, resume, place, terminal)


def _train(settings: RunSettings, scene: Scene, resume: Path | None, folder: Path, terminal: Terminal) -> Trainer:
    from lpm import distributed
    from lpm.train.trainer import Trainer

    trainer = Trainer(settings, folder, terminal)
    trainer.setup(scene, resume)
    page = None
    if settings.page:
        from lpm.train.page import RunPage

        page = RunPage(trainer)
    try:
        trainer.train()
        if distributed.rank() > 0:
            return trainer
        trainer.summary()
        trainer.say(f"Run: {folder}\nTo look at it: lpm-view {folder}\nFor other programs: lpm-export ply {folder}")
        if page is not None and settings.viewer.stay:
            page.wait()
    finally:
        if page is not None:
            page.stop()
    return trainer


def main() -> None:
    """Entry point of `lpm-train`."""

    def command() -> None:
        train(sys.argv[1:])

    one_line_errors(command)
