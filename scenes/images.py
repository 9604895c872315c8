"""Reading one image: its size from the header, or all its pixels, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lpm.checks import fail
from lpm.scenes.video import clip_size, is_frame, load_frame

REMEDY = "copy the file again from its source, or remove it from the scene"
WANTED = "a readable image (JPEG, PNG, ...)"


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the image at `path`, from its header alone.

    Raises:
        LpmError: the file is missing, or is no image.
    """
    if is_frame(path):
        return clip_size(path.parent)[:2]
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        fail(path, "no such file", "the image that the scene's cameras name", "restore the file or correct its path")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        fail(path, f"cannot be read ({reason(error)})", WANTED, REMEDY)


def has_alpha(path: Path) -> bool:
    """Whether the image at `path` has transparency, by its header; one that cannot be read has none."""
    if is_frame(path):
        return False
    try:
        with Image.open(path) as image:
            return _is_transparent(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def load_image(path: Path) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of the image at `path`, or [H, W, 4] if it has transparency; 0..255, not premultiplied.

    The file's pixels are taken as they lie: an EXIF orientation is not applied, since poses refer to the stored pixels.

    Raises:
        LpmError: the file is missing, truncated, or no image.
    """
    if is_frame(path):
        return load_frame(path)
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # 16-bit and wider greyscale; PIL's own conversion would clip
                grey = np.asarray(image, dtype=np.float64)
                top = 65535.0 if image.mode.startswith("I") else 1.0
                values = np.clip(grey / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
                return np.ascontiguousarray(np.repeat(values[:, :, None], 3, axis=2))
            return np.array(image.convert("RGBA" if _is_transparent(image) else "RGB"))
    except FileNotFoundError:
        fail(path, "no such file", "the image that the scene's cameras name", "restore the file or correct its path")
    # PIL raises SyntaxError for broken PNG chunks and ValueError or struct errors for broken headers.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        fail(path, f"cannot be decoded ({reason(error)})", WANTED, REMEDY)


def reason(error: BaseException) -> str:
    """The error's first line, short, without the path that the caller names anyway."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return "not an image" if text.startswith("cannot identify image file") else text[:120]
