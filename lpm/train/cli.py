"""The command `lpm-train`: trains on a scene, shows the run in the browser, and goes on with one that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from lpm.checks import fail, one_line_errors

HELP = """Train Gaussians on a scene: photos with poses, as COLMAP, nerfstudio and many others write them.

The run's folder gets checkpoints, settings (config.toml), held-out quality (metrics.json) and what point management
did. `lpm-view RUN` shows the result, `lpm-export ply RUN` writes it for other programs, and
`lpm-train --resume RUN` goes on with a run that was stopped. A scene that moves is trained with points that move;
`lpm-train --moving --help` shows what can be set there."""


def _take(words: list[str], name: str, wants_value: bool) -> str | None:
    """Takes option `name` out of `words`; its value, or "" for one that wants none; None where it is not there."""
    for i, word in enumerate(words):
        head, equals, tail = word.partition("=")
        if head != name:
            continue
        if not wants_value:
            del words[i]
            return ""
        if equals:
            del words[i]
            return tail
        if i + 1 == len(words):
            fail(name, "nothing after it", "a path")
        value = words[i + 1]
        del words[i : i + 2]
        return value
    return None


def _scene_of(words: list[str]) -> Path | None:
    return Path(words[0]) if words and not words[0].startswith("-") else None


def train(words: list[str]) -> None:
    """What `lpm-train` does with its words. Raises LpmError."""
    resume, file = _take(words, "--resume", True), _take(words, "--config", True)
    moving, still = (_take(words, name, False) is not None for name in ("--moving", "--no-moving"))
    if resume is not None and file is not None:
        fail("--config", f"{file}, beside --resume", "one of them: a run that goes on keeps its settings")
    from lpm.train.run_settings import FILE, MovingRunSettings, RunSettings, read_settings

    asking = "--help" in words or "-h" in words
    default: RunSettings | None = None
    if resume is not None:
        run = Path(resume)
        run = run.parent if run.is_file() and run.suffix != ".ckpt" else run
        if not (run / FILE).is_file():
            fail(run, f"no {FILE} in it", "the folder of a run", "give the folder that lpm-train named when it began")
        default = read_settings(run / FILE)
        default.out = run
    elif file is not None:
        default = read_settings(Path(file))
    scene = None
    place = _scene_of(words) or (default.scene if default is not None else None)
    if place is not None and not asking:
        scene, place = _read(place, default)
    if default is None:
        moves = moving or (scene is not None and scene.times is not None and not still)
        default = MovingRunSettings() if moves else RunSettings()
    if place is not None:
        default.scene = place
        words = words[1:] if _scene_of(words) is not None else words
    settings = _parse(type(default), default, words, positional=place is None or asking)
    if scene is None:
        fail("SCENE", "none given", "a scene's folder", "lpm-scene make room room makes one")
    _run(settings, scene, None if resume is None else Path(resume))


def _parse(kind: type, default: Any, words: list[str], positional: bool) -> Any:
    from lpm.train.run_settings import RunSettings

    # The scene comes first and was read already; only a help text shows it as what it is.
    def chosen(settings: Annotated[kind, tyro.conf.arg(name="")]) -> RunSettings:  # type: ignore[valid-type]
        return settings

    config: tuple[Any, ...] = (tyro.conf.OmitArgPrefixes,) if False else ()
    return tyro.cli(kind, default=default, args=words, prog="lpm-train", description=HELP, config=config)


def _read(place: Path, default: Any) -> tuple[Any, Path]:
    """The scene in `place`, and where it is; of a folder of photos without poses, after lpm-prepare found them."""
    from lpm.scenes.read import read_scene
    from lpm.train.prepare_first import is_photos, prepared

    if is_photos(place):
        place = prepared(place)
    outside = default is not None and default.data.outside_files
    return read_scene(place, outside), place


def _run(settings: Any, scene: Any, resume: Path | None) -> None:
    from lpm.train.run_folder import new_run_folder
    from lpm.train.trainer import Trainer

    folder = settings.out or new_run_folder(settings.scene)
    trainer = Trainer(settings, folder)
    trainer.setup(scene, resume)
    page: Callable[[], Any] | None = None
    if settings.page:
        from lpm.viewer.training.page import RunPage

        page = RunPage(trainer).stop
    try:
        trainer.train()
        trainer.summary()
        trainer.say(f"Run: {folder}\nlpm-view {folder}    looks at it; lpm-export ply {folder}    writes a PLY.")
        if settings.page and settings.viewer.stay:
            trainer.stay()
    finally:
        if page is not None:
            page()


def main() -> None:
    """Entry point of `lpm-train`."""
    one_line_errors(lambda: train(sys.argv[1:]))
