"""What a new Spark session is given: our settings, those of a prepared installation, the user's own."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import ConfigError
from faceclust_spark.java import java_options
from faceclust_spark.prepared import prepared

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# With jars, defaults or options of its own.
_OTHER_SPARK = ("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS")
LAUNCHED_HEAP = "spark.faceclust.launchedHeap"  # spark.driver.memory of the JVM that this process launched
_ONE_JVM = re.compile(r"local(\[.*\])?")  # whose tasks run where the driver does; not `local-cluster`


def all_settings(
    config: SparkConfig, remote: str | None, quick: bool, ready: Mapping[str, str]
) -> dict[str, str]:
    """Give all settings of a new session; the user's own come last and win.

    quick: for work of a minute. ready: what `prepared_settings` gives.
    """
    settings = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
        "spark.driver.memory": config.driver_memory,
    }
    master = config.settings.get("spark.master") or config.master or remote or "local[*]"
    options = java_options(quick, None)
    if options and not _of_another_spark():
        settings["spark.driver.defaultJavaOptions"] = options
    # One thread a Python worker: Spark already runs a worker a core.
    settings |= {f"spark.executorEnv.{name}": "1" for name in THREAD_LIMITS}
    if master.startswith("local"):
        settings |= local_settings(_local_cores(master))
    if config.jars:
        settings["spark.jars"] = delta_jars(config.jars)
    return settings | dict(ready) | given_settings(config)


def local_settings(cores: int) -> dict[str, str]:
    """Give the settings of a session on one machine: Spark's own defaults are meant for clusters."""
    partitions = str(2 * cores)
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Otherwise Spark leaves a folder spark-warehouse wherever the user happens to stand.
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / f"faceclust-warehouse-{_user()}"),
        "spark.sql.shuffle.partitions": partitions,
        "spark.driver.maxResultSize": "0",  # the driver's process clusters what it holds
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": partitions,
        # 50 tasks to read one table's log otherwise: read 4.0 -> 0.9 s, overwrite 4.3 -> 1.5 s measured.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.adaptive.coalescePartitions.parallelismFirst": "true",
        "spark.sql.debug.maxToStringFields": "200",
        "spark.sql.codegen.cache.maxEntries": "1000",
    }


def prepared_settings(config: SparkConfig, remote: str | None, quick: bool) -> dict[str, str]:
    """Give what spares a session on this machine to resolve Delta's jars and to load classes one by one.

    Nothing where it has not been prepared, or the user says where classes come from.
    """
    master = config.settings.get("spark.master") or config.master or remote or "local"
    own = any(name.startswith(("spark.jars", "spark.driver.extraClassPath")) for name in config.settings)
    if not _ONE_JVM.fullmatch(master) or own or config.jars or _of_another_spark():
        return {}
    try:
        found = prepared()
        jars = found.jar_list()
        archive = found.archive if found.archive.exists() else None
    except (OSError, RuntimeError, PackageNotFoundError):  # no home, an unreadable one, no metadata
        return {}
    if not jars:
        return {}
    return {
        "spark.driver.extraClassPath": os.pathsep.join(jars),
        "spark.driver.defaultJavaOptions": java_options(quick, archive),
    }


def given_settings(config: SparkConfig) -> dict[str, str]:
    """Give what the user has set, and nothing of our own."""
    if config.shuffle_partitions == "auto":
        return config.settings
    return {"spark.sql.shuffle.partitions": str(config.shuffle_partitions)} | config.settings


def delta_jars(folder: str) -> str:
    """Give the jars of a folder as Spark's comma-separated list. Raises ConfigError."""
    jars = sorted(str(path) for path in Path(folder).glob("*.jar"))
    missing = [
        name for name in ("delta-spark", "delta-storage") if not any(name in Path(j).name for j in jars)
    ]
    if missing:
        raise ConfigError(
            f"spark.jars: {folder} holds {len(jars)} jars, none of them {' or '.join(missing)}; copy "
            "there all that `python -m faceclust_spark.prepare` resolves, with network, into ~/.ivy2*/jars"
        )
    return ",".join(jars)


def _of_another_spark() -> bool:
    return any(name in os.environ for name in _OTHER_SPARK)


def _local_cores(master: str) -> int:
    found = re.match(r"local\[(\d+)", master)
    if found:
        return int(found.group(1))
    return 1 if master == "local" else (os.cpu_count() or 1)


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        return getpass.getuser()
    return str(os.getuid())
