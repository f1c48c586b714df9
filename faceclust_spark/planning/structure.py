"""What the neighbour graph of the full gallery is like, from a sample that has lost most of its links."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import Config
from faceclust_spark.kernels.cells import sample_size, train_cells
from faceclust_spark.kernels.forest import Edges, edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.grouping import scored_pairs
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, mean_cosine
from faceclust_spark.kernels.neighbours import NeighbourLists, find_neighbours
from faceclust_spark.kernels.people import People, find_people, person_sizes
from faceclust_spark.kernels.stand_in import draw_stand_in, stand_in_dimension, thin_people
from faceclust_spark.kernels.thresholds import Thresholds, choose_thresholds

STAND_IN = 40_000  # faces of a stand-in, at most
_SMALLEST_STAND_IN = 5_000
CORRECTION = 0.25  # power of the ratio: 0 leaves pairs 1.0 to 1.4 times too many, 1 has 0.5 to 1.2 of them


class Grouped(NamedTuple):
    """A gallery that was grouped in this process."""

    coarse: CoarseGroups
    vectors: NDArray[np.int16]  # (n, d) in the order of coarse.face_ids
    entries: float  # neighbours kept, a face


class Structure(NamedTuple):
    """The neighbour graph and root groups of the full gallery."""

    pairs: float  # refined, a face
    groups: float  # root groups, a face
    alone: float  # share of faces whose root group is the face alone
    entries: float  # neighbours kept, a face
    largest: int  # faces of the largest root group, about
    uncorrected: float  # pairs a face, as the stand-in has them
    people: People | None  # None where the sample is the gallery
    grouped: Grouped  # what refinement can be measured on


def structure_of(
    vectors: NDArray[np.int16], share: float, faces: int, sampled: Grouped, config: Config
) -> Structure:
    """Predict the structure of a gallery of `faces` faces.

    vectors: grid vectors `(m, d)` of the sample in random order. share: of each person's faces that are in
    it. sampled: the sample, grouped by itself. Where the sample is the gallery, its structure is it.

    The stand-in knows people and chance links, but not what else a gallery has (families, blurred faces that
    resemble each other). How far it is wrong shows at the sample's own size, where both can be grouped; a
    part of that ratio corrects the prediction (tests/benchmarks/plan.py compares).
    """
    count = len(vectors)
    if share == 1.0 and faces == count:
        return _summary(sampled, config, 1.0, None)
    people = find_people(vectors, share, faces, _thresholds(vectors, faces, config))
    size = min(faces, STAND_IN, max(4 * count, _SMALLEST_STAND_IN))
    whole = group_stand_in(vectors, person_sizes(people, size), faces, people, config)
    # Whole people, so many that the share of them is a sample of the same size.
    thinned = thin_people(person_sizes(people, round(count / share)), share, seed=1)
    likewise = group_stand_in(vectors, thinned, int(thinned.sum()), people, config)
    known, stood_in = (pairs_per_face(_sizes(one), config) for one in (sampled, likewise))
    return _summary(whole, config, (known / stood_in) ** CORRECTION if known and stood_in else 1.0, people)


def group_stand_in(
    vectors: NDArray[np.int16], sizes: NDArray[np.int64], gallery: int, people: People, config: Config
) -> Grouped:
    """Group a stand-in with people of these sizes for a gallery of `gallery` faces, at its thresholds.

    vectors: of the sample, which the thresholds are chosen by.
    """
    chosen = _thresholds(vectors, gallery, config)
    dimension = stand_in_dimension(int(sizes.sum()), gallery, chosen)
    faces = draw_stand_in(sizes, people.likeness, dimension, seed=0)
    centred = chosen._replace(
        floor=chosen.floor - chosen.mean, groups=tuple(level - chosen.mean for level in chosen.groups)
    )
    return group_gallery(np.arange(len(faces)), faces, centred, config)


def group_gallery(
    face_ids: NDArray[np.int64], vectors: NDArray[np.int16], thresholds: Thresholds, config: Config
) -> Grouped:
    """Find neighbours and coarse groups at given thresholds. Shapes: `(n,)` ascending, `(n, d)`."""
    cells = train_cells(vectors[: sample_size(len(vectors), config.cells)], len(vectors), config.cells)
    lists = find_neighbours(face_ids, vectors, cells, thresholds.floor, config.neighbours)
    return cut_lists(lists, maximum_spanning_forest(edges_of_lists(lists)), vectors, thresholds, config)


def cut_lists(
    lists: NeighbourLists,
    forest: Edges,
    vectors: NDArray[np.int16],
    thresholds: Thresholds,
    config: Config,
) -> Grouped:
    """Cut the forest of neighbour lists into coarse groups. Rows of vectors follow the lists' face ids."""
    coarse = cut_forest(
        lists.face_ids,
        forest,
        np.array(thresholds.groups, np.float32),
        config.coarse_groups,
        lambda ids: mean_cosine(vectors[np.searchsorted(lists.face_ids, ids)]),
    )
    return Grouped(coarse, vectors, len(lists.neighbours) / len(lists.face_ids))


def pairs_per_face(sizes: NDArray[np.int64], config: Config) -> float:
    """Give the pairs that refining root groups of these sizes scores, a face."""
    values, counts = np.unique(sizes, return_counts=True)
    pairs = [scored_pairs(size, config.confidences) for size in values.tolist()]
    return float(np.dot(pairs, counts) / max(sizes.sum(), 1))


def _sizes(grouped: Grouped) -> NDArray[np.int64]:
    return np.unique(grouped.coarse.keys[0], return_counts=True)[1]


def _thresholds(vectors: NDArray[np.int16], faces: int, config: Config) -> Thresholds:
    sample = vectors[: config.coarse_groups.random_pairs_sample]
    return choose_thresholds(sample, faces, config.neighbours, config.coarse_groups)


def _summary(grouped: Grouped, config: Config, correction: float, people: People | None) -> Structure:
    sizes = _sizes(grouped)
    faces = int(sizes.sum())
    pairs = pairs_per_face(sizes, config)
    return Structure(
        pairs=pairs * correction,
        groups=len(sizes) / faces,
        alone=int((sizes == 1).sum()) / faces,
        entries=grouped.entries,
        largest=int(sizes.max()),
        uncorrected=pairs,
        people=people,
        grouped=grouped,
    )
