"""Refines groups: similarity matrix, graph convolution, confidences and pair log-odds.

The one refining kernel: `local.py` and the Spark stage call it on the same arrays. What it gives for a
group does not depend on the groups it is batched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import ConfidencesConfig, SimilaritiesConfig
from faceclust_spark.kernels.grid import cosine_matrix, dots_to_cosines, grid_scale
from faceclust_spark.kernels.nearest import (
    NearestMembers,
    Scale,
    nearest_by_matrix,
    nearest_members,
    standardise,
)
from faceclust_spark.kernels.readings import describe_qualities
from faceclust_spark.kernels.relations import NODE_INPUTS, PAIR_INPUTS, node_inputs, pair_inputs
from faceclust_spark.kernels.similarities import attribute_similarities, fuse
from faceclust_spark.kernels.triangles import triangle_inputs, triangle_rows

if TYPE_CHECKING:
    from faceclust_spark.kernels.graph_convolution import GroupTensors
    from faceclust_spark.kernels.model import Model

WEAK_LINK = 0.3  # s; links below it are cut from the matrix that is convolved
LINK_TEMPERATURE = 0.25
LARGEST_FUSED = 3_000  # images of a group whose fused matrix is held, for the patent's letter: 36 MB
CONVOLVED = 64  # links of an image in the matrix that is convolved: its nearest
LOG_ODDS_STEPS = 256  # in one unit
LOG_ODDS_LIMIT = 30.0
ROWS_AT_ONCE = 1_024  # one fixed shape for every matrix product: see fixed_blocks


class Group(NamedTuple):
    """One root group: n images of one gallery, t thresholds."""

    face_ids: NDArray[np.int64]  # (n,) ascending
    vectors: NDArray[np.int16]  # (n, d) on the grid
    attributes: NDArray[np.float32]  # (n, a) standardised, NaN = missing; a may be 0
    norms: NDArray[np.float32]  # (n,) of the raw embeddings; NaN: unknown
    keys: NDArray[np.int64]  # (t, n) group keys, lowest threshold (the root) first


class PairLogOdds(NamedTuple):
    """Refined similarities: log-odds that two images show one person, in steps of 1/256.

    first and second are rows of the group, and empty where every pair is present: then log_odds is the
    upper triangle, row by row.
    """

    first: NDArray[np.int32]  # (p,)
    second: NDArray[np.int32]  # (p,)
    log_odds: NDArray[np.int16]  # (p,)


class Refinement(NamedTuple):
    """What the graph convolution says of a group."""

    confidences: NDArray[np.float32]  # (t, n): that the image is assigned to its group
    pairs: PairLogOdds


class GroupInputs(NamedTuple):
    """A group as the network takes it."""

    nodes: NDArray[np.float32]  # (n, inputs)
    nearest: NearestMembers  # by the matrix that is convolved
    first: NDArray[np.int64]  # (p,)
    second: NDArray[np.int64]
    pairs: NDArray[np.float32]  # (p, PAIR_INPUTS)
    dense: bool


def refine_groups(
    groups: Sequence[Group],
    model: Model,
    config: ConfidencesConfig,
    similarities: SimilaritiesConfig,
    scale: Scale,
) -> list[Refinement]:
    """Give confidences and refined similarities of each group [claims 1, 4].

    Of groups of more than `dense_size` images some pairs are scored: each image with its nearest members
    and with some drawn by hash, so that a large group has negatives too. All pairs score no better there,
    where errors of those that are alike add up. A group of one image has confidence 1 and no pairs.
    """
    import torch

    from faceclust_spark.kernels.graph_convolution import one_torch_thread

    inputs = [describe(group, model.kind, config, similarities, scale) for group in groups]
    with one_torch_thread(), torch.inference_mode():
        return _infer(groups, inputs, model)


def describe(
    group: Group,
    kind: str,
    config: ConfidencesConfig,
    similarities: SimilaritiesConfig,
    scale: Scale,
) -> GroupInputs:
    """Compute a group's inputs for one kind of model."""
    size = len(group.face_ids)
    dense = size <= config.dense_size
    cosines = cosine_matrix(group.vectors, group.vectors) if dense else None
    by_face = nearest_members(group.vectors, scale) if cosines is None else nearest_by_matrix(cosines, scale)
    fused = kind == "literal" and size <= LARGEST_FUSED and group.attributes.shape[1] > 0
    convolved = _nearest_fused(group, similarities, scale) if fused else by_face
    if kind == "literal":
        nobody = np.empty(0, np.int64)
        none = np.empty((0, PAIR_INPUTS), np.float32)
        return GroupInputs(_features(group), convolved, nobody, nobody, none, dense)
    qualities = describe_qualities(group.norms, group.attributes, scale.norms, scale.attributes)
    around = node_inputs(by_face, size, qualities)
    nodes = around if kind == "relations" else np.concatenate([around, _features(group)], 1)
    if cosines is not None:
        first, second = triangle_rows(size)
        pairs = triangle_inputs(standardise(cosines, scale), by_face, around)
    else:
        first, second = _sampled_pairs(group, by_face, config)
        own = standardise(_pair_cosines(group.vectors, first, second), scale)
        pairs = pair_inputs(first, second, own, by_face, around)
    return GroupInputs(nodes, convolved, first, second, pairs, dense)


def _features(group: Group) -> NDArray[np.float32]:
    """Give the unit vectors of a group."""
    return group.vectors.astype(np.float32) / np.float32(grid_scale(max(group.vectors.shape[1], 1)))


def node_width(kind: str, dimension: int) -> int:
    """Give the number of inputs of an image for a kind of model."""
    return {"relations": NODE_INPUTS, "bound": NODE_INPUTS + dimension, "literal": dimension}[kind]


def to_tensors(groups: Sequence[Group], inputs: Sequence[GroupInputs]) -> GroupTensors:
    """Put groups one after the other into tensors; a group's links stay within its rows."""
    import torch

    from faceclust_spark.kernels.graph_convolution import GroupTensors

    sizes = [len(group.face_ids) for group in groups]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    width = 1 + min(max((one.nearest.rows.shape[1] for one in inputs), default=0), CONVOLVED)
    edges = np.tile(np.arange(starts[-1])[:, None], (1, width))
    weights = np.zeros((starts[-1], width), np.float32)
    for start, size, one in zip(starts, sizes, inputs, strict=False):
        links = min(one.nearest.rows.shape[1], CONVOLVED)
        edges[start : start + size, 1 : links + 1] = one.nearest.rows[:, :links] + start
        weights[start : start + size, : links + 1] = link_weights(one.nearest.similarity[:, :links])
    keys = [
        np.unique(np.concatenate([group.keys[row] for group in groups]), return_inverse=True)[1]
        for row in range(len(groups[0].keys))
    ]
    return GroupTensors(
        torch.from_numpy(np.concatenate([one.nodes for one in inputs])),
        torch.from_numpy(edges),
        torch.from_numpy(weights),
        torch.from_numpy(np.stack(keys).astype(np.int64)),
        int(max(key.max() for key in keys)) + 1,
    )


def link_weights(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Preprocess the similarity matrix [1]: itself first, weak links cut, each row normalised.

    exp((s - 1) / 0.25) where s > 0.3, and 1 for the image itself. Shapes: `(n, k)` to `(n, k + 1)`.
    """
    near = np.minimum(similarity, np.float32(1.0))
    links = np.exp((near - np.float32(1.0)) / np.float32(LINK_TEMPERATURE))
    links = np.where(similarity > np.float32(WEAK_LINK), links, np.float32(0.0))
    links = np.concatenate([np.ones((len(links), 1), np.float32), links], 1)
    weights: NDArray[np.float32] = links / links.sum(axis=1, keepdims=True)
    return weights


def _infer(groups: Sequence[Group], inputs: Sequence[GroupInputs], model: Model) -> list[Refinement]:
    import torch

    from faceclust_spark.kernels.graph_convolution import fixed_blocks
    from faceclust_spark.kernels.pair_head import GroupPairs, Images, pair_log_odds

    rows = fixed_blocks(ROWS_AT_ONCE)
    network = model.network
    tensors = to_tensors(groups, inputs)
    hidden = network.embed(tensors, rows)
    logits = network.confidences(hidden, tensors, rows)
    # In blocks too: torch takes another sigmoid for the last few values than for those before.
    confidences = rows(torch.nn.Sigmoid(), logits.T).T.contiguous().numpy()
    starts = np.cumsum([0, *(len(group.face_ids) for group in groups)])
    ends = np.cumsum([len(one.first) for one in inputs])
    log_odds = np.empty(0, np.int16)
    if ends[-1]:
        pairs = [
            GroupPairs(s, one.first, one.second, one.pairs) for s, one in zip(starts, inputs, strict=False)
        ]
        images = Images(hidden.numpy(), confidences, tensors.keys.numpy())
        log_odds = round_log_odds(pair_log_odds(network, images, pairs, ROWS_AT_ONCE))
    return [
        _refinement(one, confidences[:, start:end].copy(), own.copy(), end - start)
        for one, start, end, own in zip(
            inputs, starts[:-1], starts[1:], np.split(log_odds, ends[:-1]), strict=True
        )
    ]


def _refinement(
    one: GroupInputs, confidences: NDArray[np.float32], log_odds: NDArray[np.int16], size: int
) -> Refinement:
    if size == 1:
        confidences = np.ones_like(confidences)
    empty = np.empty(0, np.int32)
    if one.dense:
        return Refinement(confidences, PairLogOdds(empty, empty, log_odds))
    return Refinement(
        confidences, PairLogOdds(one.first.astype(np.int32), one.second.astype(np.int32), log_odds)
    )


def round_log_odds(log_odds: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round to steps of 1/256, within +-30, so that sums and comparisons are exact."""
    limited = np.clip(log_odds, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    return np.rint(limited * LOG_ODDS_STEPS).astype(np.int16)


def _nearest_fused(group: Group, similarities: SimilaritiesConfig, scale: Scale) -> NearestMembers:
    """Give the nearest members by the fused similarity matrix, for the patent's letter."""
    face = standardise(cosine_matrix(group.vectors, group.vectors), scale)
    fused = fuse(face, attribute_similarities(group.attributes), similarities)
    np.fill_diagonal(fused, -np.inf)
    order = np.argsort(-fused, axis=1, kind="stable")[:, : min(CONVOLVED, len(fused) - 1)]
    return NearestMembers(order.astype(np.int32), np.take_along_axis(fused, order, 1))


def _pair_cosines(
    vectors: NDArray[np.int16], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    dots = _pair_dots(vectors, first, second)  # exact integers, so the same bits as in a matrix product
    return dots_to_cosines(dots, vectors.shape[1])


@numba.njit(cache=True, nogil=True)
def _pair_dots(vectors, first, second):  # type: ignore[no-untyped-def]
    dots = np.empty(len(first), np.float32)
    for p in range(len(first)):
        one, other = vectors[first[p]], vectors[second[p]]
        dot = np.int32(0)
        for k in range(len(one)):
            dot += np.int32(one[k]) * np.int32(other[k])
        dots[p] = dot
    return dots


def _sampled_pairs(
    group: Group, nearest: NearestMembers, config: ConfidencesConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the pairs of a large group that are scored: near ones, and others drawn by hash.

    Each image is paired with those at fixed steps behind it in an order that is random (face ids are
    hashes) but the same everywhere.
    """
    size = len(group.face_ids)
    near = nearest.rows[:, : config.block_neighbours].astype(np.int64)
    rows = np.arange(size)
    steps = np.unique(np.linspace(1, size - 1, config.block_negatives + 2)[1:-1].astype(np.int64))
    others = (rows[:, None] + steps) % size
    left = np.concatenate([np.repeat(rows, near.shape[1]), np.repeat(rows, others.shape[1])])
    right = np.concatenate([near.ravel(), others.ravel()])
    code = np.sort(np.minimum(left, right) * size + np.maximum(left, right))
    code = code[np.append(True, code[1:] != code[:-1])]
    return code // size, code % size
