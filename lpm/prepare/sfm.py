"""What structure from motion starts from, by pycolmap: features and matches. Both can be gone on with."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.prepare import first_focal, panorama
from lpm.prepare.work import remove

BLOCK = 100
"""Pairs in a block that is matched at once: what is lost on an interruption, and how finely progress is shown."""

FIRST_MODEL = "SIMPLE_RADIAL"

LEAST_FEATURES, MOST_FEATURES = 2000, 8192
FEATURES = 4000
"""Features sought in an image of a megapixel."""
MANY = 60
"""Photos beyond which each gets fewer features, and below which more: every further photo adds pairs."""

Done = Callable[[int], None]


class Features(NamedTuple):
    """Of one image."""

    image_id: int
    shapes: NDArray[np.float32]
    """[N, 6] x, y (pixels) and the affine shape, whose determinant is the scale squared."""
    descriptors: NDArray[np.uint8]
    """[N, 128]."""
    largest: NDArray[np.intp]
    """[N] rows, by scale."""


def load_pycolmap() -> Any:
    """The module pycolmap. Raises LpmError where it is missing or of another release than was tested."""
    try:
        import pycolmap
    except ImportError as error:
        got = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        fail("pycolmap", got, "pycolmap 4", "pip install 'lpm-splat[prepare]'")
    if not pycolmap.__version__.startswith("4."):
        fail("pycolmap", pycolmap.__version__, "pycolmap 4", "pip install 'lpm-splat[prepare]'")
    return pycolmap


def budget(size: tuple[int, int], feature_size: int, count: int) -> int:
    """Features to seek in each of `count` photos of `size` (width, height, pixels) at `feature_size` pixels.

    They grow with the side of the image that is searched, not with its area. Matching takes time with features squared
    times pairs: beyond MANY photos they shrink with the square root of the number, to the half at most; of fewer, each
    gets as many more, twice at most. That makes poses more exact and gives training more points to begin with.
    """
    scale = min(1.0, feature_size / max(size))
    side = math.sqrt(size[0] * size[1] * scale**2 / 1e6)
    more = MANY / max(count, 1)
    share = min(2.0, more) if more > 1 else max(0.5, math.sqrt(more))
    return min(round(max(FEATURES * side * share, LEAST_FEATURES * max(share, 1.0)) / 100) * 100, MOST_FEATURES)


def extract(work: Path, photos: Sequence[dict[str, Any]], settings: dict[str, Any], anew: bool, done: Done) -> None:
    """SIFT features of all `photos` into work/database.db; one camera for each lens, or each photo.

    Args:
        settings: camera_model, cameras, feature_size, max_features (None: `budget`), masks, seed.
        anew: start over, instead of going on with what is in the database.
        done: called with the number of further photos that are done.
    """
    pycolmap = load_pycolmap()
    database = work / "database.db"
    if anew:
        remove_database(database)
    pycolmap.set_random_seed(settings["seed"])
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = settings["feature_size"]
    groups = defaultdict(list)
    sizes, exact = {}, {}
    for photo in photos:
        groups[group_of(photo, settings["cameras"])].append(photo["name"])
        sizes[photo["name"]] = photo["size"]
        exact[photo["name"]] = photo.get("focal")
    with pycolmap.Database.open(database) as db:
        known = {image.name: image for image in db.read_all_images()}
        ready = {name for name, image in known.items() if db.exists_keypoints(image.image_id)}
        cameras = {name: image.camera_id for name, image in known.items()}
    done(len(ready))
    for names in groups.values():
        most = settings["max_features"] or budget(sizes[names[0]], settings["feature_size"], len(photos))
        options.sift.max_num_features = most
        trim(database, [name for name in names if name in ready], most)  # a kill may have come before it
        # Blocks, so that progress shows; the first of a group makes the camera that the others get.
        for names_now in blocks([name for name in names if name not in ready], 4):
            reader = pycolmap.ImageReaderOptions()
            found = settings["camera_model"] in ("auto", panorama.MODEL)
            reader.camera_model = FIRST_MODEL if found else settings["camera_model"]
            if exact[names[0]] is not None:
                width, height = sizes[names[0]]
                reader.camera_model = "PINHOLE"
                reader.camera_params = f"{exact[names[0]]},{exact[names[0]]},{width / 2},{height / 2}"
            if (work / "masks").is_dir() and settings["masks"]:
                reader.mask_path = work / "masks"
            camera = next((cameras[name] for name in names if name in cameras), None)
            if camera is not None:
                reader.existing_camera_id = camera
            pycolmap.extract_features(
                database,
                work / "images",
                names_now,
                pycolmap.CameraMode.SINGLE,
                reader,
                options,
            )
            trim(database, names_now, most)
            if camera is None:
                with pycolmap.Database.open(database) as db:
                    cameras[names_now[0]] = db.read_image_with_name(names_now[0]).camera_id
                first_focal.begin(pycolmap, database, cameras[names_now[0]])
            done(len(names_now))
    panorama.join(pycolmap, database)


def group_of(photo: dict[str, Any], cameras: str) -> str:
    """Equal where photos share intrinsics, as `cameras` (shared, folder, each) has it."""
    if cameras == "shared" or photo.get("focal") is not None:  # a face of a 360 degree photo
        return str(photo["lens"])
    folder = PurePosixPath(photo["name"]).parent
    return f"{folder} {photo['size']}" if cameras == "folder" else str(photo["name"])


def features(db: sqlite3.Connection, name: str) -> Features | None:
    """The features of the image `name` in COLMAP's database; None where none were sought."""
    found = db.execute(
        "SELECT i.image_id, k.rows, k.cols, k.data, d.data FROM images i JOIN keypoints k USING (image_id)"
        " JOIN descriptors d USING (image_id) WHERE i.name = ?",
        (name,),
    ).fetchone()
    if found is None:
        return None
    key, rows, cols, points, words = found
    shapes = np.frombuffer(points, "<f4").reshape(rows, cols)
    scale = np.abs(shapes[:, 2] * shapes[:, 5] - shapes[:, 3] * shapes[:, 4])
    return Features(key, shapes, np.frombuffer(words, "u1").reshape(rows, 128), np.argsort(-scale, kind="stable"))


def trim(database: Path, names: Sequence[str], most: int) -> None:
    """Leaves the images `names` the `most` features of largest scale.

    COLMAP's own limit is none: it keeps whole levels of scale, the one that exceeds it included, and the finest level
    has most of the features of a small photo.
    """
    with closing(sqlite3.connect(database)) as db, db:  # both tables or neither, also when killed
        for name in names:
            found = features(db, name)
            if found is None or len(found.shapes) <= most:
                continue
            kept = np.sort(found.largest[:most])
            for table, values in (("keypoints", found.shapes), ("descriptors", found.descriptors)):
                data = np.ascontiguousarray(values[kept]).tobytes()
                db.execute(f"UPDATE {table} SET rows = ?, data = ? WHERE image_id = ?", (most, data, found.image_id))


def remove_database(database: Path) -> None:
    """Removes a database with what SQLite keeps beside it."""
    for end in ("", "-shm", "-wal", "-journal"):
        remove(database.with_name(database.name + end))


def blocks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """`items` in pieces of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def match(
    work: Path, names: Sequence[str], wanted: Sequence[tuple[int, int]], seed: int, anew: bool, done: Done
) -> dict[str, Any]:
    """Matches features and verifies them by two-view geometry, into work/database.db.

    Args:
        names: images in order of time.
        wanted: which of them are compared.
        done: called with the number of further pairs that are done.

    Returns:
        pairs (compared) and matched (of them, those that show the same thing).
    """
    pycolmap = load_pycolmap()
    database, listing = work / "database.db", work / "pairs.txt"
    with pycolmap.Database.open(database) as db:
        if anew:
            db.clear_matches()
            db.clear_two_view_geometries()
        ids = {image.name: image.image_id for image in db.read_all_images()}
        todo = [(i, j) for i, j in wanted if not db.exists_two_view_geometry(ids[names[i]], ids[names[j]])]
    done(len(wanted) - len(todo))
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed

    def compare(named: Sequence[tuple[str, str]]) -> None:
        listing.write_text("".join(f"{one} {two}\n" for one, two in named))
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = listing
        matching = pycolmap.FeatureMatchingOptions()
        matching.skip_image_pairs_in_same_frame = True  # faces of one photo
        pycolmap.match_image_pairs(database, matching, pairing, verification)

    if len(todo) == len(wanted):
        first_focal.choose(pycolmap, database, [(names[i], names[j]) for i, j in todo], seed, compare)
    for now in blocks(todo, BLOCK):
        compare([(names[i], names[j]) for i, j in now])
        done(len(now))
    with pycolmap.Database.open(database) as db:
        inliers = db.read_two_view_geometry_num_inliers()[1]  # those that do not match are there, too, with none
        return {"pairs": len(wanted), "matched": sum(1 for count in inliers if count > 0)}
