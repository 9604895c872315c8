"""Poses from matches by one of pycolmap's two mappers, and by the other one where the first model looks wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lpm.checks import fail
from lpm.prepare.refine import refine
from lpm.prepare.sfm import Done, load_pycolmap
from lpm.prepare.verdict import Expected, Judgement, compared, judge
from lpm.prepare.work import fresh, remove

MAPPERS = ("global", "incremental")
LEAST_MATCHES = 15
"""Verified matches of a pair from which the mappers use it."""


@dataclass(frozen=True)
class Attempt:
    """What one mapper made of the matches."""

    mapper: str
    model: Any
    """pycolmap's reconstruction with most images, refined; None where there is none of 3 images."""
    counts: list[int]
    """Images of each separate model, largest first."""
    why: str
    """What went wrong where there is no model."""
    judged: Judgement | None
    seconds: float
    """Of processor time, refinement included."""

    @property
    def told(self) -> str:
        """What came of it, in one line."""
        return self.why if self.judged is None else self.judged.line()

    @property
    def doubts(self) -> list[str]:
        """Why it is not simply taken."""
        return [self.why] if self.judged is None else list(self.judged.faults.values())


def reconstruct(work: Path, settings: dict[str, Any], done: Done, say: Callable[[str], None]) -> dict[str, Any]:
    """Poses and points; the better model, refined, into work/model.

    Args:
        settings: mapper (the one that is tried first), camera_model, feature_size (pixels), seed.
        done: called with the number of further images that got a pose; the global mapper places all at once.
        say: is told in a line when the other mapper is tried, and why.

    Returns:
        registered (images of the largest model), models (images of each model, largest first), mapper (that made it),
        check (how it was judged, in a line), faults (why it is doubted; empty where it is not) and tried (each
        mapper that ran: mapper, seconds of processor time, told, judged).

    Raises:
        LpmError: fewer than 3 images got a pose by either mapper.
    """
    pycolmap = load_pycolmap()
    folder = fresh(work / "models")
    expected, calibrated = expectations(pycolmap, work, folder, settings)
    other = MAPPERS[1 - MAPPERS.index(settings["mapper"])]
    attempts = [attempt(pycolmap, settings["mapper"], work, calibrated, expected, settings, done)]
    if attempts[0].doubts:
        say(f"{settings['mapper']} mapper: {'; '.join(attempts[0].doubts)}; the {other} mapper is tried")
        attempts.append(attempt(pycolmap, other, work, calibrated, expected, settings, done))
        attempts = judged_again(attempts)
    best = better(attempts)
    if best is None:
        most = max((tried.counts[0] for tried in attempts if tried.counts), default=0)
        fail(
            "reconstruction",
            f"{most} images with a pose",
            "at least 3",
            "use sharper photos that overlap by two thirds and are taken from different places, not by turning on the "
            "spot; try --matching exhaustive or another --camera-model",
        )
    best.model.write(fresh(work / "model"))
    remove(folder)
    return {
        "registered": best.counts[0],
        "models": best.counts,
        "mapper": best.mapper,
        "check": best.told,
        "faults": best.doubts,
        "tried": [
            {
                "mapper": tried.mapper,
                "seconds": round(tried.seconds, 1),
                "told": tried.told,
                "judged": None if tried.judged is None else asdict(tried.judged),
            }
            for tried in attempts
        ],
    }


def judged_again(attempts: list[Attempt]) -> list[Attempt]:
    """Two attempts, each judged with the knowledge of the other; as they are where one has no model."""
    one, two = (tried.judged for tried in attempts)
    if one is None or two is None:
        return attempts
    pair = zip(attempts, compared(one, two), strict=True)
    return [replace(tried, judged=judged) for tried, judged in pair]


def better(attempts: list[Attempt]) -> Attempt | None:
    """The first of the `attempts` that has a model, unless a later one is clearly better; None where none has."""
    best = None
    for tried in attempts:
        if tried.judged is None:
            continue
        if best is None or best.judged is None or tried.judged.beats(best.judged):
            best = tried
    return best


def words(posed: dict[str, Any]) -> str:
    """Which mapper made the model, and what came of another one that was tried; of what `reconstruct` gave."""
    rest = [f"{tried['mapper']} ({tried['told']})" for tried in posed["tried"] if tried["mapper"] != posed["mapper"]]
    return "; also tried: ".join([posed["mapper"], *rest])


def expectations(pycolmap: Any, work: Path, folder: Path, settings: dict[str, Any]) -> tuple[Expected, Path]:
    """What is known before mapping, and a calibrated copy of the database in `folder`.

    The copy is for the global mapper. The incremental one gets the database as it was: a focal length that is wrong in
    both could not be told by comparing them.
    """
    copy = folder / "calibrated.db"
    with closing(sqlite3.connect(work / "database.db")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with pycolmap.Database.open(copy) as db:
        before = {camera.camera_id: camera for camera in db.read_all_cameras()}
        keys, inliers = db.read_two_view_geometry_num_inliers()
    exif = {key: float(camera.mean_focal_length()) for key, camera in before.items() if camera.has_prior_focal_length}
    calibrated = {}
    if hasattr(pycolmap, "calibrate_view_graph"):
        options = pycolmap.ViewGraphCalibrationOptions()
        options.random_seed = settings["seed"]
        # Raises where no pair of images can be calibrated: nothing is known then, which is no fault of the model.
        try:
            found = pycolmap.calibrate_view_graph(copy, options)
        except (RuntimeError, ValueError):
            found = False
        if found:
            with pycolmap.Database.open(copy) as db:
                after = {camera.camera_id: float(camera.mean_focal_length()) for camera in db.read_all_cameras()}
            # What it cannot calibrate keeps the value it had.
            calibrated = {key: f for key, f in after.items() if f != before[key].mean_focal_length()}
    pairs = [
        pycolmap.pair_id_to_image_pair(key) for key, count in zip(keys, inliers, strict=True) if count >= LEAST_MATCHES
    ]
    return Expected(largest_group(pairs), calibrated, exif, settings["feature_size"]), copy


def largest_group(pairs: list[tuple[int, int]]) -> int:
    """Images of the largest group that hangs together by `pairs`; 0 without any."""
    group: dict[int, set[int]] = {}
    for one, two in pairs:
        joined = group.get(one, {one}) | group.get(two, {two})
        group.update(dict.fromkeys(joined, joined))
    return max((len(images) for images in group.values()), default=0)


def attempt(
    pycolmap: Any, mapper: str, work: Path, calibrated: Path, expected: Expected, settings: dict[str, Any], done: Done
) -> Attempt:
    """What `mapper` makes of the matches, refined and judged."""
    start = time.process_time()
    counts: list[int] = []
    model, judged, why = None, None, ""
    try:
        if mapper == "global":
            models = mapped_globally(pycolmap, work, calibrated, settings["seed"])
        else:
            models = mapped_incrementally(pycolmap, work, calibrated.parent, settings["seed"], done)
        largest = sorted(models, key=lambda one: (one.num_reg_images(), one.num_points3D()), reverse=True)
        counts = [one.num_reg_images() for one in largest]
        if counts and counts[0] >= 3:
            refine(pycolmap, largest[0], settings["camera_model"] == "auto")
            judged, model = judge(largest[0], expected), largest[0]
            if mapper == "global":
                done(counts[0])
        else:
            why = f"{counts[0] if counts else 0} images with a pose"
    except (RuntimeError, ValueError) as error:  # what pycolmap raises
        why = (str(error) or type(error).__name__).splitlines()[0]
    return Attempt(mapper, model, counts, why, judged, time.process_time() - start)


def mapped_globally(pycolmap: Any, work: Path, database: Path, seed: int) -> list[Any]:
    """Models by pycolmap's global mapper (GLOMAP's method: all rotations, then all places, then bundle adjustment).

    Raises:
        RuntimeError: this pycolmap has none, or it failed.
    """
    for name in ("global_mapping", "calibrate_view_graph"):
        if not hasattr(pycolmap, name):
            raise RuntimeError(f"pycolmap {pycolmap.__version__} has no {name}")
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.mapper.retriangulation.random_seed = seed
    options.mapper.rotation_averaging.random_seed = options.mapper.global_positioning.random_seed = seed
    options.min_num_matches = LEAST_MATCHES
    folder = fresh(database.parent / "global")
    return list(pycolmap.global_mapping(database, work / "images", folder, options).values())


def mapped_incrementally(pycolmap: Any, work: Path, folder: Path, seed: int, done: Done) -> list[Any]:
    """Models by COLMAP's incremental mapper, which adds image after image.

    Raises:
        RuntimeError: it failed.
    """
    pycolmap.set_random_seed(seed)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.min_model_size = 3
    models = pycolmap.incremental_mapping(
        work / "database.db",
        work / "images",
        fresh(folder / "incremental"),
        options,
        initial_image_pair_callback=lambda: done(2),
        next_image_callback=lambda: done(1),
    )
    return list(models.values())
