"""Depth of single patches by photometric plane sweep: which depth makes the same patch appear in the neighbours?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.checks import check_shape, fail
from lpm.multiview.patch_warp import UNSEEN, Warp, groups, reference
from lpm.multiview.views import Views
from lpm.sending import sent

COUNTS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
"""A patch gets the first of these counts of depths that suffices: its result then depends on nothing but itself."""
SOFT = 0.05
"""Added to both sides of the ratio: among nearly perfect scores, differences of a hundredth say nothing."""


@dataclass
class Sweep:
    """Depths of P patches and how far to trust them."""

    depth: Tensor
    """[P], z-depth in the patch's own view, world units; NaN where nothing was compared."""
    score: Tensor
    """[P], ZNCC at the best depth, mean over the better half of the neighbours; -1..1."""
    ratio: Tensor
    """[P], (1 - score) over the same of the second-best separate peak; 0: stands alone, 1: the other is as good."""
    confident: Tensor
    """[P], bool."""
    support: Tensor
    """[P], int64, neighbours whose own ZNCC at that depth passes."""
    interval: Tensor
    """[P, 2], depths around the peak between which the score stays within `drop` of it, world units."""


def plane_sweep(
    views: Views,
    view: Tensor,
    pixels: Tensor,
    neighbours: Tensor,
    near: Tensor,
    far: Tensor,
    *,
    hypotheses: int = 256,
    patch: int = 7,
    min_score: float = 0.8,
    max_ratio: float = 0.5,
    min_contrast: float = 0.02,
    min_support: int = 2,
    drop: float = 0.15,
    max_slope: float = 2.0,
) -> Sweep:
    """Finds the depth of P patches of several views by comparing them with covisible neighbours.

    A patch is moved through depths that are evenly spaced in inverse depth (Collins 1996), as many as it takes to move
    it by at most a pixel in every neighbour, and compared by zero-mean normalised cross-correlation, which ignores gain
    and offset of the exposure. The score of a depth is the mean over the better half of the neighbours that see the
    whole patch there, since an occluder hides it in some. Around the best depth, tilted patches (inverse depth is
    linear over a plane's image) and half steps are tried, then a parabola is laid through the best.

    Args:
        view: [P] int64, the photo each patch is in.
        pixels: [P, 2], its centre (x, y) in pixels.
        neighbours: [V, k] int64 as from `covisible`; -1: none.
        near, far: [P] or scalar tensors, z-depths between which to look, world units; `far` may be infinite. Patches
            with near <= 0, or far <= near, or either NaN are not looked for.
        hypotheses: at most so many depths. Where they do not suffice, steps are longer than a pixel, and textured
            patches are missed: a wide range with 96 of 256 needed halves the share of confident patches.
        patch: odd side of a patch, pixels.
        min_score, max_ratio: what a confident peak needs: a score of at least, a ratio (see Sweep) of at most.
        min_contrast: standard deviation of the patch over (its mean + 0.1), gray in 0..1, below which it is flat.
        min_support: neighbours that must agree (all, if a view has fewer).
        drop: the interval reaches to where the score is this much below the peak.
        max_slope: tangent of the steepest tilt that is tried, against the image plane; 0: none.

    Returns:
        Sweep. Confident are patches inside the image, without masked or NaN pixels, textured, whose peak is high,
        alone, inside the range and shared by enough neighbours. A patch's bits depend neither on the number of CPU
        threads nor on the other patches.

    Raises:
        LpmError: wrong shapes.
    """
    check_shape("view", view, [None])
    p, device = len(view), views.device
    check_shape("pixels", pixels, [p, 2])
    check_shape("neighbours", neighbours, [len(views), None])
    if patch < 3 or patch % 2 == 0:
        fail("patch", str(patch), "an odd number of pixels from 3 on")
    view, neighbours = view.to(device).long(), neighbours.to(device).long()
    pixels = pixels.detach().to(device).float()
    w_near = 1.0 / near.detach().to(device).double().expand(p)
    w_far = 1.0 / far.detach().to(device).double().expand(p)
    nothing = torch.full((p,), torch.nan, device=device)
    result = Sweep(
        nothing.clone(),
        torch.full((p,), -1.0, device=device),
        torch.ones(p, device=device),
        torch.zeros(p, dtype=torch.bool, device=device),
        torch.zeros(p, dtype=torch.int64, device=device),
        torch.stack([nothing, nothing], 1),
    )
    k = neighbours.shape[1]
    if p == 0 or k == 0:
        return result

    ref, contrast = reference(views, view, pixels, patch)
    ok = torch.isfinite(ref).all(1) & (contrast >= min_contrast) & (neighbours[view] >= 0).any(1)
    ok &= (w_far >= 0) & (w_near > w_far) & torch.isfinite(w_near) & torch.isfinite(pixels).all(1)
    chosen = ok.nonzero().flatten()
    if len(chosen) == 0:
        return result
    warp = Warp(views, view[chosen], pixels[chosen], neighbours[view[chosen]], ref[chosen], patch)
    w_near, w_far = warp.visible(w_near[chosen].float(), w_far[chosen].float())
    need = warp.steps(w_near, w_far)
    allowed = [c for c in COUNTS if c < hypotheses] + [hypotheses]
    bucket = torch.searchsorted(sent(allowed, device), need.clamp_max(hypotheses).long())
    peak = _Peak.empty(len(chosen), device)
    for i, rows in groups(bucket, len(allowed)):
        n = allowed[i]
        t = torch.linspace(0, 1, n, device=device)
        w = w_far[rows, None] * (1 - t) + w_near[rows, None] * t
        curve = _better_half(warp.zncc(rows, w))
        peak.put(rows, _find_peak(curve, w, drop))

    w, score, each = _refine(warp, peak, max_slope)
    ratio = ((1 - score + SOFT) / (1 - peak.second.clamp_max(1.0) + SOFT)).clamp_max(1.0)
    support = (each >= min_score - 0.1).sum(1)
    available = (neighbours[view[chosen]] >= 0).sum(1)
    good = (score >= min_score) & (ratio <= max_ratio) & ~peak.edge & (w > 0)
    good &= support >= available.clamp_max(min_support)
    compared = score > UNSEEN
    result.depth[chosen] = torch.where(compared, 1.0 / w, torch.nan)
    result.score[chosen] = score.clamp_min(-1.0)
    result.ratio[chosen] = torch.where(compared, ratio, 1.0)
    result.confident[chosen] = good
    result.support[chosen] = support
    w_low, w_high = torch.minimum(peak.low, w), torch.maximum(peak.high, w)
    interval = torch.stack([1.0 / w_high, 1.0 / w_low], 1)
    result.interval[chosen] = torch.where(compared[:, None], interval, torch.nan)
    return result


def _better_half(each: Tensor) -> Tensor:
    """Mean [R, H] over the better half (rounded up) of the neighbours that see the patch, of scores [R, k, H]."""
    ordered = each.sort(1, descending=True).values
    seen = (each > UNSEEN).sum(1)
    half = torch.div(seen + 1, 2, rounding_mode="floor")
    total = torch.zeros_like(each[:, 0])
    for i in range((each.shape[1] + 1) // 2):
        total = total + torch.where(half > i, ordered[:, i], 0.0)
    return torch.where(seen > 0, total / half.clamp_min(1), UNSEEN)


@dataclass
class _Peak:
    """Best inverse depths of R patches: all [R]; `low`, `high`: where the score has dropped."""

    w: Tensor
    score: Tensor
    step: Tensor
    second: Tensor
    low: Tensor
    high: Tensor
    edge: Tensor

    @staticmethod
    def empty(n: int, device: torch.device) -> _Peak:
        zeros = {name: torch.zeros(n, device=device) for name in ("w", "score", "step", "second", "low", "high")}
        return _Peak(**zeros, edge=torch.ones(n, dtype=torch.bool, device=device))

    def put(self, rows: Tensor, other: _Peak) -> None:
        for name, value in vars(other).items():
            getattr(self, name)[rows] = value


def _find_peak(curve: Tensor, w: Tensor, drop: float) -> _Peak:
    """The best of `curve` [R, H] over inverse depths `w` [R, H], ascending."""
    n = curve.shape[1]
    score, best = curve.max(1)
    index = torch.arange(n, device=curve.device)
    step = w[:, 1] - w[:, 0]
    low_score = (score - drop)[:, None]
    fallen = curve < low_score
    left = torch.where(fallen & (index < best[:, None]), index, -1).amax(1)
    right = torch.where(fallen & (index > best[:, None]), index, n).amin(1)

    padded = F.pad(curve, (1, 1), value=UNSEEN)
    is_peak = (curve >= padded[:, :-2]) & (curve >= padded[:, 2:])
    # Local maxima within two steps or on the same hill are the same peak.
    apart = (index <= torch.minimum(left, best - 2)[:, None]) | (index >= torch.maximum(right, best + 2)[:, None])
    second, place = torch.where(is_peak & apart, curve, 0.0).max(1)
    before, here, after = padded.gather(1, place[:, None] + torch.arange(3, device=curve.device)).unbind(1)
    # It lies between depths as the best one does; that one's height will come from finer steps.
    bend = before - 2 * here + after
    rise = (before - after).square() / (-8 * bend).clamp_min(1e-3)
    second = second + torch.where((second > 0) & (torch.minimum(before, after) > UNSEEN), rise, 0.0).clamp_max(0.1)

    def crossing(outer: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        there, here = (curve.gather(1, i.clamp(0, n - 1)[:, None])[:, 0] for i in (outer, inner))
        share = ((score - drop - there) / (here - there).clamp_min(1e-6)).clamp(0, 1)
        known = (outer >= 0) & (outer < n) & (there > UNSEEN)
        return torch.where(known, outer + (inner - outer) * share, inner.float()), known

    (low, falls_low), (high, falls_high) = crossing(left, left + 1), crossing(right, right - 1)
    return _Peak(
        w=w.gather(1, best[:, None])[:, 0],
        score=score,
        step=step,
        second=second,
        low=w[:, 0] + low * step,
        high=w[:, 0] + high * step,
        edge=~(falls_low & falls_high),
    )


def _refine(warp: Warp, peak: _Peak, max_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse depth [R], score [R] and each neighbour's score [R, k] at the best of tilts and half steps."""
    device = peak.w.device
    half_steps = torch.arange(-2, 3, device=device) * 0.5
    sides = torch.arange(-1, 2, device=device) * max_slope if max_slope > 0 else torch.zeros(1, device=device)
    tilts = torch.cartesian_prod(sides, sides)
    count = len(half_steps)
    w = (peak.w[:, None] + peak.step[:, None] * half_steps).clamp_min(0).repeat(1, len(tilts))
    slope = (tilts / warp.focal[:, None, None]).repeat_interleave(count, 1)
    each = warp.zncc(torch.arange(len(peak.w), device=device), w, slope)
    curve = _better_half(each)
    score, best = curve.max(1)
    place = best % count
    inner = (place > 0) & (place < count - 1)
    around = best[:, None] + torch.where(inner, 1, 0)[:, None] * torch.arange(-1, 2, device=device)
    before, here, after = curve.gather(1, around).unbind(1)
    bend = before - 2 * here + after
    moved = (0.5 * (before - after) / bend.clamp_max(-1e-6)).clamp(-0.5, 0.5)
    usable = inner & (torch.minimum(before, after) > UNSEEN)
    fine = w.gather(1, best[:, None])[:, 0] + torch.where(usable, moved, 0.0) * 0.5 * peak.step
    return fine, score, each.gather(2, best[:, None, None].expand(-1, each.shape[1], 1))[:, :, 0]
