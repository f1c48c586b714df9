"""What an installation prepares, Delta's jars and an archive of classes, and which sessions use it."""

import subprocess
from pathlib import Path

import pytest

from faceclust_spark import prepare as module
from faceclust_spark.config import SparkConfig
from faceclust_spark.errors import InfrastructureError
from faceclust_spark.java import holds_little, java_options
from faceclust_spark.prepared import prepared
from faceclust_spark.session_settings import all_settings, prepared_settings

CLASS_PATH, OPTIONS = "spark.driver.extraClassPath", "spark.driver.defaultJavaOptions"


class _Session:
    """A session whose jars are those of the test."""

    def __init__(self, jars):
        self._jars = jars
        self.conf = self

    def get(self, name):
        assert name == "spark.jars"
        return self._jars

    def stop(self):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "faceclust"


@pytest.fixture
def ivy(tmp_path, monkeypatch):
    """Resolve two jars, of which Spark brings one itself."""
    names = ("io.delta_delta-spark_4.1_2.13-4.4.0.jar", "org.apache.parquet_parquet-column-1.16.0.jar")
    jars = [tmp_path / name for name in names]
    for jar in jars:
        jar.touch()
    monkeypatch.setattr(module, "get_session", lambda _: _Session(",".join(jar.as_uri() for jar in jars)))
    return jars


def submitting(monkeypatch, code, archive=b"", told=""):
    """Let spark-submit end so. Gives the jars that it is called with."""
    called = []

    def submit(script, place, jars):
        assert "warm_up" in script.read_text()
        called.extend(jars)
        if archive:
            place.write_bytes(archive)
        return subprocess.CompletedProcess([], code, told, "INFO ShutdownHookManager: Deleting directory")

    monkeypatch.setattr(module, "_submit", submit)
    return called


def test_this_installation_is_prepared_and_its_sessions_use_it(spark):
    found = prepared()
    if not found.jar_list():
        pytest.skip("nothing is prepared here: python -m faceclust_spark.prepare")
    jars = spark.conf.get(CLASS_PATH).split(":")
    assert jars == found.jar_list()
    assert any("delta-spark" in jar for jar in jars)
    assert found.archive.stat().st_size > 1 << 26
    assert str(found.archive) in spark.conf.get(OPTIONS)


@pytest.mark.parametrize("archive", [b"classes", b""])
def test_what_is_prepared_is_for_sessions_on_this_machine(cache, ivy, monkeypatch, archive):
    called = submitting(monkeypatch, 0, archive)
    found = module.prepare()
    assert {found.jars.parent, found.archive.parent} == {cache}
    assert found.jar_list() == called == [str(ivy[0])]  # Spark's own come first, and are newer
    assert found.archive.exists() == bool(archive)
    for master in (None, "local[*]", "local[2]"):
        settings = prepared_settings(SparkConfig(master=master), None, False)
        assert settings[CLASS_PATH] == str(ivy[0])
        assert (str(found.archive) in settings[OPTIONS]) == bool(archive)
    ready = prepared_settings(SparkConfig(), "local[2]", False)
    assert all_settings(SparkConfig(settings={OPTIONS: "mine"}), None, False, ready)[OPTIONS] == "mine"
    assert not prepared_settings(SparkConfig(master="spark://somewhere:7077"), None, False)
    assert not prepared_settings(SparkConfig(jars="folder"), None, False)
    for own in ("spark.jars.packages", "spark.jars.ivySettings", CLASS_PATH):
        assert not prepared_settings(SparkConfig(settings={own: "mine"}), None, False)
    for other in ("local-cluster[2,1,1024]", "yarn"):
        assert not prepared_settings(SparkConfig(master=other), None, False)
        assert not prepared_settings(SparkConfig(settings={"spark.master": other}), None, False)
    for name in ("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(cache))
            assert not prepared_settings(SparkConfig(), None, False)
    ivy[0].unlink()
    assert not prepared_settings(SparkConfig(), None, False)


def test_half_a_file_and_no_home_are_as_if_nothing_were_prepared(cache, ivy, monkeypatch):
    submitting(monkeypatch, 0)
    found = module.prepare()
    assert prepared_settings(SparkConfig(), None, False)
    for text in ("", f"elsewhere\n{ivy[0]}"):
        found.jars.write_text(text)
        assert not prepared_settings(SparkConfig(), None, False)
    assert module.prepare().jar_list() == [str(ivy[0])]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert not prepared_settings(SparkConfig(), None, False)


def test_options_of_another_spark_are_left_to_it(monkeypatch):
    assert OPTIONS not in all_settings(SparkConfig(master="yarn"), None, False, {})
    assert OPTIONS in all_settings(SparkConfig(master="yarn"), None, True, {})
    monkeypatch.setenv("SPARK_CONF_DIR", "site")
    assert OPTIONS not in all_settings(SparkConfig(master="yarn"), None, True, {})


def test_settings_of_one_machine_follow_the_master_wherever_it_is_said():
    name = "spark.databricks.delta.snapshotPartitions"
    assert name in all_settings(SparkConfig(), None, False, {})
    assert name not in all_settings(SparkConfig(master="yarn"), None, False, {})
    assert name not in all_settings(SparkConfig(settings={"spark.master": "yarn"}), None, False, {})
    local = all_settings(SparkConfig(settings={"spark.master": "local[3]"}), None, False, {})
    assert local["spark.sql.shuffle.partitions"] == "6"


def test_what_a_deleted_installation_has_left_is_removed(cache, ivy, monkeypatch, tmp_path):
    cache.mkdir(parents=True)
    for name in ("kept", "deleted"):
        (cache / f"{name}.jars").write_text(f"{tmp_path / name}\n{ivy[0]}")
        (cache / f"{name}.jsa").touch()
    (tmp_path / "kept").touch()
    submitting(monkeypatch, 0, b"classes")
    found = module.prepare()
    expected = {"kept.jars", "kept.jsa", found.jars.name, found.archive.name}
    assert {path.name for path in cache.iterdir()} == expected
    assert not found.is_left_over()


def test_where_no_gallery_can_be_clustered_nothing_is_left(cache, ivy, monkeypatch):
    submitting(monkeypatch, 0, b"classes")
    module.prepare()
    submitting(monkeypatch, 1, b"half", "some pages\nno space left")  # with Python's stderr in stdout
    with pytest.raises(InfrastructureError, match="nothing is prepared: no space left"):
        module.prepare()
    assert not list(cache.iterdir())


@pytest.mark.parametrize("archive", [None, Path("classes.jsa")])
@pytest.mark.parametrize("quick", [False, True])
def test_options_of_the_jvm(quick, archive):
    options = java_options(quick, archive)
    assert ("TieredStopAtLevel=1" in options) == quick
    assert ('-XX:SharedArchiveFile="classes.jsa"' in options) == bool(archive)  # a path may hold spaces
    assert bool(options) == (quick or bool(archive))


def test_little_is_what_this_machine_holds_in_few_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("faceclust_spark.java._LITTLE", 100)
    (tmp_path / "tables" / "faces").mkdir(parents=True)
    (tmp_path / "source.parquet").write_bytes(bytes(100))
    for part in ("one", "two"):
        (tmp_path / "tables" / "faces" / part).write_bytes(bytes(50))
    source, tables = str(tmp_path / "source.parquet"), str(tmp_path / "tables")
    assert holds_little()
    assert holds_little(source, tables=tables)
    assert holds_little(source, tables=str(tmp_path / "not-yet"))
    (tmp_path / "tables" / "faces" / "three").write_bytes(b"a")
    assert not holds_little(source, tables=tables)
    for elsewhere in ("s3a://bucket/faces", "file:/somewhere", "catalog.schema", "main.faces.vectors"):
        assert not holds_little(elsewhere)
        assert not holds_little(source, tables=elsewhere)
    for missing in ("faces", str(tmp_path / "not-yet"), None):
        assert not holds_little(source, missing)


def test_a_home_that_cannot_be_written_to_costs_time_only(cache, ivy, monkeypatch, caplog):
    submitting(monkeypatch, 0, b"classes")
    cache.parent.write_text("a file where the folder would be")
    monkeypatch.setattr(module, "configure_logging", lambda: None)
    module.main()
    assert "nothing is kept, and sessions start as before" in caplog.text
    cache.parent.unlink()
    submitting(monkeypatch, 1, told="no memory")
    with pytest.raises(SystemExit, match="faceclust: a first gallery was not clustered"):
        module.main()
