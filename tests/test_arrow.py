import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.arrow import (
    attributes_from_arrow,
    lists_from_arrow,
    lists_to_arrow,
    texts_to_arrow,
    vectors_from_arrow,
    vectors_to_arrow,
)


def _vectors(count=7, width=5):
    return np.random.default_rng(0).integers(-4000, 4000, (count, width)).astype(np.int16)


def test_vectors_survive_the_way_through_arrow():
    vectors = _vectors()
    assert (vectors_from_arrow(vectors_to_arrow(vectors)) == vectors).all()


def test_slices_and_chunks_of_a_column_are_read_at_their_place():
    vectors = _vectors()
    column = vectors_to_arrow(vectors)
    assert (vectors_from_arrow(column.slice(2, 3)) == vectors[2:5]).all()
    chunked = pa.chunked_array([column.slice(0, 2), column.slice(2)])
    assert (vectors_from_arrow(chunked) == vectors).all()
    assert vectors_from_arrow(column.slice(0, 0)).shape == (0, 0)


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary(10)])
def test_other_binary_layouts_are_read(kind):
    vectors = _vectors()
    assert (vectors_from_arrow(vectors_to_arrow(vectors).cast(kind)) == vectors).all()


def test_vectors_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="differ in width"):
        vectors_from_arrow(pa.array([b"1234", b"12"]))


def test_more_bytes_than_a_column_can_hold_are_refused():
    vectors = np.broadcast_to(np.int16(1), (2**20, 1024))
    with pytest.raises(ValueError, match=r"1048576 vectors of 1024 components in one batch"):
        vectors_to_arrow(vectors)


def test_a_million_texts_are_one_column():
    texts = np.array(["c0123456789abcdef", "c"], "U17").repeat([10**6, 5])
    assert isinstance(pa.array(texts), pa.ChunkedArray)  # what pyarrow does of itself
    mask = np.arange(len(texts)) % 3 == 0
    column = texts_to_arrow(texts, mask)
    assert isinstance(column, pa.StringArray)
    assert column.null_count == mask.sum()
    assert texts_to_arrow(texts).to_pylist() == texts.tolist()


def test_missing_attributes_become_nan():
    column = pa.array([[1.0, None], None, [3.0, 4.0]], pa.list_(pa.float32()))
    expected = np.array([[1, np.nan], [np.nan, np.nan], [3, 4]], np.float32)
    np.testing.assert_array_equal(attributes_from_arrow(column), expected)
    np.testing.assert_array_equal(attributes_from_arrow(column.slice(1)), expected[1:])


def test_a_column_without_attributes_has_width_zero():
    assert attributes_from_arrow(pa.nulls(3, pa.list_(pa.float32()))).shape == (3, 0)


def test_lists_survive_the_way_through_arrow():
    values, offsets = np.arange(6, dtype=np.int64), np.array([0, 2, 2, 6])
    column = lists_to_arrow(values, offsets)
    assert column.to_pylist() == [[0, 1], [], [2, 3, 4, 5]]
    back, places = lists_from_arrow(column.slice(1))
    assert back.tolist() == [2, 3, 4, 5]
    assert places.tolist() == [0, 0, 4]
