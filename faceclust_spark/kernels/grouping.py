"""Root groups as the refining kernels take them, and how they are packed.

A root group is a coarse group at the lowest threshold, after cutting; everything from the similarity
matrices to the clusters happens inside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from faceclust_spark.kernels.refine import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from faceclust_spark.config import ConfidencesConfig
    from faceclust_spark.kernels.groups import CoarseGroups

Item = TypeVar("Item")


def gather_groups(
    coarse: CoarseGroups,
    vectors: NDArray[np.int16],
    attributes: NDArray[np.float32],
    norms: NDArray[np.float32],
) -> list[Group]:
    """Give every root group of a gallery, by ascending root key; groups of one face included.

    Rows of `vectors` int16 `(n, d)`, `attributes` float32 `(n, a)` (NaN = missing, a may be 0) and `norms`
    float32 `(n,)` (NaN = unknown) follow `coarse.face_ids`.
    """
    order = np.lexsort((coarse.face_ids, coarse.keys[0]))
    return split_groups(
        coarse.keys[0][order],
        coarse.face_ids[order],
        vectors[order],
        attributes[order],
        norms[order],
        coarse.keys[:, order],
    )


def split_groups(
    root_keys: NDArray[np.int64],
    face_ids: NDArray[np.int64],
    vectors: NDArray[np.int16],
    attributes: NDArray[np.float32],
    norms: NDArray[np.float32],
    keys: NDArray[np.int64],
) -> list[Group]:
    """Divide rows sorted by root key, then face id, into their groups.

    A group without a single attribute has attributes of width 0, whatever the width of the others:
    so a group is the same array for array whichever rows it is read with.

    Shapes: `(n,)`, `(n,)`, `(n, d)`, `(n, a)`, `(n,)`, `(t, n)`.
    """
    ends = [*(np.flatnonzero(np.diff(root_keys)) + 1).tolist(), len(root_keys)]
    groups = []
    start = 0
    for end in ends if len(root_keys) else ():
        own = attributes[start:end]
        groups.append(
            Group(
                face_ids=face_ids[start:end],
                vectors=vectors[start:end],
                attributes=own[:, :0] if np.isnan(own).all() else own,
                norms=norms[start:end],
                keys=keys[:, start:end],
            )
        )
        start = end
    return groups


def scored_pairs(size: int, config: ConfidencesConfig) -> int:
    """Give the number of pairs that refining a group of `size` faces scores, at most.

    All pairs up to `dense_size` faces; above it, where that is fewer, a fixed number for each face.
    """
    every = size * (size - 1) // 2
    if size <= config.dense_size:
        return every
    return min(every, size * (config.block_neighbours + config.block_negatives))


def batch_groups(groups: list[Group], config: ConfidencesConfig, pairs: int) -> list[list[Group]]:
    """Divide groups, in their order, into batches of about `pairs` scored pairs; see `in_batches`."""
    return in_batches(groups, [scored_pairs(len(group.face_ids), config) for group in groups], pairs)


def in_batches(items: Sequence[Item], costs: Sequence[int], limit: int) -> list[list[Item]]:
    """Divide items, in their order, into batches that cost about `limit`; never empty ones.

    A batch holds one item more than fits, so an item of any cost has its place.
    """
    batches: list[list[Item]] = []
    filled = limit
    for item, cost in zip(items, costs, strict=True):
        if filled >= limit:
            batches.append([])
            filled = 0
        batches[-1].append(item)
        filled += cost
    return batches
