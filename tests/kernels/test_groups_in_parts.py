"""Groups of forests too large for one task: cut by component and band as at once."""

import numpy as np
import pytest
from graphs import THRESHOLDS, components, config, random_graph

from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.forest import ContractedEdges, Edges, maximum_spanning_forest
from faceclust_spark.kernels.groups import (
    BUCKETS,
    Groups,
    cut_bands,
    cut_cores,
    cut_forest,
    join_groups,
    ladder,
    size_limits,
)


def piecewise_density(ids):
    """Call some components dense, by their faces alone, the larger the rarer."""
    return 1.0 if int(ids.min()) % 3 == 0 else 0.0


@pytest.mark.parametrize("limit", [1, 3, 17, 10**6])
@pytest.mark.parametrize("seed", range(12))
def test_groups_cut_in_pieces_and_bands_equal_those_cut_at_once(seed, limit):
    ids, edges = random_graph(seed)
    forest, settings = maximum_spanning_forest(edges), config(6)
    expected = cut_forest(ids, forest, THRESHOLDS, settings, piecewise_density)
    keys, levels = cores_by_component(ids, forest, settings)
    np.testing.assert_array_equal(keys, expected.keys[-1])
    np.testing.assert_array_equal(levels, expected.levels[-1])
    group, top, row = cores_as_groups(keys, levels, settings), THRESHOLDS[-1], len(THRESHOLDS) - 2
    below = forest.cosine < THRESHOLDS[-1]
    buckets = np.floor(forest.cosine[below & (forest.cosine >= THRESHOLDS[0])] * BUCKETS).astype(int)
    counts = dict(zip(*(part.tolist() for part in np.unique(buckets, return_counts=True)), strict=True))
    bands = cut_bands(counts, THRESHOLDS, max(limit, *counts.values()))
    assert limit > 10 or len(bands) > len(THRESHOLDS)
    core = np.searchsorted(group.keys, keys)
    now = group
    for lowest in bands:
        band = (forest.cosine >= lowest) & (forest.cosine < top)
        now = joined(
            now, core, ids, take(forest, np.random.default_rng(seed).permutation(np.flatnonzero(band)))
        )
        if lowest == THRESHOLDS[row]:
            np.testing.assert_array_equal(now.keys[core], expected.keys[row])
            np.testing.assert_array_equal(now.levels[core], expected.levels[row])
            row -= 1
        top = lowest
    assert row == -1


def take(edges, rows):
    return Edges(*(column[rows] for column in edges))


def cores_by_component(ids, forest, settings):
    """Cut each component at the highest threshold on its own, from its own edges."""
    keys, levels = ids.copy(), np.ones(len(ids), np.float32)
    for component in components(ids, forest, THRESHOLDS[-1]):
        inside = np.isin(forest.first, list(component)) & (forest.cosine >= THRESHOLDS[-1])
        steps = ladder(THRESHOLDS[-1], settings.ladder_step)
        own = cut_cores(take(forest, inside), steps, THRESHOLDS, settings, piecewise_density)
        place = np.searchsorted(ids, own.face_ids)
        keys[place], levels[place] = own.keys, own.levels
    return keys, levels


def cores_as_groups(keys, levels, settings):
    names, first, sizes = np.unique(keys, return_index=True, return_counts=True)
    return Groups(names, levels[first], sizes, size_limits(sizes, settings))


def joined(now, core, ids, band):
    """Join the groups of one band; `now` has a row a core, what it has become."""
    start, end = (now.keys[core[np.searchsorted(ids, ends)]] for ends in (band.first, band.second))
    touched, first = np.unique(now.keys, return_index=True)
    inside = np.isin(touched, np.concatenate([start, end]))
    given = Groups(*(column[first[inside]] for column in now))
    found = join_groups(ContractedEdges(start, end, *band), given)
    place = np.searchsorted(found.keys, now.keys).clip(max=max(len(found.keys) - 1, 0))
    if not len(found.keys):
        return now
    changed = found.keys[place] == now.keys
    return Groups(*(np.where(changed, new[place], old) for new, old in zip(found.groups, now, strict=True)))


def test_too_many_links_of_one_strength_are_refused():
    with pytest.raises(ConfigError, match=r"max_forest_edges = 10, and 11 links .* a cosine of 0\.4000, to"):
        cut_bands({6553: 11, 6554: 2}, THRESHOLDS, 10)
    assert cut_bands({6553: 8, 6554: 2, 6555: 1}, THRESHOLDS, 10) == pytest.approx(
        [0.45, 6554 / BUCKETS, 0.3]
    )
