"""The inputs of a model that serves any embedding, against a plain reference of its docstrings."""

import numpy as np
import pytest

from faceclust_spark.kernels import nearest as nearest_kernel
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.nearest import Scale, nearest_members, standardise
from faceclust_spark.kernels.readings import QUALITIES
from faceclust_spark.kernels.relations import (
    NODE_INPUTS,
    PAIR_INPUTS,
    node_inputs,
    pair_inputs,
)

SCALE = Scale(0.05, 0.09)


def random_group(count, seed=0, copies=0, people=3, noise=1.0):
    generator = np.random.default_rng(seed)
    centres = normalise(generator.normal(size=(people, 32)))
    raw = centres[generator.integers(people, size=count)] + noise * normalise(
        generator.normal(size=(count, 32))
    )
    vectors = quantise(normalise(raw))
    if copies:
        vectors[-copies:] = vectors[:copies]
    return vectors


def qualities_of(vectors):
    """Qualities that depend on the image only."""
    return (vectors[:, :QUALITIES] / np.float32(1_000)).astype(np.float32)


def all_pairs(vectors):
    first, second = np.triu_indices(len(vectors), 1)
    similarity = standardise(cosine_matrix(vectors, vectors)[first, second], SCALE)
    nearest = nearest_members(vectors, SCALE)
    nodes = node_inputs(nearest, len(vectors), qualities_of(vectors))
    return first, second, similarity, nearest, nodes


def matrix_of(vectors):
    return (cosine_matrix(vectors, vectors).astype(np.float64) - SCALE.mean) / SCALE.standard_deviation * 0.1


def nearest_lists(vectors):
    """Each image's 64 nearest others, by whole numbers; ties by the smaller row."""
    wide = vectors.astype(np.int64)
    dots = wide @ wide.T
    every = range(len(vectors))
    return [sorted((j for j in every if j != i), key=lambda j: (-dots[i, j], j))[:64] for i in every]


def node_reference(vectors):
    s, lists, rows = matrix_of(vectors), nearest_lists(vectors), []
    for i, near in enumerate(lists):
        found = s[i, near]
        tops = [found[:top].mean() if len(found) else 0.0 for top in (1, 5, 10, 20, 40)]
        counts = [np.log(1 + (found >= level).sum()) for level in (0.35, 0.45, 0.55, 0.65)]
        rows.append([*tops, *counts, *qualities_of(vectors)[i], np.log(1 + min(len(vectors), 300)) / 3])
    return np.array(rows)


def pair_reference(vectors, first, second):
    """The PAIR_INPUTS of each pair, from weighted neighbour lists as dense vectors."""
    s, lists, nodes = matrix_of(vectors), nearest_lists(vectors), node_reference(vectors)
    n = len(vectors)
    listed = np.zeros((n, n), bool)
    for i, near in enumerate(lists):
        listed[i, near] = True
    second_order = []
    for temperature in (0.08, 0.2):
        weights = np.where(listed & (s >= 0.2), np.exp((np.minimum(s, 1) - 1) / temperature), 0.0)
        np.fill_diagonal(weights, 1.0)  # an image is its own nearest
        lengths = np.sqrt((weights**2).sum(axis=1))
        second_order.append(weights @ weights.T / np.outer(lengths, lengths))
    rows = []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        others = [k for k in range(n) if k not in (i, j)]
        both = [min(s[i, k], s[j, k]) for k in others if listed[i, k] and listed[j, k]]
        jaccard = []
        for level in (0.35, 0.5):
            mine = {k for k in others if listed[i, k] and s[i, k] >= level}
            theirs = {k for k in others if listed[j, k] and s[j, k] >= level}
            jaccard.append(len(mine & theirs) / (len(mine | theirs) + 1))
        width = min(64, n - 1)
        ranks = [lists[a].index(b) + 1 if listed[a, b] else width + 1 for a, b in ((int(i), int(j)), (j, i))]
        row = [s[i, j], *(matrix[i, j] for matrix in second_order), *jaccard]
        row += [np.log(min(ranks)), np.log(max(ranks)), max(both, default=-1.0)]
        for top in range(3):
            low, high = sorted((nodes[i, top], nodes[j, top]))
            row += [low, high, s[i, j] - low, s[i, j] - high]
        row.append(nodes[i, -1])
        for place in range(-1 - QUALITIES, -1):
            row += sorted((nodes[i, place], nodes[j, place]))
        rows.append(row)
    return np.array(rows)


SIZES = [1, 2, 3, 12, 63, 64, 65, 90]


@pytest.fixture(autouse=True)
def short_lists(monkeypatch):
    """Cut lists at 64, which the references can afford to cross."""
    monkeypatch.setattr(nearest_kernel, "NEAREST", 64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("copies", [0, 4])
def test_nearest_members_equal_a_sort_of_whole_numbers(size, copies):
    vectors = random_group(size, seed=size, copies=copies if size > 8 else 0)
    nearest = nearest_members(vectors, SCALE)
    assert nearest.rows.shape == (size, min(64, size - 1))
    assert nearest.rows.tolist() == nearest_lists(vectors)
    s = standardise(cosine_matrix(vectors, vectors), SCALE)
    np.testing.assert_array_equal(nearest.similarity, np.take_along_axis(s, nearest.rows, 1))


@pytest.mark.parametrize("size", [256, 257, 258, 300])
def test_lists_hold_256_members(monkeypatch, size):
    monkeypatch.undo()
    vectors = random_group(size, seed=size)
    found = nearest_members(vectors, SCALE)
    assert found.rows.shape == (size, min(256, size - 1))
    assert all(row not in own for row, own in enumerate(found.rows.tolist()))
    assert (np.diff(found.similarity, axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("limit", "size"), [*(("BLOCK", size) for size in (1, 7, 89, 90)), ("_PRODUCTS", 10), ("_PRODUCTS", 700)]
)
def test_nearest_members_do_not_depend_on_blocks(monkeypatch, limit, size):
    vectors = random_group(90, copies=5)
    whole = nearest_members(vectors, SCALE)
    monkeypatch.setattr(nearest_kernel, limit, size)
    for one, other in zip(nearest_members(vectors, SCALE), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block", [64, 150, 1_024])
@pytest.mark.parametrize("copies", [0, 5, 300])
@pytest.mark.parametrize(
    ("sampled", "rank", "held", "left"),  # how many images are done the other way
    [(2, 60, 1_000, "none"), (4, 12, 100, "some"), (1, 1, 70, "all")],
)
def test_each_pair_is_multiplied_once_in_large_groups(monkeypatch, block, copies, sampled, rank, held, left):
    vectors = random_group(330, copies=copies)
    whole, counts = nearest_members(vectors, SCALE), []
    take = nearest_kernel._take_nearest_of_many

    def counting(*arguments):
        rest = take(*arguments)
        counts.append(len(rest))
        return rest

    monkeypatch.setattr(nearest_kernel, "_take_nearest_of_many", counting)
    for name, value in (("LARGE", 300), ("BLOCK", block)):
        monkeypatch.setattr(nearest_kernel, name, value)
    for name, value in (("_SAMPLED", sampled), ("_RANK", rank), ("_HELD", held)):
        monkeypatch.setattr(nearest_kernel, name, value)
    for one, other in zip(nearest_members(vectors, SCALE), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    (count,) = counts
    assert {"none": count == 0, "some": count > 0, "all": count > 300}[left], count


@pytest.mark.parametrize(("size", "times"), [(59, 0), (60, 1), (70, 1), (71, 0)])
def test_only_groups_whose_lists_can_be_held_are_done_so(monkeypatch, size, times):
    vectors = random_group(size, seed=size)
    calls, take = [], nearest_kernel._take_nearest_of_many
    for name, value in (("LARGE", 60), ("LARGEST", 70), ("_SAMPLED", 1)):
        monkeypatch.setattr(nearest_kernel, name, value)
    monkeypatch.setattr(
        nearest_kernel, "_take_nearest_of_many", lambda *parts: calls.append(1) or take(*parts)
    )
    assert nearest_members(vectors, SCALE).rows.tolist() == nearest_lists(vectors)
    assert len(calls) == times


@pytest.mark.parametrize("size", [*SIZES, 320])
def test_node_inputs_equal_the_reference(size):
    vectors = random_group(size, seed=size)
    found = node_inputs(nearest_members(vectors, SCALE), size, qualities_of(vectors))
    assert (found.shape, found.dtype) == ((size, NODE_INPUTS), np.float32)
    np.testing.assert_allclose(found, node_reference(vectors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 12, 64, 70, 90])
@pytest.mark.parametrize("noise", [0.4, 1.2])
def test_pair_inputs_equal_the_reference(size, noise):
    vectors = random_group(size, seed=size, copies=2 if size > 8 else 0, noise=noise)
    first, second, *rest = all_pairs(vectors)
    found = pair_inputs(first, second, *rest)
    assert (found.shape, found.dtype) == ((len(first), PAIR_INPUTS), np.float32)
    np.testing.assert_allclose(found, pair_reference(vectors, first, second), rtol=2e-4, atol=2e-4)


def test_pair_inputs_are_symmetric_in_the_pair():
    vectors = random_group(80, copies=3)
    first, second, *rest = all_pairs(vectors)
    one, other = pair_inputs(first, second, *rest), pair_inputs(second, first, *rest)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("part", [1, 100, 10_000])
def test_each_pair_is_described_by_itself(part):
    first, second, similarity, *rest = all_pairs(random_group(40))
    whole = pair_inputs(first, second, similarity, *rest)
    for at in range(0, len(first), part * 7):
        some = slice(at, at + part)
        found = pair_inputs(first[some], second[some], similarity[some], *rest)
        np.testing.assert_array_equal(found, whole[some])


def test_inputs_do_not_depend_on_the_scale_of_cosines():
    # Doubling every cosine's distance to the mean, and the spread with it, changes nothing.
    cosines = np.random.default_rng(0).uniform(-0.2, 0.5, 100).astype(np.float32)
    stretched = (2 * (cosines - 0.05) + 0.3).astype(np.float32)
    np.testing.assert_allclose(
        standardise(stretched, Scale(0.3, 0.18)), standardise(cosines, SCALE), rtol=1e-5, atol=1e-6
    )


def test_no_pairs_have_no_inputs():
    vectors = random_group(1)
    assert pair_inputs(*all_pairs(vectors)).shape == (0, PAIR_INPUTS)
