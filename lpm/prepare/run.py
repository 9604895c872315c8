"""The stages of `lpm-prepare`, one after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from lpm.checks import fail, need
from lpm.prepare import figures, frames, live, mapping, pair_choice, panorama, photos, progress, report, sfm, undistort
from lpm.prepare.settings import Settings
from lpm.prepare.work import Work, fresh, opened, stderr_to
from lpm.prepare.world_frame import MAPPED, stand_up
from lpm.scenes.layout import VIDEOS


def prepare(settings: Settings, console: Console) -> dict[str, Any]:
    """Makes the scene; the numbers of its report (see figures.Figures.numbers).

    Raises:
        LpmError: something given cannot be used, fewer than 3 images got a pose, or the model looks wrong.
    """
    settings.check()
    need("matplotlib", "prepare")
    pycolmap = sfm.load_pycolmap()  # before an hour of work, not after
    source, out = settings.source.expanduser(), settings.out.expanduser()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    video = source.is_file() and source.suffix.lower() in VIDEOS
    root, paths = (source.parent, [source]) if video else photos.photo_paths(source)
    if not video and (out.resolve() == source.resolve() or out.resolve().is_relative_to(root.resolve())):
        fail(out, "is the folder of the photos, or in it", "a folder of its own for the scene", "name another")
    if not video:
        paths = photos.chosen(paths, settings.max_images)
    masks = settings.masks if video else photos.masks_of(source, root, settings.masks)
    with opened(out, settings.overwrite, say) as work, stderr_to(work.path("log.txt")):
        stages = Stages(work, console)
        taken = stages.images(settings, video, root, paths, masks)
        names = [photo["name"] for photo in taken["photos"]]
        for name, why in taken["skipped"]:
            say(f"left out: {name}: {why}")
        for line in taken.get("said", ()):
            say(line)
        if 0 < taken["own_masks"] < len(names):
            say(f"{taken['own_masks']} of {len(names)} photos have a mask; the others are used whole")
        features = {
            "camera_model": settings.camera_model,
            "cameras": settings.cameras,
            "feature_size": settings.feature_size,
            "max_features": settings.max_features,
            "seed": settings.seed,
            "masks": taken["masks"],
            "pycolmap": pycolmap.__version__,
        }
        posed = stages.sfm(taken["photos"], names, features, settings)
        return finish(settings, out, stages, taken, features, posed, say)


def finish(
    settings: Settings, out: Path, stages: Stages, taken: dict[str, Any], features: dict[str, Any],
    posed: dict[str, Any], say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """The scene and the report of what has been found; the report's numbers.

    Raises:
        LpmError: the model looks wrong, and settings.accept is false; the report is kept in the work folder.
    """
    work, own, refused = stages.work, taken["own_masks"] > 0, posed["wrong"] and not settings.accept
    with stages.bar("scene", None) as bar:
        new = fresh(work.path("new"))
        model = sfm.load_pycolmap().Reconstruction(work.path("model"))
        names = [photo["name"] for photo in taken["photos"]]
        result = figures.measure(model, names, posed["models"], posed["faults"])
        bar.set_total(len(result.views))
        cut = [] if refused else undistort.undistort(work.folder, own, new, bar.set_done, settings.lens_fov)
        told = {"camera_model": settings.camera_model, "matching": settings.matching, "masks": own}
        todo = figures.advice(result, told)
        command = f"lpm-train {settings.out}"
        compared, seconds = work.state["matches"]["result"], work.seconds()
        pycolmap = features["pycolmap"]
        more = {
            "pairs of images": f"{compared['matched']:,} of {compared['pairs']:,} compared show the same things",
            "mapper": mapping.words(posed),
            "check of the model": posed["check"],
            "world frame": posed["world"]["said"],
            "masks": "yes" if own else "none",
            **({"undistorted": "; ".join(cut[:4])} if cut else {}),
            "made": f"from {settings.source} by pycolmap {pycolmap}, poses in {sum(seconds.values()):.0f} s",
        }
        facts = {"seconds": seconds, "pairs": compared, "poses": posed, "settings": features}
        title, skipped = f"{out.name}: reconstruction", taken["skipped"]
        report.write(new, title, result, more, todo, skipped, work.path("images"), command, facts)
    if refused:
        written = work.keep(new, "doubtful")
        remedy = "take photos while walking, not turning on the spot, also between those that are far apart"
        look = f"look at {written / 'report.html'}; --accept takes the model as it is"
        fail("model", posed["check"], "one that the matches agree with", f"{remedy}; {look}")
    if "georeference" in posed["world"]:
        (new / "georeference.json").write_text(json.dumps(posed["world"]["georeference"], indent=1) + "\n")
    work.publish(new)
    table = report.rows(result, {})
    for key in list(table)[:5]:
        say(f"{key:24} {table[key]}")
    say(f"{'mapper':24} {more['mapper']}")
    say(f"{'check of the model':24} {posed['check']}")
    say(f"{'world frame':24} {posed['world']['said']}")
    if cut:
        say(f"{'undistorted':24} {more['undistorted']}")
    for text in todo:
        say(f"note: {text}")
    say(f"report: {out / 'report.html'}")
    say(f"{work.folder} ({work.size() / 1e6:,.0f} MB) is for another try with other settings; it can be deleted")
    say(f"next: {command}")
    return result.numbers() | {"advice": todo}


class Stages:
    """Runs the stages with a bar for each."""

    def __init__(self, work: Work, console: Console) -> None:
        self.work, self.console = work, console

    def images(
        self, settings: Settings, video: bool, root: Path, paths: list[Path], masks: Path | None
    ) -> dict[str, Any]:
        """Frames of the video, or the photos, in the work folder; see photos.collect."""
        work, videos = self.work, paths if video else []
        if video:
            asked = {"video": stamp(paths[:1]), "frames": settings.frames}

            def cut(anew: bool) -> list[Any]:
                with self.bar("frames", 1000) as bar:
                    folder = fresh(work.path("frames"))
                    return frames.sharpest(
                        paths[0], settings.frames, folder, lambda share: bar.set_done(int(share * 1000))
                    )

            root = work.path("frames")
            paths = [root / name for name, _ in work.stage("frames", asked, cut)]
        masks_stamp = None if masks is None else stamp([masks] if masks.is_file() else sorted(masks.rglob("*")))
        asked = {"photos": stamp(paths), "masks": masks_stamp}
        if settings.camera_model != "auto":
            asked["panoramas"] = "all" if settings.camera_model == panorama.MODEL else "told"

        def collect(anew: bool) -> dict[str, Any]:
            with self.bar("photos", len(paths)) as bar:
                made = photos.collect(root, paths, masks, work.folder, bar.add)
                return panorama.cut_all(work.folder, made, settings.camera_model)

        taken = work.stage("photos", asked, collect)
        missing = frames.broken_off(videos[0]) if videos else None
        return taken | ({"skipped": [*taken["skipped"], [videos[0].name, missing]]} if missing else {})

    def sfm(
        self, taken: list[dict[str, Any]], names: list[str], features: dict[str, Any], settings: Settings
    ) -> dict[str, Any]:
        """Features, pairs, matches, poses, and `world`: what stand_up gives beside what mapping.reconstruct does."""
        work, matching = self.work, settings.matching
        asked = {"mapper": settings.mapper} | {key: features[key] for key in ("camera_model", "feature_size", "seed")}
        places = {photo["name"]: tuple(photo["place"]) for photo in taken if photo.get("place")}

        def extract(anew: bool) -> None:
            with self.bar("features", len(taken)) as bar:
                sfm.extract(work.folder, taken, features, anew, bar.add)

        def choose(anew: bool) -> list[pair_choice.Pair]:
            with self.bar("pairs", len(names)) as bar:
                return pair_choice.choose(work.path("database.db"), names, matching, bar.add)

        def compare(anew: bool) -> dict[str, Any]:
            with self.bar("matches", len(wanted)) as bar:
                return sfm.match(work.folder, names, wanted, settings.seed, anew, bar.add)

        def pose(anew: bool) -> dict[str, Any]:
            with self.bar("poses", len(names)) as bar, progress.phases(bar, work.path("log.txt")):
                page = live.Live(work.folder, names)
                page.matches(sfm.load_pycolmap())
                work.say(f"the model as it grows: {page.page}")
                made = mapping.reconstruct(work.folder, asked, bar.add, work.say, page.show)
            os.replace(work.path("model"), fresh(work.path(MAPPED)))
            return made

        work.stage("features", features, extract)
        wanted = [(i, j) for i, j in work.stage("pairs", {"matching": matching}, choose)]
        work.stage("matches", {"seed": settings.seed}, compare)
        posed = work.stage("poses", asked | {"model": MAPPED}, pose)
        # A stage of its own: another --distance, or one that names no photo, costs no poses.
        told = {"distance": settings.distance}
        world = work.stage("world", told, lambda _: stand_up(work.folder, places, settings.distance))
        return posed | {"world": world}

    def bar(self, name: str, total: int | None) -> AbstractContextManager[progress.Bar]:
        """See progress.bar."""
        return progress.bar(self.console, name, total, self.work.path("log.txt"))


def stamp(paths: list[Path]) -> list[list[Any]]:
    """What changes when one of the files does."""
    result = []
    for path in paths:
        if path.is_file():
            status = path.stat()
            result.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return result
