"""The check of a scene, whole (`lpm-scene check`) and in short (at the start of training)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lpm.checks import LpmError
from lpm.plausibility import looks, points, single, whole
from lpm.plausibility.epipolar import Evidence
from lpm.plausibility.findings import Finding
from lpm.plausibility.matches import Features, Pair, all_features, candidates, matched, mutual
from lpm.plausibility.pictures import LONGEST, pictures
from lpm.scenes.scene import Scene

MOST = 150
"""Photos that are looked at; of more, runs of neighbours by name."""
RUN = 5
"""Photos of such a run."""
NEAR = 0.005
"""Share of the longer side that a match may be off and count as explained."""
LEAST = 1.5
"""Pixels of a small picture that it may be off at least."""
NEIGHBOURS = 4
"""Photos that one is compared with, the nearest by their poses, beside those next to it by name."""
BRIEF, BRIEF_RUN, BRIEF_LONGEST = 12, 3, 640
"""Of the brief check: photos that are compared, in runs of so many, and pixels along their longer side."""
BRIEF_PIXELS = 40e6
"""Pixels of photos that the brief check decodes to look for black and equal ones."""
BRIEF_FOCAL, BRIEF_CALMER = 0.1, 0.5
"""Few matches are enough for what is far off only."""
LONELY = 8
"""Photos without neighbours that are compared with all others."""
QUICK = 300
"""Features by which those are looked for."""


@dataclass
class Report:
    """What a check found, and by how much."""

    findings: list[Finding]
    photos: int
    """Photos that were looked at."""
    pairs: int
    """Pairs of photos with matches."""
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def serious(self) -> bool:
        """Whether training on the scene is of no use until something is mended."""
        return any(finding.serious for finding in self.findings)

    def told(self) -> str:
        """What was looked at, in words."""
        text = f"{self.photos} photos, {self.pairs} pairs of them with matches"
        if "explained" in self.figures:
            off = self.figures["off_px"]
            return f"{text}; the poses explain {self.figures['explained']:.1%} of these, to {off:.2f} px (median)"
        return f"{text}: too few to judge the poses"

    def verdict(self) -> str:
        """How many findings there are, in words."""
        errors = sum(finding.serious for finding in self.findings)
        if self.findings:
            return f"{errors} errors, {len(self.findings) - errors} warnings"
        return "nothing wrong" if "explained" in self.figures else "nothing wrong, of what could be judged"

    def as_json(self) -> dict[str, Any]:
        """The same as an object."""
        found = [finding.as_json() for finding in self.findings]
        return {"serious": self.serious, "photos": self.photos, "pairs": self.pairs, **self.figures, "findings": found}


def in_runs(count: int, most: int, run: int) -> list[int]:
    """At most `most` of `count` numbers, in runs of `run` consecutive ones, evenly spread; all if they are few."""
    if count <= most:
        return list(range(count))
    starts = np.linspace(0, count - run, max(most // run, 1)).round().astype(int)
    return sorted({int(start) + k for start in starts for k in range(run)})


class Matching:
    """The features of views of a scene, and the matches between them."""

    def __init__(self, scene: Scene, seen: list[int], longest: int, near: int) -> None:
        self.scene, self.seen = scene, seen
        self.pictures = pictures(scene, seen, longest)
        self.features: dict[int, Features] = dict(zip(seen, all_features(scene, self.pictures), strict=True))
        shrink = min(1.0, longest / float(scene.sizes.max()))
        self.pixels = float(np.median(scene.intrinsics[seen, 0])) * shrink
        self.near = max(LEAST, NEAR * float(np.median(scene.sizes[seen].max(1))) * shrink)
        self.candidates = candidates(scene, seen, near)
        self.pairs = matched(self.features, self.candidates, self.pixels)

    def evidence(self) -> Evidence:
        """All matches."""
        return Evidence(self.pairs, self.pixels, self.near)

    def search(self, view: int, without: set[int]) -> list[Pair]:
        """Matches of `view` with those photos, out of all but `without`, that look most like it."""
        mine = self.features[view].descriptors[:QUICK]
        others = [v for v in self.seen if v != view and v not in without]
        alike = {v: len(mutual(mine, self.features[v].descriptors[:QUICK])[0]) for v in others}
        best = sorted(others, key=lambda v: -alike[v])[:6]
        return matched(self.features, [(min(v, view), max(v, view)) for v in best], self.pixels)

    def find_the_lonely(self) -> None:
        """Looks for matches of photos that have none with those that should be next to them, if most have some."""
        count = np.bincount(np.array([(p.first, p.second) for p in self.pairs], int).ravel(), minlength=len(self.scene))
        known = {(p.first, p.second) for p in self.pairs}
        lonely = [view for view in self.seen if count[view] < 2]
        if len(lonely) > len(self.seen) / 4:
            return
        for view in lonely[:LONELY]:
            for each in self.search(view, set()):
                if (each.first, each.second) not in known:
                    known.add((each.first, each.second))
                    self.pairs.append(each)


def check(scene: Scene) -> Report:
    """Everything that is looked at; some tenths of a second a photo.

    Raises:
        LpmError: a photo or mask cannot be decoded.
    """
    matching = Matching(scene, in_runs(len(scene), MOST, RUN), LONGEST, NEIGHBOURS)
    matching.find_the_lonely()
    evidence = matching.evidence()
    found = [
        *points.check_points(scene),
        *points.check_tracks(scene),
        *looks.check_looks(scene, matching.pictures),
        *looks.check_same_poses(scene),
        *looks.check_masks(scene, matching.features, matching.candidates),
        *looks.check_hidden_points(scene, matching.pictures),
        *looks.check_exposure(scene, matching.pairs),
    ]
    figures = {}
    if len(matching.pairs) >= whole.FEWEST_PAIRS:
        found += _poses(scene, matching, evidence)
        figures = {
            "explained": float(evidence.explained(scene.c2w).mean()),
            "off_px": whole.spread(evidence, scene.c2w),
        }
    return Report(_sorted(found), len(matching.seen), len(matching.pairs), figures)


def _poses(scene: Scene, matching: Matching, evidence: Evidence) -> list[Finding]:
    """What is wrong with all poses, else with all lenses, else with single photos."""
    finding, c2w = whole.check_poses(scene, evidence)
    if finding is not None:
        return [finding]
    wrong = single.disagreeing(scene, evidence, c2w)
    others = evidence
    if len(wrong) <= single.MANY * len(matching.seen):
        kept = [p for p in matching.pairs if p.first not in wrong and p.second not in wrong]
        others = Evidence(kept, evidence.pixels, evidence.near)
    elif (shifted := whole.check_from_one_on(scene, evidence, wrong)) is not None:
        return [shifted]
    if len(others.pairs) >= whole.FEWEST_PAIRS and (lens := whole.check_lens(scene, others, c2w)) is not None:
        return [lens]
    if others is evidence and wrong:
        return [whole.unexplained(scene, evidence, wrong)]
    return single.check_photos(scene, evidence, c2w, wrong, lambda view: matching.search(view, set(wrong)))


def check_briefly(scene: Scene) -> Report:
    """What takes no more than two seconds: points, tracks, equal and black photos out of a few, and whether the poses
    and lenses of a few photos are right on the whole.

    Raises:
        LpmError: a photo or mask cannot be decoded.
    """
    share = BRIEF_PIXELS / float(scene.sizes.prod(1).mean())
    looked = pictures(scene, in_runs(len(scene), int(max(BRIEF, share)), BRIEF_RUN), 160)
    found = [
        *points.check_points(scene),
        *points.check_tracks(scene, brief=True),
        *looks.check_looks(scene, looked),
        *looks.check_same_poses(scene),
    ]
    matching = Matching(scene, in_runs(len(scene), BRIEF, BRIEF_RUN), BRIEF_LONGEST, 2)
    if len(matching.pairs) >= whole.FEWEST_PAIRS:
        evidence = matching.evidence()
        finding, c2w = whole.check_poses(scene, evidence)
        if finding is None:
            finding = whole.check_lens(scene, evidence, c2w, BRIEF_FOCAL, BRIEF_CALMER)
        if finding is None and float(evidence.explained(c2w).mean()) < whole.POOR:
            finding = whole.unexplained(scene, evidence, [])
        found += [] if finding is None else [finding]
    return Report(_sorted(found), len(looked), len(matching.pairs))


def _sorted(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: not finding.serious)


def stop_if_serious(scene: Scene, say: Callable[[str], Any], option: str) -> None:
    """The brief check at the start of training.

    Args:
        say: is given each finding. option: what the user adds to train nevertheless.

    Raises:
        LpmError: something serious was found.
    """
    report = check_briefly(scene)
    for finding in report.findings:
        if not finding.serious:
            say(finding.line())
    first = next((finding for finding in report.findings if finding.serious), None)
    if first is not None:
        more = sum(finding.serious for finding in report.findings) - 1
        also = f" (and {more} more; `lpm-scene check {scene.layout.root}` tells all)" if more else ""
        raise LpmError(f"{scene.layout.root}: {first.text}{also}; wanted a scene that its photos agree with; "
                       f"{first.remedy}, or add {option} to train nevertheless")  # fmt: skip
