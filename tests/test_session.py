"""Sessions: the check of Java, the ways to Delta's jars, and what a user sees when they fail."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from faceclust_spark.config import SparkConfig, load_config
from faceclust_spark.errors import ConfigError, DeltaUnavailableError, JavaError
from faceclust_spark.java import check_java
from faceclust_spark.session import get_session, require_delta, set_for_now
from faceclust_spark.session_settings import delta_jars

CONF = Path(__file__).parents[1] / "conf"


def _fake_java(home, release, modules="java.base@1\njdk.incubator.vector@1"):
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(
        "#!/bin/sh\n"
        f"if [ \"$1\" = --list-modules ]; then printf '{modules}\\n'; "
        f"else echo 'openjdk version \"{release}\" 2025-01-01' >&2; fi\n"
    )
    java.chmod(0o755)
    return java


@pytest.mark.parametrize("release", ["17.0.15", "21", "21.0.2-ea"])
def test_java_17_and_21_are_taken_from_java_home(tmp_path, monkeypatch, release):
    java = _fake_java(tmp_path, release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert check_java() == str(java)


def test_java_is_taken_from_the_path_where_java_home_is_not_set(tmp_path, monkeypatch):
    java = _fake_java(tmp_path, "17.0.1")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{java.parent}{os.pathsep}{os.environ['PATH']}")
    assert check_java() == str(java)


@pytest.mark.parametrize(("release", "told"), [("1.8.0_402", "8"), ("11.0.2", "11"), ("25", "25")])
def test_other_versions_of_java_are_refused(tmp_path, monkeypatch, release, told):
    _fake_java(tmp_path, release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaError, match=f"is Java {told}, Spark needs 17 or 21: install"):
        check_java()


def test_a_java_without_a_version_is_refused(tmp_path, monkeypatch):
    _fake_java(tmp_path, "none")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaError, match="of unknown version"):
        check_java()


def test_a_trimmed_java_is_refused(tmp_path, monkeypatch):
    _fake_java(tmp_path, "17.0.1", modules="java.base@17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaError, match=r"jdk\.incubator\.vector.*install Java"):
        check_java()


def test_a_missing_java_is_told_with_the_place_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaError, match=rf"JAVA_HOME \({tmp_path}\) holds none"):
        check_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JavaError, match="no java on the PATH"):
        check_java()


def test_a_folder_of_jars_is_checked_before_spark_starts(tmp_path):
    with pytest.raises(ConfigError, match="holds 0 jars, none of them delta-spark or delta-storage"):
        delta_jars(str(tmp_path))
    jars = [tmp_path / name for name in ("delta-spark_4.1_2.13-4.4.0.jar", "delta-storage-4.4.0.jar")]
    jars[0].touch()
    with pytest.raises(ConfigError, match="holds 1 jars, none of them delta-storage;"):
        delta_jars(str(tmp_path))
    jars[1].touch()
    assert delta_jars(str(tmp_path)) == ",".join(map(str, jars))


def test_an_existing_session_is_taken_without_changing_its_settings(spark):
    before = spark.conf.get("spark.sql.shuffle.partitions")
    settings = {"spark.sql.session.timeZone": "Asia/Tokyo"}
    assert get_session(SparkConfig(shuffle_partitions=77, settings=settings)) is spark
    assert spark.conf.get("spark.sql.shuffle.partitions") == before
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    require_delta(spark)


def test_settings_for_spark_submit_name_the_installed_delta():
    lines = (CONF / "spark-defaults.conf").read_text().splitlines()
    settings = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    spark_line = ".".join(version("pyspark").split(".")[:2])
    assert (
        settings["spark.jars.packages"] == f"io.delta:delta-spark_{spark_line}_2.13:{version('delta-spark')}"
    )


@pytest.mark.parametrize("name", ["local.yaml", "cluster.yaml"])
def test_config_files_hold_differences_from_the_defaults_only(name):
    defaults = load_config().model_dump()
    given = load_config(CONF / name).model_dump(exclude_unset=True)
    assert given
    for section, values in given.items():
        for key, value in values.items():
            assert defaults[section][key] != value, f"{section}.{key}"


def _run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


_NO_REPOSITORY = """<ivysettings>
  <settings defaultResolver="none"/>
  <resolvers><filesystem name="none"><artifact pattern="{folder}/[artifact].jar"/></filesystem></resolvers>
</ivysettings>"""

_START = """
import sys
from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import FaceclustError
from faceclust_spark.session import get_session
try:
    get_session(SparkConfig(master="local[1]", driver_memory="1g", settings={settings!r}))
except FaceclustError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


def test_without_network_and_jars_the_error_names_both_ways_out(tmp_path):
    ivy = tmp_path / "ivysettings.xml"
    ivy.write_text(_NO_REPOSITORY.format(folder=tmp_path))
    settings = {"spark.jars.ivySettings": str(ivy), "spark.jars.ivy": str(tmp_path)}
    ended = _run(_START.format(settings=settings))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"{DeltaUnavailableError.__name__}: Delta's jars could not be resolved")
    for way in ("Maven", "spark.jars=FOLDER", "--properties-file conf/spark-defaults.conf"):
        assert way in ended.stderr


def test_a_launch_that_fails_shows_what_java_said():
    ended = _run(_START.format(settings={"spark.driver.memory": "1x"}))
    assert ended.returncode == 1
    assert "InfrastructureError: Spark did not start" in ended.stderr
    assert "1x" in ended.stderr


_TWICE = """
from faceclust_spark.config import SparkConfig
from faceclust_spark.running.driver_limit import place_of
from faceclust_spark.session import get_session
for memory in ("1g", "3g"):
    session = get_session(SparkConfig(master="local[1]", driver_memory=memory))
    print(session.conf.get("spark.driver.memory"), place_of(session).heap_bytes)
    session.stop()
"""


def test_a_later_session_knows_the_heap_that_its_jvm_was_launched_with():
    ended = _run(_TWICE)
    assert (ended.returncode, ended.stdout) == (0, f"1g {1 << 30}\n3g {1 << 30}\n")


_SUBMITTED = """
import sys
from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import FaceclustError
from faceclust_spark.session import get_session
try:
    session = get_session(SparkConfig(shuffle_partitions=7))
except FaceclustError as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.stdout.write(session.conf.get("spark.sql.shuffle.partitions"))
session.stop()
"""


@pytest.mark.parametrize("with_properties", [False, True])
def test_spark_submit_needs_the_properties_file_and_is_told_so(tmp_path, with_properties):
    job = tmp_path / "job.py"
    job.write_text(_SUBMITTED)
    submit = str(Path(sys.executable).parent / "spark-submit")
    properties = ["--properties-file", str(CONF / "spark-defaults.conf")] if with_properties else []
    command = [submit, "--master", "local[1]", *properties, str(job)]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable}
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    if with_properties:
        assert (ended.returncode, ended.stdout) == (0, "7")
    else:
        lines = (ended.stdout + ended.stderr).splitlines()
        (told,) = [line for line in lines if DeltaUnavailableError.__name__ in line]
        assert ended.returncode == 1
        assert told.endswith("under spark-submit add --properties-file conf/spark-defaults.conf")
        assert not [line for line in lines if line.startswith("\tat ")]


def test_settings_hold_until_the_end_of_the_block(spark):
    known, unknown, fixed = "spark.sql.shuffle.partitions", "spark.faceclust.x", "spark.driver.memory"
    before = {name: spark.conf.get(name, None) for name in (known, unknown, fixed)}
    with (
        pytest.raises(KeyError),
        set_for_now(spark, {known: "3", unknown: "1", fixed: "9g"}),
        set_for_now(spark, {known: "4"}),
    ):
        assert (spark.conf.get(known), spark.conf.get(unknown)) == ("4", "1")
        raise KeyError
    assert {name: spark.conf.get(name, None) for name in before} == before
