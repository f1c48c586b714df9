"""Root groups with what the graph convolution says of them, one by one or several put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from faceclust_spark.kernels.grouping import in_batches
from faceclust_spark.kernels.refine import PairLogOdds, Refinement
from faceclust_spark.kernels.triangles import triangle_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from faceclust_spark.kernels.refine import Group


class RefinedGroup(NamedTuple):
    """A root group with what the graph convolution says of it."""

    root_key: int
    face_ids: NDArray[np.int64]  # (n,) ascending
    thresholds: NDArray[np.float32]  # (t,) ascending
    keys: NDArray[np.int64]  # (t, n) group keys, lowest threshold first
    refinement: Refinement


def refined_groups(
    groups: Sequence[Group], refinements: Sequence[Refinement], thresholds: NDArray[np.float32]
) -> list[RefinedGroup]:
    """Put groups and their refinements together."""
    return [
        RefinedGroup(int(group.keys[0, 0]), group.face_ids, thresholds, group.keys, refinement)
        for group, refinement in zip(groups, refinements, strict=True)
    ]


def batch_refined(groups: list[RefinedGroup], pairs: int) -> list[list[RefinedGroup]]:
    """Divide groups, in their order, into batches of about `pairs` pairs; see `grouping.in_batches`."""
    return in_batches(groups, [len(group.refinement.pairs.log_odds) for group in groups], pairs)


def join_refined(groups: Sequence[RefinedGroup]) -> RefinedGroup:
    """Put groups of one gallery together as if they were one: no pair joins two of them.

    Re-clustering divides them as it does each by itself, and most groups are so small that calls are what
    takes the time. Rows of a group follow those of the one before; root key and thresholds are the first's.
    """
    if len(groups) == 1:
        return groups[0]
    starts = np.cumsum([0, *(len(group.face_ids) for group in groups[:-1])]).tolist()
    rows = [_rows(group, start) for group, start in zip(groups, starts, strict=True)]
    first, second = (np.concatenate(part) for part in zip(*rows, strict=True))
    refinements = [group.refinement for group in groups]
    log_odds = np.concatenate([one.pairs.log_odds for one in refinements])
    confidences = np.concatenate([one.confidences for one in refinements], axis=1)
    return groups[0]._replace(
        face_ids=np.concatenate([group.face_ids for group in groups]),
        keys=np.concatenate([group.keys for group in groups], axis=1),
        refinement=Refinement(confidences, PairLogOdds(first, second, log_odds)),
    )


def _rows(group: RefinedGroup, start: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Give the rows of a group's pairs, counted from `start`."""
    pairs = group.refinement.pairs
    first, second = pairs.first, pairs.second
    if not len(first) and len(pairs.log_odds):
        first, second = (side.astype(np.int32) for side in triangle_rows(len(group.face_ids)))
    return first + np.int32(start), second + np.int32(start)
