"""What single photos and their masks tell without any geometry: black, blank and equal ones, masks, exposures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.plausibility.findings import Finding, listed
from lpm.plausibility.matches import Features, Pair, mutual
from lpm.plausibility.pictures import Picture, thumbnail
from lpm.scenes.scene import Floats, Scene
from lpm.scenes.seen import POINTS, projected

BLACK = 16
"""Grey level below which nearly all of a black photo is."""
FLAT = 2.0
"""Standard deviation of grey levels, below which a photo shows nothing."""
ALIKE = 1.0
"""Mean difference of grey levels of small photos up to which they may be the same; ..."""
SAME = 1.5
"""... and of what they are made of, up to which they are."""
FAR = 0.5
"""Share of the distance from one camera to the next, beyond which two poses are not those of one photo."""
KEPT = 0.01
"""Share of a photo that its mask leaves, below which it leaves nothing."""
MASKED = 20
"""Features that a mask hides, below which it is not compared with others."""
UNLIKE = 0.6
"""Share of features hidden in one of two photos only, from which on their masks are not of the same things."""
MANY = 0.2
"""Share of all photos, from which on masks that leave nothing are an error."""
SHOWN = 0.1
"""Share of the scene's points that masks leave, below which that is spoken of."""
EXPOSURE = 1.3
"""Factor between the brightness of neighbours that is worth a word."""
DROP = "remove it, or have another made: photos that are not there are left out"


def check_looks(scene: Scene, pictures: Sequence[Picture]) -> list[Finding]:
    """Photos of one colour, the same photo twice, poses that are there twice, masks that leave nothing."""
    found = []
    flat = {p.view for p in pictures if p.values.size == 0 or float(p.values.std()) < FLAT}
    black = [p.view for p in pictures if p.values.size and float(np.percentile(p.values, 99)) < BLACK]
    for views, kind, told in ((black, "black", "black"), (sorted(flat.difference(black)), "blank", "of one colour")):
        if views:
            names = tuple(scene.names[v] for v in views)
            text = f"{len(names)} of {len(pictures)} photos that were looked at are {told} ({listed(names)})"
            found.append(Finding(kind, True, text, DROP, names))
    found += _equal(scene, [p for p in pictures if p.view not in flat.union(black)])
    hidden = [p.view for p in pictures if p.known is not None and float(p.known.mean()) < KEPT]
    if hidden:
        names = tuple(scene.names[v] for v in hidden)
        text = f"the masks of {len(names)} of {len(pictures)} photos leave nothing ({listed(names)})"
        many = len(names) > MANY * len(pictures)
        found.append(
            Finding("mask", many, text, "black says nothing: invert them if they say it, or remove them", names)
        )
    return found


def _equal(scene: Scene, pictures: Sequence[Picture]) -> list[Finding]:
    """Photos that show the same to the pixel."""
    if len(pictures) < 2 or scene.capture_times is not None:  # what stands still before a still camera is the same
        return []
    small = np.stack([thumbnail(p.gray) for p in pictures])
    found = []
    spacing = _spacing(scene)
    for i, one in enumerate(pictures):
        for j in i + 1 + np.flatnonzero(np.abs(small[i + 1 :] - small[i]).mean(1) < ALIKE):
            two = pictures[j]
            if one.gray.shape != two.gray.shape or float(cv2.absdiff(one.gray, two.gray).mean()) > SAME:
                continue
            if scene.images[one.view] == scene.images[two.view]:  # two views of one
                continue
            apart = np.linalg.norm(scene.c2w[one.view, :3, 3] - scene.c2w[two.view, :3, 3]) / spacing
            turned = np.degrees(np.arccos(np.clip(scene.c2w[one.view, :3, 2] @ scene.c2w[two.view, :3, 2], -1, 1)))
            far = bool(apart > FAR or turned > 5)
            names = scene.names[one.view], scene.names[two.view]
            where = "which have poses far apart" if far else "with about the same pose"
            text = f"{names[0]} and {names[1]} are the same photo, {where}"
            remedy = "remove the one whose pose is wrong" if far else "remove one: it counts twice"
            found.append(Finding("duplicate", far, text, remedy, names))
    return found


def _spacing(scene: Scene) -> float:
    """The typical distance of a camera to the next one."""
    at = scene.c2w[:: max(1, len(scene) // 500), :3, 3]
    apart = np.linalg.norm(at[:, None] - at, axis=2)
    np.fill_diagonal(apart, np.inf)
    return max(float(np.median(apart.min(1))), 1e-12)


def check_same_poses(scene: Scene) -> list[Finding]:
    """Views with one pose, of a scene that does not move and whose photos are not cut up."""
    if scene.capture_times is not None or scene.cuts is not None:
        return []
    rounded: dict[bytes, int] = {}
    twice = []
    for v, pose in enumerate(np.round(scene.c2w / _spacing(scene), 6) + 0.0):
        if pose.tobytes() in rounded:
            twice += [scene.names[rounded[pose.tobytes()]], scene.names[v]]
        rounded.setdefault(pose.tobytes(), v)
    if not twice:
        return []
    text = f"{len(twice) // 2} photos have the very pose of another ({listed(twice)})"
    return [
        Finding(
            "same-pose", False, text, "no two photos are taken from one place: are their poses right?", tuple(twice)
        )
    ]


def check_masks(scene: Scene, found: dict[int, Features], pairs: Sequence[tuple[int, int]]) -> list[Finding]:
    """Masks that say other things than those of the neighbours say of the same features."""
    if scene.masks is None:
        return []
    unlike: dict[int, list[tuple[float, float]]] = {}
    for first, second in pairs:
        a, b = found[first], found[second]
        i, j = mutual(a.descriptors, b.descriptors)
        shares = (_unlike(a.known[i], b.known[j]), _unlike(~a.known[i], b.known[j]), _unlike(a.known[i], ~b.known[j]))
        if shares[0] is None or shares[1] is None or shares[2] is None:
            continue
        unlike.setdefault(first, []).append((shares[0], shares[1]))
        unlike.setdefault(second, []).append((shares[0], shares[2]))
    medians = {view: np.median(shares, 0) for view, shares in unlike.items() if len(shares) > 1}
    usual = float(np.median([given for given, _ in medians.values()])) if medians else 1.0
    wrong = {v: bool(other < UNLIKE / 2) for v, (given, other) in medians.items() if given > UNLIKE > 2 * usual}
    result = []
    for inverted, what in ((True, "inverted"), (False, "of another photo, or of things that move")):
        names = tuple(scene.names[view] for view in sorted(wrong) if wrong[view] == inverted)
        if names:
            text = f"the masks of {len(names)} photos hide what those of their neighbours show ({listed(names)})"
            remedy = "invert them" if inverted else "look at them"
            result.append(Finding("mask", inverted, f"{text}: are they {what}?", remedy, names))
    return result


def _unlike(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    """Of features [K] that are not let through in both of two photos, the share of those that are in one of them; None:
    there are too few."""
    hidden = ~(a & b)
    return float((a != b)[hidden].mean()) if hidden.sum() >= MASKED else None


def check_hidden_points(scene: Scene, pictures: Sequence[Picture]) -> list[Finding]:
    """Masks that hide nearly all of the scene's own points."""
    shares = []
    for p in pictures:
        if p.known is not None and scene.points is not None:
            pixels, there = projected(scene, p.view, scene.points.xyz[:: max(1, len(scene.points.xyz) // POINTS)])
            if there.sum() >= MASKED:
                column, row = (pixels[there] * p.scale).astype(int).T
                height, width = p.known.shape
                shares.append(float(p.known[row.clip(0, height - 1), column.clip(0, width - 1)].mean()))
    if not shares or float(np.median(shares)) > SHOWN:
        return []
    text = f"masks hide {1 - float(np.median(shares)):.0%} of the scene's own points where photos show them: inverted?"
    return [Finding("mask", False, text, "black says nothing: invert them if they say it")]


def check_exposure(scene: Scene, pairs: Sequence[Pair]) -> list[Finding]:
    """Photos that are brighter or darker than their neighbours where both show the same."""
    steps = [float(np.median(np.log((p.gray[:, 1] + 8) / (p.gray[:, 0] + 8)))) for p in pairs]
    views = sorted({v for p in pairs for v in (p.first, p.second)})
    if not views:
        return []
    row = {view: k for k, view in enumerate(views)}
    matrix: Floats = np.zeros((len(pairs) + 1, len(views)))
    for k, each in enumerate(pairs):
        matrix[k, row[each.first]], matrix[k, row[each.second]] = -1, 1
    matrix[-1] = 1e-3  # the mean is free
    gain = np.linalg.lstsq(matrix, np.array([*steps, 0.0]), rcond=None)[0]
    gain -= np.median(gain)
    off = [view for view in views if abs(gain[row[view]]) > np.log(EXPOSURE)]
    if not off:
        return []
    names = tuple(scene.names[view] for view in off)
    low, high = np.exp(gain.min()), np.exp(gain.max())
    text = (
        f"exposures differ: {len(off)} of {len(views)} photos are {low:.2g} to {high:.2g} times as bright as the usual"
    )
    remedy = "train with --model.use-bilateral-grid True (ns-train: --pipeline.model.use-bilateral-grid True)"
    return [Finding("exposure", False, f"{text} ({listed(names)})", remedy, names)]
