"""Gaussians in glTF as a .spz, by the draft KHR_gaussian_splatting_compression_spz_2.

The extension lies inside of KHR_gaussian_splatting and names a bufferView, which holds a .spz of version 2. Attributes
are there, with accessors that have a count and a type and no data: POSITION, COLOR_0, ROTATION, SCALE, and the
harmonics from degree 1 on (CesiumJS finds no data for more).

Axes: the draft wants the .spz packed from "LUF", its name for glTF's axes. SPZ's library turns such numbers to RUB, and
back where it unpacks to LUF, as cesium-native asks of it. CesiumJS takes the numbers as they are. Ours are glTF's as
they are, for CesiumJS, and an extension of the .spz says that these are LUF, for versions of SPZ's library that know
it. Of files without that extension the numbers are taken as they are, as by CesiumJS.
Source: KhronosGroup/glTF, pull request 2531 (a draft: its text and its implementations still differ).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lpm.formats.bounds import check_expansion
from lpm.formats.gltf_container import Gltf
from lpm.formats.spz import unpack_spz
from lpm.formats.spz_extensions import to_ply_axes
from lpm.gaussians.similarity import move

NAME = "KHR_gaussian_splatting_compression_spz_2"
NAMES = (NAME, "KHR_gaussian_splatting_compression_spz")
"""The draft's own text has both."""
AXES = "LUF"
LEAST_BYTES = 19
"""Of a Gaussian in a .spz of version 2 that is unpacked, without harmonics."""
UNTOLD = (
    "its SPZ does not say where its axes point: taken as glTF's own, as CesiumJS does; programs that go by the text of "
    "the draft show it turned by 180 degrees about y"
)


def payload(gltf: Gltf, extension: dict[str, Any]) -> int | None:
    """The index of the bufferView with the .spz of a primitive's KHR_gaussian_splatting; None where it has none."""
    inside = gltf.object(extension, "extensions")
    found = next((name for name in NAMES if name in inside), None)
    return None if found is None else gltf.whole(gltf.object(inside, found), "bufferView")


def check_total(gltf: Gltf, shown: list[tuple[int, int]]) -> None:
    """Raises LpmError where few bytes would fill the memory: the same .spz again and again, each time unpacked.

    `shown`: bufferView and number of Gaussians of each primitive as often as it is shown.
    """
    sizes: dict[tuple[str, int], int] = {}
    for index, _ in shown:
        view, size = gltf.entry("bufferViews", index), len(gltf.view(index)[0])
        place = str(view.get("buffer")), gltf.whole(view, "byteOffset", 0)
        sizes[place] = max(size, sizes.get(place, 0))
    check_expansion(gltf.path, LEAST_BYTES * sum(count for _, count in shown), sum(sizes.values()))


def unpack(gltf: Gltf, view: int, count: int, notes: list[str]) -> tuple[dict[str, Tensor], bool]:
    """The Gaussians in bufferViews[view] in the primitive's own axes, and whether they were trained antialiased.

    Raises:
        LpmError: no .spz, a broken one, or not `count` Gaussians in it.
    """
    params, header = unpack_spz(gltf.path, gltf.view(view)[0].tobytes())
    if header.count != count:
        gltf.wrong(f"{header.count:,} Gaussians in its SPZ, {count:,} by its accessors", "the same number")
    notes += header.notes
    if header.coordinates is None:
        notes.append(UNTOLD)
    elif header.coordinates != AXES:
        params = move(params, to_ply_axes(header.coordinates).then(to_ply_axes(AXES).inverse()))
    return params, header.antialiased
