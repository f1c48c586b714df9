"""Fixtures: one Spark session for all tests, real data where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from faceclust_spark.config import SparkConfig

# Half of the work of a JVM that lives for minutes is its second compiler's. With the first alone the default
# cache of compiled code is a fifth, and swept all the time. Read by Spark's launcher.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")

# Files that take minutes, the longest first. Where several processes test, what is begun last decides when
# all is done; pytest-xdist by itself begins with files of many tests, and would end with these of few.
LONGEST = (
    "test_jobs",
    "test_cluster",
    "test_resume",
    "test_run",
    "test_cli_verbs",
    "test_readme",
    "test_measuring",
    "test_training",
    "test_storage",
    "test_driver_ingest",
    "test_notebooks",
    "test_increments",
    "test_equality",
    "test_group_stages",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_session() -> Iterator[object]:
    from faceclust_spark.session import get_session

    session = get_session(SparkConfig(master="local[2]", driver_memory="3g"))
    yield session
    session.stop()


@pytest.fixture
def spark(shared_session):
    """The shared session, without views that an earlier test left."""
    for table in shared_session.catalog.listTables():
        if table.isTemporary:
            shared_session.catalog.dropTempView(table.name)
    return shared_session


@pytest.fixture
def store(spark, tmp_path):
    """An empty place for tables."""
    from faceclust_spark.tables.storage import TableStore

    return TableStore(spark, str(tmp_path / "tables"))


@pytest.fixture
def scratch(spark, tmp_path):
    """A `materialise` into Parquet files, and the names it was called with.

    Stricter than that of the store: nothing can be written that reads the same name.
    """
    written: list[str] = []

    def materialise(rows, name):
        written.append(name)
        path = str(tmp_path / "scratch" / name)
        rows.write.mode("overwrite").parquet(path)
        return spark.read.parquet(path)

    return materialise, written


@pytest.fixture
def headless() -> Iterator[None]:
    """Draw pictures without a screen, and close them."""
    from matplotlib import pyplot

    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real embeddings, which live outside the repository."""
    folder = os.environ.get("FACECLUST_DATA")
    if not folder or not (Path(folder) / "dev.parquet").exists():
        pytest.skip("real embeddings are not here: let FACECLUST_DATA point at the folder of dev.parquet")
    return Path(folder)
