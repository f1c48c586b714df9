"""The coarse groups of a gallery: one maximum spanning forest, cut at every threshold.

forest -> groups of the faces that have a neighbour
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
from faceclust_spark.kernels.forest import Edges, join_edges, maximum_spanning_forest
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, density_samples, mean_cosine
from faceclust_spark.stages.forest import edges_from_batch
from faceclust_spark.stages.output import arrow_output, stage_schema, to_arrow_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import CoarseGroupsConfig

ArrowFunction = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_ROWS_PER_BATCH = 100_000
_SAMPLE = "_sample"  # names the faces that a component's density is measured on
_SAMPLED = StructType([StructField(_SAMPLE, LongType(), False), StructField(c.FACE_ID, LongType(), False)])
_MEASURED = StructType([StructField(_SAMPLE, LongType(), False), StructField(c.MEAN, DoubleType(), False)])


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


def _sample_key(face_ids: NDArray[np.int64]) -> int:
    """Name a sample by its faces."""
    return int.from_bytes(hashlib.sha256(face_ids.tobytes()).digest()[:8], "big") >> 1


def _whole_forest(batches: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.int64], Edges]:
    """Read the one forest: the faces that it touches, ascending, and its edges, strongest first."""
    parts = [edges_from_batch(batch) for batch in batches if batch.num_rows]
    edges = maximum_spanning_forest(join_edges(parts))
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
