"""The floor and the first thresholds of a gallery, as an artefact and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from faceclust_spark.kernels.norms import NormScale
from faceclust_spark.kernels.readings import AttributeWeights
from faceclust_spark.kernels.thresholds import SAMPLE, Thresholds, choose_thresholds
from faceclust_spark.stages.output import arrow_output, frame_of
from faceclust_spark.stages.vectors import sample_faces
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import CoarseGroupsConfig, NeighboursConfig

_VERSION = 1
_FLOOR, _GROUP = "floor", "group"


def thresholds(
    vectors: DataFrame, faces: int, neighbours: NeighboursConfig, groups: CoarseGroupsConfig
) -> Thresholds:
    """Choose floor and first thresholds for a gallery of `faces` faces, in this process. Claims 2, 3.

    The same as `local` chooses, for any partitioning. Raises ConfigError for a floor above a threshold.
    """
    sample = sample_faces(vectors, groups.random_pairs_sample, SAMPLE, faces)
    return choose_thresholds(sample.vectors, faces, neighbours, groups, sample.norms, sample.attributes)


def thresholds_frame(spark: SparkSession, chosen: Thresholds) -> DataFrame:
    """Give the thresholds as rows: the floor, then the first thresholds. Fulfils THRESHOLDS."""
    cosines = [chosen.floor, *chosen.groups]
    rows = {
        c.VERSION: [_VERSION] * len(cosines),
        c.KIND: [_FLOOR] + [_GROUP] * len(chosen.groups),
        c.THRESHOLD: cosines,
        c.CHOSEN_BY: [chosen.floor_chosen_by] + [chosen.groups_chosen_by] * len(chosen.groups),
        c.MEAN: [chosen.mean] * len(cosines),
        c.STANDARD_DEVIATION: [chosen.standard_deviation] * len(cosines),
        c.NORM_CENTRE: [chosen.norms.centre] * len(cosines),
        c.NORM_SPREAD: [chosen.norms.spread] * len(cosines),
        c.CLOSENESS_WEIGHTS: [chosen.attributes.closeness] * len(cosines),
        c.FAILURE_WEIGHTS: [chosen.attributes.failure] * len(cosines),
    }
    batch = pa.RecordBatch.from_pydict(rows, arrow_output(schemas.THRESHOLDS))
    return frame_of(spark, schemas.THRESHOLDS, [batch])


def thresholds_from_frame(rows: DataFrame) -> Thresholds:
    """Read stored thresholds back."""
    stored = rows.orderBy(c.KIND, c.THRESHOLD).toArrow().to_pylist()
    (floor,) = (row for row in stored if row[c.KIND] == _FLOOR)
    groups = [row for row in stored if row[c.KIND] == _GROUP]
    return Thresholds(
        floor=floor[c.THRESHOLD],
        groups=tuple(row[c.THRESHOLD] for row in groups),
        mean=floor[c.MEAN],
        standard_deviation=floor[c.STANDARD_DEVIATION],
        floor_chosen_by=floor[c.CHOSEN_BY],
        groups_chosen_by=groups[0][c.CHOSEN_BY],
        norms=NormScale(floor[c.NORM_CENTRE], floor[c.NORM_SPREAD]),
        attributes=AttributeWeights(tuple(floor[c.CLOSENESS_WEIGHTS]), tuple(floor[c.FAILURE_WEIGHTS])),
    )
