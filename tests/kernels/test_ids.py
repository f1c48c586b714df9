import hashlib

import numpy as np
import pandas as pd
import pytest

from faceclust_spark.kernels.ids import hash_image_ids, is_missing, sample_mask, sample_rows

IDS = ["", "a", "image-1", "Ärger/ß", "写真.jpg", "x" * 5_000]


@pytest.mark.parametrize("bits", [63, 32, 8])
def test_an_id_is_the_leading_bits_of_the_hash(bits):
    found = hash_image_ids(IDS, bits)
    assert found.dtype == np.int64
    for image_id, number in zip(IDS, found.tolist(), strict=True):
        digits = hashlib.sha256(image_id.encode("utf-8")).hexdigest()
        leading = "".join(f"{int(digit, 16):04b}" for digit in digits)[:bits]
        assert number == int(leading, 2)


def test_known_ids_never_change():
    # Stored tables hold these numbers.
    assert hash_image_ids(["a", "image-1"]).tolist() == [7299139317422481125, 466733826096484225]


def test_ids_follow_the_order_given_and_may_come_from_a_generator():
    forward = hash_image_ids(name for name in IDS)
    np.testing.assert_array_equal(forward[::-1], hash_image_ids(IDS[::-1]))
    assert hash_image_ids([]).shape == (0,)
    assert (hash_image_ids(map(str, range(1_000))) >= 0).all()


@pytest.mark.parametrize("size", [0, 1, 7, 500, 2_000])
def test_a_sample_is_the_smallest_ids_after_the_mask(size):
    ids = hash_image_ids(map(str, range(500)))
    mask = sample_mask("some purpose")
    expected = sorted(range(500), key=lambda row: int(ids[row]) ^ mask)[:size]
    assert sample_rows(ids, size, "some purpose").tolist() == expected


def test_a_sample_does_not_depend_on_the_order_of_rows():
    ids = hash_image_ids(map(str, range(500)))
    mixed = np.random.default_rng(0).permutation(ids)
    np.testing.assert_array_equal(ids[sample_rows(ids, 60, "cells")], mixed[sample_rows(mixed, 60, "cells")])


@pytest.mark.parametrize("purpose", ["cells", "thresholds", "density", "attribute_statistics"])
def test_a_sample_is_random(purpose):
    ids = hash_image_ids(map(str, range(10_000)))
    sample = sample_rows(ids, 1_000, purpose)
    for share in (sample < 5_000, sample % 2 == 0, sample // 100 % 2 == 0):
        assert 400 < share.sum() < 600  # 500 expected, standard deviation 15


def test_samples_of_different_purposes_hold_different_faces():
    ids = hash_image_ids(map(str, range(10_000)))
    one, other = (set(sample_rows(ids, 1_000, purpose).tolist()) for purpose in ("one", "other"))
    assert not one & other


def test_a_mask_is_the_leading_bits_of_the_hash_of_its_purpose():
    # Stored cells and thresholds come from samples by these masks.
    assert sample_mask("cells") == int(hashlib.sha256(b"cells").hexdigest()[:16], 16) // 2


def test_masks_keep_ids_positive():
    assert all(0 <= sample_mask(purpose) < 2**63 for purpose in map(str, range(100)))


def test_samples_of_growing_size_contain_each_other():
    ids = hash_image_ids(map(str, range(200)))
    large = sample_rows(ids, 50, "p")
    np.testing.assert_array_equal(sample_rows(ids, 20, "p"), large[:20])


def test_names_that_are_none():
    nothing = [None, "", float("nan"), np.float32("nan"), pd.NA]
    assert all(is_missing(name) for name in nothing)
    assert not any(is_missing(name) for name in ["a", "nan", 0, 0.0, np.int64(3)])
