"""Which images are trained on and which are held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.scenes.photo_files import key
from lpm.scenes.scene import Scene

Indices = NDArray[np.int64]
TIME_INTERVAL, TIME_FIRST = 5, 2
"""Of a scene that moves, every 5th time step from the third on is held out, of all cameras."""


def places(scene: Scene) -> dict[str, int]:
    """The index of each image by all that a list may call it: its name, its path, and either as Windows or another
    program would write it, with other endings and cases (lpm.scenes.photo_files.key), where that is clear."""
    found: dict[str, int] = {}
    loose: dict[str, list[int]] = {}
    for i, (name, path) in enumerate(zip(scene.names, scene.images, strict=True)):
        found |= {name: i, str(path): i}
        loose.setdefault(key(name), []).append(i)
    return {other: rows[0] for other, rows in loose.items() if len(rows) == 1} | found


def listed(scene: Scene, split: str) -> Indices:
    """Indices of the images that the scene's own list for `split` names."""
    place = places(scene)
    indices = []
    for name in scene.lists[split]:
        spellings = (name, str(scene.layout.root / name), key(name))
        index = next((place[other] for other in spellings if other in place), None)
        if index is None:
            fail(scene.layout.source, f"the {split} list names {name}", "images that have a pose", "correct the list")
        indices.append(index)
    return np.array(sorted(set(indices)), dtype=np.int64)


def hold_out(scene: Scene, eval_interval: int) -> tuple[Indices, Indices]:
    """(train, test) indices into the scene's images, each ascending.

    The scene's own lists win. Else `eval_interval` 0 holds out nothing: every image is in both. Else, of a scene that
    moves, every TIME_INTERVAL-th time step is held out; of others, sorted by name, every `eval_interval`-th image from
    the first on.

    Raises:
        LpmError: either side would be empty.
    """
    everything = np.arange(len(scene))
    if scene.lists:
        held = next((name for name in ("test", "val") if name in scene.lists), None)
        test = listed(scene, held) if held else np.setdiff1d(everything, listed(scene, "train"))
        train = listed(scene, "train") if "train" in scene.lists else np.setdiff1d(everything, test)
        rule = "the scene's own lists"
    elif eval_interval == 0:
        return everything, everything
    elif scene.capture_times is not None:
        moments = np.unique(scene.capture_times)
        held_out = moments[TIME_FIRST::TIME_INTERVAL]
        test = everything[np.isin(scene.capture_times, held_out)]
        train = np.setdiff1d(everything, test)
        rule = f"every {TIME_INTERVAL}th of {len(moments)} time steps"
    else:
        if eval_interval < 0:
            fail("eval_interval", str(eval_interval), "0 (hold out nothing) or more than 1", "leave it at 8")
        test = everything[::eval_interval]
        if scene.shots is not None:
            order = {shot: k for k, shot in enumerate(dict.fromkeys(scene.shots))}
            test = everything[[order[shot] % eval_interval == 0 for shot in scene.shots]]
        train = np.setdiff1d(everything, test)
        rule = f"every {eval_interval}th of {len(scene)} images"
    remedy = "add images, or set --eval-interval (0 holds out nothing and tests on the training images)"
    if len(train) == 0:
        fail(scene.layout.root, f"nothing left to train on ({rule} held out)", "at least two training images", remedy)
    if len(test) == 0:
        fail(scene.layout.root, f"empty hold-out ({rule})", "at least one image to test on", remedy)
    return train, test
