"""The only place that builds a SparkSession.

An existing session (a notebook's, Databricks', spark-submit's) is taken as it is. Otherwise Java is checked
first, Delta's jars come from a configured folder or through delta-spark's pinned Maven coordinates, and
what Spark and the resolver have to say goes to a log file instead of the user's screen.

    python -m faceclust_spark.session     # resolves the jars once, so that the first run need not
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import (
    ConfigError,
    DeltaUnavailableError,
    FaceclustError,
    InfrastructureError,
    JavaError,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

JAVA_VERSIONS = (17, 21)
_JAVA_REMEDY = (
    "install Java 17 or 21 (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17; "
    "conda: conda install openjdk=17) and let JAVA_HOME point at it"
)
_DELTA_REMEDY = (
    "either let this machine reach a Maven repository once, so that the jars can be resolved, or put them "
    "into a folder and say --set spark.jars=FOLDER; under spark-submit add "
    "--properties-file conf/spark-defaults.conf"
)
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def get_session(config: SparkConfig | None = None) -> SparkSession:
    """Give the active Spark session, or build one with Delta Lake.

    Raises JavaError, DeltaUnavailableError, or InfrastructureError where Spark does not start.
    """
    from pyspark.sql import SparkSession

    config = config or SparkConfig()
    active = SparkSession.getActiveSession()
    if active is not None:
        require_delta(active)
        return active
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    remote = _remote(config)
    session = _connect(remote, config) if remote else _start(config)
    require_delta(session)
    return session


def check_java() -> str:
    """Give the path of the Java that Spark would start. Raises JavaError with the remedy."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        place = f"JAVA_HOME is {home}, which holds no bin/java" if home else "there is no java on the PATH"
        raise JavaError(f"Spark needs Java and {place}: {_JAVA_REMEDY}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    version = int(found.group(1)) if found else 0
    if version not in JAVA_VERSIONS:
        raise JavaError(f"{java} is Java {version or 'of unknown version'}, Spark 4.1 needs {_JAVA_REMEDY}")
    modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False)
    if "jdk.incubator.vector" not in modules.stdout:
        raise JavaError(
            f"{java} is a trimmed runtime without the module jdk.incubator.vector, with which Spark does not "
            f"start: {_JAVA_REMEDY}"
        )
    return java


def require_delta(session: SparkSession) -> None:
    """Raise DeltaUnavailableError where the session cannot read Delta tables."""
    from pyspark.errors import PySparkException

    try:
        session.read.format("delta").load(str(Path(tempfile.gettempdir()) / "faceclust-no-table")).schema  # noqa: B018  (analysis happens here)
    except PySparkException as error:
        if error.getCondition() == "DATA_SOURCE_NOT_FOUND":
            raise DeltaUnavailableError(f"this Spark session has no Delta Lake: {_DELTA_REMEDY}") from None
    except Exception as error:
        # Where the extension is missing but the jars are there, Delta says so in its own words.
        raise DeltaUnavailableError(
            f"Delta Lake does not work in this session ({error}): {_DELTA_REMEDY}"
        ) from None


def delta_jars(folder: str) -> str:
    """Give the jars of a folder as Spark's comma-separated list. Raises ConfigError."""
    jars = sorted(str(path) for path in Path(folder).glob("*.jar"))
    if not any("delta-spark" in Path(jar).name for jar in jars):
        raise ConfigError(
            f"spark.jars: {folder} holds {len(jars)} jars and none called delta-spark*.jar; put there Delta's "
            "jars for this version of delta-spark (`python -m faceclust_spark.session` on a machine with "
            "network resolves them, into ~/.ivy2*/jars)"
        )
    return ",".join(jars)


def local_settings(cores: int) -> dict[str, str]:
    """Give the settings of a session on one machine: Spark's own defaults are meant for clusters."""
    partitions = str(2 * cores)
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": partitions,
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": partitions,
        # 50 tasks to read one table's log otherwise: read 4.0 -> 0.9 s, overwrite 4.3 -> 1.5 s measured.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.adaptive.coalescePartitions.parallelismFirst": "true",
        "spark.sql.debug.maxToStringFields": "200",
        "spark.sql.codegen.cache.maxEntries": "1000",
    }


def _settings(config: SparkConfig) -> dict[str, str]:
    """Give all settings of a new session; the user's own come last and win."""
    settings = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
        "spark.driver.memory": config.driver_memory,
    }
    # One thread a Python worker: Spark already runs a worker a core.
    settings |= {f"spark.executorEnv.{name}": "1" for name in _THREAD_LIMITS}
    if (config.master or "local[*]").startswith("local") and not _submitted():
        settings |= local_settings(_local_cores(config.master))
    if config.shuffle_partitions != "auto":
        settings["spark.sql.shuffle.partitions"] = str(config.shuffle_partitions)
    if config.jars:
        settings["spark.jars"] = delta_jars(config.jars)
    return settings | config.settings


def _start(config: SparkConfig) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("faceclust")
    if _submitted():
        return builder.getOrCreate()
    check_java()
    builder = builder.master(config.master or "local[*]")
    settings = _settings(config)
    for name, value in settings.items():
        builder = builder.config(name, value)
    if not config.jars and "spark.jars.packages" not in config.settings:
        from delta import configure_spark_with_delta_pip

        builder = configure_spark_with_delta_pip(builder)
    with _quiet_launch() as messages:
        try:
            return builder.getOrCreate()
        except Exception as error:
            raise _launch_error(messages.read_text(errors="replace"), error) from None


def _connect(remote: str, config: SparkConfig) -> SparkSession:
    from pyspark.sql import SparkSession

    try:
        builder = SparkSession.builder.remote(remote)
        for name, value in config.settings.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()
    except ImportError as error:
        raise InfrastructureError(
            f"Spark Connect ({remote}) needs further packages: pip install 'faceclust-spark[connect]' ({error})"
        ) from None


def _remote(config: SparkConfig) -> str | None:
    if config.master and config.master.startswith("sc://"):
        return config.master
    return None if config.master else os.environ.get("SPARK_REMOTE")


def _submitted() -> bool:
    """Tell whether spark-submit has started this process, and so has set the session up already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _local_cores(master: str | None) -> int:
    found = re.match(r"local\[(\d+)", master or "")
    if found:
        return int(found.group(1))
    return 1 if master == "local" else (os.cpu_count() or 1)


@contextlib.contextmanager
def _quiet_launch() -> Iterator[Path]:
    """Let the JVM that is launched inside write to a log file, which it keeps, instead of the screen.

    With debug logging nothing is redirected.
    """
    messages = Path(tempfile.mkdtemp(prefix="faceclust-")) / "spark.log"
    messages.touch()
    if log.isEnabledFor(logging.DEBUG):
        yield messages
        return
    sys.stdout.flush()
    sys.stderr.flush()
    limits = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with messages.open("ab") as target:
        try:
            for number, _ in kept:
                os.dup2(target.fileno(), number)
            os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))  # inherited by local mode's workers
            yield messages
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            for name, value in limits.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _launch_error(messages: str, error: Exception) -> FaceclustError:
    if re.search(r"unresolved dependenc|UnresolvedDependenc|download failed", messages, re.IGNORECASE):
        return DeltaUnavailableError(f"Delta's jars could not be resolved: {_DELTA_REMEDY}")
    tail = "\n".join(messages.strip().splitlines()[-15:])
    return InfrastructureError(f"Spark did not start ({error}); its last messages:\n{tail}")


def resolve_jars() -> None:
    """Resolve Delta's jars, by starting and stopping a session once."""
    get_session(SparkConfig(master="local[1]", driver_memory="1g")).stop()


if __name__ == "__main__":
    try:
        resolve_jars()
    except FaceclustError as error:
        sys.exit(f"faceclust: {error}")
