"""Procedural textures with detail at every scale, and their trilinear lookup for many rays at once.

All are square, tileable, powers of two wide; all their mip levels lie in one flat buffer, so that one gather serves
rays that hit different materials.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

Rng = np.random.Generator
Pixels = NDArray[np.float32]
RGB = tuple[float, float, float]
"""0..1."""
SIZE = 1024


def noise(rng: Rng, size: int | None = None, falloff: float = 1.2, lowest: int = 2) -> Pixels:
    """[size, size] (SIZE unless told) tileable noise in 0..1; amplitude ~ frequency^-falloff from `lowest` on."""
    size = size or SIZE
    f = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None]).astype(np.float32) * size
    amplitude = np.where(f >= lowest, np.maximum(f, 1.0) ** -(falloff + 0.5), 0.0)
    waves = np.empty(f.shape, np.complex64)
    waves.real, waves.imag = rng.standard_normal((2, *f.shape), dtype=np.float32) * amplitude
    field = fft.irfft2(waves, s=(size, size))
    noise: NDArray[np.float32] = np.clip(0.5 + field / (5 * field.std()), 0, 1)
    return noise


def darker(color: RGB, share: float) -> RGB:
    """`share` (0..1) of the light of a colour."""
    red, green, blue = color
    return share * red, share * green, share * blue


def mix(a: object, b: object, weight: Pixels) -> Pixels:
    """[H, W, 3] blend of two colours or colour images; `weight` [H, W] is the share of `b`."""
    one, two = (np.asarray(c, dtype=np.float32) for c in (a, b))
    return one + (two - one) * weight[..., None]


def enlarge(cells: Pixels, size: int | None = None) -> Pixels:
    """`cells` [n, m, ...] as blocks, [size, size, ...]; nearest neighbour, so that n need not divide size."""
    size = size or SIZE
    rows, columns = (np.arange(size) * n // size for n in cells.shape[:2])
    enlarged: NDArray[np.float32] = cells[rows][:, columns]
    return enlarged


def stained(base: RGB, patch: RGB) -> Callable[[Rng], Pixels]:
    """Plaster, cloth, stone: two colours in cloudy patches with a fine grain."""

    def make(rng: Rng) -> Pixels:
        cloud = np.clip((noise(rng, falloff=1.1, lowest=3) - 0.5) * 4 + 0.5, 0, 1)
        return mix(base, patch, cloud) * (0.8 + 0.4 * noise(rng, falloff=0.9)[..., None])

    return make


def tiles(colors: list[RGB], cells: int, joint: float = 0.04) -> Callable[[Rng], Pixels]:
    """Square tiles of random colours with joints, each tile shaded and veined on its own."""

    def make(rng: Rng) -> Pixels:
        pick = np.asarray(colors, dtype=np.float32)[rng.integers(len(colors), size=(cells, cells))]
        image = enlarge((pick * rng.uniform(0.75, 1.1, (cells, cells, 1))).astype(np.float32))
        image *= 0.75 + 0.5 * noise(rng, falloff=1.0, lowest=4)[..., None]
        at = (np.arange(SIZE) * cells / SIZE) % 1.0
        line = (np.minimum(at, 1 - at) < joint / 2).astype(np.float32)
        return mix(image, (0.25, 0.24, 0.22), np.maximum(line[:, None], line[None]))

    return make


def bricks(base: RGB, rows: int) -> Callable[[Rng], Pixels]:
    """Courses of bricks (or planks, if few rows), each with its own tone, on mortar; every other course is shifted."""

    def make(rng: Rng) -> Pixels:
        per_row = max(rows // 3, 2)
        y = np.arange(SIZE) * rows / SIZE
        x = np.arange(SIZE)[None] * per_row / SIZE + 0.5 * (y.astype(int) % 2)[:, None]
        tone = rng.uniform(0.55, 1.15, (rows, per_row, 1)) * rng.uniform(0.85, 1.15, (rows, per_row, 3))
        colors = (np.asarray(base) * tone).astype(np.float32)
        image = colors[y.astype(int)[:, None], x.astype(int) % per_row]
        image *= 0.75 + 0.5 * noise(rng, falloff=1.0, lowest=6)[..., None]
        edge_y, edge_x = np.minimum(y % 1, 1 - y % 1)[:, None], np.minimum(x % 1, 1 - x % 1)
        return mix(image, (0.62, 0.6, 0.56), ((edge_y < 0.06) | (edge_x < 0.02)).astype(np.float32))

    return make


def wood(base: RGB, dark: RGB) -> Callable[[Rng], Pixels]:
    """Grain: noise bent into rings, drawn out along one axis."""

    def make(rng: Rng) -> Pixels:
        bend = noise(rng, falloff=1.6, lowest=1)
        rings = 0.5 + 0.5 * np.sin(2 * np.pi * (8 * np.arange(SIZE, dtype=np.float32)[:, None] / SIZE + 6 * bend))
        return mix(base, dark, rings) * (0.8 + 0.4 * noise(rng, falloff=0.9)[..., None])

    return make


def print_sheet(paper: RGB, ink: RGB, lines: int = 18) -> Callable[[Rng], Pixels]:
    """A poster: lines of random 5x7 glyphs, some as large headings, and coloured blocks between them."""

    def make(rng: Rng) -> Pixels:
        image = mix(paper, (1.0, 1.0, 1.0), 0.3 * noise(rng, falloff=1.0))
        pitch, row, margin = SIZE // lines, 0, SIZE // 16
        while row < lines - 1:
            tall = 2 if rng.random() < 0.25 and row < lines - 2 else 1
            height = int(pitch * tall * 0.7)
            if rng.random() < 0.2:
                left, right = np.sort(rng.integers(margin // 2, SIZE - margin // 2, 2))
                image[row * pitch : row * pitch + height, left:right] = rng.uniform(0.15, 0.85, 3)
            else:
                count = int((SIZE - 2 * margin) / (height * 6 / 7))
                glyphs = (rng.random((7, count * 6)) < 0.55) & (np.arange(count * 6) % 6 < 5)
                width = int((SIZE - 2 * margin) * rng.uniform(0.5, 1.0))
                ys, xs = np.arange(height) * 7 // height, np.arange(width) * glyphs.shape[1] // (SIZE - 2 * margin)
                stamp = glyphs[ys][:, xs][..., None]
                part = image[row * pitch : row * pitch + height, margin : margin + width]
                part[:] = np.where(stamp, ink, part)
            row += tall
        return image

    return make


def crate(base: RGB) -> Callable[[Rng], Pixels]:
    """Slats within a frame, marked with a stencil."""

    def make(rng: Rng) -> Pixels:
        image = wood(base, darker(base, 0.55))(rng)
        slat = (np.arange(SIZE) * 6 / SIZE) % 1.0
        image[slat < 0.06] *= 0.35
        rim = np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1]) < SIZE // 10
        image[rim[:, None] | rim[None]] *= 1.25
        mark = enlarge((rng.random((9, 12)) < 0.5).astype(np.float32), SIZE // 2)[: SIZE // 4]
        part = image[SIZE * 3 // 8 : SIZE * 5 // 8, SIZE // 4 : SIZE * 3 // 4]
        part[:] = mix(part, rng.uniform(0.1, 0.9, 3), 0.85 * mark)
        return image

    return make


def landscape(rng: Rng) -> Pixels:
    """For a background sphere: rows run from the nadir (0) to the zenith; hills and a skyline stand at the horizon."""
    size = 2 * SIZE
    up = np.linspace(-90, 90, size, dtype=np.float32)[:, None]
    clouds = enlarge(np.clip((noise(rng, falloff=1.4, lowest=3) - 0.45) * 4, 0, 1), size)
    fine = np.tile(noise(rng, falloff=0.8, lowest=8), (2, 2))[..., None]
    blue = mix((0.78, 0.84, 0.9), (0.35, 0.52, 0.8), np.clip(up / 60, 0, 1))
    image = mix(blue, (0.93, 0.93, 0.93), clouds)
    profile = enlarge(noise(rng, falloff=1.3, lowest=3)[:2], size)[[0, -1]]
    horizon = slice(*np.searchsorted(up[:, 0], (-6, 24)))  # rows that hills can reach
    for hill, height, base, color in zip(
        profile, (16, 12), (7, 3), ((0.42, 0.5, 0.58), (0.25, 0.36, 0.26)), strict=True
    ):
        below = (up[horizon] < base + height * (hill - 0.3))[..., None]
        image[horizon] = np.where(below, np.asarray(color, np.float32) * (0.5 + fine[horizon]), image[horizon])
    image[: horizon.start] = np.array([0.36, 0.38, 0.28], np.float32) * (0.5 + fine[: horizon.start])
    count = 90
    left, width = rng.integers(0, size, count), rng.integers(size // 160, size // 50, count)
    for x, w, top in zip(left, width, rng.uniform(1.5, 9, count), strict=True):
        rows = np.flatnonzero((up[:, 0] > -6) & (up[:, 0] < top))
        tone, window = rng.uniform(0.3, 0.85, 3), rng.random((len(rows) // 6 + 1, w // 6 + 1)) < 0.5
        block = tone * np.where(window[np.arange(len(rows)) // 6][:, np.arange(w) // 6], 1.0, 0.55)[..., None]
        image[rows[:, None], (x + np.arange(w))[None] % size] = block
    return image


def hazy(rng: Rng) -> Pixels:
    """For a background sphere: a sky that is nearly one colour, bright at the horizon; a haze of hills below."""
    up = np.linspace(-90, 90, SIZE, dtype=np.float32)[:, None]
    image = mix((0.88, 0.9, 0.92), (0.55, 0.68, 0.88), np.clip((up + 0 * up.T) / 75, 0, 1))
    image *= 0.97 + 0.06 * noise(rng, falloff=1.8, lowest=1)[..., None]
    hill = up < 2 + 10 * (noise(rng, falloff=1.4, lowest=2)[0] - 0.35)
    ground = mix((0.4, 0.46, 0.44), (0.56, 0.6, 0.6), noise(rng, falloff=0.9, lowest=6))
    return np.where(hill[..., None], ground, image).astype(np.float32)


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Atlas:
    """Textures by name, looked up for many points at once.

    Args:
        makers: name -> function that draws the texture [n, n, 3], values in 0..1, from a generator.
        seed: each texture gets its own generator from it, so that adding one does not change the others.
    """

    def __init__(self, makers: dict[str, Callable[[Rng], Pixels]], seed: int):
        self.names = list(makers)
        levels, offsets, sizes, at = [], [], [], 0
        # Threads help, since numpy lets go of the interpreter lock in long loops.
        with ThreadPoolExecutor(usable_cpus()) as pool:
            generators = [np.random.default_rng([seed, *name.encode()]) for name in makers]
            images = list(pool.map(lambda make, rng: make(rng), makers.values(), generators))
        for image in images:
            image = np.clip(image, 0.02, 0.98).astype(np.float32)
            sizes.append(len(image))
            offsets.append(at)
            while True:
                levels.append((image * 255 + 0.5).astype(np.uint8).reshape(-1, 3))
                at += len(levels[-1])
                if len(image) == 1:
                    break
                image = image.reshape(len(image) // 2, 2, len(image) // 2, 2, 3).mean((1, 3))
        self.texels = torch.from_numpy(np.concatenate(levels))
        self.offsets, self.sizes = torch.tensor(offsets), torch.tensor(sizes)

    def index(self, name: str) -> int:
        """The number by which `lookup` knows the texture `name`."""
        return self.names.index(name)

    def lookup(self, which: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
        """[R, 3] colours in 0..1 of textures `which` [R] at `u`, `v` [R] (1 = one repeat), trilinear.

        footprint: [R] side of what the ray covers, in repeats.
        """
        full = self.sizes[which]
        depth = torch.log2((footprint * full).clamp(1.0)).minimum(torch.log2(full.float()) - 0.001)
        low = depth.floor()
        share = (depth - low)[:, None]
        near = self._level(which, full, low.long(), u, v)
        return near + (self._level(which, full, low.long() + 1, u, v) - near) * share

    def _level(self, which: Tensor, full: Tensor, level: Tensor, u: Tensor, v: Tensor) -> Tensor:
        size = full >> level
        # Texels of all finer levels: full^2 (1 + 1/4 + ...), exact in integers.
        start = self.offsets[which] + (4 * (full * full - size * size)) // 3
        x, y = (u - u.floor()) * size - 0.5, (v - v.floor()) * size - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        mask = size - 1
        xa, ya = x0.long() & mask, y0.long() & mask
        xb, yb = (xa + 1) & mask, (ya + 1) & mask

        def texel(row: Tensor, column: Tensor) -> Tensor:
            return self.texels[start + row * size + column].float()

        top = texel(ya, xa) * (1 - fx) + texel(ya, xb) * fx
        bottom = texel(yb, xa) * (1 - fx) + texel(yb, xb) * fx
        return (top * (1 - fy) + bottom * fy) * (1 / 255)


def grain(rng: Rng) -> Pixels:
    """A grey detail layer, laid over every texture at a finer scale."""
    field = noise(rng, SIZE // 2, 0.8, 4)
    spots = np.clip((noise(rng, SIZE // 2, 0.6, 16) - 0.62) * 12, 0, 1)
    return np.repeat(np.clip(0.5 + 1.6 * (field - 0.5) - 0.4 * spots, 0, 1)[..., None], 3, axis=2)
