"""Plan a run of a source: the function behind `faceclust plan`."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from faceclust_spark.config import Config
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.model import load_model
from faceclust_spark.planning.plan import Plan, check_cluster, make_plan
from faceclust_spark.planning.source import sample_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([mgt])(?:i?b)?", re.IGNORECASE)
_UNITS = {"m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def plan(
    spark: SparkSession,
    source: str,
    config: Config | None = None,
    *,
    faces: int | None = None,
    cores: int | None = None,
    sample: int | None = None,
    memory_per_core: str = "4g",
) -> Plan:
    """Predict what a run takes, and choose its settings, from at most 50,000 faces of the source.

    faces: of the gallery; as many as the source holds, or more than it has yet. cores: of the cluster, those
    of this process otherwise. sample: faces to measure on, fewer for a quicker and rougher plan.

    The kernels run on the sample in this process, for up to about a minute. Raises ConfigError for a sample
    larger than the source, no cores or too little memory, DataError for a source that cannot be used.
    """
    config = config or Config()
    cores = _own_cores() if cores is None else cores
    memory = memory_of(memory_per_core)
    check_cluster(cores, memory)
    model = load_model(config.confidences.model)
    chosen = sample_source(spark, source, config.ingest, sample, faces)
    config = config.model_copy(update={"source": source})
    log.info("%-14s %s of %s faces", "sample", f"{len(chosen.image_ids):,}", f"{chosen.rows:,}")
    return make_plan(chosen, model, config, faces, cores, memory)


def memory_of(text: str) -> float:
    """Give the bytes that a text such as `4g` or `512m` means. Raises ConfigError."""
    found = _MEMORY.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"memory per core {text!r}: expected a size such as 4g or 512m")
    return float(found[1]) * _UNITS[found[2].lower()]


def _own_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
