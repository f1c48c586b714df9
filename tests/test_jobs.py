"""The jobs under a real spark-submit, with the properties file."""

import json
import re
import shlex
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ROOT, process
from deltalake import DeltaTable

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.session import local_settings

FACES = 500
README_LINE = re.search(r"^spark-submit .+$", (ROOT / "README.md").read_text(), re.MULTILINE)[0]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def submit(line, cwd):
    """Give what a job prints with --json: the JSON object, below its own log and nothing of Spark's.

    spark-submit lets the stderr of a Python program run into stdout.
    """
    program, *arguments = shlex.split(line)
    arguments = [str(ROOT / word) if word.startswith(("conf/", "jobs/")) else word for word in arguments]
    # Spark's own defaults are meant for clusters, and a run by them takes three times as long on two cores.
    settings = [f"--conf={name}={value}" for name, value in local_settings(cores=2).items()]
    ended = process(
        *(program, "--master", "local[2]", *settings, *arguments, "--json"),
        cwd=cwd,
        PYSPARK_PYTHON=sys.executable,
    )
    assert ended.code == 0, ended.err
    *log, answer = ended.out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in log), ended.out
    return json.loads(answer)


def test_a_gallery_is_clustered_by_the_job_of_the_readme(tmp_path):
    drawn = draw_gallery(SynthConfig(faces=FACES, seed=1))
    columns = {"image_id": drawn.image_ids.tolist(), "embedding": list(drawn.embeddings)}
    pq.write_table(pa.table(columns), tmp_path / "gallery.parquet")
    run = submit(README_LINE, tmp_path)
    assert (run["faces"], run["ingested"]["new"]) == (FACES, FACES)
    clustered = DeltaTable(str(tmp_path / "out" / "clusters")).to_pyarrow_table()
    assert len(set(clustered["cluster_id"].to_pylist())) == run["clusters"] < clustered.num_rows == FACES
    assert {path.name for path in tmp_path.iterdir()} == {"gallery.parquet", "out"}


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
