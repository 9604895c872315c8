"""Poses from matches by one of pycolmap's two mappers, and by the other one where the first model looks wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lpm.checks import fail
from lpm.prepare.agreement import agreement
from lpm.prepare.first_focal import is_guess
from lpm.prepare.match_graph import joined_pairs, largest_group, well_joined
from lpm.prepare.panorama import MODEL, fixed
from lpm.prepare.refine import refine
from lpm.prepare.sfm import Done, load_pycolmap
from lpm.prepare.verdict import Expected, Judgement, judge
from lpm.prepare.work import fresh, remove

MAPPERS = ("global", "incremental")
LEAST_MATCHES = 15
"""Verified matches of a pair from which the mappers use it."""
PASSES = 2
"""Times the global mapper runs at most, after a quick look for the focal lengths."""
SETTLED = 0.03
"""It runs again where it ends at a focal length that differs by more from the one it began with."""
GLANCED = 80
"""Images of which the quick look is made, at most."""
QUICK, TRACKS = 60, 150
"""Tracks an image, in the mean, that place the cameras: at the quick look, then. Others are triangulated afterwards."""


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


Show = Callable[[Any, str, bool], None]
"""Is shown pycolmap's unfinished reconstruction: what has been done, and whether in any case; see lpm.prepare.live."""


def reconstruct(
    work: Path,
    settings: dict[str, Any],
    done: Done,
    say: Callable[[str], None],
    show: Show = lambda model, doing, whole: None,
) -> dict[str, Any]:
    """Poses and points; the better model, refined, into work/model.

    Args:
        settings: mapper (the one that is tried first), camera_model, feature_size (pixels), seed.
        done: called with the number of further images that got a pose; the global mapper places all at once.
        say: is told in a line when the other mapper is tried, and why.
        show: is shown the model as it grows.

    Returns:
        registered (images of the largest model), models (images of each model, largest first), mapper (that made it),
        check (how it was judged, in a line), faults (why it is doubted; empty where it is not), wrong (whether it is
        too doubtful to be used unasked) and tried (each mapper that ran: mapper, seconds of processor time, told,
        judged).

    Raises:
        LpmError: fewer than 3 images got a pose by either mapper.
    """
    pycolmap = load_pycolmap()
    folder = fresh(work / "models")
    expected = expectations(pycolmap, work, settings)
    other = MAPPERS[1 - MAPPERS.index(settings["mapper"])]
    attempts = [attempt(pycolmap, settings["mapper"], work, folder, expected, settings, done, show)]
    if attempts[0].doubts:
        say(f"{settings['mapper']} mapper: {'; '.join(attempts[0].doubts)}; the {other} mapper is tried")
        attempts.append(attempt(pycolmap, other, work, folder, expected, settings, done, show))
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
        "wrong": best.judged is not None and best.judged.wrong,
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


def expectations(pycolmap: Any, work: Path, settings: dict[str, Any]) -> Expected:
    """What is known before mapping."""
    with pycolmap.Database.open(work / "database.db") as db:
        cameras, known, pairs = db.read_all_cameras(), on_rigs(db), joined_pairs(pycolmap, db, LEAST_MATCHES)
        frames = [[data.id for data in frame.image_ids] for frame in db.read_all_frames()]
    exif = {
        camera.camera_id: float(camera.mean_focal_length())
        for camera in cameras
        if camera.has_prior_focal_length and not is_guess(camera) and camera.camera_id not in known
    }
    pairs += [(images[0], other) for images in frames for other in images[1:]]  # faces of one photo
    return Expected(largest_group(pairs), exif, settings["feature_size"])


def attempt(
    pycolmap: Any, mapper: str, work: Path, folder: Path, expected: Expected, settings: dict[str, Any], done: Done,
    show: Show,
) -> Attempt:  # fmt: skip
    """What `mapper` makes of the matches, refined and judged; `folder` is for what it writes."""
    start = time.process_time()
    counts: list[int] = []
    model, judged, why = None, None, ""
    try:
        if mapper == "global":
            models = mapped_in_passes(pycolmap, work, folder, settings["seed"], show)
        else:
            models = mapped_incrementally(pycolmap, work, settings["seed"], done, show)
        counts = [one.num_reg_images() for one in models]
        if counts and counts[0] >= 3:
            model = models[0]
            refine(pycolmap, model, settings["camera_model"] in ("auto", MODEL))
            judged = judge(model, expected, agreement(pycolmap, work / "database.db", model, LEAST_MATCHES))
            if mapper == "global":
                done(counts[0])
        else:
            why = f"{counts[0] if counts else 0} images with a pose"
    except (RuntimeError, ValueError) as error:  # what pycolmap raises
        why = (str(error) or type(error).__name__).splitlines()[0]
    return Attempt(mapper, model, counts, why, judged, time.process_time() - start)


def mapped_in_passes(pycolmap: Any, work: Path, folder: Path, seed: int, show: Show) -> list[Any]:
    """Models by the global mapper, begun with the focal length that it ends at; largest first.

    It takes the rotations between pairs as its first focal length makes them, and what is wrong there it cannot mend:
    some cameras end far off, though bundle adjustment finds the right focal length in the end. Begun with that one, it
    places them all. (Of fox's photos, all pairs compared: 1,152 px at first, 688 in the end, cameras wrong by up to 39
    degrees; begun with 688, by .44.) View graph calibration would be a guess beforehand, and was wrong on both scenes
    tried.
    """
    database = folder / "global.db"
    with closing(sqlite3.connect(work / "database.db")) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
    with pycolmap.Database.open(database) as db:
        known = all(camera.has_prior_focal_length for camera in db.read_all_cameras())
    if not known:
        looked = mapped_globally(pycolmap, work, database, seed, quick=True)
        if looked:
            show(looked[0], "a quick look for the focal length", True)
            take_focal_lengths(pycolmap, looked[0], database)
    models: list[Any] = []
    for _ in range(PASSES):
        models = mapped_globally(pycolmap, work, database, seed) or models
        if models:
            show(models[0], "global mapper", True)
        if not models or not take_focal_lengths(pycolmap, models[0], database):
            break
    return models


def on_rigs(db: Any) -> set[int]:
    """Ids of the cameras in pycolmap's database `db` that are faces of 360 degree photos, and known."""
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    return fixed(cameras, {rig.rig_id: rig for rig in db.read_all_rigs()})


def take_focal_lengths(pycolmap: Any, model: Any, database: Path) -> bool:
    """Gives the cameras in `database` the focal lengths of `model`; whether one differed by more than SETTLED."""
    moved = False
    with pycolmap.Database.open(database) as db:
        known = on_rigs(db)
        for camera in db.read_all_cameras():
            if camera.camera_id not in model.cameras or camera.camera_id in known:
                continue
            focal = float(model.cameras[camera.camera_id].mean_focal_length())
            moved |= abs(focal / camera.mean_focal_length() - 1) > SETTLED
            params = camera.params
            params[list(camera.focal_length_idxs())] = focal
            camera.params, camera.has_prior_focal_length = params, True
            db.update_camera(camera)
    return moved


def mapped_globally(pycolmap: Any, work: Path, database: Path, seed: int, quick: bool = False) -> list[Any]:
    """Models by pycolmap's global mapper (GLOMAP: all rotations, all places, bundle adjustment), largest first.

    `quick` is for the focal lengths: few points, and of many images those around the one with most matches.

    Raises:
        RuntimeError: this pycolmap has none, or it failed.
    """
    if not hasattr(pycolmap, "global_mapping"):
        raise RuntimeError(f"pycolmap {pycolmap.__version__} has no global_mapping")
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.mapper.retriangulation.random_seed = seed
    options.mapper.rotation_averaging.random_seed = options.mapper.global_positioning.random_seed = seed
    options.min_num_matches = LEAST_MATCHES
    with pycolmap.Database.open(database) as db:
        images, known, count = db.num_images(), on_rigs(db), db.num_cameras()
        if quick and images > GLANCED and not known:
            names = {image.image_id: image.name for image in db.read_all_images()}
            around = well_joined(joined_pairs(pycolmap, db, LEAST_MATCHES), GLANCED)
            options.image_names, images = [names[key] for key in around], len(around)
    options.mapper.keep_max_num_tracks = (QUICK if quick else TRACKS) * images
    options.mapper.skip_retriangulation = quick
    adjusted = options.mapper.bundle_adjustment
    adjusted.refine_sensor_from_rig = options.mapper.refine_sensor_from_rig = False
    options.mapper.rotation_averaging.refine_sensor_from_rig = False
    options.mapper.global_positioning.refine_sensor_from_rig = False
    if len(known) == count:
        adjusted.refine_focal_length = adjusted.refine_extra_params = False
    folder = fresh(database.parent / "global")
    return largest_first(pycolmap.global_mapping(database, work / "images", folder, options))


def mapped_incrementally(pycolmap: Any, work: Path, seed: int, done: Done, show: Show) -> list[Any]:
    """Models by COLMAP's incremental mapper, which adds image after image, largest first.

    Raises:
        RuntimeError: it failed.
    """
    pycolmap.set_random_seed(seed)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.min_model_size = 3
    options.ba_refine_sensor_from_rig = False
    options.image_path = work / "images"
    kinds, models = pycolmap.IncrementalPipelineCallback, pycolmap.ReconstructionManager()

    def added(count: int) -> None:
        done(count)
        show(models.get(models.size() - 1), "incremental mapper", False)

    with pycolmap.Database.open(work / "database.db") as db:
        options.constant_cameras = options.mapper.constant_cameras = on_rigs(db)
        pipeline = pycolmap.IncrementalPipeline(options, db, models)
        pipeline.add_callback(int(kinds.INITIAL_IMAGE_PAIR_REG_CALLBACK), lambda: added(2))
        pipeline.add_callback(int(kinds.NEXT_IMAGE_REG_CALLBACK), lambda: added(1))
        pipeline.run()
    return largest_first({i: models.get(i) for i in range(models.size())})


def largest_first(models: dict[int, Any]) -> list[Any]:
    """pycolmap's reconstructions by the number of their images."""
    return sorted(models.values(), key=lambda one: (one.num_reg_images(), one.num_points3D()), reverse=True)
