"""360 degree photos (equirectangular, twice as wide as high), cut into the faces of a cube before poses are found.

The faces of a photo are six exact pinholes that turn together: COLMAP's rigs say so, and bundle adjustment moves a
photo as a whole (one frame), with nothing of its cameras left to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lpm.checks import fail
from lpm.prepare.photos import SAVE, Photo
from lpm.scenes.cuts import FACES, Cut
from lpm.scenes.images import load_image
from lpm.scenes.lenses import Lens

MODEL = "EQUIRECTANGULAR"
PREFIX = "360"
"""How the folders of faces begin: 360_WIDTHxHEIGHT/FACE/NAME."""


def says_so(path: Path) -> bool:
    """Whether the XMP of the file at `path` (GPano, Google's photo sphere) says that it is equirectangular."""
    with Image.open(path) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = packet if isinstance(packet, bytes) else str(packet).encode()
    return b"ProjectionType" in text and b"equirectangular" in text


def which(photos: Sequence[dict[str, Any]], images: Path, camera_model: str) -> tuple[list[str], list[str]]:
    """Names of the `photos` in `images` that are cut, and of those, the ones that only their shape speaks for.

    With the camera model auto, all that are twice as wide as high; with EQUIRECTANGULAR, too; with another one, those
    whose files say so.
    """
    wide = [photo["name"] for photo in photos if photo["size"][0] == 2 * photo["size"][1]]
    told = [name for name in wide if says_so(images / name)]
    if camera_model == "auto":
        return wide, [name for name in wide if name not in told]
    return (wide if camera_model == MODEL else told), []


def faces(size: tuple[int, int]) -> list[Cut]:
    """Six square views of 90 degrees, as fine in the middle as a photo of `size` (width, height)."""
    half = max(round(size[0] / (2 * np.pi)), 8)
    lens = Lens(MODEL, (float(size[0]), float(size[1])), size)
    intrinsics = np.full(4, float(half))
    return [Cut(lens, name, turn, intrinsics, (2 * half, 2 * half), True) for name, turn in FACES.items()]


def cut(work: Path, photos: list[dict[str, Any]], names: Sequence[str], masked: bool) -> list[dict[str, Any]]:
    """Puts the faces of the photos `names` in place of them into work/images (and, if `masked`, work/masks).

    Returns:
        `photos` anew: others first, then the faces that look ahead, those that look to the right, and so on.
    """
    kept = [photo for photo in photos if photo["name"] not in set(names)]
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in FACES}
    known: dict[tuple[int, int], list[Cut]] = {}
    for photo in photos:
        if photo["name"] not in set(names):
            continue
        size = (photo["size"][0], photo["size"][1])
        source, mask_source = work / "images" / photo["name"], work / "masks" / f"{photo['name']}.png"
        pixels = load_image(source)[..., :3]
        mask = load_image(mask_source)[..., 0] if masked else None
        folder = f"{PREFIX}_{size[0]}x{size[1]}"
        for view in known.setdefault(size, faces(size)):
            image, there = view.take(pixels, mask)
            name = f"{folder}/{view.name}/{Path(photo['name']).with_suffix('.jpg').as_posix()}"
            target = work / "images" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target, **SAVE)
            if masked:
                path = work / "masks" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.where(there, 255, 0).astype("u1")).save(path, compress_level=1)
            focal = float(view.intrinsics[0])
            face = Photo(name, view.size, f"{folder}/{view.name}", focal, photo.get("place"))
            made[view.name].append(vars(face).copy())
        source.unlink()  # a link, or a copy of ours
        if masked:
            mask_source.unlink()
    return kept + [face for column in made.values() for face in column]


def cut_all(work: Path, made: dict[str, Any], camera_model: str) -> dict[str, Any]:
    """What photos.collect `made`, with 360 degree photos cut; under `said`, what is assumed of them.

    Raises:
        LpmError: the camera model is EQUIRECTANGULAR, and no photo is.
    """
    names, assumed = which(made["photos"], work / "images", camera_model)
    if camera_model == MODEL and not names:
        one = made["photos"][0]
        got = f"{one['name']} is {one['size'][0]}x{one['size'][1]}"
        fail("--camera-model EQUIRECTANGULAR", got, "photos twice as wide as high", "leave it out")
    if not names:
        return made
    said = f"{len(names)} photos are 360 degrees around: each is cut into {len(FACES)} views, which have one pose"
    if assumed:
        said += f" (assumed of {len(assumed)}, which are twice as wide as high; if wrong: --camera-model OPENCV)"
    return made | {"photos": cut(work, made["photos"], names, made["masks"]), "said": [said]}


def join(pycolmap: Any, database: Path) -> None:
    """Makes a rig of each size of photos in `database`, and a frame of each photo; nothing where there are none."""
    with pycolmap.Database.open(database) as db:
        names = {image.name for image in db.read_all_images()}
        folders = sorted({name.split("/")[0] for name in names if name.startswith(f"{PREFIX}_")})
        done = any(rig.num_sensors() > 1 for rig in db.read_all_rigs())
        if not folders or done:
            return
        configs = []
        for folder in folders:
            cameras = []
            for face, turn in FACES.items():
                camera = pycolmap.RigConfigCamera()
                camera.image_prefix = f"{folder}/{face}/"
                camera.ref_sensor = face == "front"
                if not camera.ref_sensor:
                    camera.cam_from_rig = pycolmap.Rigid3d(pycolmap.Rotation3d(turn.T), np.zeros(3))
                cameras.append(camera)
            config = pycolmap.RigConfig()
            config.cameras = cameras
            configs.append(config)
        pycolmap.apply_rig_config(configs, db)


def fixed(cameras: Any, rigs: Any) -> set[int]:
    """Ids of the cameras that stand on a rig with others, by pycolmap's `cameras` and `rigs` (mappings by id)."""
    of_rigs = {sensor.id for rig in rigs.values() if rig.num_sensors() > 1 for sensor in rig.sensor_ids()}
    return {key for key in cameras if key in of_rigs}


def exact(camera: Any) -> None:
    """Gives the camera of a face its exact parameters again."""
    camera.params = np.full(4, camera.width / 2)
