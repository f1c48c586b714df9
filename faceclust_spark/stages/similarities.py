"""The similarity matrices of the root groups, for those who ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from faceclust_spark.kernels.similarities import (
    attribute_similarities,
    face_similarities,
    fuse,
)
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.stages.root_groups import groups_from_arrow, whole_groups
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import SimilaritiesConfig
    from faceclust_spark.kernels.refine import Group
    from faceclust_spark.stages.root_groups import RootGroups


def similarities(root_groups: RootGroups, config: SimilaritiesConfig) -> DataFrame:
    """Give face, attribute and fused similarity matrix of each root group. Claims 4 to 7.

    One row a root group of 2 to `max_size` faces: the upper triangles, row by row, the diagonal (1)
    left out. The groups of higher thresholds lie inside their root group, so their matrices are blocks
    of it. A larger group has no row, for its triangles may not fit one: 50,000 faces are 5 GB.

    Refining computes the same similarities in memory, of groups beyond `confidences.dense_size` those of
    some pairs only; this table is for inspection.
    """
    groups = root_groups.together.where(F.col(c.SIZE) <= config.max_size)
    return groups.mapInArrow(_compute(config), stage_schema(schemas.SIMILARITIES))


def _compute(
    config: SimilaritiesConfig,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = arrow_output(schemas.SIMILARITIES)

    def compute(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in whole_groups(batches, c.ROOT_KEY):
            for group in groups_from_arrow(rows):  # a row may be 50 MB: one at a time
                yield pa.RecordBatch.from_pylist([_row(group, config)], schema=schema)

    return compute


def _row(group: Group, config: SimilaritiesConfig) -> dict[str, object]:
    face = face_similarities(group.vectors)
    has_attributes = group.attributes.shape[1] > 0
    attribute = attribute_similarities(group.attributes) if has_attributes else None
    return {
        c.ROOT_KEY: int(group.keys[0, 0]),
        c.FACE_IDS: group.face_ids,
        c.FACE_SIMILARITY: _upper_triangle(face),
        c.ATTRIBUTE_SIMILARITY: None if attribute is None else _upper_triangle(attribute),
        c.FUSED_SIMILARITY: _upper_triangle(fuse(face, attribute, config)),
    }


def _upper_triangle(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return matrix[np.triu_indices(len(matrix), 1)]
