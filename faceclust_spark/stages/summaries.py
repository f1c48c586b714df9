"""One row a cluster: its size, its most typical image, how sure and how tight it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StringType, StructField, StructType

from faceclust_spark.arrow import vectors_from_arrow
from faceclust_spark.kernels.summaries import summarise_clusters
from faceclust_spark.stages.output import frame_of_rows, to_arrow_schema
from faceclust_spark.stages.root_groups import place_groups, whole_groups
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession

_SUMMARISED = StructType(
    [
        StructField(c.CLUSTER_ID, StringType(), False),
        StructField(c.SIZE, LongType(), False),
        StructField(c.MEDOID, StringType(), False),
        StructField(c.MEAN_CONFIDENCE, FloatType(), False),
        StructField(c.LOWEST_SIMILARITY, FloatType(), True),
        StructField(c.THRESHOLD, FloatType(), True),
    ]
)


def cluster_summary(
    clusters: DataFrame, vectors: DataFrame, refinements: DataFrame, pairs_per_task: int
) -> DataFrame:
    """Describe each cluster by its size, medoid, mean confidence, lowest similarity and thresholds.

    Medoid: the member with the highest mean cosine to the others; ties: the smaller face id. Lowest
    similarity: the lowest cosine of any two members, over all pairs. Thresholds: those at which one
    coarse group holds the whole cluster, none where a round joined it across root groups. Exact, so the
    same for any partitioning.
    """
    sizes = clusters.groupBy(c.CLUSTER_ID).agg(F.count(F.lit(1)).alias(c.SIZE))
    several = sizes.where(F.col(c.SIZE) > 1)
    members = clusters.select(c.CLUSTER_ID, c.FACE_ID, c.IMAGE_ID, c.CONFIDENCE, c.THRESHOLD).join(
        vectors.select(c.FACE_ID, c.VECTOR), c.FACE_ID
    )
    every_pair = F.col(c.SIZE) * (F.col(c.SIZE) - 1) / 2
    placed = place_groups(members, several, c.CLUSTER_ID, every_pair, pairs_per_task)
    alone = clusters.join(sizes.where(F.col(c.SIZE) == 1), c.CLUSTER_ID).select(
        c.CLUSTER_ID,
        c.SIZE,
        F.col(c.IMAGE_ID).alias(c.MEDOID),
        F.col(c.CONFIDENCE).alias(c.MEAN_CONFIDENCE),
        F.lit(None).cast("float").alias(c.LOWEST_SIMILARITY),
        c.THRESHOLD,
    )
    described = placed.mapInArrow(described_clusters, _SUMMARISED).unionByName(alone)
    known = refinements.select(c.THRESHOLDS).limit(1)  # the same in every row
    return _told(described.crossJoin(known), F.col(c.THRESHOLDS))


def summary_frame(
    spark: SparkSession,
    described: Sequence[pa.RecordBatch],
    alone: pa.RecordBatch,
    thresholds: NDArray[np.float32],
) -> DataFrame:
    """Give what `cluster_summary` gives, from rows that this process holds.

    described: as `described_clusters` gives. alone: rows of CLUSTERS, of clusters of one face.
    """
    count = alone.num_rows
    columns = {
        c.CLUSTER_ID: alone[c.CLUSTER_ID],
        c.SIZE: np.ones(count, np.int64),
        c.MEDOID: alone[c.IMAGE_ID],
        c.MEAN_CONFIDENCE: alone[c.CONFIDENCE],
        c.LOWEST_SIMILARITY: pa.nulls(count, pa.float32()),
        c.THRESHOLD: alone[c.THRESHOLD],
    }
    schema = to_arrow_schema(_SUMMARISED)
    rows = pa.Table.from_batches([*described, pa.RecordBatch.from_pydict(columns, schema=schema)], schema)
    known = F.array(*(F.lit(float(threshold)).cast("float") for threshold in thresholds))
    return _told(frame_of_rows(spark, rows, _SUMMARISED), known)


def _told(described: DataFrame, thresholds: Column) -> DataFrame:
    """Give rows of CLUSTER_SUMMARY, with the first thresholds up to each cluster's highest."""
    up_to_highest = F.filter(thresholds, lambda threshold: threshold <= F.col(c.THRESHOLD))
    return described.select(
        c.CLUSTER_ID,
        c.SIZE,
        c.MEDOID,
        c.MEAN_CONFIDENCE,
        c.LOWEST_SIMILARITY,
        up_to_highest.alias(c.THRESHOLDS),
    )


def described_clusters(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give a row for each of the placed clusters. Runs on the executors, or in the driver.

    Rows: cluster_id, size, image_id, confidence, threshold, vector, sorted by cluster, then face id.
    """
    schema = to_arrow_schema(_SUMMARISED)
    for rows in whole_groups(batches, c.CLUSTER_ID):
        ends = pc.run_end_encode(rows[c.CLUSTER_ID]).run_ends.to_numpy()
        starts = np.append(0, ends[:-1]).astype(np.int64)
        found = summarise_clusters(vectors_from_arrow(rows[c.VECTOR]), rows[c.CONFIDENCE].to_numpy(), starts)
        thresholds = rows[c.THRESHOLD].to_numpy(zero_copy_only=False)  # NaN where no coarse group holds all
        columns = {
            c.CLUSTER_ID: rows[c.CLUSTER_ID].take(pa.array(starts)),
            c.SIZE: ends - starts,
            c.MEDOID: rows[c.IMAGE_ID].take(pa.array(found.medoids)),
            c.MEAN_CONFIDENCE: found.mean_confidences,
            c.LOWEST_SIMILARITY: pa.array(found.lowest, from_pandas=True),
            c.THRESHOLD: pa.array(np.fmin.reduceat(thresholds, starts), from_pandas=True),
        }
        yield pa.RecordBatch.from_pydict(columns, schema=schema)
