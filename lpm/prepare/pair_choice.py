"""Which pairs of photos are compared in full: those that look alike by their few strongest features.

Comparing all features of all pairs takes time with the square of the number of photos. A photo overlaps with a few
others only, and a glance at a few hundred features tells with which.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from lpm.prepare.sfm import features

FEW = 40
"""Photos up to which every pair is compared in full."""
STRONG = 256
"""Features of an image that a glance takes: those of largest scale, which a photo from elsewhere finds again most."""
RATIO = 0.8
"""A feature's nearest neighbour must be nearer than this share of the distance to the second nearest (Lowe 2004)."""
PARTNERS = 20
"""Other images that an image is compared with in full, at least, where so many look alike."""
ALIKE = 5
"""Features that must match at a glance; chance gives one or two."""
FOLLOWING = 3
"""Images after an image, by name, that it is compared with in any case."""
NEIGHBOURS = 10
"""The same where only neighbours are compared."""
AT_ONCE = 16
"""Images compared with one at a time."""


Pair = tuple[int, int]
Matching = Literal["auto", "exhaustive", "sequential"]


def choose(database: Path, names: Sequence[str], matching: Matching, done: Callable[[int], None]) -> list[Pair]:
    """Which of the images `names`, in order of time, are compared: (i, j) with i < j.

    Args:
        database: COLMAP's, with their features.
        matching: exhaustive: all. sequential: neighbours. auto: all of few; of more, those that look alike, and the
            next few by name.
        done: called with the number of further images that were looked at.
    """
    count = len(names)
    if matching == "exhaustive" or (matching == "auto" and count <= FEW):
        return [(i, j) for j in range(count) for i in range(j)]
    if matching == "sequential":
        return neighbours(count)
    found = set(chosen(alike(strongest(database, names), done)))
    found |= {(i, i + step) for i in range(count) for step in range(1, FOLLOWING + 1) if i + step < count}
    return in_order(found)


def in_order(found: set[Pair]) -> list[Pair]:
    """Pairs as they become possible while images come one after the other."""
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def neighbours(count: int) -> list[Pair]:
    """Neighbours of `count` images, farther ones (16, 32, 64, ... apart), and every few images all with each other.

    The last is how a camera that comes back to where it was is noticed.
    """
    steps = {*range(1, NEIGHBOURS + 1), *(1 << k for k in range(10))}
    found = {(i, i + step) for i in range(count) for step in steps if i + step < count}
    every = range(0, count, max(count // 40, 1))
    return in_order(found | {(i, j) for j in every for i in every if i < j})


def strongest(database: Path, names: Sequence[str]) -> Tensor:
    """[V, STRONG, 128] unit descriptors of the images `names` in COLMAP's `database`; zeros where there are fewer."""
    result = torch.zeros(len(names), STRONG, 128)
    with closing(sqlite3.connect(database)) as db:
        for row, name in zip(result, names, strict=True):
            found = features(db, name)
            if found is None or len(found.shapes) == 0:
                continue
            kept = found.largest[:STRONG]
            told = found.descriptors[kept].astype(np.float32)
            row[: len(kept)] = torch.nn.functional.normalize(torch.from_numpy(told), dim=1)
    return result


def alike(described: Tensor, done: Callable[[int], None]) -> Tensor:
    """[V, V] int: of two images, the features that are each other's nearest and clearly so.

    Args:
        described: [V, S, 128] unit vectors; zeros are none.
        done: called with the number of further images that have been compared with all before them.
    """
    count = len(described)
    there = described.any(2)  # [V, S]
    result = torch.zeros(count, count, dtype=torch.int64)
    for i in range(count):
        for first in range(0, i, AT_ONCE):
            others = described[first : min(first + AT_ONCE, i)]
            cosine = others @ described[i].T  # [n, S, S]
            back = cosine.argmax(1)  # [n, S]: of each feature of i, the nearest in the other image
            best, mine = cosine.max(2)
            cosine.scatter_(2, mine[..., None], -1.0)  # topk(2) would take three times as long
            second = cosine.amax(2)
            mutual = back.gather(1, mine) == torch.arange(mine.shape[1])
            # distances of unit vectors: |a - b|^2 = 2 - 2 cos
            clear = (1 - best) < RATIO**2 * (1 - second)
            fits = (
                mutual & clear & there[first : first + len(others)] & there[i].expand(len(others), -1).gather(1, mine)
            )
            result[first : first + len(others), i] = fits.sum(1)
        done(1)
    return result + result.T


def chosen(counts: Tensor) -> list[Pair]:
    """Pairs (i, j), i < j, worth a full comparison, of `counts` [V, V] (see `alike`).

    Each image's PARTNERS most alike, and those without which the images would not hang together.
    """
    count = len(counts)
    order = counts.argsort(dim=1, descending=True, stable=True)[:, :PARTNERS]
    found = {
        (min(i, j), max(i, j)) for i in range(count) for j in order[i].tolist() if counts[i, j] >= ALIKE and i != j
    }
    tree = minimum_spanning_tree(csr_matrix(np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)))
    found |= {(min(i, j), max(i, j)) for i, j in zip(*map(np.ndarray.tolist, tree.nonzero()), strict=True)}
    return in_order(found)
