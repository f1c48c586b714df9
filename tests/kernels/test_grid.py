import numpy as np
import pytest

from faceclust_spark.kernels.grid import (
    cosine_matrix,
    dots_to_cosines,
    grid_scale,
    normalise,
    pack_vectors,
    quantise,
    unpack_vectors,
)

WIDTHS = [1, 2, 64, 100, 128, 256, 512, 1024]


def random_units(count, width, seed=0):
    return normalise(np.random.default_rng(seed).normal(size=(count, width)))


def longest_on_the_grid(width):
    """Give vectors that rounding makes longest: components just above a half step, and one-hot ones."""
    scale = grid_scale(width)
    steps = np.full(width, np.floor(scale / np.sqrt(width)) + 0.5 + 1e-6)
    flat = steps / np.sqrt((steps**2).sum())
    return np.stack([flat, -flat, np.eye(width)[0], -np.eye(width)[-1]])


@pytest.mark.parametrize("width", WIDTHS)
def test_dot_products_are_exact(width):
    vectors = quantise(np.concatenate([random_units(200, width), longest_on_the_grid(width)]))
    wide = vectors.astype(np.int64)
    exact = wide @ wide.T
    for block in (vectors, vectors[:, ::-1], np.asfortranarray(vectors)):
        single = block.astype(np.float32)
        np.testing.assert_array_equal((single @ single.T).astype(np.int64), exact)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_partial_sum_reaches_what_float32_cannot_hold(width):
    vectors = quantise(np.concatenate([random_units(100, width), longest_on_the_grid(width)]))
    absolute = np.abs(vectors.astype(np.int64))
    assert (absolute @ absolute.T).max() <= 2**24  # bounds each partial sum, in any order


@pytest.mark.parametrize("width", WIDTHS)
def test_cosines_are_close_to_those_before_rounding(width):
    units = random_units(300, width, seed=width)
    error = cosine_matrix(quantise(units), quantise(units)) - units @ units.T
    # Each of 2 d components is off by at most half a step, and by 0.29 steps at random.
    assert np.abs(error).max() <= np.sqrt(width) / grid_scale(width) * 1.01
    assert error[np.triu_indices(300, 1)].std() < 1.3e-4


@pytest.mark.parametrize("rows", [1, 3, 64, 200])
@pytest.mark.parametrize("columns", [1, 7, 200])
def test_cosines_do_not_depend_on_blocks(rows, columns):
    vectors = quantise(random_units(200, 128))
    whole = cosine_matrix(vectors, vectors)
    for top in range(0, 200, rows):
        for left in range(0, 200, columns):
            block = cosine_matrix(vectors[top : top + rows], vectors[left : left + columns])
            np.testing.assert_array_equal(block, whole[top : top + rows, left : left + columns])


def test_cosines_keep_the_order_of_dot_products():
    dots = np.arange(-(2**24), 2**24 + 1, 997).astype(np.float32)
    assert (np.diff(dots_to_cosines(dots, 128)) > 0).all()
    top = np.arange(2**24 - 2_000, 2**24 + 1).astype(np.float32)
    assert (np.diff(dots_to_cosines(top, 128)) >= 0).all()
    assert dots_to_cosines(dots, 128).dtype == np.float32


@pytest.mark.parametrize("size", [1e-300, 1e-40, 1.0, 1e30, 1e300])
def test_rows_of_any_length_become_unit_vectors(size):
    raw = np.random.default_rng(1).normal(size=(50, 64))
    units = normalise(raw * size)
    np.testing.assert_allclose(np.sqrt((units**2).sum(axis=1)), 1.0, rtol=1e-14)
    np.testing.assert_allclose(units, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-12)


def test_rows_of_zeros_become_nan_and_leave_others_alone():
    raw = np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    units = normalise(raw)
    assert np.isnan(units[0]).all()
    np.testing.assert_allclose(units[1], [0.6, 0.8])
    assert units.dtype == np.float64


def test_no_rows_are_no_rows():
    assert quantise(normalise(np.empty((0, 8)))).shape == (0, 8)


def test_packed_vectors_come_back_and_are_little_endian():
    vectors = quantise(random_units(20, 64))
    packed = pack_vectors(np.asfortranarray(vectors))
    assert {len(one) for one in packed} == {128}
    np.testing.assert_array_equal(unpack_vectors(b"".join(packed), 20), vectors)
    assert pack_vectors(np.array([[1, -2]], np.int16)) == [b"\x01\x00\xfe\xff"]
    assert unpack_vectors(b"", 0).shape == (0, 0)
    assert not unpack_vectors(b"".join(packed), 20).flags.writeable
