"""The only place that builds a SparkSession.

An existing session (a notebook's, Databricks', spark-submit's) is taken as it is. Otherwise Java is checked
first, Delta's jars come from a configured folder, from what `faceclust_spark.prepare` has found, or through
delta-spark's pinned Maven coordinates, and what Spark and the resolver have to say goes to a log file instead
of the user's screen.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import (
    DeltaUnavailableError,
    FaceclustError,
    InfrastructureError,
)
from faceclust_spark.java import check_java
from faceclust_spark.session_settings import (
    LAUNCHED_HEAP,
    THREAD_LIMITS,
    all_settings,
    given_settings,
    prepared_settings,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_NAME = "faceclust"
_DELTA_REMEDY = (
    "either let this machine reach a Maven repository once, so that the jars can be resolved, or put them "
    "into a folder and say --set spark.jars=FOLDER; under spark-submit add "
    "--properties-file conf/spark-defaults.conf"
)
_NO_TABLE = (
    "PATH_NOT_FOUND",
    "DELTA_MISSING_DELTA_TABLE",
    "DELTA_PATH_DOES_NOT_EXIST",
    "DELTA_TABLE_NOT_FOUND",
)
_SETTINGS_LOCK = threading.RLock()  # a session's settings are those of all its threads


def get_session(config: SparkConfig | None = None, *, quick: bool = False) -> SparkSession:
    """Give the Spark session of this process as it is, or build one with Delta Lake.

    quick: for work of a minute or less, such as a gallery of some thousand faces: a JVM that is launched
    compiles with its first compiler only, and so is at work sooner, and slower in what takes long.

    Raises JavaError, DeltaUnavailableError, or InfrastructureError where Spark does not start.
    """
    config = config or SparkConfig()
    active = _existing()
    if active is not None:
        require_delta(active)
        return active
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    remote = _remote(config)
    if _submitted():
        session = _submitted_session(config)
    elif remote and not remote.startswith("local"):
        session = _connect(remote, config)
    else:
        session = _start(config, remote, quick)
    require_delta(session)
    return session


def require_delta(session: SparkSession) -> None:
    """Raise DeltaUnavailableError where the session cannot read Delta tables."""
    nowhere = str(Path(tempfile.gettempdir()) / "faceclust-no-table")
    try:
        session.read.format("delta").load(nowhere).schema  # noqa: B018  (analysis happens here)
    except Exception as error:  # as Java's own error on a session of spark-submit, else as PySpark's
        told = str(error)
        if "DATA_SOURCE_NOT_FOUND" in told:
            raise DeltaUnavailableError(f"this Spark session has no Delta Lake: {_DELTA_REMEDY}") from None
        if not any(condition in told for condition in _NO_TABLE):
            found = re.search(r"\[[A-Z_.]+\][^\n]*", told)  # one line of what may be pages of Java
            reason = found.group() if found else told.partition("\n")[0]
            raise DeltaUnavailableError(
                f"Delta Lake does not work in this session ({reason}): {_DELTA_REMEDY}"
            ) from None


@contextlib.contextmanager
def set_for_now(session: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of a session, anybody's, until the end of the block: what only a setting can say.

    Where the session refuses, as serverless ones may, they stay as they are.
    """
    from pyspark.errors import PySparkException

    with _SETTINGS_LOCK:
        before: dict[str, str | None] = {name: session.conf.get(name, None) for name in settings}
        try:
            for name, value in settings.items():
                with contextlib.suppress(PySparkException):
                    session.conf.set(name, value)
            yield
        finally:
            for name, former in before.items():
                with contextlib.suppress(PySparkException):
                    session.conf.unset(name) if former is None else session.conf.set(name, former)


def _existing() -> SparkSession | None:
    """Give the session that this process has, whichever thread built it."""
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def _submitted_session(config: SparkConfig) -> SparkSession:
    """Build the session inside the JVM of spark-submit, which has read its own settings already."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(_NAME)
    for name, value in given_settings(config).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _start(config: SparkConfig, remote: str | None, quick: bool) -> SparkSession:
    """Launch a JVM and build the session in it; remote `local[...]` makes it a Spark Connect server.

    A JVM that is there already, of a session that was stopped, keeps its heap whatever is asked for, and with
    it the LAUNCHED_HEAP that it was given.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    check_java()
    ready = prepared_settings(config, remote, quick)
    settings = all_settings(config, remote, quick, ready)
    if SparkContext._gateway is None:
        settings[LAUNCHED_HEAP] = settings["spark.driver.memory"]
    builder = SparkSession.builder.appName(_NAME)
    builder = builder.remote(remote) if remote else builder.master(config.master or "local[*]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    if not ready and not config.jars and "spark.jars.packages" not in config.settings:
        from delta import configure_spark_with_delta_pip

        builder = configure_spark_with_delta_pip(builder)
    with _quiet_launch() as messages:
        try:
            return builder.getOrCreate()
        except ImportError as error:
            raise _connect_error(str(remote), error) from None
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
        raise _connect_error(remote, error) from None


def _connect_error(remote: str, error: ImportError) -> InfrastructureError:
    return InfrastructureError(
        f"Spark Connect ({remote}) needs further packages: pip install 'faceclust-spark[connect]' ({error})"
    )


def _remote(config: SparkConfig) -> str | None:
    if config.master and config.master.startswith("sc://"):
        return config.master
    return None if config.master else os.environ.get("SPARK_REMOTE")


def _submitted() -> bool:
    """Tell whether spark-submit has started this process, and so has set the session up already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


@contextlib.contextmanager
def _quiet_launch() -> Iterator[Path]:
    """Let the JVM that is launched inside write to a log file, which it keeps, instead of the screen.

    With debug logging nothing is redirected.
    """
    folder = tempfile.mkdtemp(prefix="faceclust-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    messages = Path(folder) / "spark.log"
    messages.touch()
    if log.isEnabledFor(logging.DEBUG):
        yield messages
        return
    sys.stdout.flush()
    sys.stderr.flush()
    limits = {name: os.environ.get(name) for name in THREAD_LIMITS}
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with messages.open("ab") as target:
        try:
            for number, _ in kept:
                os.dup2(target.fileno(), number)
            os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))  # inherited by local mode's workers
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
