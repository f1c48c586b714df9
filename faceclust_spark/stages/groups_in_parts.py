"""Coarse groups of a forest beyond one task: the same as `kernels.groups.cut_forest` gives in one.

1. Cores. The components at the highest threshold do not touch each other: tasks cut as many of them as they
   hold. A component that no task holds is looked at here as `cut_forest` would: it stays whole where a sample
   says that it is dense, and else is replaced by its components at the ladder's next level.
2. Joining. Whether a link joins two groups depends on them alone, as all stronger links have made them. So
   the links between cores come in bands of cosine, the strongest first, each of which one task holds, with
   the groups that it touches; after each band the groups are known to all.

No task holds more than `max_forest_edges` edges, with about 300 bytes each; bands follow one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StructField, StructType

from faceclust_spark.kernels.forest import ContractedEdges
from faceclust_spark.kernels.groups import (
    BUCKETS,
    DENSITY,
    DENSITY_SAMPLE,
    Groups,
    cut_bands,
    cut_cores,
    is_dense,
    join_groups,
    ladder,
)
from faceclust_spark.kernels.ids import sample_mask
from faceclust_spark.stages.contraction_rounds import COMPONENT, END, START, components, to_batches
from faceclust_spark.stages.densities import SAMPLE, SAMPLED, densities, read_measured, sampler
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

    from faceclust_spark.config import CoarseGroupsConfig
    from faceclust_spark.stages.contraction_rounds import ArrowFunction, Materialise

_CORE, _LIMIT, _AT, _NEXT = "_core", "_limit", "_at", "_next"
_CORES = StructType(
    [
        StructField(c.FACE_ID, LongType(), False),
        StructField(_CORE, LongType(), False),
        StructField(c.LEVEL, FloatType(), False),
    ]
)
_STATE = [
    StructField(c.GROUP_KEY, LongType(), False),
    StructField(c.LEVEL, FloatType(), False),
    StructField(c.SIZE, LongType(), False),
    StructField(_LIMIT, LongType(), False),
]
_STATE_NAMES = [field.name for field in _STATE]
_CHANGED = StructType([StructField(_AT, LongType(), False), *_STATE])


def groups_in_parts(
    edges: DataFrame,
    vectors: DataFrame,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    tasks: int,
    materialise: Materialise,
) -> DataFrame:
    """Give the groups of all faces that an edge of the forest touches, as rows of COARSE_GROUPS.

    edges: rows of FOREST, read from a table. The result reads scratch tables.

    Raises ConfigError where more than `max_forest_edges` links have the same cosine within 1/16384.
    """
    found = _cores(edges, vectors, thresholds, config, tasks, materialise)
    touched = edges.select(F.explode(F.array(c.FACE_A, c.FACE_B)).alias(c.FACE_ID)).distinct()
    alone = (F.coalesce(_CORE, c.FACE_ID).alias(_CORE), F.coalesce(c.LEVEL, _float(1.0)).alias(c.LEVEL))
    members = materialise(touched.join(found, c.FACE_ID, "left").select(c.FACE_ID, *alone), "groups_members")
    links = edges.where(
        (F.col(c.COSINE) >= _float(thresholds[0])) & (F.col(c.COSINE) < _float(thresholds[-1]))
    )
    for face, end in ((c.FACE_A, START), (c.FACE_B, END)):
        links = links.join(members.select(F.col(c.FACE_ID).alias(face), F.col(_CORE).alias(end)), face)
    links = materialise(links.select(START, END, c.FACE_A, c.FACE_B, c.COSINE), "groups_links")
    groups = _joined(links, members, thresholds, config, materialise)
    rows = [
        F.struct(
            _float(threshold).alias(c.THRESHOLD), F.col(key).alias(c.GROUP_KEY), F.col(level).alias(c.LEVEL)
        )
        for threshold, (key, level) in zip(thresholds, map(_kept, range(len(thresholds))), strict=True)
    ]
    root = F.col(_kept(0)[0]).alias(c.ROOT_KEY)
    of_all = members.select(c.FACE_ID, _CORE).join(groups, _CORE)
    return of_all.select(F.inline(F.array(*rows)), root, c.FACE_ID).select(
        c.THRESHOLD, c.GROUP_KEY, c.ROOT_KEY, c.FACE_ID, c.LEVEL
    )


def _cores(
    edges: DataFrame,
    vectors: DataFrame,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    tasks: int,
    materialise: Materialise,
) -> DataFrame:
    """Give the core of every face that is not alone in it, _CORES."""
    limit, found = config.max_forest_edges, None
    steps = ladder(thresholds[-1], config.ladder_step)
    pending = edges.where(F.col(c.COSINE) >= _float(steps[0]))
    for number in range(len(steps)):
        pieces = materialise(components(pending, limit, tasks, materialise), "groups_pieces")
        large = _large_pieces(pieces, limit)
        dense = _dense_pieces(pieces, large, vectors, thresholds, config)
        whole = large if number == len(steps) - 1 else dense  # near-copies: no level is left
        edge_piece = pieces.select(F.col(c.FACE_ID).alias(c.FACE_A), COMPONENT)
        placed = pending.join(edge_piece, c.FACE_A)
        small = placed.where(~F.col(COMPONENT).isin(large))
        parts = _cut_small(small, vectors, steps[number:], thresholds, config)
        parts = parts.unionByName(_whole_cores(pieces, whole, steps[number]))
        together = parts if found is None else found.unionByName(parts)
        found = materialise(together, f"groups_cores_{number % 2}")
        again = [piece for piece in large if piece not in whole]
        if not again:
            break
        left = placed.where(F.col(COMPONENT).isin(again) & (F.col(c.COSINE) >= _float(steps[number + 1])))
        pending = materialise(left.select(c.FACE_A, c.FACE_B, c.COSINE), f"groups_edges_{number % 2}")
    assert found is not None  # the ladder has at least one level
    return found


def _large_pieces(pieces: DataFrame, limit: int) -> list[int]:
    """Name the pieces that no task holds; there are fewer than edges / limit."""
    sizes = pieces.groupBy(COMPONENT).agg(F.count("*").alias(c.SIZE))
    named = sizes.where(F.col(c.SIZE) > limit).select(COMPONENT).toArrow()
    return sorted(named[COMPONENT].to_pylist())


def _dense_pieces(
    pieces: DataFrame,
    large: list[int],
    vectors: DataFrame,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
) -> list[int]:
    """Name the large pieces that stay whole, by the sample of their faces that `cut_forest` takes."""
    if not large:
        return []
    of_sample = F.col(c.FACE_ID).bitwiseXOR(F.lit(sample_mask(DENSITY)))
    place = F.row_number().over(Window.partitionBy(COMPONENT).orderBy(of_sample))
    samples = pieces.where(F.col(COMPONENT).isin(large)).withColumn(_AT, place)
    sampled = samples.where(F.col(_AT) <= DENSITY_SAMPLE).withColumnRenamed(COMPONENT, SAMPLE)
    measured = densities(sampled, vectors).toArrow().to_pylist()
    return [row[SAMPLE] for row in measured if is_dense(row[c.MEAN], thresholds, config)]


def _whole_cores(pieces: DataFrame, whole: list[int], level: np.float32) -> DataFrame:
    """Make a core of each of these pieces, named by its smallest face."""
    members = pieces.where(F.col(COMPONENT).isin(whole))
    names = members.groupBy(COMPONENT).agg(F.min(c.FACE_ID).alias(_CORE))
    return members.join(names, COMPONENT).select(c.FACE_ID, _CORE, _float(level).alias(c.LEVEL))


def _cut_small(
    placed: DataFrame,
    vectors: DataFrame,
    steps: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
) -> DataFrame:
    """Cut the pieces that a task holds; whole pieces are spread over tasks of half the limit each."""
    tasks = 1 + 2 * placed.count() // config.max_forest_edges
    own = placed.select(c.FACE_A, c.FACE_B, c.COSINE, COMPONENT).repartition(tasks, COMPONENT)
    samples = own.mapInArrow(sampler(steps, thresholds, config), SAMPLED)
    piece_of_face = placed.select(
        COMPONENT, F.explode(F.array(c.FACE_A, c.FACE_B)).alias(c.FACE_ID)
    ).distinct()
    piece_of_sample = samples.join(piece_of_face, c.FACE_ID).select(SAMPLE, COMPONENT).distinct()
    measured = densities(samples, vectors).join(piece_of_sample, SAMPLE)
    both = placed.unionByName(measured, allowMissingColumns=True).repartition(tasks, COMPONENT)
    return both.mapInArrow(_core_cutter(steps, thresholds, config), _CORES)


def _core_cutter(
    steps: NDArray[np.float32], thresholds: NDArray[np.float32], config: CoarseGroupsConfig
) -> ArrowFunction:
    def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        edges, density = read_measured(batches)
        yield from to_batches(cut_cores(edges, steps, thresholds, config, density), _CORES)

    return cut


def _joined(
    links: DataFrame,
    members: DataFrame,
    thresholds: NDArray[np.float32],
    config: CoarseGroupsConfig,
    materialise: Materialise,
) -> DataFrame:
    """Join cores band by band: `_core`, and its group's key and level at each threshold (`_kept`)."""
    size = F.count("*")
    grown = (size * F.lit(config.core_growth)).cast("long")
    groups = members.groupBy(_CORE).agg(
        F.min(c.LEVEL).alias(c.LEVEL),
        size.alias(c.SIZE),
        F.greatest(F.lit(config.max_size).cast("long"), grown).alias(_LIMIT),
    )
    groups = _keep(groups.withColumn(c.GROUP_KEY, F.col(_CORE)), len(thresholds) - 1)
    groups = materialise(groups, "groups_joined_1")
    top, bands = thresholds[-1], cut_bands(_count_links(links), thresholds, config.max_forest_edges)
    for number, lowest in enumerate(bands):
        band = links.where((F.col(c.COSINE) >= _float(lowest)) & (F.col(c.COSINE) < _float(top)))
        changed = _with_groups(band, groups).repartition(1).mapInArrow(_join, _CHANGED)
        new = [F.coalesce(F.col(f"new.{name}"), F.col(f"old.{name}")).alias(name) for name in _STATE_NAMES]
        kept = [F.col(f"old.{name}") for name in groups.columns if name not in _STATE_NAMES]
        same = F.col(f"old.{c.GROUP_KEY}") == F.col(f"new.{_AT}")
        groups = groups.alias("old").join(changed.alias("new"), same, "left").select(*kept, *new)
        for row in np.flatnonzero(thresholds[:-1] == lowest).tolist():
            groups = _keep(groups, row)
        groups = materialise(groups, f"groups_joined_{number % 2}")
        top = lowest
    return groups


def _count_links(links: DataFrame) -> dict[int, int]:
    """Count the links by cosine, in steps of 1/16384."""
    bucket = F.floor(F.col(c.COSINE) * BUCKETS).alias(_AT)
    counts = links.groupBy(bucket).agg(F.count("*").alias(c.COUNT)).toArrow()
    return dict(zip(counts[_AT].to_pylist(), counts[c.COUNT].to_pylist(), strict=True))


def _with_groups(band: DataFrame, groups: DataFrame) -> DataFrame:
    """Replace the cores of links by what they are part of by now, and add the state of these groups."""
    for end in (START, END):
        state = [F.col(name).alias(f"{end}_{name}") for name in _STATE_NAMES]
        band = band.join(groups.select(F.col(_CORE).alias(end), *state), end)
    return band


def _join(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join the groups of one band of links; gives what each has become. Runs on the executors."""
    parts = [batch for batch in batches if batch.num_rows]
    if not parts:
        return
    rows = pa.Table.from_batches(parts)
    states = [
        np.concatenate([rows[f"{end}_{name}"].to_numpy() for end in (START, END)]) for name in _STATE_NAMES
    ]
    keys, where = np.unique(states[0], return_index=True)
    groups = Groups(keys, *(column[where] for column in states[1:]))
    start, end = states[0].reshape(2, -1)
    faces = (rows[name].to_numpy() for name in (c.FACE_A, c.FACE_B, c.COSINE))
    joined = join_groups(ContractedEdges(start, end, *faces), groups)
    yield from to_batches((joined.keys, *joined.groups), _CHANGED)


def _keep(groups: DataFrame, row: int) -> DataFrame:
    """Keep the groups as they are at a threshold."""
    key, level = _kept(row)
    return groups.withColumn(key, F.col(c.GROUP_KEY)).withColumn(level, F.col(c.LEVEL))


def _kept(row: int) -> tuple[str, str]:
    return f"_key_{row}", f"_level_{row}"


def _float(value: np.float32 | float) -> Column:
    return F.lit(float(value)).cast("float")
