"""Boruvka's rounds on DataFrames: a graph of any size, contracted until one task holds the rest.

    edges -> best: the strongest edge of each vertex -> labels: the trees that these edges make
          -> edges between what the trees became -> ... (Boruvka 1926; pointer jumping: JaJa 1992, 2.2)

The strongest edge of a vertex is part of the maximum spanning forest, and ties are ordered (by cosine, then
the smaller faces), so the edges found are those of `maximum_spanning_forest`, whatever the partitioning.
Every round at least halves the vertices that still have an edge, and shrinks each partition's edges to a
forest of its own. A round's trees are labelled in one task where their vertices fit, and else, if they are d
deep, in about log4(d) passes over the vertices alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StructField, StructType

from faceclust_spark.kernels.forest import (
    ContractedEdges,
    both_ways,
    component_keys,
    contracted_forest,
    strongest_of_each,
)
from faceclust_spark.stages.output import to_arrow_schema
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

Materialise = Callable[["DataFrame", str], "DataFrame"]
ArrowFunction = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Reduction = Callable[[ContractedEdges], ContractedEdges]
Columns = TypeVar("Columns", bound=tuple[np.ndarray, ...])  # a NamedTuple of arrays of one length

START, END = "_start", "_end"  # the vertices of a contracted edge
COMPONENT = "_component"
_FORESTS_PER_TASK = 8  # merged at once; each has fewer edges than the graph has vertices
_ROWS_PER_BATCH = 100_000
_POINTERS = 4  # that a task holds in the memory of one edge
_DONE, _AT, _NEXT, _NEXT_DONE = "_done", "_at", "_next", "_next_done"
_EDGE = [
    StructField(c.FACE_A, LongType(), False),
    StructField(c.FACE_B, LongType(), False),
    StructField(c.COSINE, FloatType(), False),
]
_VERTICES = [StructField(START, LongType(), False), StructField(END, LongType(), False)]
CONTRACTED = StructType([*_VERTICES, *_EDGE])


class Round(NamedTuple):
    """What one round of contraction found.

    chosen: edges of the forest, as rows of FOREST. labels: `_start`, a vertex that had an edge, and `_end`,
    the vertex that it became a part of. edges: what is left between those, CONTRACTED. All three read
    scratch tables that the next round overwrites.
    """

    chosen: DataFrame
    labels: DataFrame
    edges: DataFrame


def contracted(edges: DataFrame) -> DataFrame:
    """Give edges of faces as CONTRACTED: each face is a vertex of its own."""
    ends = (F.col(c.FACE_A).alias(START), F.col(c.FACE_B).alias(END))
    return edges.select(*ends, c.FACE_A, c.FACE_B, c.COSINE)


def contraction_rounds(edges: DataFrame, limit: int, materialise: Materialise) -> Iterator[Round]:
    """Contract a graph round by round, until what is left has at most `limit` edges or vertices.

    edges: CONTRACTED, from a table, since every round reads it more than once; no loops.
    """
    number = 0
    while (left := edges.count()) > limit:
        best = materialise(_strongest(edges), "contraction_best")
        vertices = best.count()
        if vertices <= limit:
            return
        if vertices <= _POINTERS * limit:
            labels = best.repartition(1).mapInArrow(_component_of_each, StructType(_VERTICES))
            labels = materialise(labels, "contraction_labels_0")
        else:
            labels = _labels(materialise(_hooks(best), "contraction_hooks"), materialise)
        edges = materialise(_relabelled(edges, labels), f"contraction_edges_{number % 2}")
        number += 1
        log.info("contraction round %d: %s vertices, %s edges", number, f"{vertices:,}", f"{left:,}")
        yield Round(best.select(*_names(_EDGE)).distinct(), labels, edges)


def components(edges: DataFrame, limit: int, tasks: int, materialise: Materialise) -> DataFrame:
    """Give the connected component of every face that an edge touches: `face_id`, `_component`.

    A component is named by one of its faces. edges: rows of FOREST, read from a table. No task holds more
    than `limit` vertices with their edges; the result reads scratch tables.
    """
    followed, rest = None, contracted(edges)
    for number, found in enumerate(contraction_rounds(rest, limit, materialise)):
        rest, labels = found.edges, found.labels
        if followed is not None:
            labels = _follow(followed, START, END, labels)
        followed = materialise(labels, f"contraction_followed_{number % 2}")
    forest = in_one_task(rest, shrink(), CONTRACTED, tasks)
    last = forest.mapInArrow(_component_of_each, StructType(_VERTICES))
    together = last if followed is None else _follow(followed, START, END, last)
    return together.select(F.col(START).alias(c.FACE_ID), F.col(END).alias(COMPONENT))


def in_one_task(parts: DataFrame, merge: ArrowFunction, schema: StructType, tasks: int) -> DataFrame:
    """Merge the forests of partitions: `tasks` of them to ever fewer, until one is left."""
    while True:
        tasks = -(-tasks // _FORESTS_PER_TASK)
        parts = parts.repartition(tasks).mapInArrow(merge, schema)
        if tasks == 1:
            return parts


def shrink() -> ArrowFunction:
    """Give the function that shrinks a partition's contracted edges to a forest."""
    return _reducer(_as_it_is, contracted_forest)


def _strongest(edges: DataFrame) -> DataFrame:
    """Give each vertex's strongest edge, from the vertex on; first within each partition."""
    own = edges.mapInArrow(_reducer(both_ways, strongest_of_each), CONTRACTED)
    return own.repartition(START).mapInArrow(_reducer(_as_it_is, strongest_of_each), CONTRACTED)


def _hooks(best: DataFrame) -> DataFrame:
    """Let each vertex join the one that its strongest edge leads to.

    Two that choose each other choose the same edge, since no two edges tie: the smaller is the tree's
    root and joins itself. There are no longer circles, so every tree has one root.
    """
    next_of_end = best.select(F.col(START).alias(_AT), F.col(END).alias(_NEXT))
    is_root = (F.col(_NEXT) == F.col(START)) & (F.col(START) < F.col(END))
    joined = F.when(is_root, F.col(START)).otherwise(F.col(END))
    return best.join(next_of_end, F.col(END) == F.col(_AT)).select(
        START, joined.alias(END), is_root.alias(_DONE)
    )


def _labels(hooks: DataFrame, materialise: Materialise) -> DataFrame:
    """Give each vertex the root of its tree, by pointer jumping: every pass walks four times as far.

    Three joins a table instead of one: of 10^4 vertices in a chain, 7 scratch tables instead of 14.
    """
    labels, passes = hooks, 0
    while not (going := labels.where(~F.col(_DONE))).isEmpty():
        steps = labels.select(
            F.col(START).alias(_AT), F.col(END).alias(_NEXT), F.col(_DONE).alias(_NEXT_DONE)
        )
        for _ in range(3):
            going = going.join(steps, F.col(END) == F.col(_AT)).select(
                START, F.col(_NEXT).alias(END), F.col(_NEXT_DONE).alias(_DONE)
            )
        jumped = labels.where(_DONE).unionByName(going)
        labels = materialise(jumped, f"contraction_labels_{passes % 2}")
        passes += 1
    return labels.select(START, END)


def _relabelled(edges: DataFrame, labels: DataFrame) -> DataFrame:
    """Give the edges between different vertices of the next round, each partition shrunk to a forest."""
    for end in (START, END):
        label = labels.select(F.col(START).alias(_AT), F.col(END).alias(_NEXT))
        edges = edges.join(label, F.col(end) == F.col(_AT)).withColumn(end, F.col(_NEXT)).drop(_AT, _NEXT)
    between = edges.where(F.col(START) != F.col(END)).select(*_names(CONTRACTED.fields))
    return between.mapInArrow(shrink(), CONTRACTED)


def _follow(followed: DataFrame, key: str, vertex: str, labels: DataFrame) -> DataFrame:
    """Replace a vertex by what it became a part of, where it became a part of anything."""
    step = labels.select(F.col(START).alias(_AT), F.col(END).alias(_NEXT))
    return followed.join(step, F.col(vertex) == F.col(_AT), "left").select(
        key, F.coalesce(_NEXT, vertex).alias(vertex)
    )


def _component_of_each(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give every vertex its component's smallest, from all edges of a forest. Runs on the executors."""
    parts = [_contracted_edges(batch) for batch in batches if batch.num_rows]
    if parts:
        forest = join_columns(parts)
        vertices, numbers = np.unique(np.concatenate([forest.start, forest.end]), return_inverse=True)
        first, second = numbers.astype(np.int64).reshape(2, -1)
        keys = component_keys(first, second, len(vertices))
        yield from to_batches((vertices, vertices[keys]), StructType(_VERTICES))


def _reducer(prepare: Reduction, reduce: Reduction) -> ArrowFunction:
    """Give the function that reduces a partition of contracted edges. It runs on the executors."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = (prepare(_contracted_edges(batch)) for batch in batches if batch.num_rows)
        yield from to_batches(reduce_parts(parts, reduce), CONTRACTED)

    return run


def _as_it_is(edges: ContractedEdges) -> ContractedEdges:
    return edges


def _contracted_edges(rows: pa.RecordBatch) -> ContractedEdges:
    return ContractedEdges(*(rows[name].to_numpy() for name in (START, END, c.FACE_A, c.FACE_B, c.COSINE)))


def reduce_parts(parts: Iterable[Columns], reduce: Callable[[Columns], Columns]) -> Columns | None:
    """Reduce parts about every 10^6 rows, so that a partition never stands in memory as it came."""
    waiting: list[Columns] = []
    held = 0
    for part in parts:
        waiting.append(part)
        held += len(part[0])
        if held > 2 * max(len(waiting[0][0]), 500_000):
            waiting = [reduce(join_columns(waiting))]
            held = len(waiting[0][0])
    return reduce(join_columns(waiting)) if waiting else None


def join_columns(parts: list[Columns]) -> Columns:
    """Concatenate named tuples of arrays, column by column."""
    return type(parts[0])(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def to_batches(
    columns: tuple[NDArray[np.generic], ...] | None, schema: StructType
) -> Iterator[pa.RecordBatch]:
    """Give columns of equal length as record batches of bounded length."""
    arrow = to_arrow_schema(schema)
    for start in range(0, len(columns[0]) if columns else 0, _ROWS_PER_BATCH):
        arrays = [pa.array(column[start : start + _ROWS_PER_BATCH]) for column in columns or ()]
        yield pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _names(fields: list[StructField]) -> list[str]:
    return [field.name for field in fields]
