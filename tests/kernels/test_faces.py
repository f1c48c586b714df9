import hashlib

import numpy as np
import pytest

from faceclust_spark.errors import DataError
from faceclust_spark.kernels import faces as kernel
from faceclust_spark.kernels.attributes import attribute_statistics, standardise
from faceclust_spark.kernels.faces import Ragged, find_faults, hash_rows, prepare_faces
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.ids import hash_image_ids, sample_mask


def ragged(rows):
    values = [np.asarray(row, dtype=np.float64) for row in rows if row is not None]
    widths = [-1 if row is None else len(row) for row in rows]
    return Ragged(np.concatenate([*values, np.empty(0)]), np.array(widths, dtype=np.int64))


def gallery(faces=500, width=16, attributes=3, seed=0):
    rng = np.random.default_rng(seed)
    ids = [f"image-{i:04d}" for i in range(faces)]
    embeddings = rng.standard_normal((faces, width)).astype(np.float32)
    return embeddings, rng.normal(5, 3, (faces, attributes)).astype(np.float32), ids


def test_each_kind_of_fault_is_found():
    rows = {
        "good": [1.0, 0.0],
        "longer": [1.0, 0.0, 2.0],
        "tiny": [1e-40, 0.0],
        "nan": [np.nan, 1.0],
        "infinite": [1.0, -np.inf],
        "zero": [0.0, 0.0],
        "empty": [],
        "absent": None,
    }
    ids = [*rows, None, ""]
    faults = find_faults(ids, ragged([*rows.values(), [1.0, 2.0], [1.0, 2.0]]))
    assert dict(zip(ids, faults.reasons, strict=True)) == {
        "good": None,
        "longer": None,
        "tiny": None,
        "nan": kernel.NOT_FINITE,
        "infinite": kernel.NOT_FINITE,
        "zero": kernel.ZERO_NORM,
        "empty": kernel.NULL_EMBEDDING,
        "absent": kernel.NULL_EMBEDDING,
        None: kernel.NULL_ID,
        "": kernel.NULL_ID,
    }
    assert [d is None for d in faults.details] == [r is None for r in faults.reasons]


def test_content_hashes_tell_rows_apart_and_nothing_else():
    embeddings = ragged([[1, 2], [1, 2], [1, 2.5], [1, 2], [1], [1, 2]])
    attributes = ragged([[3, np.nan], [3, np.nan], [3, np.nan], [3, 4], [2, 3, np.nan], None])
    hashes = hash_rows(["a"] * 6, embeddings, attributes)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 5
    narrow = Ragged(embeddings.values.astype(np.float32), embeddings.widths)
    assert hash_rows(["a"] * 6, narrow, attributes) == hashes
    assert hash_rows(["b"] * 6, embeddings, attributes)[0] != hashes[0]


def test_statistics_equal_numpy_and_do_not_depend_on_order():
    rng = np.random.default_rng(1)
    sample = rng.lognormal(size=(99, 4)).astype(np.float32)
    sample[rng.random(sample.shape) < 0.2] = np.nan
    sample[:, 2] = 0.1
    sample[:, 3] = np.nan
    statistics = attribute_statistics(sample)
    wide = sample[:, :2].astype(np.float64)
    np.testing.assert_allclose(statistics.means[:2], np.nanmean(wide, axis=0))
    np.testing.assert_allclose(statistics.standard_deviations[:2], np.nanstd(wide, axis=0))
    assert statistics.standard_deviations[2:].tolist() == [0.0, 0.0]
    assert statistics.counts.tolist() == [*np.isfinite(wide).sum(axis=0), 99, 0]
    shuffled = attribute_statistics(sample[rng.permutation(99)])
    for part, other in zip(statistics, shuffled, strict=True):
        np.testing.assert_array_equal(part, other)


def test_standardised_attributes_are_zero_where_constant_and_nan_where_missing():
    sample = np.array([[1, 7, 2], [3, 7, np.nan]], dtype=np.float32)
    later = np.array([[5, 9, np.inf], [np.nan, np.nan, 2]], dtype=np.float32)
    scores = standardise(later, attribute_statistics(sample))
    np.testing.assert_array_equal(scores, [[3, 0, np.nan], [np.nan, np.nan, 0]])


@pytest.mark.parametrize("block", [1, 7, 500, 10_000])
def test_prepared_vectors_do_not_depend_on_blocks_or_layout(monkeypatch, block):
    embeddings, attributes, ids = gallery()
    monkeypatch.setattr(kernel, "_BLOCK", block)
    prepared = prepare_faces(np.asfortranarray(embeddings), attributes, ids)
    np.testing.assert_array_equal(prepared.vectors, quantise(normalise(embeddings)))
    np.testing.assert_array_equal(prepared.face_ids, hash_image_ids(ids))


def test_statistics_come_from_the_sample_that_the_hash_chooses():
    embeddings, attributes, ids = gallery()
    mask = sample_mask("attribute_statistics")
    order = sorted(range(len(ids)), key=lambda row: hash_of(ids[row]) ^ mask)
    expected = standardise(attributes, attribute_statistics(attributes[order[:50]]))
    prepared = prepare_faces(embeddings, attributes, ids, statistics_sample=50)
    np.testing.assert_array_equal(prepared.attributes, expected)


def hash_of(image_id):
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") >> 1


def test_rows_without_ids_are_numbered_and_attributes_are_optional():
    prepared = prepare_faces(np.eye(4, dtype=np.float16))
    assert prepared.face_ids.tolist() == hash_image_ids(["0", "1", "2", "3"]).tolist()
    assert prepared.attributes.shape == (4, 0)


def test_every_bad_row_is_named_at_once():
    embeddings, _, ids = gallery(faces=40)
    embeddings[3, 2] = np.nan
    embeddings[5] = 0
    embeddings[[6, 7, 8, 9, 10, 11], 0] = np.inf
    ids[20] = ids[19]
    with pytest.raises(DataError) as error:
        prepare_faces(embeddings, None, ids)
    message = str(error.value)
    assert "not_finite: 7 rows (row 3: 1 of 16 components" in message
    assert "row 9" in message and "row 11" not in message
    assert "zero_norm: 1 rows (row 5" in message
    assert "conflicting_rows: 1 rows (row 20: 'image-0019'" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((np.zeros(3),), "shape"),
        ((np.array([["a"]]),), "numeric"),
        ((np.eye(3), np.eye(2)), "3 embeddings, 3 image ids and 2 rows of attributes"),
        ((np.eye(3), None, ["a"]), "1 image ids"),
        ((np.eye(3), None, ["a", None, "c"]), "null_id: 1 rows"),
        ((np.eye(3), None, [1, 2, 3]), "strings"),
        ((np.empty((0, 3)),), "no face"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, expected):
    with pytest.raises(DataError, match=expected):
        prepare_faces(*arguments)
