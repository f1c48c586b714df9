"""How many faces the driver clusters by itself, on which session and machine."""

from types import SimpleNamespace

import pytest

from faceclust_spark.config import SparkConfig
from faceclust_spark.running import driver_limit
from faceclust_spark.running.driver_limit import (
    ANYWHERE,
    ON_ONE_MACHINE,
    Place,
    machine_memory,
    may_be_sent,
    most_faces,
    place_of,
    place_of_plan,
)
from faceclust_spark.session_settings import LAUNCHED_HEAP

GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "dimension", "place", "expected"),
    [
        (1024 * GIB, 256, Place(False), ANYWHERE),
        (1024 * GIB, 256, Place(True), ON_ONE_MACHINE),
        (8 * GIB, 250, Place(True), 4 * GIB // 8_500),
        (8 * GIB, 1_000, Place(True), 4 * GIB // 16_000),
        (GIB, 256, Place(True), ANYWHERE),
        (1024 * GIB, 512, Place(True, GIB), GIB // 1_224),
        (1024 * GIB, 512, Place(True, GIB // 1024), GIB // 1024 // 1_224),
        (1024 * GIB, 512, Place(False, GIB), ANYWHERE),
        (1024 * GIB, 512, Place(False, GIB // 8), GIB // 8 // 1_224),
    ],
)
def test_auto_follows_machine_and_session(monkeypatch, memory, dimension, place, expected):
    monkeypatch.setattr(driver_limit, "machine_memory", lambda: memory)
    assert most_faces(SparkConfig(), dimension, place) == expected


@pytest.mark.parametrize("faces", [0, 5, 10**9])
def test_what_is_set_counts_everywhere(faces):
    for place in (Place(False), Place(True)):
        assert most_faces(SparkConfig(driver_faces=faces), 256, place) == faces


@pytest.mark.parametrize(
    ("place", "most"),
    [
        (Place(True), GIB // 2),
        (Place(False), GIB // 4),
        (Place(True, GIB), GIB // 2),
        (Place(True, None, GIB // 2), GIB // 2),
        (Place(True, None, 3 * GIB), GIB),
        (Place(True, None, 30 * GIB), 3 * GIB // 2),
        (Place(True, GIB, 3 * GIB), GIB * 4 // 5),
        (Place(False, None, 30 * GIB), GIB // 4),
        (Place(True, GIB // 8), GIB // 10),
        (Place(False, GIB // 8), GIB // 10),
    ],
)
def test_a_source_is_sent_up_to_a_size(place, most):
    assert may_be_sent(most, place)
    assert not may_be_sent(most + 1, place)


def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path):
    machine = machine_memory()
    assert machine > GIB
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text("12345\n")
    none.write_text("max\n")
    monkeypatch.setattr(driver_limit, "_CGROUPS", (str(tmp_path / "missing"), str(none)))
    assert machine_memory() >= machine
    monkeypatch.setattr(driver_limit, "_CGROUPS", (str(none), str(limit)))
    assert machine_memory() == 12345


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"spark.master": "local[2]"}, Place(True, GIB)),
        ({"spark.master": "local[2]", "spark.driver.maxResultSize": "512m"}, Place(True, GIB // 2)),
        ({"spark.master": "local[2]", "spark.driver.maxResultSize": "2GB"}, Place(True, 2 * GIB)),
        ({"spark.master": "local", "spark.driver.maxResultSize": "0"}, Place(True)),
        ({"spark.master": "yarn"}, Place(False, GIB)),
        ({"spark.master": "yarn", "spark.driver.maxResultSize": "0"}, Place(False)),
        ({"spark.driver.maxResultSize": "128m"}, Place(False, GIB // 8)),
        ({"spark.master": "local[2]", LAUNCHED_HEAP: "6144m"}, Place(True, GIB, 6 * GIB)),
        ({"spark.master": "local[2]", LAUNCHED_HEAP: "6gb"}, Place(True, GIB, 6 * GIB)),
        ({"spark.master": "local[2]", LAUNCHED_HEAP: "1.5g"}, Place(True, GIB)),
        ({"spark.master": "local[2]", "spark.driver.memory": "6g"}, Place(True, GIB)),
        ({"spark.master": "yarn", LAUNCHED_HEAP: "6g"}, Place(False, GIB)),
    ],
)
def test_a_session_tells_where_its_tasks_run(settings, expected):
    conf = SimpleNamespace(get=settings.get)
    assert place_of(SimpleNamespace(conf=conf)) == expected


def test_a_session_of_ours_sends_whatever_fits(spark):
    assert place_of(spark) == Place(True, None, 3 * GIB)


@pytest.mark.parametrize(
    ("master", "cores", "settings", "expected"),
    [
        (None, 2, {}, Place(True, None, 4 * GIB)),
        (None, 2, {"spark.driver.memory": "2g"}, Place(True, None, 2 * GIB)),
        ("local[2]", 2, {"spark.driver.maxResultSize": "512m"}, Place(True, GIB // 2, 4 * GIB)),
        ("local[2]", 3, {}, Place(False, GIB)),
        ("spark://here:7077", 1, {}, Place(False, GIB)),
        (None, 1_000, {"spark.driver.maxResultSize": "0"}, Place(False)),
    ],
)
def test_a_plan_knows_the_place_by_its_cores_and_settings(monkeypatch, master, cores, settings, expected):
    monkeypatch.setattr(driver_limit.os, "cpu_count", lambda: 2)
    assert place_of_plan(SparkConfig(master=master, settings=settings), cores) == expected
