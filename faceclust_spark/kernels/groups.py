"""Coarse groups: the forest's components at each first threshold, oversized ones cut again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CoarseGroupsConfig
from faceclust_spark.kernels.forest import Edges, component_keys
from faceclust_spark.kernels.ids import sample_rows

DENSITY_SAMPLE = 256  # faces of a component that its density is measured on
_DENSITY = "density"  # purpose of that sample

Density = Callable[[NDArray[np.int64]], float]


class CoarseGroups(NamedTuple):
    """Every face's group at every first threshold.

    keys: the smallest face id of the group. levels: the cosine of the weakest link that the group
    is held together by; 1 for a face alone.
    """

    face_ids: NDArray[np.int64]  # (n,) ascending
    thresholds: NDArray[np.float32]  # (t,) ascending
    keys: NDArray[np.int64]  # (t, n)
    levels: NDArray[np.float32]  # (t, n)


def mean_cosine(vectors: NDArray[np.int16]) -> float:
    """Give the mean cosine of all pairs of `(m, d)` grid vectors; 1 for a single one.

    (|sum x|^2 - sum |x|^2) / (m (m - 1)), over the mean squared length, in exact integers.
    """
    if len(vectors) < 2:
        return 1.0
    wide = vectors.astype(np.int64)
    own = int((wide * wide).sum())
    total = wide.sum(axis=0)
    return (int((total * total).sum()) - own) / ((len(wide) - 1) * own)


def ladder(top: np.float32, step: float) -> NDArray[np.float32]:
    """Give the levels that oversized cores are cut at: `top`, and multiples of `step` above it.

    Absolute, so that a component is cut in the same places whatever gallery it stands in.
    """
    multiples = (np.arange(1, int(1 / step) + 1, dtype=np.float64) * step).astype(np.float32)
    return np.concatenate([[top], multiples[(multiples > top) & (multiples <= 1.0)]])


def cut_forest(
    face_ids: NDArray[np.int64],
    forest: Edges,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    density: Density,
) -> CoarseGroups:
    """Cut the forest into coarse groups at each threshold [claims 2, 3], none larger than it may be.

    1. Cores: the components at the highest threshold. One of more than `max_size` faces is replaced
       by its components at the next level of the ladder, and so on, unless it is one dense person:
       where the mean cosine between a sample of its faces reaches `dense_cosine` it stays whole.
    2. From the highest threshold down, links join cores, the strongest first. A link is refused
       where the result would exceed its limit: `max_size`, or `core_growth` times its largest core,
       so that a large person can gather its weak images. Groups at a threshold are the state when
       the links reach it, which is why they nest.

    Refusing links instead of cutting whole components keeps a person's weak images with the person:
    on the two real galleries, at 75 to 84 pairs a face, 0.953 and 0.957 of BCubed recall stay
    possible, against 0.945 and 0.946 with a ladder from the lowest threshold (50 and 99 pairs).

    face_ids: int64 `(n,)` ascending, all faces, also those that the forest does not touch.
    forest: strongest edge first. density: gives the mean cosine of the faces whose ids it is
    handed, at most DENSITY_SAMPLE.
    """
    first, second = (
        np.searchsorted(face_ids, forest.first),
        np.searchsorted(face_ids, forest.second),
    )
    cores, core_levels = _cores(face_ids, first, second, forest.cosine, thresholds, config, density)
    keys = np.empty((len(thresholds), len(face_ids)), np.int64)
    levels = np.empty((len(thresholds), len(face_ids)), np.float32)
    keys[-1], levels[-1] = cores, core_levels
    below = forest.cosine < thresholds[-1]
    _join_cores(
        first[below],
        second[below],
        forest.cosine[below],
        thresholds,
        config.max_size,
        config.core_growth,
        keys,
        levels,
    )
    return CoarseGroups(face_ids, thresholds, face_ids[keys], levels)


def density_samples(
    face_ids: NDArray[np.int64],
    forest: Edges,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
) -> list[NDArray[np.int64]]:
    """Give every sample of face ids whose density `cut_forest` may ask for, each once.

    For those who have the vectors elsewhere, and measure before they cut.
    """
    asked: dict[bytes, NDArray[np.int64]] = {}

    def ask(ids: NDArray[np.int64]) -> float:
        asked[ids.tobytes()] = ids
        return -np.inf  # stays in one piece nowhere, so that all levels are seen

    first, second = (np.searchsorted(face_ids, ends) for ends in (forest.first, forest.second))
    _cores(face_ids, first, second, forest.cosine, thresholds, config, ask)
    return list(asked.values())


def _cores(
    face_ids: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    cosine: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    density: Density,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give each vertex its core, by the smallest vertex, and the level that the core stands at."""
    limit = thresholds[0] if config.dense_cosine == "auto" else np.float32(config.dense_cosine)

    def stays_whole(members: NDArray[np.int64]) -> bool:
        ids = face_ids[members]
        return bool(density(ids[sample_rows(ids, DENSITY_SAMPLE, _DENSITY)]) >= limit)

    keys = np.arange(len(face_ids))
    levels = np.ones(len(face_ids), np.float32)
    active = np.arange(len(face_ids))
    for level in ladder(thresholds[-1], config.ladder_step):
        found, sizes = _components_of(active, first, second, cosine >= level, len(face_ids))
        keys[active], levels[active] = found, np.where(sizes > 1, level, np.float32(1.0))
        active = _oversized(active, found, sizes, config.max_size, stays_whole)
        if not len(active):
            break
    # What is still too large at the last level are near-copies: nothing is left to cut them by.
    return keys, levels


def _components_of(
    active: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    strong: NDArray[np.bool_],
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the component key of each active vertex (a vertex number) and the component's size."""
    place = np.full(count, -1)
    place[active] = np.arange(len(active))
    inside = strong & (place[first] >= 0) & (place[second] >= 0)
    local = component_keys(place[first[inside]], place[second[inside]], len(active))
    sizes = np.bincount(local, minlength=len(active))
    return active[local], sizes[local]


def _oversized(
    active: NDArray[np.int64],
    found: NDArray[np.int64],
    sizes: NDArray[np.int64],
    max_size: int,
    stays_whole: Callable[[NDArray[np.int64]], bool],
) -> NDArray[np.int64]:
    """Give the vertices of the components that have to be cut again, ascending."""
    large = sizes > max_size
    again = [members for key in np.unique(found[large]) if not stays_whole(members := active[found == key])]
    return np.sort(np.concatenate(again)) if again else active[:0]


@numba.njit(cache=True)
def _join_cores(first, second, cosine, thresholds, max_size, core_growth, keys, levels):  # type: ignore[no-untyped-def]
    """Join cores (the last row of keys) by ever weaker links; fill the rows of lower thresholds."""
    count = keys.shape[1]
    parent = keys[-1].copy()
    level = levels[-1].copy()
    size = np.zeros(count, np.int64)
    for x in range(count):
        size[parent[x]] += 1
    limit = np.empty(count, np.int64)
    for x in range(count):
        limit[x] = max(max_size, int(size[x] * core_growth))
    row = len(thresholds) - 2
    for i in range(len(first) + 1):
        while row >= 0 and (i == len(first) or cosine[i] < thresholds[row]):
            for x in range(count):
                keys[row, x] = _root(parent, x)
                levels[row, x] = level[keys[row, x]]
            row -= 1
        if row < 0:
            break
        a, b = _root(parent, first[i]), _root(parent, second[i])
        allowed = max(limit[a], limit[b])
        if a == b or size[a] + size[b] > allowed:
            continue
        if a > b:  # the smallest vertex names the group
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        limit[a] = allowed
        level[a] = cosine[i]


@numba.njit(cache=True)
def _root(parent, x):  # type: ignore[no-untyped-def]
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x
