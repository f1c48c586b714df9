"""Small clusters meeting larger ones, on Spark: who meets whom, how each meeting looks, the best hosts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, FloatType, LongType, StructField, StructType

from faceclust_spark.arrow import attributes_from_arrow, unpack_lists, vectors_from_arrow
from faceclust_spark.kernels.encounters import LINKS
from faceclust_spark.kernels.meetings import (
    LARGE,
    MEETING_INPUTS,
    SAMPLE,
    Census,
    Clusters,
    Meetings,
    meeting_inputs,
    rank_hosts,
)
from faceclust_spark.kernels.rounds import Described, choose_hosts, sigmoid
from faceclust_spark.kernels.standing import NO_CLUSTER
from faceclust_spark.stages.output import to_arrow_schema
from faceclust_spark.stages.root_groups import whole_groups
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyspark.sql import DataFrame

    from faceclust_spark.config import RoundsConfig
    from faceclust_spark.kernels.joiner import Joiner
    from faceclust_spark.kernels.nearest import Scale

    Materialise = Callable[[DataFrame, str], DataFrame]

_LINK, _BEST, _LINKS, _OTHER = "_link", "_best", "_links", "_other"
_INPUTS = "_inputs"  # BINARY: float32

_DESCRIBED = StructType(
    [
        StructField(c.VISITOR, LongType(), False),
        StructField(c.HOST, LongType(), False),
        StructField(c.VISITOR_SIZE, LongType(), False),
        StructField(_INPUTS, BinaryType(), False),
    ]
)
_HOSTS = StructType(
    [
        StructField(c.VISITOR, LongType(), False),
        StructField(c.HOST, LongType(), False),
        StructField(c.VISITOR_SIZE, LongType(), False),
        StructField(c.LOG_ODDS, FloatType(), False),
        StructField(c.TOGETHER, FloatType(), False),  # probability that they are one person
        StructField(c.APART, FloatType(), False),
        StructField(c.SECOND_HOST, LongType(), True),
        StructField(c.SECOND_LOG_ODDS, FloatType(), True),
    ]
)


class Nodes(NamedTuple):
    """What the rounds read of a gallery.

    neighbours, vectors: as their tables. photos: face_id, photo_id of the faces that have one; None where
    faces of one photo may share a cluster. scale: of its cosines.
    """

    neighbours: DataFrame
    vectors: DataFrame
    photos: DataFrame | None
    scale: Scale


def hosts(
    placed: DataFrame, nodes: Nodes, joiner: bytes, config: RoundsConfig, materialise: Materialise
) -> DataFrame:
    """Give each small cluster that meets larger ones its most likely host, and how likely.

    One row a visitor, as `kernels.rounds` gives. placed: a row a face: face_id, cluster_key.
    joiner: a model, packed (kernels.model.model_bytes). materialise: cuts the lineage, by a name.
    """
    sizes = placed.groupBy(c.CLUSTER_KEY).agg(F.count(F.lit(1)).alias(c.SIZE))
    sized = placed.select(c.FACE_ID, c.CLUSTER_KEY).join(sizes, c.CLUSTER_KEY)
    meetings = _meetings(sized, nodes.neighbours, config)
    if nodes.photos is not None:
        shared = _photo_partners(placed, nodes.photos)
        meetings = meetings.join(shared, [c.VISITOR, c.HOST], "left_anti")
    meetings = materialise(meetings, "round_meetings")  # read four times
    described = _whole(
        _together(meetings, sized, nodes.vectors), c.HOST, c.CLUSTER_KEY, c.FACE_ID
    ).mapInArrow(_describer(nodes.scale, _census(sizes)), _DESCRIBED)
    return _whole(described, c.VISITOR, c.HOST).mapInArrow(_chooser(joiner, config), _HOSTS)


def _census(sizes: DataFrame) -> Census:
    """Count the clusters of the whole gallery, as `kernels.meetings.take_census` does."""
    size = F.col(c.SIZE)
    counts = sizes.agg(
        F.sum(size).alias("faces"),
        F.count(F.lit(1)).alias("clusters"),
        F.count_if(size == 1).alias("alone"),
        F.sum(F.when(size >= LARGE, size)).alias("in_large"),
    )
    (row,) = counts.toArrow().to_pylist()
    return Census(**{name: int(count or 0) for name, count in row.items()})


def _meetings(sized: DataFrame, neighbours: DataFrame, config: RoundsConfig) -> DataFrame:
    """Find the larger clusters that each small one's images are nearest to: visitor, host, _links."""
    near = F.arrays_zip(F.slice(c.NEIGHBOURS, 1, LINKS), F.slice(c.COSINES, 1, LINKS))
    links = (
        sized.where(F.col(c.SIZE) <= config.largest_visitor)
        .select(c.FACE_ID, F.col(c.CLUSTER_KEY).alias(c.VISITOR), F.col(c.SIZE).alias(c.VISITOR_SIZE))
        .join(neighbours.select(c.FACE_ID, F.explode(near).alias(_LINK)), c.FACE_ID)
        .select(
            c.VISITOR, c.VISITOR_SIZE, F.col(_LINK)["0"].alias(c.FACE_ID), F.col(_LINK)["1"].alias(c.COSINE)
        )
    )
    larger = (F.col(c.SIZE) > F.col(c.VISITOR_SIZE)) | (
        (F.col(c.SIZE) == F.col(c.VISITOR_SIZE)) & (F.col(c.HOST) < F.col(c.VISITOR))
    )
    met = (
        links.join(sized.withColumnRenamed(c.CLUSTER_KEY, c.HOST), c.FACE_ID)
        .where((F.col(c.HOST) != F.col(c.VISITOR)) & larger)
        .groupBy(c.VISITOR, c.HOST)
        .agg(F.max(c.COSINE).alias(_BEST), F.count(F.lit(1)).alias(_LINKS))
    )
    nearest = Window.partitionBy(c.VISITOR).orderBy(F.desc(_BEST), F.desc(_LINKS), c.HOST)
    ranked = met.withColumn(_OTHER, F.row_number().over(nearest)).where(F.col(_OTHER) <= config.hosts)
    return ranked.select(c.VISITOR, c.HOST, _LINKS)


def _photo_partners(placed: DataFrame, photos: DataFrame) -> DataFrame:
    """Give the pairs of clusters that show a photo in common, both ways round."""
    shown = (
        placed.select(c.FACE_ID, c.CLUSTER_KEY)
        .join(photos, c.FACE_ID)
        .select(c.PHOTO_ID, c.CLUSTER_KEY)
        .distinct()
    )
    one, other = (shown.withColumnRenamed(c.CLUSTER_KEY, name) for name in (c.VISITOR, c.HOST))
    pairs = one.join(other, c.PHOTO_ID).where(F.col(c.VISITOR) != F.col(c.HOST))
    return pairs.select(c.VISITOR, c.HOST).distinct()


def _together(meetings: DataFrame, sized: DataFrame, vectors: DataFrame) -> DataFrame:
    """Bring samples of the images of each host and of its visitors together, a row an image."""
    ends = meetings.select(F.col(c.VISITOR).alias(c.CLUSTER_KEY)).unionByName(
        meetings.select(F.col(c.HOST).alias(c.CLUSTER_KEY))
    )
    first = Window.partitionBy(c.CLUSTER_KEY).orderBy(c.FACE_ID)
    images = (
        sized.join(ends.distinct(), c.CLUSTER_KEY)
        .withColumn(_OTHER, F.row_number().over(first))
        .where(F.col(_OTHER) <= SAMPLE)
        .select(c.CLUSTER_KEY, F.col(c.SIZE).alias(c.VISITOR_SIZE), c.FACE_ID)
        .join(vectors.select(c.FACE_ID, c.VECTOR, c.ATTRIBUTES, c.NORM), c.FACE_ID)
    )
    visits = meetings.withColumnRenamed(c.VISITOR, c.CLUSTER_KEY)
    own = (
        meetings.select(c.HOST)
        .distinct()
        .select(c.HOST, F.col(c.HOST).alias(c.CLUSTER_KEY), F.lit(0).alias(_LINKS))
    )
    return visits.unionByName(own).join(images, c.CLUSTER_KEY)


def _whole(rows: DataFrame, key: str, *order: str) -> DataFrame:
    """Send all rows of a key to one task, sorted, with their number as `size` (see whole_groups)."""
    sized = rows.withColumn(c.SIZE, F.count(F.lit(1)).over(Window.partitionBy(key)))
    return sized.sortWithinPartitions(key, *order)


def _describer(
    scale: Scale, census: Census
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = to_arrow_schema(_DESCRIBED)

    def describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in whole_groups(batches, c.HOST):
            hosts, labels = rows[c.HOST].to_numpy(), rows[c.CLUSTER_KEY].to_numpy()
            fresh = np.append(True, (hosts[1:] != hosts[:-1]) | (labels[1:] != labels[:-1]))
            starts = np.flatnonzero(fresh)
            hosts, labels = hosts[starts], labels[starts]
            sizes, links = (rows[name].to_numpy()[starts] for name in (c.VISITOR_SIZE, _LINKS))
            clusters = Clusters(
                np.append(starts, rows.num_rows),
                sizes,
                vectors_from_arrow(rows[c.VECTOR]),
                attributes_from_arrow(rows[c.ATTRIBUTES]),
                rows[c.NORM].to_numpy(),
            )
            visitor, is_host = np.flatnonzero(hosts != labels), np.flatnonzero(hosts == labels)
            host = is_host[np.searchsorted(hosts[is_host], hosts[visitor])]
            met = Meetings(visitor, host, links[visitor].astype(np.int64))
            inputs = meeting_inputs(clusters, met, scale, census)
            packed = pa.array([row.tobytes() for row in inputs.astype("<f4")], pa.binary())
            columns = [pa.array(labels[visitor]), pa.array(hosts[visitor]), pa.array(sizes[visitor]), packed]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return describe


def _chooser(
    joiner: bytes, config: RoundsConfig
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    schema = to_arrow_schema(_HOSTS)

    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from faceclust_spark.kernels.graph_convolution import one_torch_thread
        from faceclust_spark.kernels.joiner import join_log_odds

        with one_torch_thread():
            for rows in whole_groups(batches, c.VISITOR):
                visitor, host = rows[c.VISITOR].to_numpy(), rows[c.HOST].to_numpy()
                inputs = unpack_lists(rows[_INPUTS], MEETING_INPUTS).astype(np.float32)
                rank_hosts(visitor, host, inputs)
                odds = join_log_odds(_load_once(joiner), inputs)
                best = choose_hosts(Described(visitor, host, inputs), odds, config.least_log_odds)
                first = np.searchsorted(visitor, best.visitor)
                size = rows[c.VISITOR_SIZE].to_numpy()[first]
                together, apart = sigmoid(best.log_odds), sigmoid(-best.log_odds)
                columns = [best.visitor, best.host, size, best.log_odds, together, apart]
                none = best.second == NO_CLUSTER
                seconds = [pa.array(column, mask=none) for column in (best.second, best.second_log_odds)]
                arrays = [*map(pa.array, columns), *seconds]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return choose


@lru_cache(maxsize=1)
def _load_once(model: bytes) -> Joiner:
    """Load the joiner once a worker process."""
    from faceclust_spark.kernels.model import model_from_bytes

    joiner = model_from_bytes(model).joiner
    if joiner is None:
        raise ValueError("this model has no joiner")
    return joiner
