"""Root groups on their way to the refining kernels: whole, and packed into tasks by cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Window
from pyspark.sql import functions as F

from faceclust_spark.arrow import attributes_from_arrow, vectors_from_arrow
from faceclust_spark.errors import InfrastructureError
from faceclust_spark.kernels.grouping import split_groups
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import ConfidencesConfig
    from faceclust_spark.kernels.refine import Group

_SMALLEST_TASK = 50_000  # pairs: below it a further task costs more than it spreads
_COST, _PACK = "_cost", "_pack"  # columns that no one else sees
_LARGE_SHARE = 100  # a group above this fraction of a task is placed, smaller ones are hashed


class RootGroups(NamedTuple):
    """The root groups of a gallery.

    alone: groups of one face, a row each: root_key (its face_id), thresholds. They need no vector and
    no Python worker, and are most groups of a gallery.
    together: the faces of all other groups, a row each: root_key, size of the group, thresholds
    (ascending), face_id, group_keys (one a threshold), vector, attributes, norm. Each group is whole inside
    one partition and sorted by face_id: use it as it is, since a repartition would cut groups apart.
    """

    alone: DataFrame
    together: DataFrame


def root_groups(coarse_groups: DataFrame, vectors: DataFrame, config: ConfidencesConfig) -> RootGroups:
    """Gather the members of every root group, packed into tasks of about `pairs_per_task` pairs."""
    sizes = _sizes(coarse_groups)
    alone = sizes.where(F.col(c.SIZE) == 1).select(c.ROOT_KEY, c.THRESHOLDS)
    groups = sizes.where(F.col(c.SIZE) > 1)
    by_threshold = F.sort_array(F.collect_list(F.struct(c.THRESHOLD, c.GROUP_KEY)))
    members = (
        coarse_groups.join(groups.select(c.ROOT_KEY), c.ROOT_KEY, "left_semi")
        .groupBy(c.FACE_ID)
        .agg(F.min(c.ROOT_KEY).alias(c.ROOT_KEY), by_threshold.alias(c.GROUP_KEYS))
        .join(vectors.select(c.FACE_ID, c.VECTOR, c.ATTRIBUTES, c.NORM), c.FACE_ID)
        .select(
            c.ROOT_KEY,
            c.FACE_ID,
            F.col(c.GROUP_KEYS)[c.GROUP_KEY].alias(c.GROUP_KEYS),
            c.VECTOR,
            c.ATTRIBUTES,
            c.NORM,
        )
    )
    together = place_groups(members, groups, c.ROOT_KEY, _pairs(config), config.pairs_per_task)
    return RootGroups(alone, together)


def place_groups(
    members: DataFrame, groups: DataFrame, key: str, cost: Column, cost_per_task: int
) -> DataFrame:
    """Send the members of each group to one partition, sorted by key and face id.

    members: one row a face, with `key` and face_id. groups: one row a group, with `key`, its size (of
    two or more) and whatever else each member shall carry; `cost` is an expression over these.

    Tasks get equal shares of the cost, for which no group counts more than a whole task: it cannot be
    spread, and would leave hundreds of tasks with nothing to do. A large group is placed by the running
    sum of costs, small ones by hash, which spreads them evenly because they are small and many: so the
    running sum, which one task computes, sees at most 100 groups a task however large the gallery. Where
    a group is placed never changes a result.
    """
    costs = groups.withColumn(_COST, F.least(cost.cast("long"), F.lit(cost_per_task)))
    total, large_total = _total_costs(costs, cost_per_task)
    tasks = _task_count(total, cost_per_task, shuffle_partitions(groups))
    hashed = F.pmod(F.xxhash64(key), F.lit(tasks)).cast("int")
    is_large = F.col(_COST) * _LARGE_SHARE > cost_per_task
    small = costs.where(~is_large).withColumn(_PACK, hashed)
    placed = _spread(costs.where(is_large), key, large_total, tasks)
    packs = small.unionByName(placed).drop(_COST)
    return (
        members.join(packs, key)
        .repartitionById(tasks, F.col(_PACK))
        .drop(_PACK)
        .sortWithinPartitions(key, c.FACE_ID)
    )


def shuffle_partitions(frame: DataFrame) -> int:
    """Give how many tasks the session means a shuffle to have: all that is known of its cores everywhere."""
    value = frame.sparkSession.conf.get("spark.sql.shuffle.partitions", "1") or "1"
    return int(value) if value.isdigit() else 1  # some platforms say `auto`


def whole_groups(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    """Cut a partition of `place_groups` into record batches that hold whole groups only.

    A batch ends where Spark's batch ended, moved to the end of a group; a group longer than Spark's
    batches comes as one batch. Runs on the executors.

    Raises InfrastructureError when a group has fewer members here than its size says.
    """
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows == 0:
            continue
        start = _last_group_start(batch, key)
        first = batch.column(key)[0]
        if start == 0 and pending and pending[-1].column(key)[0] == first:
            pending.append(batch)
            continue
        if start == 0:
            yield from _joined(pending, key)
        else:
            yield from _joined([*pending, batch.slice(0, start)], key)
        pending = [batch.slice(start)]
    yield from _joined(pending, key)


def groups_from_arrow(rows: pa.RecordBatch) -> list[Group]:
    """Give the groups of a batch of whole root groups as the kernels take them."""
    return split_groups(
        rows[c.ROOT_KEY].to_numpy(),
        rows[c.FACE_ID].to_numpy(),
        vectors_from_arrow(rows[c.VECTOR]),
        attributes_from_arrow(rows[c.ATTRIBUTES]),
        rows[c.NORM].to_numpy(),
        rows[c.GROUP_KEYS].flatten().to_numpy().reshape(rows.num_rows, -1).T,
    )


def _sizes(coarse_groups: DataFrame) -> DataFrame:
    """Give each root group's size and thresholds; a face has one row a threshold."""
    thresholds = F.sort_array(F.collect_set(c.THRESHOLD))
    return (
        coarse_groups.groupBy(c.ROOT_KEY)
        .agg(thresholds.alias(c.THRESHOLDS), F.count(F.lit(1)).alias(c.SIZE))
        .withColumn(c.SIZE, (F.col(c.SIZE) / F.size(c.THRESHOLDS)).cast("long"))
    )


def _pairs(config: ConfidencesConfig) -> Column:
    """Give `kernels.grouping.scored_pairs` as an expression over the size."""
    size = F.col(c.SIZE)
    every = size * (size - 1) / 2
    some = F.least(every, size * (config.block_neighbours + config.block_negatives))
    return F.when(size <= config.dense_size, every).otherwise(some)


def _total_costs(costs: DataFrame, cost_per_task: int) -> tuple[int, int]:
    """Give the cost of all groups, and that of the large ones."""
    large = F.when(F.col(_COST) * _LARGE_SHARE > cost_per_task, F.col(_COST))
    row = costs.agg(F.sum(_COST).alias("total"), F.sum(large).alias("large")).first()
    return (row["total"] or 0, row["large"] or 0) if row else (0, 0)


def _task_count(total: int, cost_per_task: int, parallelism: int) -> int:
    """Give as many tasks as the cost fills, or as the session runs at once if they are worth it."""
    return max(1, -(-total // cost_per_task), min(parallelism, -(-total // _SMALLEST_TASK)))


def _spread(large: DataFrame, key: str, total: int, tasks: int) -> DataFrame:
    """Give each large group the task in whose share of the total cost it starts."""
    # Hash order mixes sizes; the window is one task by design, over at most 100 rows a task.
    before = Window.orderBy(F.xxhash64(key), key).rowsBetween(Window.unboundedPreceding, -1)
    start = F.coalesce(F.sum(_COST).over(before), F.lit(0))
    return large.withColumn(_PACK, F.floor(start * tasks / max(total, 1)).cast("int"))


def _last_group_start(batch: pa.RecordBatch, key: str) -> int:
    ends = pc.run_end_encode(batch.column(key)).run_ends
    return ends[-2].as_py() if len(ends) > 1 else 0


def _joined(pieces: list[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    """Join pieces to one batch, if there are any, and check that its groups are whole."""
    if not pieces:
        return
    rows = pa.concat_batches(pieces) if len(pieces) > 1 else pieces[0]
    ends = pc.run_end_encode(rows.column(key)).run_ends.to_numpy()
    lengths = np.diff(ends, prepend=0)
    sizes = rows.column(c.SIZE).to_numpy()[ends - 1]
    if (lengths != sizes).any():
        at = int(np.argmax(lengths != sizes))
        raise InfrastructureError(
            f"a group came in parts: {lengths[at]} of its {sizes[at]} members were found together; a "
            "DataFrame of placed groups must not be repartitioned, coalesced or filtered by face"
        )
    yield rows
