"""Which photos disagree with the others under poses that are right on the whole, and which pose they have instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from lpm.plausibility.epipolar import Evidence
from lpm.plausibility.findings import Finding, listed
from lpm.plausibility.matches import Pair
from lpm.scenes.scene import Floats, Scene

AGREES = 0.5
"""Share of a pair's matches that poses explain, below which one of the two is wrong."""
RESTLESS = 8.0
"""A photo whose matches are typically so many times as far off as those of the scene is wrong, too, if ..."""
AT_LEAST = 0.4
"""... that is this share of the distance at which a match counts as explained."""
FITS = 0.75
"""Share of a photo's matches that another photo's pose must explain to be called its own."""
STARTS = 5
"""Poses from which that of a photo is looked for."""
MANY = 0.2
"""Share of all photos, from which on a fault of single ones is one of the scene."""


def disagreeing(scene: Scene, evidence: Evidence, c2w: Floats) -> list[int]:
    """The views that most of their neighbours disagree with.

    Of a pair either may be wrong; so the worst is taken out with all its pairs, until the others agree.
    """
    away, ahead = evidence.residuals(c2w)
    shares = evidence.per_pair((np.abs(away) <= evidence.near) & ahead)
    medians = np.array([np.median(np.abs(away[evidence.of == p])) for p in range(len(evidence.pairs))])
    typical = float(np.median(medians)) if len(medians) else 0.0
    wrong = (shares < AGREES) | ((medians > RESTLESS * typical) & (medians > AT_LEAST * evidence.near))
    left = np.ones(len(wrong), bool)
    found: list[int] = []
    while (left & wrong).any():
        count = np.zeros((2, len(scene)))
        for row, of in ((0, left), (1, left & wrong)):
            np.add.at(count[row], evidence.views[of].ravel(), 1)
        bad = np.where(count[0] > 0, count[1] / np.maximum(count[0], 1), 0)
        worst = int(np.lexsort((count[1], bad))[-1])
        if bad[worst] <= 0.5 or (count[0][worst] < 2 and not found):
            break
        if count[1][worst] >= 2 or count[0][worst] < 2:
            found.append(worst)
        left &= ~(evidence.views == worst).any(1)
    return sorted(v for v in found if (evidence.views[wrong] == v).any(1).sum() >= 2)


def pose_of_another(
    view: int, pairs: list[Pair], evidence: Evidence, c2w: Floats, others: NDArray[np.int64]
) -> tuple[int, float] | None:
    """The view among `others` whose pose explains the matches `pairs` of `view` best, and their share; None: there are
    too few matches."""
    if not pairs:
        return None
    own = Evidence(pairs, evidence.pixels, evidence.near)
    shares = []
    for other in others:
        tried = c2w.copy()
        tried[view] = c2w[other]
        usable = (own.views != other).all(1)
        shares.append(float(own.explained(tried)[usable].mean()) if usable.any() else 0.0)
    best = int(np.argmax(shares))
    return int(others[best]), shares[best]


def own_pose(view: int, pairs: list[Pair], evidence: Evidence, c2w: Floats) -> tuple[Floats, float]:
    """The pose [4, 4] of `view` that explains its matches `pairs` best, and their share.

    Looked for from the given pose and from those of its neighbours. Where textures repeat, matches are wrong in a way
    that no pose explains.
    """
    own = Evidence(pairs, evidence.pixels, evidence.near)
    unit = max(float(np.linalg.norm(c2w[own.views[:, 0], :3, 3] - c2w[own.views[:, 1], :3, 3], axis=1).mean()), 1e-12)

    def moved(start: Floats, values: Floats) -> Floats:
        poses = c2w.copy()
        poses[view, :3, :3] = start[:3, :3] @ Rotation.from_rotvec(values[:3]).as_matrix()
        poses[view, :3, 3] = start[:3, 3] + values[3:] * unit
        return poses

    best, most = c2w[view], float(own.explained(c2w).mean())
    neighbours = dict.fromkeys(own.views.ravel().tolist())
    for start in [c2w[other] for other in (view, *(v for v in neighbours if v != view))][:STARTS]:
        off = lambda values, start=start: own.residuals(moved(start, values))[0].clip(-200, 200)  # noqa: E731
        first = 1e-3 * np.ones(6)  # where two cameras are at one place, distances are of another kind
        found = least_squares(off, first, loss="soft_l1", f_scale=evidence.near, max_nfev=40)
        poses = moved(start, found.x)
        share = float(own.explained(poses).mean())
        if share > most:
            best, most = poses[view], share
    return best, most


def check_photos(
    scene: Scene, evidence: Evidence, c2w: Floats, wrong: list[int], pairs_of: Callable[[int], list[Pair]]
) -> list[Finding]:
    """What is wrong with the views `wrong`: swapped, or a pose of their own that is wrong.

    Args:
        pairs_of: the matches of a view with all others but those that are wrong.
    """
    if not wrong:
        return []
    order = np.arange(len(scene))
    fits: dict[int, int] = {}
    for view in wrong:
        found = pose_of_another(view, pairs_of(view), evidence, c2w, order[order != view])
        if found is not None and found[1] >= FITS:
            fits[view] = found[0]
    result = []
    swapped = sorted(view for view in fits if fits.get(fits[view]) == view)
    names = scene.names
    for view in swapped:
        if view < fits[view]:
            both = names[view], names[fits[view]]
            text = f"{both[0]} and {both[1]} each fit the pose of the other"
            result.append(
                Finding("swapped", True, text, "swap the two photos, or their names in the file of poses", both)
            )
    rest = [view for view in wrong if view not in swapped]
    if not rest:
        return result
    sure: dict[int, tuple[float, float]] = {}
    for view in rest:
        pairs = pairs_of(view)
        if len(pairs) < 2:
            continue
        own, share = own_pose(view, pairs, evidence, c2w)
        if share >= FITS:
            given = float(Evidence(pairs, evidence.pixels, evidence.near).explained(c2w).mean())
            turn = Rotation.from_matrix(own[:3, :3].T @ c2w[view, :3, :3]).magnitude()
            sure[view] = given, float(np.degrees(turn))
    for serious, how in ((True, ""), (False, " a little")):
        off = [view for view, (given, _) in sure.items() if (given < AGREES) == serious]
        if off:
            told = tuple(names[view] for view in off)
            text = f"{len(told)} of {len(scene)} photos disagree{how} with their neighbours under the given poses, and"
            text += f" would not if moved and turned by {max(sure[v][1] for v in off):.2g} degrees ({listed(told)})"
            remedy = "remove these photos (those that are not there are left out), or run the pose estimation again"
            result.append(Finding("pose", serious, text, remedy, told))
    told = tuple(names[view] for view in rest if view not in sure)
    if told:
        text = f"what {len(told)} photos have in common with their neighbours is explained by no pose ({listed(told)})"
        remedy = "look at them: textures that repeat, and things that move, are harmless; a wrong pose is not"
        result.append(Finding("pose", False, text, remedy, told))
    return result
