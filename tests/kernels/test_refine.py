import numpy as np
import pytest
import torch

from faceclust_spark.config import ConfidencesConfig, SimilaritiesConfig
from faceclust_spark.kernels.graph_convolution import Network
from faceclust_spark.kernels.grid import cosine_matrix, grid_scale, normalise, quantise
from faceclust_spark.kernels.model import Model
from faceclust_spark.kernels.nearest import Scale, standardise
from faceclust_spark.kernels.norms import NormScale
from faceclust_spark.kernels.readings import AttributeWeights, describe_qualities
from faceclust_spark.kernels.refine import (
    LOG_ODDS_LIMIT,
    LOG_ODDS_STEPS,
    Group,
    describe,
    link_weights,
    node_width,
    refine_groups,
    round_log_odds,
    to_tensors,
)
from faceclust_spark.kernels.relations import NODE_INPUTS, PAIR_INPUTS, node_inputs
from faceclust_spark.kernels.similarities import attribute_similarities

WEIGHTS = AttributeWeights((0.5, -0.2, 0.0, 0.1), (0.0, 0.6, 0.0, -0.1))
SCALE = Scale(0.0, 0.125, NormScale(0.05, 0.2), WEIGHTS)
WIDTH = 64
KINDS = ["relations", "bound", "literal"]


def make_group(size, seed=0, people=3, attributes=4):
    generator = np.random.default_rng((seed, size))
    centres = normalise(generator.normal(size=(people, WIDTH)))
    noise = normalise(generator.normal(size=(size, WIDTH)))
    vectors = quantise(normalise(centres[generator.integers(people, size=size)] + noise))
    face_ids = np.sort(generator.choice(2**62, size, replace=False))
    own = generator.normal(size=(size, attributes)).astype(np.float32)
    own[generator.random(own.shape) < 0.2] = np.nan
    keys = np.empty((3, size), np.int64)
    labels = np.zeros(size, np.int64)
    for row in range(3):
        for label in np.unique(labels):
            keys[row, labels == label] = face_ids[labels == label].min()
        labels = 2 * labels + generator.integers(2, size=size)
    norms = np.exp(0.2 * generator.normal(size=size)).astype(np.float32)
    norms[generator.random(size) < 0.1] = np.nan
    return Group(face_ids, vectors, own, norms, keys)


def make_model(kind="relations", seed=0):
    torch.manual_seed(seed)
    width = node_width(kind, WIDTH)
    network = Network(width, 0 if kind == "literal" else PAIR_INPUTS, 16, 2)
    for _, parameter in network.named_parameters():
        parameter.data.mul_(1.5)
    return Model(network.eval(), {"kind": kind})


def refine(groups, kind="relations", similarities=None, **changes):
    return refine_groups(
        groups, make_model(kind), ConfidencesConfig(**changes), similarities or SimilaritiesConfig(), SCALE
    )


def assert_same_bits(one, other):
    np.testing.assert_array_equal(one.confidences, other.confidences)
    for left, right in zip(one.pairs, other.pairs, strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


SIZES = [1, 2, 3, 7, 30, 64, 65, 66, 150]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_a_group_do_not_depend_on_its_batch(kind):
    groups = [make_group(size, attributes=size % 2 * 4) for size in SIZES]
    alone = [refine([group], kind, dense_size=100)[0] for group in groups]
    for order in (range(9), reversed(range(9)), [4, 8, 0], [8, 1], [3, 2, 7]):
        places = list(order)
        together = refine([groups[place] for place in places], kind, dense_size=100)
        for place, found in zip(places, together, strict=True):
            assert_same_bits(found, alone[place])


def test_the_bits_of_a_group_do_not_depend_on_what_else_is_in_a_block():
    # Thousands of faces push a group over the end of a block of rows.
    group, company = make_group(40), [make_group(50, seed=seed) for seed in range(1, 43)]
    alone = refine([group])[0]
    for place in (19, 20, 21, 42):
        assert_same_bits(refine([*company[:place], group, *company[place:]])[place], alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_ranges(kind, size):
    found = refine([make_group(size)], kind, dense_size=100, block_neighbours=20, block_negatives=10)[0]
    assert (found.confidences.shape, found.confidences.dtype) == ((3, size), np.float32)
    assert (found.confidences >= 0).all() and (found.confidences <= 1).all()
    pairs = found.pairs
    assert [part.dtype for part in pairs] == [np.int32, np.int32, np.int16]
    if kind == "literal":
        assert [len(part) for part in pairs] == [0, 0, 0]
    elif size <= 100:
        assert [len(part) for part in pairs] == [0, 0, size * (size - 1) // 2]
    else:
        assert len(pairs.first) == len(pairs.second) == len(pairs.log_odds) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_alone_is_sure_and_has_no_pairs(kind):
    found = refine([make_group(1)], kind)[0]
    np.testing.assert_array_equal(found.confidences, np.ones((3, 1)))
    assert len(found.pairs.log_odds) == 0


def test_all_pairs_in_blocks_are_the_pairs_of_a_dense_group():
    group = make_group(60)
    dense = refine([group])[0]
    blocks = refine([group], dense_size=2, block_neighbours=59, block_negatives=1)[0]
    np.testing.assert_array_equal(np.stack(blocks.pairs[:2]), np.triu_indices(60, 1))
    np.testing.assert_array_equal(blocks.pairs.log_odds, dense.pairs.log_odds)
    np.testing.assert_array_equal(blocks.confidences, dense.confidences)


@pytest.mark.parametrize(("neighbours", "negatives"), [(1, 1), (5, 3), (64, 32)])
@pytest.mark.parametrize("size", [3, 20, 150])
def test_a_large_group_scores_near_pairs_and_negatives(size, neighbours, negatives):
    group = make_group(size)
    settings = {"dense_size": 2, "block_neighbours": neighbours, "block_negatives": negatives}
    found, dense = refine([group], **settings)[0], refine([group])[0]
    first, second = found.pairs.first, found.pairs.second
    assert (first < second).all()
    code = first.astype(np.int64) * size + second
    assert (np.diff(code) > 0).all()
    assert len(code) <= size * (neighbours + negatives)
    cosines = cosine_matrix(group.vectors, group.vectors)
    np.fill_diagonal(cosines, -2)
    scored = np.zeros((size, size), bool)
    scored[first, second] = scored[second, first] = True
    for row in range(size):
        near = np.argsort(-cosines[row], kind="stable")[: min(neighbours, size - 1)]
        assert scored[row, near].all()
    if size == 150 and neighbours < 64:
        assert (np.delete(scored, near, 1).sum(axis=1) > 0).mean() > 0.9
        far = cosines[first, second] < np.median(cosines)
        assert far.sum() >= 0.2 * size * negatives
    triangle = np.full((size, size), 0, np.int64)
    triangle[np.triu_indices(size, 1)] = dense.pairs.log_odds
    np.testing.assert_array_equal(found.pairs.log_odds, triangle[first, second])


def test_pairs_in_many_portions_are_those_of_one(monkeypatch):
    group = make_group(70)
    whole = refine([group])[0].pairs.log_odds.astype(int)
    monkeypatch.setattr("faceclust_spark.kernels.refine.ROWS_AT_ONCE", 8)  # 512 pairs at once, of 2,415
    portions = refine([group])[0].pairs.log_odds.astype(int)
    assert np.abs(portions - whole).max() <= 1  # another shape of products may change the last bit


def test_similarities_of_many_sampled_pairs_are_exact():
    group = make_group(1_100)
    inputs = describe_as(group, "relations", dense_size=2)
    assert len(inputs.first) > 65_536  # more than are taken at once
    cosines = cosine_matrix(group.vectors, group.vectors)[inputs.first, inputs.second]
    np.testing.assert_array_equal(inputs.pairs[:, 0], standardise(cosines, SCALE))


def test_log_odds_are_rounded_and_limited():
    values = np.array([0, 1, -1, 0.001, 0.0021, 29.999, 30.1, -1e9, np.inf, 1 / 512, 3 / 512], np.float32)
    expected = [0, 256, -256, 0, 1, 7680, 7680, -7680, 7680, 0, 2]  # halves to even
    assert round_log_odds(values).tolist() == expected
    assert LOG_ODDS_LIMIT * LOG_ODDS_STEPS < 2**15


def test_link_weights_are_a_normalised_row_with_itself_first():
    similarity = np.array([[1.4, 1.0, 0.75, 0.31, 0.3, 0.29, -1, -np.inf], [0.0] * 8], np.float32)
    weights = link_weights(similarity)
    links = np.array([1, 1, 1, np.exp(-1), np.exp((0.31 - 1) / 0.25), 0, 0, 0, 0])
    np.testing.assert_allclose(weights[0], links / links.sum(), rtol=1e-6)
    np.testing.assert_array_equal(weights[1], [1] + [0] * 8)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(link_weights(np.empty((2, 0), np.float32)), [[1], [1]])


def describe_as(group, kind, similarities=None, **changes):
    return describe(group, kind, ConfidencesConfig(**changes), similarities or SimilaritiesConfig(), SCALE)


def test_each_kind_sees_what_it_may():
    group = make_group(20)
    features = group.vectors.astype(np.float32) / grid_scale(WIDTH)
    relations, bound, literal = (describe_as(group, kind) for kind in KINDS)
    qualities = describe_qualities(group.norms, group.attributes, SCALE.norms, WEIGHTS)
    assert (qualities.std(axis=0) > 0.1).all()
    np.testing.assert_array_equal(relations.nodes, node_inputs(relations.nearest, 20, qualities))
    np.testing.assert_array_equal(bound.nodes, np.concatenate([relations.nodes, features], 1))
    np.testing.assert_array_equal(literal.nodes, features)
    np.testing.assert_array_equal(bound.pairs, relations.pairs)
    assert literal.pairs.shape == (0, PAIR_INPUTS)
    widths = [one.nodes.shape[1] for one in (relations, bound, literal)]
    assert widths == [node_width(kind, WIDTH) for kind in KINDS]
    assert widths == [NODE_INPUTS, NODE_INPUTS + WIDTH, WIDTH]


def test_the_fused_matrix_is_convolved_whether_all_pairs_are_scored_or_not():
    group = make_group(60)
    other = group._replace(attributes=group.attributes[::-1])
    similarities = SimilaritiesConfig(face_weight=0.3)
    for dense_size in (59, 60):
        one, two = (describe_as(g, "literal", similarities, dense_size=dense_size) for g in (group, other))
        assert (one.nearest.rows != two.nearest.rows).any()


@pytest.mark.parametrize("size", [2, 20, 100])
@pytest.mark.parametrize(
    "similarities", [SimilaritiesConfig(face_weight=0.3), SimilaritiesConfig(fusion="product")]
)
def test_the_literal_kind_convolves_the_fused_matrix(size, similarities):
    group = make_group(size)
    nearest = describe_as(group, "literal", similarities).nearest
    face = standardise(cosine_matrix(group.vectors, group.vectors), SCALE).astype(np.float64)
    attribute = attribute_similarities(group.attributes).astype(np.float64)
    if similarities.fusion == "product":
        fused = np.where(face > 0, face * (1 + attribute) / 2, face)
    else:
        fused = 0.3 * face + 0.7 * attribute
    np.fill_diagonal(fused, -np.inf)
    expected = -np.sort(-fused, axis=1)[:, : min(64, size - 1)]
    np.testing.assert_allclose(nearest.similarity, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(fused, nearest.rows, 1), expected, rtol=1e-5, atol=1e-6)
    assert (nearest.rows != np.arange(size)[:, None]).all()


def test_the_convolution_takes_the_nearest_64_of_longer_lists():
    groups = [make_group(size) for size in (100, 30)]
    inputs = [describe_as(group, "relations") for group in groups]
    assert [one.nearest.rows.shape[1] for one in inputs] == [99, 29]
    tensors = to_tensors(groups, inputs)
    assert tensors.edges.shape == tensors.weights.shape == (130, 65)
    np.testing.assert_array_equal(tensors.edges[:100, 1:], inputs[0].nearest.rows[:, :64])
    np.testing.assert_array_equal(tensors.weights[:100], link_weights(inputs[0].nearest.similarity[:, :64]))
    np.testing.assert_array_equal(tensors.edges[100:, 1:30], inputs[1].nearest.rows + 100)
    assert (tensors.weights[100:, 30:] == 0).all()


@pytest.mark.parametrize("kind", ["relations", "bound"])
def test_readings_of_attributes_reach_confidences_and_log_odds(kind):
    group = make_group(30)
    other = group._replace(attributes=group.attributes[::-1])
    one, two = (refine([g], kind)[0] for g in (group, other))
    assert np.abs(one.confidences - two.confidences).max() > 1e-4
    assert (one.pairs.log_odds != two.pairs.log_odds).any()


def test_attributes_reach_the_confidences_of_the_literal_kind():
    group = make_group(30)
    without = group._replace(attributes=group.attributes[:, :0])
    one, other = (refine([g], "literal", SimilaritiesConfig(face_weight=0.5))[0] for g in (group, without))
    assert np.abs(one.confidences - other.confidences).max() > 1e-4
    faces_only = refine([group], "literal", SimilaritiesConfig(face_weight=1.0))[0]
    np.testing.assert_allclose(faces_only.confidences, other.confidences, rtol=1e-4)


def test_refining_leaves_torch_threads_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        refine([make_group(5)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
