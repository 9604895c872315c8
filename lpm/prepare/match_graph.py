"""Which images hang together by their verified matches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components


def joined_pairs(pycolmap: Any, db: Any, least: int) -> list[tuple[int, int]]:
    """Ids of the images of each pair in pycolmap's database `db` that has at least `least` verified matches."""
    found = zip(*db.read_two_view_geometry_num_inliers(), strict=True)
    return [pycolmap.pair_id_to_image_pair(key) for key, count in found if count >= least]


def graph(pairs: Iterable[tuple[int, int]]) -> tuple[list[int], Any]:
    """The ids in `pairs`, and whether two of them are a pair, as a symmetric sparse matrix."""
    ids, rows = np.unique(np.array(list(pairs), np.int64).reshape(-1, 2), return_inverse=True)
    one, two = rows.reshape(-1, 2).T
    size = len(ids), len(ids)
    return ids.tolist(), csr_matrix((np.ones(2 * len(one)), (np.append(one, two), np.append(two, one))), size)


def largest_group(pairs: Iterable[tuple[int, int]]) -> int:
    """Images of the largest group that hangs together by `pairs`; 0 without any."""
    ids, joined = graph(pairs)
    return int(np.bincount(connected_components(joined, directed=False)[1]).max()) if ids else 0


def well_joined(pairs: Iterable[tuple[int, int]], most: int) -> list[int]:
    """At most `most` images that hang together by `pairs`: from the one with most pairs outwards."""
    ids, joined = graph(pairs)
    start = int(np.asarray(joined.sum(1)).argmax())
    return [ids[i] for i in breadth_first_order(joined, start, return_predecessors=False)[:most]]
