"""Frames of HDR videos as pictures of sRGB, each pixel by the same curve in every frame, as training needs it.

Phones film HDR in 10 bits with the colours of BT.2020, by HLG (iPhone, Dolby Vision 8.4) or PQ (HDR10). Taken for
ordinary video, they look pale and grey.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PEAK, WHITE = 1000.0, 203.0
"""cd/m2 of the display that is thought of, and of what is to be white in sRGB (BT.2408's reference white)."""
TRANSFERS = {18: "HLG", 16: "PQ"}
"""H.273's numbers of the transfer functions that are HDR."""
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Of BT.2020."""
TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # fmt: skip
"""Linear BT.2020 to BT.709 (BT.2087)."""


def transfer(frame: Any) -> str | None:
    """HLG, PQ, or None where PyAV's `frame` is no HDR."""
    return TRANSFERS.get(int(frame.color_trc))


def tone_mapped(frame: Any) -> NDArray[np.uint8]:
    """PyAV's HDR `frame` as sRGB [H, W, 3]."""
    planes = frame.reformat(format="yuv444p16le")
    # By hand: swscale takes BT.2020's matrix for another in some releases.
    y, cb, cr = (
        np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width].astype(np.float32) / 65535
        for plane in planes.planes
    )
    if int(frame.color_range) == 2:  # full
        cb, cr = cb - 0.5, cr - 0.5
    else:
        y, cb, cr = (y - 16 / 256) * (256 / 219), (cb - 0.5) * (256 / 224), (cr - 0.5) * (256 / 224)
    red, blue = y + 2 * (1 - LUMA[0]) * cr, y + 2 * (1 - LUMA[2]) * cb
    signal = np.stack([red, (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1], blue], -1)
    return srgb(displayed(np.clip(signal, 0, 1), TRANSFERS[int(frame.color_trc)]))


def displayed(signal: Floats, kind: str) -> Floats:
    """Light [..., 3] in cd/m2 that the display shows of `signal` [..., 3] in 0..1 (BT.2100)."""
    if kind == "PQ":
        return nits_of_pq(signal)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = np.maximum((scene @ LUMA)[..., None], 1e-6)
    return np.asarray(PEAK * luminance**0.2 * scene, np.float32)


def nits_of_pq(signal: Any) -> Floats:
    """cd/m2 of PQ's `signal` in 0..1 (SMPTE ST 2084)."""
    power = np.asarray(signal, np.float32) ** (1 / 78.84375)
    inner = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10_000 * inner ** (1 / 0.1593017578125), np.float32)


def pq_of_nits(nits: Any) -> Floats:
    """The inverse of `nits_of_pq`."""
    power = (np.maximum(np.asarray(nits, np.float32), 0) / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375, np.float32)


def srgb(nits: Floats) -> NDArray[np.uint8]:
    """sRGB [..., 3] of `nits` [..., 3], linear BT.2020 in cd/m2: what is brighter than about 90 is compressed.

    By the curve of BT.2390 from PEAK to WHITE, of the brightest of the three, so that hues stay.
    """
    brightest = np.maximum(nits.max(-1, keepdims=True), 1e-4)
    linear = np.clip(nits * (compressed(brightest) / brightest / WHITE) @ TO_709.T, 0, 1)
    bent = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(bent * 255 + 0.5, np.uint8)


def compressed(nits: Floats) -> Floats:
    """BT.2390's EETF without its black level: PEAK becomes WHITE, what is below the knee stays."""
    top, white = (float(pq_of_nits(value)) for value in (PEAK, WHITE))
    most = white / top
    knee = 1.5 * most - 0.5
    level = np.minimum(pq_of_nits(nits) / top, 1)
    t = np.maximum(level - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return np.where(level < knee, np.minimum(nits, PEAK), nits_of_pq(spline * top))
