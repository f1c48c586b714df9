"""Rounds over clusters as nodes, on Spark: who joins whom, and what is told of each face afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Window
from pyspark.sql import functions as F

from faceclust_spark.kernels.assignment import MEMBER
from faceclust_spark.kernels.calibration import alone_inputs, calibrate
from faceclust_spark.stages.meetings import Nodes, hosts
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import RoundsConfig
    from faceclust_spark.kernels.calibration import AloneCalibration
    from faceclust_spark.stages.meetings import Materialise

_LINK, _BEST, _OTHER = "_link", "_best", "_other"
_ARRIVED, _SUREST = "_arrived", "_surest"
_ALONE, _CLUSTERS = "_alone", "_clusters"


class Played(NamedTuple):
    """Where faces stand after the rounds, and every visitor's best host in each round (ROUNDS)."""

    placed: DataFrame
    hosts: DataFrame | None  # None: there was no round


def play_rounds(
    placed: DataFrame, nodes: Nodes, joiner: bytes, config: RoundsConfig, materialise: Materialise
) -> Played:
    """Let small clusters join larger ones, in up to `config.count` rounds, as kernels.rounds does.

    placed: face_id, cluster_key, confidence, status, threshold, runner_up_key, margin and whatever else is
    kept; joiner, materialise as `hosts`. The threshold of a cluster that grew is forgotten (null): see
    stages.clusters.with_thresholds.
    """
    told: DataFrame | None = None
    for number in range(1, config.count + 1):
        placed = materialise(placed, f"round_placed_{number}")
        found = hosts(placed, nodes, joiner, config, materialise)
        found = materialise(found, f"round_hosts_{number}")
        joined = joins(found, placed, nodes.photos, config.least_log_odds)
        did_join = joined.select(c.VISITOR, F.lit(True).alias(c.JOINED))
        row = found.join(did_join, c.VISITOR, "left").select(
            F.lit(number).alias(c.ROUND),
            *(c.VISITOR, c.HOST, c.VISITOR_SIZE, c.LOG_ODDS),
            F.coalesce(c.JOINED, F.lit(False)).alias(c.JOINED),
        )
        told = row if told is None else told.unionByName(row)
        placed = settle(placed, found, joined)
        if number < config.count and joined.isEmpty():
            break
    return Played(placed, told)


def sure_alone(placed: DataFrame, calibration: AloneCalibration) -> DataFrame:
    """Say how sure those are that are alone after the rounds, as `kernels.rounds.sure_alone` does.

    placed: on disk, for it is counted first.
    """
    is_alone = F.col(c.STATUS) != MEMBER
    is_first = F.col(c.FACE_ID) == F.col(c.CLUSTER_KEY)  # a cluster is named after its smallest face id
    counts = placed.agg(F.count_if(is_alone).alias(_ALONE), F.count_if(is_first).alias(_CLUSTERS)).toArrow()
    alone, clusters = counts[_ALONE][0].as_py(), counts[_CLUSTERS][0].as_py()

    def calibrated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sure = batch[c.CONFIDENCE].to_numpy()
            own = calibrate(calibration, alone_inputs(sure, alone, clusters))
            kept = pc.equal(batch[c.STATUS], MEMBER).to_numpy(zero_copy_only=False)
            place = batch.schema.get_field_index(c.CONFIDENCE)
            yield batch.set_column(place, batch.schema.field(place), pa.array(np.where(kept, sure, own)))

    return placed.mapInArrow(calibrated, placed.schema)


def joins(found: DataFrame, placed: DataFrame, photos: DataFrame | None, least: float) -> DataFrame:
    """Give those who join, as rows of `found`: as `kernels.rounds.choose_hosts` and `part_rivals` do."""
    wants = found.where(F.col(c.LOG_ODDS) > F.lit(least).cast("float"))
    joining = wants.select(F.col(c.VISITOR).alias(c.HOST))
    accepted = wants.join(joining, c.HOST, "left_anti")
    if photos is None:
        return accepted
    shown = (
        accepted.join(placed.select(F.col(c.CLUSTER_KEY).alias(c.VISITOR), c.FACE_ID), c.VISITOR)
        .join(photos, c.FACE_ID)
        .select(c.VISITOR, c.HOST, c.LOG_ODDS, c.PHOTO_ID)
    )
    best_first = Window.partitionBy(c.HOST, c.PHOTO_ID).orderBy(F.desc(c.LOG_ODDS), c.VISITOR)
    rivals = shown.withColumn(_BEST, F.row_number().over(best_first)).where(F.col(_BEST) > 1)
    return accepted.join(rivals.select(c.VISITOR), c.VISITOR, "left_anti")


def settle(placed: DataFrame, found: DataFrame, joined: DataFrame) -> DataFrame:
    """Give faces their new labels, confidences, statuses and runner-ups, as `kernels.rounds.settle` does."""
    targets = _targets(joined)
    moved = found.withColumnRenamed(c.VISITOR, c.CLUSTER_KEY).join(
        joined.select(F.col(c.VISITOR).alias(c.CLUSTER_KEY), F.lit(True).alias(_LINK)), c.CLUSTER_KEY, "left"
    )
    own, alone = F.col(c.CONFIDENCE), F.col(c.VISITOR_SIZE) == 1
    has_company = (F.col(c.STATUS) != MEMBER) & F.col(_SUREST).isNotNull()
    sure = (
        F.when(F.col(_LINK), F.when(alone, F.col(c.TOGETHER)).otherwise(own * F.col(c.TOGETHER)))
        .when(has_company, F.col(_SUREST))
        .when(alone, F.least(own, F.col(c.APART)))
        .otherwise(own)
    )
    ahead = F.col(c.MARGIN) + F.col(_ARRIVED)
    settled = (
        placed.join(moved, c.CLUSTER_KEY, "left")
        .join(targets, c.CLUSTER_KEY, "left")
        .withColumns(_next_best(alone))
        .withColumn(c.MARGIN, F.when(has_company, ahead).otherwise(F.col(c.MARGIN)))
        .withColumn(c.CONFIDENCE, sure.cast("float"))
        .withColumn(c.STATUS, F.when(F.col(_OTHER).isNotNull(), MEMBER).otherwise(F.col(c.STATUS)))
        .withColumn(c.THRESHOLD, F.when(F.col(_OTHER).isNull(), F.col(c.THRESHOLD)))
        .withColumn(c.CLUSTER_KEY, F.coalesce(_OTHER, c.CLUSTER_KEY))
        .select(*placed.columns)
    )
    return _rename_runner_ups(settled, targets)


def _targets(joined: DataFrame) -> DataFrame:
    """Give the clusters whose label changes or who are joined: cluster_key, the new label, surest visitor."""
    smallest = joined.groupBy(c.HOST).agg(
        F.least(c.HOST, F.min(c.VISITOR)).alias(_OTHER),
        F.max(c.LOG_ODDS).alias(_ARRIVED),
        F.max(c.TOGETHER).alias(_SUREST),
    )
    visitors = joined.select(c.VISITOR, c.HOST).join(smallest.select(c.HOST, _OTHER), c.HOST)
    return smallest.withColumnRenamed(c.HOST, c.CLUSTER_KEY).unionByName(
        visitors.select(F.col(c.VISITOR).alias(c.CLUSTER_KEY), _OTHER), allowMissingColumns=True
    )


def _rename_runner_ups(settled: DataFrame, targets: DataFrame) -> DataFrame:
    """Give runner-ups their new labels, and forget those that came to be in the face's own cluster."""
    renamed = targets.select(F.col(c.CLUSTER_KEY).alias(c.RUNNER_UP_KEY), _OTHER)
    runner_up = F.coalesce(_OTHER, c.RUNNER_UP_KEY)
    is_other = runner_up != F.col(c.CLUSTER_KEY)
    return (
        settled.join(renamed, c.RUNNER_UP_KEY, "left")
        .withColumn(c.MARGIN, F.when(is_other, F.col(c.MARGIN)))
        .withColumn(c.RUNNER_UP_KEY, F.when(is_other, runner_up))
        .select(*settled.columns)
    )


def _next_best(alone: Column) -> dict[str, Column]:
    """Give runner-up and margin after a round, by labels from before it, as `kernels.rounds` does."""
    joins, log_odds = F.col(_LINK), F.col(c.LOG_ODDS)
    stays = F.col(c.HOST).isNotNull() & (alone | F.col(c.RUNNER_UP_KEY).isNull())
    ahead = log_odds - F.col(c.SECOND_LOG_ODDS)
    return {
        c.RUNNER_UP_KEY: F.when(joins, F.col(c.SECOND_HOST))
        .when(stays, F.col(c.HOST))
        .otherwise(F.col(c.RUNNER_UP_KEY)),
        c.MARGIN: F.when(joins, ahead).when(stays, -log_odds).otherwise(F.col(c.MARGIN)),
    }
