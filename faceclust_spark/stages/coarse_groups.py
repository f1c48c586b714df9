"""The coarse groups of a gallery: one maximum spanning forest, cut at every threshold.

neighbours -> forests of partitions -> one forest -> groups of the faces that have a neighbour
                                                  -> each other face alone
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, LongType, StructField, StructType

from faceclust_spark.arrow import vectors_from_arrow
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.forest import Edges, edges_of_lists, join_edges, maximum_spanning_forest
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, density_samples, mean_cosine
from faceclust_spark.stages.neighbours import lists_from_batch
from faceclust_spark.stages.output import arrow_output, stage_schema, to_arrow_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import CoarseGroupsConfig

ArrowFunction = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_FORESTS_PER_TASK = 8  # merged at once; each has fewer edges than the gallery has faces
_ROWS_PER_BATCH = 100_000
_SAMPLE = "_sample"  # names the faces that a component's density is measured on
_SAMPLED = StructType([StructField(_SAMPLE, LongType(), False), StructField(c.FACE_ID, LongType(), False)])
_MEASURED = StructType([StructField(_SAMPLE, LongType(), False), StructField(c.MEAN, DoubleType(), False)])


def forest(neighbours: DataFrame, faces: int, config: CoarseGroupsConfig, tasks: int) -> DataFrame:
    """Give the maximum spanning forest of the neighbour graph, strongest edge first. Claim 2.

    Each task shrinks its own edges to a forest before anything travels; `tasks` and ever fewer merge
    those until one is left. The same edges for any partitioning. Fulfils FOREST.

    Raises ConfigError for more than `max_forest_edges` faces: the last merge is one task.
    """
    if faces > config.max_forest_edges:
        raise ConfigError(
            f"coarse_groups.max_forest_edges = {config.max_forest_edges:,}, and the gallery has {faces:,} "
            "faces: their forest is merged in one task, which needs about 200 bytes a face; raise the limit "
            "where an executor has that much memory"
        )
    schema = stage_schema(schemas.FOREST)
    parts = neighbours.select(*stage_schema(schemas.NEIGHBOURS).names).mapInArrow(_forest_of_lists, schema)
    while True:
        tasks = -(-tasks // _FORESTS_PER_TASK)
        parts = parts.repartition(tasks).mapInArrow(_forest_of_edges, schema)
        if tasks == 1:
            return parts


def coarse_groups(
    forest: DataFrame, vectors: DataFrame, thresholds: tuple[float, ...], config: CoarseGroupsConfig
) -> DataFrame:
    """Cut the forest into groups at each first threshold, none larger than it may be. Claims 2, 3.

    One row a face and threshold; groups of a higher threshold lie inside those of a lower one, and
    `root_key` names the group at the lowest. The same groups as `kernels.groups.cut_forest` gives in
    one process, which says how oversized ones are cut. Fulfils COARSE_GROUPS.
    """
    edges = forest.select(*stage_schema(schemas.FOREST).names)
    levels = np.array(thresholds, np.float32)
    measured = _densities(edges, vectors, levels, config)
    both = edges.unionByName(measured, allowMissingColumns=True).repartition(1)
    grouped = both.mapInArrow(_cutter(levels, config), stage_schema(schemas.COARSE_GROUPS))
    touched = edges.select(F.explode(F.array(c.FACE_A, c.FACE_B)).alias(c.FACE_ID)).distinct()
    alone = (
        vectors.select(c.FACE_ID)
        .join(touched, c.FACE_ID, "left_anti")
        .withColumn(c.THRESHOLD, F.explode(F.array(*(F.lit(float(t)).cast("float") for t in levels))))
        .select(
            c.THRESHOLD,
            F.col(c.FACE_ID).alias(c.GROUP_KEY),
            F.col(c.FACE_ID).alias(c.ROOT_KEY),
            c.FACE_ID,
            F.lit(1.0).cast("float").alias(c.LEVEL),
        )
    )
    return grouped.unionByName(alone)


def _densities(
    edges: DataFrame, vectors: DataFrame, thresholds: NDArray[np.float32], config: CoarseGroupsConfig
) -> DataFrame:
    """Give the mean cosine of each sample of faces that cutting may ask for."""
    samples = edges.repartition(1).mapInArrow(_sampler(thresholds, config), _SAMPLED)
    members = samples.join(vectors.select(c.FACE_ID, c.VECTOR), c.FACE_ID)
    return members.groupBy(_SAMPLE).applyInArrow(_measure, _MEASURED)


def _forest_of_lists(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the forest of a partition's neighbour lists. Runs on the executors."""
    yield from _merged(edges_of_lists(lists_from_batch(batch)) for batch in batches if batch.num_rows)


def _forest_of_edges(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the forest of forests. Runs on the executors."""
    yield from _merged(_edges(batch) for batch in batches if batch.num_rows)


def _merged(parts: Iterable[Edges]) -> Iterator[pa.RecordBatch]:
    """Merge edges to a forest, about every 10^6 edges, so that a partition's lists never stand in memory."""
    waiting: list[Edges] = []
    held = 0
    for part in parts:
        waiting.append(part)
        held += len(part.first)
        if held > 2 * max(len(waiting[0].first), 500_000):
            waiting = [maximum_spanning_forest(join_edges(waiting))]
            held = len(waiting[0].first)
    merged = maximum_spanning_forest(join_edges(waiting))
    schema = arrow_output(schemas.FOREST)
    for start in range(0, len(merged.first), _ROWS_PER_BATCH):
        columns = [pa.array(part[start : start + _ROWS_PER_BATCH]) for part in merged]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _edges(rows: pa.RecordBatch) -> Edges:
    return Edges(*(rows[name].to_numpy() for name in (c.FACE_A, c.FACE_B, c.COSINE)))


def _sample_key(face_ids: NDArray[np.int64]) -> int:
    """Name a sample by its faces."""
    return int.from_bytes(hashlib.sha256(face_ids.tobytes()).digest()[:8], "big") >> 1


def _whole_forest(batches: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.int64], Edges]:
    """Read the one forest: the faces that it touches, ascending, and its edges, strongest first."""
    edges = maximum_spanning_forest(join_edges([_edges(batch) for batch in batches if batch.num_rows]))
    return np.unique(np.concatenate([edges.first, edges.second])), edges


def _sampler(thresholds: NDArray[np.float32], config: CoarseGroupsConfig) -> ArrowFunction:
    def sample(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        face_ids, edges = _whole_forest(batches)
        schema = to_arrow_schema(_SAMPLED)
        for own in density_samples(face_ids, edges, thresholds, config):
            keys = np.full(len(own), _sample_key(own))
            yield pa.RecordBatch.from_arrays([pa.array(keys), pa.array(own)], schema=schema)

    return sample


def _measure(members: pa.Table) -> pa.Table:
    """Give the mean cosine of one sample. Runs on the executors."""
    mean = mean_cosine(vectors_from_arrow(members[c.VECTOR]))
    rows = {_SAMPLE: [members[_SAMPLE][0].as_py()], c.MEAN: [mean]}
    return pa.Table.from_pydict(rows, schema=to_arrow_schema(_MEASURED))


def _cutter(thresholds: NDArray[np.float32], config: CoarseGroupsConfig) -> ArrowFunction:
    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known: dict[int, float] = {}
        parts = []
        for batch in batches:
            of_samples = batch.filter(pc.is_valid(batch[_SAMPLE]))
            pairs = zip(of_samples[_SAMPLE].to_pylist(), of_samples[c.MEAN].to_pylist(), strict=True)
            known.update(pairs)
            parts.append(batch.filter(pc.is_null(batch[_SAMPLE])))
        face_ids, edges = _whole_forest(parts)
        found = cut_forest(face_ids, edges, thresholds, config, lambda ids: known[_sample_key(ids)])
        yield from _to_arrow(found)

    return cut


def _to_arrow(found: CoarseGroups) -> Iterator[pa.RecordBatch]:
    schema = arrow_output(schemas.COARSE_GROUPS)
    for row, threshold in enumerate(found.thresholds):
        for start in range(0, len(found.face_ids), _ROWS_PER_BATCH):
            part = slice(start, start + _ROWS_PER_BATCH)
            columns = {
                c.THRESHOLD: np.full(len(found.face_ids[part]), threshold),
                c.GROUP_KEY: found.keys[row, part],
                c.ROOT_KEY: found.keys[0, part],
                c.FACE_ID: found.face_ids[part],
                c.LEVEL: found.levels[row, part],
            }
            yield pa.RecordBatch.from_pydict(columns, schema=schema)
