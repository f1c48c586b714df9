"""The jobs under a real spark-submit, with the properties file, from a gallery to its scores."""

import json
import re
import shlex
import sys

import pytest
from commands import ROOT, process
from deltalake import DeltaTable
from divided import BY_TASKS, DIVIDED

import faceclust_spark
from faceclust_spark.config import SynthConfig, load_config
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.session_settings import local_settings

FACES = 500
README_LINE = re.search(r"^spark-submit .+$", (ROOT / "README.md").read_text(), re.MULTILINE)[0]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def submit(line, cwd, *further):
    """Give what a job prints with --json: the JSON object, below its own log and nothing of Spark's.

    spark-submit lets the stderr of a Python program run into stdout.
    """
    program, *arguments = shlex.split(line)
    arguments = [str(ROOT / word) if word.startswith(("conf/", "jobs/")) else word for word in arguments]
    # Spark's own defaults are meant for clusters, and a run by them takes three times as long on two cores.
    settings = [f"--conf={name}={value}" for name, value in local_settings(cores=1).items()]
    ended = process(
        *(program, "--master", "local[1]", *settings, *arguments, *further, "--json"),
        cwd=cwd,
        PYSPARK_PYTHON=sys.executable,
    )
    assert ended.code == 0, ended.err
    *log, answer = ended.out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in log), ended.out
    return json.loads(answer)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """A folder that three jobs have worked in, one after the other on one core, and what they printed.

    The run is by Spark's tasks, however small the gallery, with the settings that divide its work most.
    """
    folder = tmp_path_factory.mktemp("jobs")
    other = README_LINE.partition("jobs/")[0]
    settings = [part for setting in (*DIVIDED, BY_TASKS) for part in ("--set", setting)]
    answers = (
        submit(f"{other} jobs/synth.py --output gallery.parquet --faces {FACES} --seed 1", folder),
        submit(README_LINE, folder, *settings),
        submit(f"{other} jobs/evaluate.py --tables out --slice identity_size", folder),
    )
    return folder, answers


def test_a_gallery_is_made_clustered_and_scored_by_jobs(submitted):
    folder, (made, run, scores) = submitted
    assert made == {"gallery": "gallery.parquet", "faces": FACES, "seed": 1}
    assert (run["faces"], run["ingested"]["new"]) == (FACES, FACES)
    clustered = DeltaTable(str(folder / "out" / "clusters")).to_pyarrow_table()
    assert clustered.num_rows == FACES
    everything, *slices = scores["evaluation"]
    assert (everything["faces"], everything["clusters"]) == (FACES, run["clusters"])
    assert sum(row["faces"] for row in slices) == FACES


def test_one_core_and_one_process_agree(submitted):
    folder, _ = submitted
    drawn = draw_gallery(SynthConfig(faces=FACES, seed=1))
    found = faceclust_spark.cluster(
        drawn.embeddings,
        drawn.attributes,
        load_config(None, DIVIDED),
        image_ids=drawn.image_ids,
        photo_ids=drawn.photo_ids,
    )
    clustered = DeltaTable(str(folder / "out" / "clusters")).to_pyarrow_table()
    columns = ("image_id", "cluster_id", "confidence", "status")
    rows = zip(*(clustered[name].to_pylist() for name in columns), strict=True)
    told = (drawn.image_ids, found.cluster_ids, found.confidences, found.statuses)
    assert sorted(rows) == sorted(zip(*(column.tolist() for column in told), strict=True))


def test_jobs_leave_their_results_only(submitted):
    folder, _ = submitted
    assert {path.name for path in folder.iterdir()} == {"gallery.parquet", "out"}


def test_spark_submit_ends_with_the_exit_code_of_the_job(tmp_path):
    job = ROOT / "jobs" / "run.py"
    ended = process("spark-submit", "--master", "local[1]", job, cwd=tmp_path, PYSPARK_PYTHON=sys.executable)
    assert ended.code == 2, ended.err
    assert ended.out.splitlines() == [
        "faceclust: no source and no tables given: use --source and --tables, or `source:` and `tables:` "
        "in the config file"
    ]


def test_there_is_a_job_for_every_verb_but_those_of_a_screen():
    assert JOBS == ["evaluate", "ingest", "plan", "run", "synth", "train"]


@pytest.mark.parametrize("job", JOBS)
def test_every_job_takes_the_arguments_of_its_verb(job, tmp_path):
    theirs = process("python", ROOT / "jobs" / f"{job}.py", "--help", cwd=tmp_path, COLUMNS="100")
    verbs = process("faceclust", job, "--help", cwd=tmp_path, COLUMNS="100")
    assert theirs == verbs
    assert theirs.code == 0
    assert theirs.out.startswith(f"Usage: faceclust {job} [OPTIONS]")
