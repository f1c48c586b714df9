"""Samples of the gallery's vectors, small enough for one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from faceclust_spark.arrow import vectors_from_arrow
from faceclust_spark.kernels.ids import sample_mask
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame


def sampling_order(purpose: str) -> Column:
    """Give the key that orders faces for one purpose: `face_id XOR mask`, the same on any machine."""
    return F.col(c.FACE_ID).bitwiseXOR(F.lit(sample_mask(purpose)))


def sample_vectors(
    vectors: DataFrame, size: int, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Collect the vectors of the purpose's sample, in its order.

    The same faces in the same order as `kernels.ids.sample_rows` gives, for any partitioning: Spark
    keeps the `size` smallest of each partition and merges those.

    Returns face ids int64 `(m,)` and grid vectors int16 `(m, d)` with m = min(size, faces).
    """
    sample = (
        vectors.select(c.FACE_ID, c.VECTOR).orderBy(sampling_order(purpose)).limit(size).toArrow()
    )
    # toArrow may hand back its chunks in any order within the limit: the key decides again.
    face_ids = sample[c.FACE_ID].to_numpy()
    order = np.argsort(face_ids ^ np.int64(sample_mask(purpose)), kind="stable")
    return face_ids[order], vectors_from_arrow(sample[c.VECTOR])[order]
