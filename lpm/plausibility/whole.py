"""What may be wrong with all poses or all lenses of a scene: each is tried, and photos say which of them they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from lpm.plausibility.epipolar import Evidence
from lpm.plausibility.findings import Finding, listed
from lpm.scenes.lenses import NAMES
from lpm.scenes.scene import Floats, Scene

GOOD = 0.7
"""Share of matches that the right poses explain, at least; those of a good scene explain .9 and more."""
BETTER = 0.2
"""By so much more another reading of the poses must explain to be called the right one."""
POOR = 0.4
"""Share below which poses are wrong, whatever the reason may be."""
SHIFTS = (1, -1, 2, -2, 3, -3)
FOCAL, CENTRE = 0.04, 0.015
"""A focal length that is off by so large a share, or a principal point by so much of the longer side, is wrong."""
LIMITS = (0.35, 3.0)
"""Factors on the focal length between which it is looked for."""
CALMER = 0.8
"""The typical distance must fall to this share of what it was, so that other intrinsics are called better."""
FEWEST_PAIRS = 4
"""Pairs of photos with matches, below which nothing is said of the whole."""


@dataclass(frozen=True)
class Reading:
    """Another way of reading the poses."""

    kind: str
    text: str
    remedy: str
    c2w: Floats


def readings(scene: Scene) -> list[Reading]:
    """Ways in which poses are often misread: axes, inverses, transposes, mirrored worlds, names that are shifted."""
    given = scene.c2w
    inverse = np.linalg.inv(given)
    transposed = given.copy()
    transposed[:, :3, :3] = np.swapaxes(given[:, :3, :3], 1, 2)
    found = []
    for base, told in ((given, ""), (inverse, "world to camera"), (transposed, "transposed")):
        for signs in (
            (1, 1, 1),
            (1, -1, -1),
            (-1, 1, 1),
            (1, -1, 1),
            (1, 1, -1),
            (-1, -1, 1),
            (-1, 1, -1),
            (-1, -1, -1),
        ):
            if not told and signs == (1, 1, 1):
                continue
            c2w = base.copy()
            c2w[:, :3, :3] = base[:, :3, :3] * np.array(signs, float)
            mirrored = np.prod(signs) < 0
            kind = "mirrored" if mirrored else "inverse" if told == "world to camera" else "axes"
            parts = [told] if told else []
            if mirrored:
                parts.append("mirrored (as left-handed axes make them)")
            elif signs == (1, -1, -1):
                parts.append("OpenCV's (y down, z forward) where OpenGL's are wanted (y up, z back)")
            elif signs != (1, 1, 1):
                parts.append(f"of camera axes with signs {signs}")
            remedy = (
                "export the poses in right-handed axes"
                if mirrored
                else "export the poses camera to world, OpenGL's axes"
            )
            found.append(Reading(kind, f"the poses look as if they were {' and '.join(parts)}", remedy, c2w))
    if scene.capture_times is None:
        order = np.arange(len(scene))
        for step in SHIFTS:
            other = given[np.clip(order + step, 0, len(scene) - 1)]
            text = f"each photo fits the pose of the one that comes {steps(step)} by name"
            found.append(Reading("shifted", text, "give each photo its own pose: the names are shifted", other))
    return found


def check_poses(scene: Scene, evidence: Evidence) -> tuple[Finding | None, Floats]:
    """What is wrong with all poses, and the poses that fit best: the scene's own, or those of the better reading."""
    share = float(evidence.explained(scene.c2w).mean())
    typical = spread(evidence, scene.c2w)
    if share >= 1 - BETTER / 2 and typical < evidence.near / 4:
        return None, scene.c2w
    scored = [(float(evidence.explained(each.c2w).mean()), each) for each in readings(scene)]
    best, reading = max(scored, key=lambda pair: pair[0])
    if best >= GOOD and best >= share + BETTER:
        told = f"{reading.text}: those explain {best:.0%} of what photos have in common, the given ones {share:.0%}"
        return Finding(reading.kind, True, told, reading.remedy), reading.c2w
    return None, scene.c2w


def check_from_one_on(scene: Scene, evidence: Evidence, wrong: Sequence[int]) -> Finding | None:
    """Whether all photos from about the first of `wrong` on have the pose of another, as after one that was lost."""
    if scene.capture_times is not None or not wrong:
        return None
    order, share = np.arange(len(scene)), float(evidence.explained(scene.c2w).mean())
    tried = []
    for first in range(max(wrong[0] - 3, 1), min(wrong[0] + 4, len(scene) - 1)):
        for step in SHIFTS:
            other = scene.c2w[np.where(order < first, order, np.clip(order + step, 0, len(scene) - 1))]
            tried.append((float(evidence.explained(other).mean()), first, step))
    best, first, step = max(tried, default=(0.0, 0, 0))
    if best < GOOD or best < share + BETTER / 2:
        return None
    text = f"from {scene.names[first]} on each photo fits the pose of the one that comes {steps(step)} by name"
    told = f"{text}: those explain {best:.0%} of what photos have in common, the given ones {share:.0%}"
    return Finding("shifted", True, told, "give each photo its own pose", tuple(scene.names[first:]))


def unexplained(scene: Scene, evidence: Evidence, wrong: Sequence[int]) -> Finding:
    """That many photos, the views `wrong`, disagree with each other, and nothing tells why."""
    share, names = float(evidence.explained(scene.c2w).mean()), tuple(scene.names[view] for view in wrong)
    text = f"the poses explain {share:.0%} of what photos have in common, and no other reading of them explains more"
    more = f" ({len(wrong)} of {len(scene)} photos disagree with their neighbours: {listed(names)})" if wrong else ""
    remedy = "are these the poses of these photos? else run the pose estimation again"
    return Finding("poses", share < POOR, text + more, remedy, names)


def steps(step: int) -> str:
    """How far and where to, among photos sorted by name, in words."""
    return f"{abs(step)} photo{'s' * (abs(step) > 1)} {'later' if step > 0 else 'earlier'}"


def spread(evidence: Evidence, c2w: Floats, focal: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> float:
    """Median distance of matches from where the cameras say, pixels."""
    return float(np.median(np.abs(evidence.residuals(c2w, focal, shift)[0])))


def fit(evidence: Evidence, c2w: Floats) -> tuple[float, tuple[float, float]]:
    """The factor on the focal lengths, and the shift of the principal points (pixels of a small picture), under which
    the matches are nearest to where the poses say."""

    def off(values: Floats) -> Floats:
        away, _ = evidence.residuals(c2w, float(np.exp(values[0])), (values[1] * 100, values[2] * 100))
        return away.clip(-100, 100)

    starts = [float(np.log(f)) for f in np.geomspace(*LIMITS, 12)] + [0.0]
    first = min(starts, key=lambda value: float(np.abs(off(np.array([value, 0, 0]))).clip(0, 4 * evidence.near).mean()))
    low, high = (float(np.log(limit)) - 0.1 for limit in LIMITS)
    found = least_squares(
        off, np.array([first, 0, 0]), loss="soft_l1", bounds=([low, -9, -9], [high + 0.2, 9, 9]), max_nfev=30
    )
    return float(np.exp(found.x[0])), (float(found.x[1] * 100), float(found.x[2] * 100))


def middle(scene: Scene) -> Floats:
    """[2] where principal points are said to be, by the middle of the photos across and down: 1 where they are there.

    Of photos that are cut up as their lens's.
    """
    shares = 2 * scene.intrinsics[:, 2:] / scene.sizes
    for view, cut in enumerate(scene.cuts or []):
        if cut is not None and {"cx", "cy"} <= set(NAMES[cut.lens.model]):
            values = dict(zip(NAMES[cut.lens.model], cut.lens.params, strict=True))
            shares[view] = 2 * values["cx"] / cut.lens.size[0], 2 * values["cy"] / cut.lens.size[1]
    return np.asarray(np.median(shares, 0).clip(1e-3))


def check_lens(
    scene: Scene, evidence: Evidence, c2w: Floats, least: float = FOCAL, calmer: float = CALMER
) -> Finding | None:
    """What is wrong with all intrinsics under the poses `c2w`.

    Args:
        least: the focal length must be off by so large a share. calmer: see CALMER.
    """
    before = spread(evidence, c2w)
    focal, shift = fit(evidence, c2w)
    after = spread(evidence, c2w, focal, shift)
    share = float(evidence.explained(c2w, focal, shift).mean())
    longest = float(scene.sizes.max())
    unit = float(np.median(scene.intrinsics[:, 0])) / evidence.pixels  # of a photo's pixels for one of a small picture
    off = (shift[0] * unit, shift[1] * unit)
    wrong_focal = abs(np.log(focal)) > least
    wrong_centre = max(map(abs, off)) > CENTRE * longest * least / FOCAL
    if not (wrong_focal or wrong_centre) or after > calmer * before or share < GOOD:
        return None
    width, height = np.median(scene.sizes, 0)
    told = f"matches of photos are then off by {after:.2g} pixels of {longest / unit:.0f} across, not {before:.2g}"
    scaled = np.log(middle(scene))
    if wrong_focal and np.abs(scaled).min() > 0.15 and np.abs(scaled + np.log(focal)).max() < 0.15:
        text = f"focal length and principal point are of photos {1 / focal:.2g} times as large: {told}"
        return Finding("scaled", True, text, f"multiply fx, fy, cx, cy by {focal:.3g}")
    if wrong_centre:
        text = f"the principal point seems to be {off[0]:+.0f}, {off[1]:+.0f} pixels away from where it is said to be"
        more = f", the focal length {focal:.3g} times the given one" if wrong_focal else ""
        remedy = (
            f"add that to cx, cy ({width / 2:.0f}, {height / 2:.0f} is the middle), or run the pose estimation again"
        )
        return Finding("principal-point", True, f"{text}{more}: {told}", remedy)
    text = f"the focal length seems to be {focal:.3g} times the given one: {told}"
    remedy = f"multiply fx and fy by {focal:.3g}, or run the pose estimation again"
    return Finding("focal", True, text, remedy)
