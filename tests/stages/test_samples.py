"""Samples by the smallest ids: the same as in one process, and hardly more rows than they hold travel."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.kernels.ids import ID_BITS, sample_rows
from faceclust_spark.stages import vectors as stage
from faceclust_spark.stages.vectors import sample_vectors
from faceclust_spark.tables import columns as c

FACES = 4_000
HASHES = np.random.default_rng(0).integers(0, 1 << ID_BITS, FACES)
COUNTED = np.arange(FACES)  # no hashes at all


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of each look at a gallery."""
    rows = []
    smallest = stage._smallest

    def look(some, size, purpose):
        rows.append(some.count())
        return smallest(some, size, purpose)

    monkeypatch.setattr(stage, "_smallest", look)
    return rows


@pytest.mark.parametrize(
    ("face_ids", "size", "told", "looks"),
    [
        (HASHES, 300, FACES, 1),
        (HASHES, 300, None, 1),
        (HASHES, 300, FACES * 10, 2),
        (HASHES, 300, FACES // 10, 1),
        (HASHES, FACES + 1, FACES, 1),
        (HASHES, 1, FACES, 1),
        (COUNTED, 300, FACES, 2),
    ],
)
def test_samples_equal_those_of_the_kernel(spark, looked_at, face_ids, size, told, looks) -> None:
    vectors = np.arange(FACES, dtype="<i2")
    rows = pa.table({c.FACE_ID: face_ids, c.VECTOR: pa.array([one.tobytes() for one in vectors])})
    gallery = spark.createDataFrame(rows).repartition(5)
    found = sample_vectors(gallery, size, "a purpose", told)
    expected = sample_rows(face_ids, size, "a purpose")
    np.testing.assert_array_equal(found.face_ids, face_ids[expected])
    np.testing.assert_array_equal(found.vectors[:, 0], expected)
    assert len(looked_at) == looks


def test_few_rows_beyond_the_sample_are_looked_at(spark, looked_at) -> None:
    rows = pa.table({c.FACE_ID: HASHES, c.VECTOR: pa.array([b"\0\0"] * FACES)})
    sample_vectors(spark.createDataFrame(rows).repartition(3), 300, "a purpose", FACES)
    assert looked_at[0] == pytest.approx(300 + 6 * 17 + 100, abs=70)
