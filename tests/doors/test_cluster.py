"""A real cluster on this machine, and Spark Connect in front of it: the clusters are those of local mode.

A standalone master and two workers, each a process of its own; the environment travels to them as an archive,
as docs/cluster.md tells.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyspark
import pytest
from commands import BIN, ROOT, process
from deltalake import DeltaTable
from divided import BY_TASKS, DIVIDED

from faceclust_spark import pipeline, verbs
from faceclust_spark.config import load_config
from faceclust_spark.session_settings import local_settings

FACES = 400
SUBMIT = re.search(r"^spark-submit (?:.*\\\n)*.*$", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE)[0]
MASTER, WORKER = (f"org.apache.spark.deploy.{name}" for name in ("master.Master", "worker.Worker"))
CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"
# By Spark's tasks, however small the gallery, with the settings that divide its work most.
TASKS = [part for setting in (*DIVIDED, BY_TASKS) for part in ("--set", setting)]
HOME = {"SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_PYTHON": sys.executable}
# Four JVMs on two cores: what they run once is not worth the second compiler.
ONCE = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
SETTINGS = local_settings(cores=1) | {
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": ONCE,
    "spark.executor.extraJavaOptions": ONCE,
}
SMALL = [f"--conf={name}={value}" for name, value in SETTINGS.items()]


def free_port() -> int:
    """Give a port that nothing listens on, below those that systems give to connections meanwhile."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def server(log: Path, ready: str, *command: object) -> Iterator[None]:
    """Run a server until its log says that it is ready, and end it afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    with log.open("w") as out:
        running = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=out, cwd=log.parent, env=kept | HOME
        )
        try:
            while ready not in log.read_text():
                assert running.poll() is None, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            running.terminate()
            running.wait()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The archive of an environment with the package's wheel; 5 GB of libraries stay where they are."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = next((venv / "lib").glob("python*")) / "site-packages"
    quiet = ["--quiet", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip"]
    wheel = ["wheel", *quiet, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *wheel], check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *quiet, "--no-deps", "--target", packages, built], check=True)
    archive = folder / "environment.tar.gz"
    subprocess.run([BIN / "venv-pack", "-q", "--prefix", venv, "-o", archive], check=True)
    return archive


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """The address of a cluster of two workers of one core."""
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    start = (BIN / "spark-class",)
    address = f"spark://127.0.0.1:{port}"
    with ExitStack() as stack:
        here = ("--host", "127.0.0.1", "--webui-port", 0)
        stack.enter_context(
            server(folder / "master.log", "Starting Spark master", *start, MASTER, *here, "--port", port)
        )
        for number in (1, 2):
            own = ("--cores", 1, "--memory", "2g", "--work-dir", folder / f"worker{number}")
            log = folder / f"worker{number}.log"
            registered = "Successfully registered with master"
            stack.enter_context(server(log, registered, *start, WORKER, *here, *own, address))
        yield address


@pytest.fixture(scope="module")
def gallery(shared_session, tmp_path_factory):
    """A source, and its clusters by a local session."""
    folder = tmp_path_factory.mktemp("gallery")
    config = load_config(None, [f"synth.faces={FACES}", "synth.seed=5", *DIVIDED])  # in the driver
    verbs.synthesise(shared_session, str(folder / "gallery.parquet"), config)
    pipeline.run(shared_session, str(folder / "gallery.parquet"), str(folder / "local"), config)
    return folder, clusters(folder / "local")


def clusters(tables: Path) -> dict[str, tuple[object, ...]]:
    rows = DeltaTable(str(tables / "clusters")).to_pyarrow_table().to_pylist()
    return {row["image_id"]: (row["cluster_id"], row["confidence"], row["status"]) for row in rows}


def test_a_submitted_job_on_a_cluster_gives_the_same_clusters(master, environment, gallery):
    folder, expected = gallery
    program, *words = shlex.split(SUBMIT.replace("\\\n", " "))
    places = {"spark://MASTER:7077": master, "environment.tar.gz#environment": f"{environment}#environment"}
    words = [places.get(word, word) for word in words]
    words = [str(ROOT / word) if word.startswith(("conf/", "jobs/")) else word for word in words]
    python = f"--conf=spark.pyspark.driver.python={sys.executable}"
    # No link to the checkout is followed here: the package that workers import is the archive's.
    libraries = f"--conf=spark.executorEnv.PYTHONPATH={Path(pyspark.__file__).parents[1]}"
    ended = process(
        program,
        python,
        libraries,
        *SMALL,
        *words,
        *TASKS,
        "--tables",
        folder / "standalone",
        cwd=folder,
        **HOME,
    )
    assert ended.code == 0, ended.out + ended.err
    assert clusters(folder / "standalone") == expected


def test_spark_connect_in_front_of_a_cluster_gives_the_same_clusters(master, environment, gallery):
    folder, expected = gallery
    port = free_port()
    settings = (
        f"--conf=spark.connect.grpc.binding.port={port}",
        f"--properties-file={ROOT / 'conf' / 'spark-defaults.conf'}",
    )
    start = (
        BIN / "spark-submit",
        "--master",
        master,
        *SMALL,
        *settings,
        "--class",
        CONNECT,
        "spark-internal",
    )
    with server(folder / "connect.log", "Spark Connect server started at", *start):
        ended = process(
            *("faceclust", "run", "--source", "gallery.parquet", "--tables", folder / "connect", *TASKS),
            cwd=folder,
            SPARK_REMOTE=f"sc://127.0.0.1:{port}",
        )
    assert ended.code == 0, ended.err
    assert clusters(folder / "connect") == expected
