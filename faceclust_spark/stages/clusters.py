"""The clusters: where every ingested face ends, and what describes each cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StringType, StructField, StructType

from faceclust_spark.kernels.assignment import (
    SINGLETON,
    assign_faces,
    shared_photos,
)
from faceclust_spark.kernels.refined import batch_refined, join_refined
from faceclust_spark.kernels.standing import NO_CLUSTER
from faceclust_spark.stages.confidences import read_refinements
from faceclust_spark.stages.output import to_arrow_schema
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import ClustersConfig
    from faceclust_spark.kernels.calibration import Calibration
    from faceclust_spark.kernels.refined import RefinedGroup

_PAIRS_PER_BATCH = 500_000  # clustered at once: bounds a worker's memory, does not change a bit
_HELD = "_held"
_PHOTOS = "_photos"  # the faces of each photo that shows several faces of the root group

_ASSIGNED = StructType(
    [
        StructField(c.FACE_ID, LongType(), False),
        StructField(c.ROOT_KEY, LongType(), False),
        StructField(c.CLUSTER_KEY, LongType(), False),
        StructField(c.CONFIDENCE, FloatType(), False),
        StructField(c.STATUS, StringType(), False),
        StructField(c.THRESHOLD, FloatType(), False),
        StructField(c.RUNNER_UP_KEY, LongType(), True),
        StructField(c.MARGIN, FloatType(), True),
    ]
)


def placed(
    refinements: DataFrame, faces: DataFrame, config: ClustersConfig, calibration: Calibration | None
) -> DataFrame:
    """Cluster each root group again by its confidences and pair log-odds. Claim 1, last step.

    One row a face: face_id, root_key, cluster_key, confidence, status, threshold (the highest at which one
    coarse group holds the whole cluster), runner_up_key, margin (null where there is none). Faces of one
    photo are kept apart unless `same_photo` allows them together. calibration: the model's.
    """
    is_alone = F.size(c.FACE_IDS) == 1
    together = refinements.where(~is_alone)
    if config.same_photo == "apart":
        together = together.join(_photos(together, faces), c.ROOT_KEY, "left")
    else:
        together = together.withColumn(_PHOTOS, F.lit(None).cast("array<array<bigint>>"))
    assigned = together.mapInArrow(_assign(config, calibration), _ASSIGNED)
    return assigned.unionByName(_singletons(refinements.where(is_alone)))


def clusters(everyone: DataFrame, faces: DataFrame) -> DataFrame:
    """Give every ingested face its cluster, exactly once, from where faces were placed.

    `cluster_id` is derived from the smallest face id of the cluster. Fails, in Spark, on a face that was not
    placed: it would be lost otherwise.
    """
    lost = F.raise_error(F.concat(F.lit("no root group holds the image "), c.IMAGE_ID))
    return (
        faces.select(c.FACE_ID, c.IMAGE_ID)
        .join(everyone, c.FACE_ID, "left")
        .select(
            c.IMAGE_ID,
            F.coalesce(cluster_id_of(F.col(c.CLUSTER_KEY)), lost.cast("string")).alias(c.CLUSTER_ID),
            c.CONFIDENCE,
            c.STATUS,
            c.FACE_ID,
            c.ROOT_KEY,
            c.THRESHOLD,
            cluster_id_of(F.col(c.RUNNER_UP_KEY)).alias(c.RUNNER_UP),
            c.MARGIN,
        )
    )


def _photos(together: DataFrame, faces: DataFrame) -> DataFrame:
    """Give, for each root group with several faces of one photo, the faces of each such photo."""
    members = together.select(c.ROOT_KEY, F.explode(c.FACE_IDS).alias(c.FACE_ID))
    with_photo = faces.where(F.col(c.PHOTO_ID).isNotNull()).select(c.FACE_ID, c.PHOTO_ID)
    return (
        members.join(with_photo, c.FACE_ID)
        .groupBy(c.ROOT_KEY, c.PHOTO_ID)
        .agg(F.sort_array(F.collect_list(c.FACE_ID)).alias(c.FACE_IDS))
        .where(F.size(c.FACE_IDS) > 1)
        .groupBy(c.ROOT_KEY)
        .agg(F.sort_array(F.collect_list(c.FACE_IDS)).alias(_PHOTOS))
    )


def _singletons(alone: DataFrame) -> DataFrame:
    """Give the rows of faces that met nobody, without leaving Spark."""
    return alone.select(
        F.col(c.ROOT_KEY).alias(c.FACE_ID),
        c.ROOT_KEY,
        F.col(c.ROOT_KEY).alias(c.CLUSTER_KEY),
        F.lit(1.0).cast("float").alias(c.CONFIDENCE),
        F.lit(SINGLETON).alias(c.STATUS),
        F.array_max(c.THRESHOLDS).alias(c.THRESHOLD),
        F.lit(None).cast("bigint").alias(c.RUNNER_UP_KEY),
        F.lit(None).cast("float").alias(c.MARGIN),
    )


def cluster_id_of(label: Column) -> Column:
    """Give `kernels.assignment.mint_cluster_ids` as an expression over the smallest face id."""
    return F.concat(F.lit("c"), F.lpad(F.lower(F.hex(label)), 16, "0"))


def _assign(
    config: ClustersConfig, calibration: Calibration | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = to_arrow_schema(_ASSIGNED)

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in batches:
            groups = list(read_refinements(rows))
            shared = dict(zip((group.root_key for group in groups), rows[_PHOTOS].to_pylist(), strict=True))
            for batch in batch_refined(groups, _PAIRS_PER_BATCH):
                photos = [shared[group.root_key] for group in batch]
                yield _assigned(batch, photos, config, calibration, schema)

    return assign


def _assigned(
    groups: Sequence[RefinedGroup],
    shared: Sequence[Sequence[Sequence[int]] | None],
    config: ClustersConfig,
    calibration: Calibration | None,
    schema: pa.Schema,
) -> pa.RecordBatch:
    """Assign the faces of root groups; shared: of each, the faces of each photo that shows several."""
    photos = [shared_photos(group.face_ids, own or ()) for group, own in zip(groups, shared, strict=True)]
    group = join_refined(groups)
    result = assign_faces(
        group.face_ids,
        group.thresholds,
        group.keys,
        group.refinement,
        config,
        np.concatenate(photos),
        calibration,
    )
    nobody = result.runner_ups == NO_CLUSTER
    columns = {
        c.FACE_ID: group.face_ids,
        c.ROOT_KEY: group.keys[0],
        c.CLUSTER_KEY: result.labels,
        c.CONFIDENCE: result.confidences,
        c.STATUS: result.statuses,
        c.THRESHOLD: result.thresholds,
        c.RUNNER_UP_KEY: pa.array(result.runner_ups, mask=nobody),
        c.MARGIN: pa.array(result.margins, mask=nobody),
    }
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def with_thresholds(everyone: DataFrame, coarse_groups: DataFrame) -> DataFrame:
    """Give clusters whose threshold is null the highest at which one coarse group holds them whole.

    It stays null where no coarse group does, because a round joined faces of several root groups.
    """
    moved = everyone.where(F.col(c.THRESHOLD).isNull()).select(c.FACE_ID, c.CLUSTER_KEY)
    groups = coarse_groups.select(c.FACE_ID, c.THRESHOLD, c.GROUP_KEY).join(moved, c.FACE_ID)
    held = groups.groupBy(c.CLUSTER_KEY, c.THRESHOLD).agg(
        (F.min(c.GROUP_KEY) == F.max(c.GROUP_KEY)).alias(_HELD)
    )
    highest = held.where(_HELD).groupBy(c.CLUSTER_KEY).agg(F.max(c.THRESHOLD).alias(_HELD))
    return (
        everyone.join(highest, c.CLUSTER_KEY, "left")
        .withColumn(c.THRESHOLD, F.coalesce(c.THRESHOLD, _HELD))
        .drop(_HELD)
    )
