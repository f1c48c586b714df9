"""Coarse groups: the forest's components at each first threshold, oversized ones cut again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import CoarseGroupsConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.forest import ContractedEdges, Edges, component_keys, strength_order
from faceclust_spark.kernels.ids import sample_rows

DENSITY_SAMPLE = 256  # faces of a component that its density is measured on
BUCKETS = 1 << 14  # to a cosine of 1: links of one bucket are never parted
DENSITY = "density"  # purpose of that sample

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


class Cores(NamedTuple):
    """What groups grow from: components at the highest threshold, or at a higher level where too large."""

    face_ids: NDArray[np.int64]  # (n,) ascending
    keys: NDArray[np.int64]  # (n,): the smallest face id of the core
    levels: NDArray[np.float32]  # (n,)


class Groups(NamedTuple):
    """Groups on their way from the highest threshold to the lowest."""

    keys: NDArray[np.int64]  # (g,) ascending, each once
    levels: NDArray[np.float32]
    sizes: NDArray[np.int64]  # faces
    limits: NDArray[np.int64]  # faces that the group may have at most


class JoinedGroups(NamedTuple):
    """What became of groups: row by row, the group that each is part of now."""

    keys: NDArray[np.int64]
    groups: Groups  # keys repeat


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
    first, second = (np.searchsorted(face_ids, ends) for ends in (forest.first, forest.second))
    steps = ladder(thresholds[-1], config.ladder_step)
    keys = np.empty((len(thresholds), len(face_ids)), np.int64)
    levels = np.empty((len(thresholds), len(face_ids)), np.float32)
    keys[-1], levels[-1] = _cores(face_ids, first, second, forest.cosine, steps, thresholds, config, density)
    parent, level = keys[-1].copy(), levels[-1].copy()
    size = np.bincount(parent, minlength=len(face_ids))
    limit = size_limits(size, config)
    for row in range(len(thresholds) - 2, -1, -1):
        band = (forest.cosine >= thresholds[row]) & (forest.cosine < thresholds[row + 1])
        _join(first[band], second[band], forest.cosine[band], parent, level, size, limit)
        keys[row] = parent
        levels[row] = level[parent]
    return CoarseGroups(face_ids, thresholds, face_ids[keys], levels)


def cut_cores(
    pieces: Edges,
    steps: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    density: Density,
) -> Cores:
    """Give the cores, as `cut_forest` does, of pieces that it would come upon at the first of `steps`.

    pieces: all edges of the forest, at or above that level, of some of its components there. steps: the
    ladder from that level on.
    """
    face_ids = np.unique(np.concatenate([pieces.first, pieces.second]))
    first, second = (np.searchsorted(face_ids, ends) for ends in (pieces.first, pieces.second))
    keys, levels = _cores(face_ids, first, second, pieces.cosine, steps, thresholds, config, density)
    return Cores(face_ids, face_ids[keys], levels)


def join_groups(links: ContractedEdges, groups: Groups) -> JoinedGroups:
    """Join groups by the links between them, the strongest first, as the second part of `cut_forest`.

    links: every link of the forest in some range of cosine, between the groups that all stronger ones
    have made. groups: those that the links touch. Their state is all that a decision depends on: so the
    links may come in any number of such ranges, the strongest first.
    """
    order = strength_order(links)
    first, second = (np.searchsorted(groups.keys, ends[order]) for ends in (links.start, links.end))
    parent, level = np.arange(len(groups.keys)), groups.levels.copy()
    size, limit = groups.sizes.copy(), groups.limits.copy()
    _join(first, second, links.cosine[order], parent, level, size, limit)
    joined = Groups(groups.keys[parent], level[parent], size[parent], limit[parent])
    return JoinedGroups(groups.keys, joined)


def cut_bands(counts: dict[int, int], thresholds: NDArray[np.float32], limit: int) -> list[np.float32]:
    """Give the lowest cosine of each band of links, descending; each threshold but the highest ends one.

    counts: the links below the highest threshold by floor(cosine * BUCKETS). Few bands of at most `limit`
    links each. Raises ConfigError where one bucket holds more.
    """
    held, ends = 0, [*thresholds[:-1]]
    for bucket in sorted(counts, reverse=True):
        if counts[bucket] > limit:
            raise ConfigError(
                f"coarse_groups.max_forest_edges = {limit:,}, and {counts[bucket]:,} links of the forest "
                f"have a cosine of {bucket / BUCKETS:.4f}, to 1/{BUCKETS}: one task has to take them "
                "together, in about 300 bytes each; raise the limit where an executor has that much memory"
            )
        if held + counts[bucket] > limit:
            ends.append(np.float32((bucket + 1) / BUCKETS))
            held = 0
        held += counts[bucket]
    return sorted(set(ends), reverse=True)


def size_limits(sizes: NDArray[np.int64], config: CoarseGroupsConfig) -> NDArray[np.int64]:
    """Give how many faces a group may have that holds a core of each of these sizes."""
    return np.maximum(config.max_size, (sizes * config.core_growth).astype(np.int64))


def is_dense(mean: float, thresholds: NDArray[np.float32], config: CoarseGroupsConfig) -> bool:
    """Tell whether a component of this density, by `mean_cosine` of its sample, stays in one piece."""
    least = thresholds[0] if config.dense_cosine == "auto" else np.float32(config.dense_cosine)
    return bool(np.float32(mean) >= least)


def density_samples(
    forest: Edges, steps: NDArray[np.float32], thresholds: NDArray[np.float32], config: CoarseGroupsConfig
) -> list[NDArray[np.int64]]:
    """Give every sample of face ids whose density `cut_cores` may ask for, each once.

    For those who have the vectors elsewhere, and measure before they cut. `cut_forest` asks for those of
    the whole ladder.
    """
    asked: dict[bytes, NDArray[np.int64]] = {}

    def ask(ids: NDArray[np.int64]) -> float:
        asked[ids.tobytes()] = ids
        return -np.inf  # stays in one piece nowhere, so that all levels are seen

    cut_cores(forest, steps, thresholds, config, ask)
    return list(asked.values())


def _cores(
    face_ids: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    cosine: NDArray[np.float32],
    steps: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    density: Density,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give each vertex its core, by the smallest vertex, and the level that the core stands at."""

    def stays_whole(members: NDArray[np.int64]) -> bool:
        ids = face_ids[members]
        return is_dense(density(ids[sample_rows(ids, DENSITY_SAMPLE, DENSITY)]), thresholds, config)

    keys = np.arange(len(face_ids))
    levels = np.ones(len(face_ids), np.float32)
    active = np.arange(len(face_ids))
    for level in steps:
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
def _join(first, second, cosine, parent, level, size, limit):  # type: ignore[no-untyped-def]
    """Join groups by ever weaker links, in place; afterwards `parent` is every vertex's group."""
    for i in range(len(first)):
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
    for x in range(len(parent)):
        parent[x] = _root(parent, x)


@numba.njit(cache=True)
def _root(parent, x):  # type: ignore[no-untyped-def]
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x
