"""The coarse groups of a gallery: one maximum spanning forest, cut at every threshold.

forest -> groups of the faces that have a neighbour
       -> each other face alone
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from faceclust_spark.kernels.forest import maximum_spanning_forest
from faceclust_spark.kernels.groups import CoarseGroups, cut_forest, ladder
from faceclust_spark.stages.contraction_rounds import ArrowFunction, Materialise
from faceclust_spark.stages.densities import SAMPLED, densities, read_measured, sampler
from faceclust_spark.stages.groups_in_parts import groups_in_parts
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import CoarseGroupsConfig

_ROWS_PER_BATCH = 100_000


def coarse_groups(
    forest: DataFrame,
    vectors: DataFrame,
    thresholds: tuple[float, ...],
    config: CoarseGroupsConfig,
    tasks: int,
    materialise: Materialise,
) -> DataFrame:
    """Cut the forest into groups at each first threshold, none larger than it may be. Claims 2, 3.

    One row a face and threshold; groups of a higher threshold lie inside those of a lower one, and
    `root_key` names the group at the lowest. The same groups as `kernels.groups.cut_forest` gives in
    one process, which says how oversized ones are cut. One task cuts a forest of up to
    `max_forest_edges` edges; a larger one is cut in parts (`groups_in_parts`), and must then be read from a
    table. Fulfils COARSE_GROUPS.
    """
    edges = forest.select(*stage_schema(schemas.FOREST).names)
    levels = np.array(thresholds, np.float32)
    if edges.count() <= config.max_forest_edges:
        grouped = _groups_in_one_task(edges, vectors, levels, config)
    else:
        grouped = groups_in_parts(edges, vectors, levels, config, tasks, materialise)
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


def _groups_in_one_task(
    edges: DataFrame, vectors: DataFrame, thresholds: NDArray[np.float32], config: CoarseGroupsConfig
) -> DataFrame:
    """Give the groups of all faces that an edge touches: one task samples, one cuts."""
    steps = ladder(thresholds[-1], config.ladder_step)
    samples = edges.repartition(1).mapInArrow(sampler(steps, thresholds, config), SAMPLED)
    both = edges.unionByName(densities(samples, vectors), allowMissingColumns=True).repartition(1)
    return both.mapInArrow(_cutter(thresholds, config), stage_schema(schemas.COARSE_GROUPS))


def _cutter(thresholds: NDArray[np.float32], config: CoarseGroupsConfig) -> ArrowFunction:
    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        edges, density = read_measured(batches)
        forest = maximum_spanning_forest(edges)
        face_ids = np.unique(np.concatenate([forest.first, forest.second]))
        yield from groups_to_batches(cut_forest(face_ids, forest, thresholds, config, density))

    return cut


def groups_to_batches(found: CoarseGroups) -> Iterator[pa.RecordBatch]:
    """Give coarse groups as rows of COARSE_GROUPS."""
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
