"""Settings with which the smallest gallery is worked on as the largest: by Spark's tasks, in many parts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession

BY_TASKS = "spark.driver_faces=0"

# Several cells, small tasks, groups in blocks, joins across root groups: whatever could differ is in use.
DIVIDED = (
    "cells.cells=6",
    "neighbours.probes=3",
    "coarse_groups.max_size=80",
    "confidences.dense_size=40",
    "confidences.block_neighbours=16",
    "confidences.block_negatives=8",
    "confidences.pairs_per_task=300",
    "rounds.least_log_odds=-3",
)


@contextmanager
def under(session: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Let a session have settings for a block; `set_for_now` holds a lock that whole runs wait for."""
    before = {name: session.conf.get(name) for name in settings}
    try:
        for name, value in settings.items():
            session.conf.set(name, value)
        yield
    finally:
        for name, value in before.items():
            session.conf.set(name, value)
