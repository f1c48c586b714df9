"""Plans by Python and by the command line."""

import json

import numpy as np
import pytest
import yaml
from commands import command

import faceclust_spark
from faceclust_spark.config import Config, SparkConfig, SynthConfig, load_config
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.cells import cell_count
from faceclust_spark.kernels.model import load_model
from faceclust_spark.kernels.synth import draw_block
from faceclust_spark.planning.laws import STAGES
from faceclust_spark.planning.plan import make_plan
from faceclust_spark.planning.report import describe_plan, plan_file, size_of, time_of
from faceclust_spark.planning.sample import GallerySample
from faceclust_spark.planning.verb import memory_of

GIB = 1 << 30


@pytest.fixture(scope="module")
def sample():
    block = draw_block(SynthConfig(faces=900, dimension=32), 0)
    return GallerySample(900, list(block.image_ids), block.embeddings, block.attributes)


@pytest.fixture(scope="module")
def planned(sample):
    """A plan for ten million faces, with a setting of the user's own and a memory that is short."""
    config = Config(source="faces", neighbours={"k": 30}, ingest={"extra": ("a b",)})
    return make_plan(sample, load_model("default"), config, 10**7, 32, 2.0 * GIB)


def test_a_plan_tells_of_every_stage(planned):
    assert [stage.stage for stage in planned.stages] == list(STAGES)
    assert all(stage.seconds > 0 for stage in planned.stages)
    assert planned.counts.cells == cell_count(10**7, Config().cells)
    assert planned.counts.refined == pytest.approx(planned.pairs_per_face * 10**7)
    told = describe_plan(planned)
    assert all(stage in told for stage in STAGES)
    assert "10,000,000 faces on 32 cores" in told
    assert "more people" in told
    json.dumps(planned.to_dict())


def test_a_plan_is_a_config_file_that_gives_the_reasons(planned, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(plan_file(planned))
    config = load_config(file)
    assert config == planned.config
    assert (config.source, config.neighbours.k, config.ingest.extra) == ("faces", 30, ("a b",))
    for choice in planned.choices:
        assert getattr(getattr(config, choice.section), choice.key) == choice.value
        assert f"  # {choice.reason}\n  {choice.key}: " in file.read_text()
    assert set(yaml.safe_load(file.read_text())) >= {"cells", "neighbours", "coarse_groups", "confidences"}


def test_tasks_fit_the_memory_and_keep_all_cores_at_work(planned):
    chosen = {choice.key: choice.value for choice in planned.choices}
    assert chosen["max_forest_edges"] * 300 <= 0.6 * 2 * GIB  # ten million edges would take 2.8 GiB
    assert chosen["shuffle_partitions"] >= 3 * 32
    assert planned.counts.refined / chosen["pairs_per_task"] >= 32
    held = {stage.stage: stage.task_bytes for stage in planned.stages}
    assert held["neighbours"] < 2 * GIB
    assert held["coarse_groups"] < 2 * GIB


def test_what_is_there_is_planned_as_it_is(sample):
    plan = make_plan(sample, load_model("default"), Config(), None, 2, 4.0 * GIB)
    assert (plan.faces, plan.counts.cells, plan.counts.compared) == (900, 1, 900**2)
    keys = faceclust_spark.cluster(sample.embeddings, sample.attributes, image_ids=sample.image_ids)
    sizes = np.unique(keys.group_keys[0], return_counts=True)[1]
    pairs = np.where(sizes <= 200, sizes * (sizes - 1) / 2, sizes * (64 + 32))
    assert plan.counts.refined == pytest.approx(pairs.sum())
    assert plan.thresholds == keys.thresholds.groups
    assert "max_forest_edges" not in {choice.key for choice in plan.choices}


def test_a_gallery_that_the_driver_clusters_shuffles_in_ingest_at_most(sample, monkeypatch):
    def shuffling(faces):
        config = Config(spark=SparkConfig(driver_faces=faces))
        plan = make_plan(sample, load_model("default"), config, None, 2, 4.0 * GIB)
        return plan, [stage.stage for stage in plan.stages if stage.shuffle_bytes]

    (own, nothing), (by_tasks, all_but_cells) = shuffling(900), shuffling(899)
    assert nothing == []
    assert all_but_cells == [stage for stage in STAGES if stage != "cells"]
    assert own.seconds < by_tasks.seconds
    assert "driver_faces = 900" in describe_plan(own)
    assert "driver_faces" not in describe_plan(by_tasks)
    monkeypatch.setattr("faceclust_spark.planning.plan.may_be_sent", lambda size, place: size < 900)
    checked_by_tasks, ingest = shuffling(900)
    assert ingest == ["ingest"]
    told = [describe_plan(plan) for plan in (own, checked_by_tasks)]
    assert ["faces: after ingest the driver works by itself" in text for text in told] == [False, True]
    assert ["faces: the driver works by itself" in text for text in told] == [True, False]
    assert own.seconds < checked_by_tasks.seconds < by_tasks.seconds


def test_a_session_that_says_its_partitions_keeps_them(sample):
    config = Config(spark=SparkConfig(shuffle_partitions=7))
    plan = make_plan(sample, load_model("default"), config, 10**6, 2, 4.0 * GIB)
    assert plan.config.spark.shuffle_partitions == 7


@pytest.mark.parametrize(
    ("cores", "memory", "told"), [(0, 4.0 * GIB, "a plan for 0 cores"), (2, 0.1 * GIB, "at least; use")]
)
def test_a_cluster_that_nothing_runs_on_is_refused(sample, cores, memory, told):
    with pytest.raises(ConfigError, match=told):
        make_plan(sample, load_model("default"), Config(), None, cores, memory)


def test_sizes_and_times_are_told_as_people_read_them():
    assert (memory_of("4g"), memory_of("512 MiB"), memory_of("1.5G")) == (4 * GIB, GIB / 2, 1.5 * GIB)
    assert [size_of(size) for size in (0, 2_048, 5 * GIB, 2.0**60)] == [
        "0 B",
        "2 KiB",
        "5 GiB",
        "1.02e+03 PiB",
    ]
    assert [time_of(seconds) for seconds in (3.21, 600, 7_200)] == ["3.2 s", "10.0 min", "2.0 h"]
    with pytest.raises(ConfigError, match="expected a size such as 4g"):
        memory_of("plenty")


@pytest.fixture(scope="module")
def gallery(shared_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    made = command("synth", "--faces", 400, "--output", folder / "gallery.parquet")
    assert made.code == 0, made.err
    return folder / "gallery.parquet"


def test_the_command_plans_and_writes_a_config(gallery, tmp_path):
    file = tmp_path / "plan.yaml"
    asked = ("plan", "--source", gallery, "--faces", 100_000, "--cores", 8, "--sample", 300, "--output", file)
    ended = command(*asked, "--memory-per-core", "2g", "--set", "neighbours.k=20", "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert (answer["faces"], answer["source_rows"], answer["sampled"]) == (100_000, 400, 300)
    assert answer["hours"] == pytest.approx(sum(stage["seconds"] for stage in answer["stages"]) / 3600)
    config = load_config(file)
    assert (config.source, config.neighbours.k, config.cells.cells) == (str(gallery), 20, 2_048)


def test_python_plans_as_the_command_does(gallery, spark):
    plan = faceclust_spark.plan(spark, str(gallery), faces=50_000, cores=2)
    assert (plan.faces, plan.sampled) == (50_000, 400)
    assert plan.config.source == str(gallery)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--cores", 0), 2, "a plan for 0 cores: give --cores 1 or more"),
        (("--sample", 401), 2, "a sample of 401 faces is larger than the gallery of 400"),
        (("--faces", 1), 2, "a plan for 1 faces"),
        (("--memory-per-core", "much"), 2, "expected a size such as 4g or 512m"),
        (("--set", "ingest.columns.embedding=image_id"), 3, "does not fit"),
    ],
)
def test_what_cannot_be_planned_is_told(gallery, arguments, code, told):
    ended = command("plan", "--source", gallery, *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err


def test_a_source_without_rows_is_told(gallery, spark, tmp_path):
    spark.read.parquet(str(gallery)).limit(0).write.parquet(str(tmp_path / "empty"))
    ended = command("plan", "--source", tmp_path / "empty")
    assert ended.code == 3
    assert "the source holds 0 rows" in ended.err
