"""The strongest path between two faces, in the forest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import functions as F

from faceclust_spark.kernels import forest as kernel
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyspark.sql import DataFrame


def strongest_path(forest: DataFrame, start: int, end: int) -> DataFrame:
    """Give the path between two faces as rows of `forest`, in walking order; no row if there is none.

    One task walks the forest, as one task built it; only the path leaves it.
    """
    edges = forest.select(*stage_schema(schemas.FOREST).names).coalesce(1)
    return edges.mapInArrow(_walk(start, end), stage_schema(schemas.FOREST))


def edges_inside(forest: DataFrame, coarse_groups: DataFrame, face_id: int) -> DataFrame:
    """Give the forest's edges between members of the root group that holds the face.

    They connect all its members: a root group is joined by links of the forest alone.
    """
    root = coarse_groups.where(F.col(c.FACE_ID) == face_id).select(c.ROOT_KEY).distinct()
    members = coarse_groups.join(root, c.ROOT_KEY, "left_semi").select(c.FACE_ID).distinct()
    for end in (c.FACE_A, c.FACE_B):
        forest = forest.join(members.withColumnRenamed(c.FACE_ID, end), end, "left_semi")
    return forest


def _walk(start: int, end: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = arrow_output(schemas.FOREST)

    def walk(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema=schema)
        edges = kernel.Edges(*(column.to_numpy() for column in rows.columns))
        path = kernel.strongest_path(edges, start, end)
        if path is not None:
            yield pa.RecordBatch.from_arrays([pa.array(part) for part in path], schema=schema)

    return walk
