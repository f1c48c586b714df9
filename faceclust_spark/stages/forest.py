"""The maximum spanning forest of the neighbour graph [claim 2].

neighbours -> forests of partitions -> merged to one in a task, while its edges fit there
                                    -> beyond it contracted in rounds, until the rest fits
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from faceclust_spark.kernels.forest import Edges, edges_of_lists, maximum_spanning_forest
from faceclust_spark.stages.contraction_rounds import (
    CONTRACTED,
    Materialise,
    contracted,
    contraction_rounds,
    in_one_task,
    reduce_parts,
    shrink,
    to_batches,
)
from faceclust_spark.stages.neighbours import lists_from_batch
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from faceclust_spark.config import CoarseGroupsConfig


class Forest(NamedTuple):
    """The forest's edges, which fulfil FOREST, and the rounds of contraction that it took."""

    edges: DataFrame
    rounds: int


def forest(
    neighbours: DataFrame, faces: int, config: CoarseGroupsConfig, tasks: int, materialise: Materialise
) -> Forest:
    """Give the maximum spanning forest of the neighbour graph: the same edges for any partitioning.

    Each task shrinks its own edges to a forest before anything travels; see `merge_forests`.
    """
    schema = stage_schema(schemas.FOREST)
    parts = neighbours.select(*stage_schema(schemas.NEIGHBOURS).names).mapInArrow(_forest_of_lists, schema)
    return merge_forests(parts, faces, config.max_forest_edges, tasks, materialise)


def merge_forests(parts: DataFrame, faces: int, limit: int, tasks: int, materialise: Materialise) -> Forest:
    """Merge the forests of partitions, rows of FOREST, to the forest of all their edges.

    Of up to `limit` faces, `tasks` and ever fewer merge them until one is left, in about 200 bytes a face.
    A larger graph is contracted in rounds, which are scratch tables by `materialise`, until what is left of
    it has no more than `limit` vertices or edges. Then the forest reads scratch tables too.
    """
    schema = stage_schema(schemas.FOREST)
    if faces <= limit:
        return Forest(in_one_task(parts, forest_of_edges, schema, tasks), 0)
    chosen, number = None, 0
    rest = materialise(contracted(parts), "contraction_edges_1")
    for found in contraction_rounds(rest, limit, materialise):
        rest = found.edges
        together = found.chosen if chosen is None else chosen.unionByName(found.chosen)
        chosen = materialise(together, f"forest_chosen_{number % 2}")
        number += 1
    last = in_one_task(rest, shrink(), CONTRACTED, tasks).select(*schema.names)
    return Forest(last if chosen is None else chosen.unionByName(last), number)


def forest_of_edges(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the forest of a partition's edges, rows of FOREST, strongest first. Runs on the executors."""
    yield from _merged(edges_from_batch(batch) for batch in batches if batch.num_rows)


def edges_from_batch(rows: pa.RecordBatch) -> Edges:
    """Read rows of FOREST."""
    return Edges(*(rows[name].to_numpy() for name in (c.FACE_A, c.FACE_B, c.COSINE)))


def _forest_of_lists(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the forest of a partition's neighbour lists. Runs on the executors."""
    yield from _merged(edges_of_lists(lists_from_batch(batch)) for batch in batches if batch.num_rows)


def _merged(parts: Iterable[Edges]) -> Iterator[pa.RecordBatch]:
    yield from to_batches(reduce_parts(parts, maximum_spanning_forest), stage_schema(schemas.FOREST))
