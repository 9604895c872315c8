"""Reading one image: its size from the header, or all its pixels, with errors that name the file.

`photo.jpg/turned` stands for photo.jpg turned as its EXIF says; frames of videos have names of such a kind, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lpm.checks import fail
from lpm.scenes.video import clip_size, is_frame, load_frame

REMEDY = "copy the file again from its source, or remove it from the scene"
WANTED = "a readable image (JPEG, PNG, ...)"


TURNED = "turned"
ORIENTATION = 0x112
"""EXIF's number for how a photo is to be turned: 1 to 8, from 5 on by a quarter."""
MISSING = "the image that the scene's cameras name"


def turned_file(path: Path) -> Path:
    """The file that `path` stands for."""
    return path.parent if path.name == TURNED and path.parent.is_file() else path


def orientation(path: Path) -> int:
    """EXIF's orientation of the image at `path`: 1 where there is none. Raises LpmError as image_size."""
    with opened(path) as image:
        try:
            value = image.getexif().get(ORIENTATION, 1)
        except Exception:  # of broken EXIF, in many ways; the photo itself may be good
            value = 1
        return value if value in range(1, 9) else 1


def fitting(path: Path, size: tuple[int, int]) -> Path | None:
    """`path`, or what stands for it turned as its EXIF says, whichever is of `size` (width, height); None: neither.

    Poses refer to the pixels as they are stored, but for programs that turned the photos first: their size tells.

    Raises:
        LpmError: the file is missing, or is no image.
    """
    found = image_size(path)
    if found == size:
        return path
    if found[::-1] == size and not is_frame(path) and orientation(path) >= 5:
        return path / TURNED
    return None


def misfit(path: Path, size: tuple[int, int]) -> str:
    """How large the image at `path` is, and what to think of that where it is not of `size`."""
    width, height = image_size(path)
    lies = " (it lies on its side, and no EXIF orientation says so)" if (height, width) == size else ""
    return f"image of {width}x{height}{lies}"


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image at `path`, not decoded yet. Raises LpmError: the file is missing, or is no image."""
    try:
        image = Image.open(path)
    except FileNotFoundError:
        fail(path, "no such file", MISSING, "restore the file or correct its path")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        fail(path, f"cannot be read ({reason(error)})", WANTED, REMEDY)
    with image:
        yield image


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the image at `path`, from its header alone.

    Raises:
        LpmError: the file is missing, or is no image.
    """
    if is_frame(path):
        return clip_size(path.parent)[:2]
    file = turned_file(path)
    with opened(file) as image:
        width, height = image.size
    return (width, height) if file == path else (height, width)


def has_alpha(path: Path) -> bool:
    """Whether the image at `path` has transparency, by its header; one that cannot be read has none."""
    if is_frame(path):
        return False
    try:
        with Image.open(turned_file(path)) as image:
            return _is_transparent(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def load_image(path: Path, least: int | None = None) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of the image at `path`, or [H, W, 4] if it has transparency; 0..255, not premultiplied.

    The file's pixels are taken as they lie: an EXIF orientation is not applied, since poses refer to the stored pixels;
    see `fitting`.

    Args:
        least: a JPEG may be decoded at a half, a quarter or an eighth of its size, with sides of at least so many.

    Raises:
        LpmError: the file is missing, truncated, or no image.
    """
    if is_frame(path):
        return load_frame(path)
    file = turned_file(path)
    try:
        with Image.open(file) as image:
            if least is not None:
                image.draft(None, (least, least))
            turned = image if file == path else ImageOps.exif_transpose(image)
            if turned.mode.startswith(("I", "F")):  # 16-bit and wider greyscale; PIL's own conversion would clip
                grey = np.asarray(turned, dtype=np.float64)
                top = 65535.0 if turned.mode.startswith("I") else 1.0
                values = np.clip(grey / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
                return np.ascontiguousarray(np.repeat(values[:, :, None], 3, axis=2))
            return np.array(turned.convert("RGBA" if _is_transparent(turned) else "RGB"))
    except FileNotFoundError:
        fail(path, "no such file", MISSING, "restore the file or correct its path")
    # PIL raises SyntaxError for broken PNG chunks and ValueError or struct errors for broken headers.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        fail(path, f"cannot be decoded ({reason(error)})", WANTED, REMEDY)


def reason(error: BaseException) -> str:
    """The error's first line, short, without the path that the caller names anyway."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "not an image" if text.startswith("cannot identify image file") else text[:120]
