"""The schema of every table; each stage's last `select` fulfils one of them."""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from faceclust_spark.tables import columns as c

_LONG, _INT, _FLOAT, _DOUBLE = LongType(), IntegerType(), FloatType(), DoubleType()
_STRING, _BINARY = StringType(), BinaryType()
_LONGS, _FLOATS, _DOUBLES = (ArrayType(element, False) for element in (_LONG, _FLOAT, _DOUBLE))


class Table(NamedTuple):
    """A table of the pipeline.

    Published ones are what people read; they stay at Delta reader version 1, so that readers other
    than Spark open them. Keyed ones are merged into by ingest; all others are replaced by each run.
    """

    name: str
    schema: StructType
    published: bool = False
    keys: tuple[str, ...] = ()


def _schema(*fields: tuple[str, DataType] | tuple[str, DataType, bool]) -> StructType:
    """Build a schema from (name, type) for columns that are always set, (name, type, True) for others."""
    return StructType([StructField(f[0], f[1], len(f) > 2) for f in fields])


FACES = Table(
    "faces",
    _schema(
        (c.FACE_ID, _LONG),
        (c.IMAGE_ID, _STRING),
        (c.PHOTO_ID, _STRING, True),
        (c.QUALITY, _FLOAT, True),
        (c.LABEL, _STRING, True),
        (c.EMBEDDING_MODEL, _STRING, True),
        (c.EXTRA, MapType(_STRING, _STRING, True), True),
        (c.CONTENT_HASH, _STRING),
        (c.RUN_ID, _STRING),
    ),
    keys=(c.FACE_ID,),
)
VECTORS = Table(
    "vectors",
    _schema(
        (c.FACE_ID, _LONG),
        (c.VECTOR, _BINARY),
        (c.ATTRIBUTES, ArrayType(_FLOAT, True), True),
        (c.NORM, _FLOAT),
        (c.CONTENT_HASH, _STRING),
        (c.RUN_ID, _STRING),
    ),
    keys=(c.FACE_ID,),
)
QUARANTINE = Table(
    "quarantine",
    _schema(
        (c.IMAGE_ID, _STRING, True),
        (c.REASON, _STRING),
        (c.DETAIL, _STRING),
        (c.SOURCE, _STRING),
        (c.ROW, _STRING),  # the row as JSON
        (c.CONTENT_HASH, _STRING),
        (c.RUN_ID, _STRING),
    ),
    published=True,
    keys=(c.CONTENT_HASH, c.SOURCE),
)
ATTRIBUTE_STATISTICS = Table(
    "attribute_statistics",
    _schema(
        (c.VERSION, _INT),
        (c.POSITION, _INT),
        (c.NAME, _STRING),
        (c.MEAN, _DOUBLE),
        (c.STANDARD_DEVIATION, _DOUBLE),
        (c.COUNT, _LONG),
        (c.RUN_ID, _STRING),
    ),
)
THRESHOLDS = Table(
    "thresholds",
    _schema(
        (c.VERSION, _INT),
        (c.KIND, _STRING),  # `floor` or `group`
        (c.THRESHOLD, _FLOAT),
        (c.CHOSEN_BY, _STRING),  # `given`, or how `auto` came to it
        (c.MEAN, _DOUBLE),  # of the cosines of random pairs
        (c.STANDARD_DEVIATION, _DOUBLE),
        (c.NORM_CENTRE, _DOUBLE),
        (c.NORM_SPREAD, _DOUBLE),
        (c.CLOSENESS_WEIGHTS, _DOUBLES),  # one for each attribute, or none
        (c.FAILURE_WEIGHTS, _DOUBLES),
        (c.RUN_ID, _STRING),
    ),
)
CELLS = Table(
    "cells",
    _schema((c.CELL, _INT), (c.SHARD, _INT), (c.CENTROID, _BINARY), (c.RUN_ID, _STRING)),
)
NEIGHBOURS = Table(
    "neighbours",
    _schema((c.FACE_ID, _LONG), (c.NEIGHBOURS, _LONGS), (c.COSINES, _FLOATS), (c.RUN_ID, _STRING)),
)
RECALL_AUDIT = Table(
    "recall_audit",
    _schema(
        (c.SAMPLED_FACES, _LONG),
        (c.TRUE_EDGES, _LONG),
        (c.EDGE_RECALL, _DOUBLE, True),
        (c.RECALL_AT_K, _DOUBLE, True),
        (c.RUN_ID, _STRING),
    ),
)
FOREST = Table(
    "forest",
    _schema((c.FACE_A, _LONG), (c.FACE_B, _LONG), (c.COSINE, _FLOAT), (c.RUN_ID, _STRING)),
)
COARSE_GROUPS = Table(
    "coarse_groups",
    _schema(
        (c.THRESHOLD, _FLOAT),
        (c.GROUP_KEY, _LONG),
        (c.ROOT_KEY, _LONG),
        (c.FACE_ID, _LONG),
        (c.LEVEL, _FLOAT),
        (c.RUN_ID, _STRING),
    ),
)
SIMILARITIES = Table(
    "similarities",
    _schema(
        (c.ROOT_KEY, _LONG),
        (c.FACE_IDS, _LONGS),
        (c.FACE_SIMILARITY, _FLOATS),
        (c.ATTRIBUTE_SIMILARITY, _FLOATS, True),  # null: the gallery has no attributes
        (c.FUSED_SIMILARITY, _FLOATS),
        (c.RUN_ID, _STRING),
    ),
)
REFINEMENTS = Table(
    "refinements",
    _schema(
        (c.ROOT_KEY, _LONG),
        (c.FACE_IDS, _LONGS),
        (c.THRESHOLDS, _FLOATS),
        (c.GROUP_KEYS, ArrayType(_LONGS, False)),
        (c.CONFIDENCES, ArrayType(_FLOATS, False)),
        (c.PAIR_FIRST, _BINARY),
        (c.PAIR_SECOND, _BINARY),
        (c.PAIR_LOG_ODDS, _BINARY),
        (c.RUN_ID, _STRING),
    ),
)
CONFIDENCES = Table(
    "confidences",
    _schema(
        (c.THRESHOLD, _FLOAT),
        (c.GROUP_KEY, _LONG),
        (c.FACE_ID, _LONG),
        (c.CONFIDENCE, _FLOAT),
        (c.RUN_ID, _STRING),
    ),
)
CLUSTERS = Table(
    "clusters",
    _schema(
        (c.IMAGE_ID, _STRING),
        (c.CLUSTER_ID, _STRING),
        (c.CONFIDENCE, _FLOAT),
        (
            c.STATUS,
            _STRING,
        ),  # `member`, `singleton` (met nobody), `left` (met somebody, stayed alone)
        (c.FACE_ID, _LONG),
        (c.ROOT_KEY, _LONG),
        (c.THRESHOLD, _FLOAT, True),  # of the smallest coarse group that holds the whole cluster; null: none
        (c.RUNNER_UP, _STRING, True),  # cluster_id of the next best cluster; null: none is known
        (c.MARGIN, _FLOAT, True),
        (c.RUN_ID, _STRING),
    ),
    published=True,
)
ROUNDS = Table(
    "rounds",
    _schema(
        (c.ROUND, IntegerType()),  # from 1
        (c.VISITOR, _LONG),
        (c.HOST, _LONG),
        (c.VISITOR_SIZE, _LONG),
        (c.LOG_ODDS, _FLOAT),
        (c.JOINED, BooleanType()),
        (c.RUN_ID, _STRING),
    ),
)
CLUSTER_SUMMARY = Table(
    "cluster_summary",
    _schema(
        (c.CLUSTER_ID, _STRING),
        (c.SIZE, _LONG),
        (c.MEDOID, _STRING),
        (c.MEAN_CONFIDENCE, _FLOAT),
        (c.LOWEST_SIMILARITY, _FLOAT, True),  # null for one face alone
        (c.THRESHOLDS, _FLOATS),
        (c.RUN_ID, _STRING),
    ),
    published=True,
)
EVALUATION_METRICS = (
    "pairwise_precision",
    "pairwise_recall",
    "pairwise_f",
    "bcubed_precision",
    "bcubed_recall",
    "bcubed_f",
    "nmi",
)
# What confidences are worth: of the scored faces that are not alone in their cluster, and of these only.
EVALUATION_RELIABILITY = ("members", c.MEAN_CONFIDENCE, "share_right", "brier")
EVALUATION_COUNTS = ("faces", "identities", "clusters", "singletons")
EVALUATION = Table(
    "evaluation",
    _schema(
        (c.SLICE_COLUMN, _STRING),  # `all` for the whole gallery
        (c.SLICE_VALUE, _STRING),
        *((name, _LONG) for name in EVALUATION_COUNTS),
        *((name, _DOUBLE, True) for name in EVALUATION_METRICS),  # null: undefined, no pair
        (EVALUATION_RELIABILITY[0], _LONG),
        *((name, _DOUBLE, True) for name in EVALUATION_RELIABILITY[1:]),  # null: no member
        (c.RUN_ID, _STRING),
    ),
    published=True,
)
RUNS = Table(
    "runs",
    _schema(
        (c.RUN_ID, _STRING),
        (c.STAGE, _STRING),
        (c.STATUS, _STRING),  # `finished`, `failed`; who is at work now stands in `lease`
        (c.STARTED_AT, TimestampType()),
        (c.SECONDS, _DOUBLE, True),
        (c.ROWS, _LONG, True),
        (c.LARGEST_GROUP, _LONG, True),
        (c.CONFIG, _STRING),
        (c.CONFIG_HASH, _STRING),
        (c.PACKAGES, MapType(_STRING, _STRING)),
        (c.INPUTS, MapType(_STRING, _LONG)),  # table versions read
        (c.MESSAGE, _STRING, True),
    ),
    published=True,
)

ALL_TABLES = tuple(value for value in list(globals().values()) if isinstance(value, Table))

# Below ALL_TABLES on purpose: the tables are deleted by a run that holds this lease.
LEASE = Table(
    "lease",
    _schema(
        (c.RUN_ID, _STRING),
        (c.TOKEN, _STRING),
        (c.HOLDER, _STRING),
        (c.SINCE, TimestampType()),
        (c.EXPIRES_AT, TimestampType()),
    ),
)
