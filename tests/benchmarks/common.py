"""What the benchmarks share: sizes, galleries on disk, runs in a child process, and what these cost.

A run is measured from outside its process: the memory of the whole process tree is sampled, and what Spark's
tasks did is read from the event log. Linux only, for the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import SyntheticFaces, count_blocks, draw_block

HEAVY = (
    "ingest",
    "neighbours",
    "coarse_groups",
    "confidences",
    "clusters",
)  # stages that grow with the gallery
WARM_UP = 1_000  # faces
EVENT_LOG = {  # one file that read_events can read; its folder is added
    "spark.eventLog.enabled": "true",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
}
_CHILD = Path(__file__).with_name("child.py")
_GIB = 1 << 30
_EVERY = 1.0  # seconds between two looks at the memory, of 50 ms each


class Memory(NamedTuple):
    """Highest memory seen in GiB: of the whole tree at one moment, and of each part at any moment."""

    peak_gib: float
    driver_gib: float  # the Python process that runs the pipeline
    jvm_gib: float
    workers_gib: float  # all Python workers of the JVM together


class Span(NamedTuple):
    """When a stage of the pipeline ran: seconds since 1970, and how long."""

    stage: str
    started: float
    seconds: float


@dataclass
class Work:
    """Sums over the Spark tasks of one stage; times overlap where tasks run side by side."""

    tasks: int = 0
    task_seconds: float = 0.0
    python_seconds: float = 0.0  # inside the Python workers, waiting for their input included
    shuffle_write_bytes: int = 0
    shuffle_read_bytes: int = 0
    spill_bytes: int = 0  # to disk


@dataclass(frozen=True)
class Ran:
    """One run of the pipeline, from the source to `clusters`, without the start of the session."""

    faces: int
    seconds: float
    stages: Mapping[str, float]  # seconds
    work: Mapping[str, Work]  # by stage
    largest_groups: Sequence[int]  # sizes of the largest root groups, descending
    quarantined: int
    tables: str


@dataclass(frozen=True)
class Child:
    """What a child process did and took."""

    session_seconds: float
    memory: Memory
    runs: Sequence[Ran] = field(default_factory=tuple)


def say(text: str) -> None:
    """Tell a reader; stdout is for the JSON object alone."""
    print(text, file=sys.stderr, flush=True)


def answer(results: Sequence[Mapping[str, Any]], **summary: Any) -> None:
    """Print the benchmark's one JSON object, as the last line of stdout."""
    print(json.dumps({"results": list(results), **summary}), flush=True)


def synthetic_blocks(config: SynthConfig) -> Iterator[SyntheticFaces]:
    """Draw a gallery block by block, some 10,000 faces each."""
    return (draw_block(config, block) for block in range(count_blocks(config)))


def write_gallery(blocks: Iterable[SyntheticFaces], folder: Path) -> str:
    """Write a source of Parquet files, one a block, so that memory is bounded; gives its path as text."""
    folder.mkdir(parents=True)
    for number, faces in enumerate(blocks):
        table = pa.table(
            {
                "image_id": pa.array(faces.image_ids, pa.string()),
                "embedding": matrix_to_arrow(faces.embeddings),
                "attributes": matrix_to_arrow(faces.attributes),
                "photo_id": pa.array(faces.photo_ids, pa.string()),
                "quality": pa.array(faces.quality),
                "label": pa.array(faces.labels, pa.string()),
            }
        )
        pq.write_table(table, folder / f"part-{number:06d}.parquet")
    return str(folder)


def write_warm_up(arguments: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """Write a small gallery to run before one that counts, so that workers are up and code is compiled."""
    config = SynthConfig(faces=WARM_UP, dimension=arguments.dimension)
    source = write_gallery(synthetic_blocks(config), folder / "warm-up.parquet")
    return source, str(folder / "warm-up")


def matrix_to_arrow(matrix: np.ndarray) -> pa.ListArray:
    """Give a list for each row, with a null for each NaN."""
    count, width = matrix.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    flat = matrix.reshape(-1)
    return pa.ListArray.from_arrays(offsets, pa.array(flat, mask=np.isnan(flat)))


def run_pipelines(
    jobs: Sequence[tuple[str, str]],
    cores: int,
    arguments: argparse.Namespace,
    by_tasks: bool = False,
    pinned: bool = False,
    quick: bool = False,
) -> Child:
    """Run source after source into its tables, in one fresh session on `local[cores]`.

    jobs: source and tables of each run. arguments: of `make_parser`. by_tasks: also where the driver would
    cluster such a gallery by itself. pinned: on no more than `cores` processors. quick: as in
    `get_session`.
    """
    with tempfile.TemporaryDirectory(prefix="faceclust-events-") as events:
        request = {
            "kind": "pipelines",
            "master": f"local[{cores}]",
            "driver_memory": arguments.driver_memory,
            "settings": {**EVENT_LOG, "spark.eventLog.dir": f"file:{events}"},
            "overrides": [*(["spark.driver_faces=0"] if by_tasks else []), *arguments.overrides],
            "jobs": [list(job) for job in jobs],
            "processors": cores if pinned else None,
            "quick": quick,
        }
        told, memory = run_child(request)
        (log,) = Path(events).iterdir()
        runs = []
        for run in told["runs"]:
            spans = [Span(*span) for span in run.pop("spans")]
            with log.open(encoding="utf-8") as lines:
                runs.append(Ran(**run, work=read_events(lines, spans)))
    return Child(told["session_seconds"], memory, tuple(runs))


def run_child(request: Mapping[str, Any]) -> tuple[dict[str, Any], Memory]:
    """Let child.py do what the request says, and watch its memory. Raises where it fails."""
    with tempfile.TemporaryDirectory(prefix="faceclust-child-") as folder:
        asked, told = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(request))
        # The child's stdout goes to our stderr, which is 2: stdout ends with the JSON object.
        child = subprocess.Popen([sys.executable, str(_CHILD), str(asked), str(told)], stdout=2)
        with MemoryWatch(child.pid) as watch:
            code = child.wait()
        if code:
            raise RuntimeError(f"the child process ended with {code}; its last words are above")
        return json.loads(told.read_text()), watch.memory()


class MemoryWatch:
    """Samples the proportional set size (shared pages counted once) of a process and all below it."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, threading.Event()
        self._highest: dict[str, int] = defaultdict(int)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def memory(self) -> Memory:
        """Give the highest values so far."""
        return Memory(*(round(self._highest[part] / _GIB, 3) for part in ("all", "driver", "jvm", "workers")))

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        now: dict[str, int] = defaultdict(int)
        for part, process in _tree(self._pid):
            try:
                own = process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended
            now[part] += own
            now["all"] += own
        for part, size in now.items():
            self._highest[part] = max(self._highest[part], size)


def _tree(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    """Give each process of a tree with the part that it plays: driver, jvm, workers."""
    parts: dict[int, str] = {}
    with contextlib.suppress(psutil.NoSuchProcess):  # the root has ended, and all with it
        root = psutil.Process(pid)
        # Parents come before their children. Asking each for its own would read all of /proc each time.
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                above = parts.get(process.ppid(), "driver")
                own = "jvm" if process.name() == "java" else "workers" if above == "jvm" else above
                parts[process.pid] = own
                yield own, process


def read_events(lines: Iterable[str], spans: Sequence[Span]) -> dict[str, Work]:
    """Sum up what Spark's event log says of the tasks that were launched while each stage ran."""
    found = {span.stage: Work() for span in spans}
    for line in lines:
        if not line.startswith('{"Event":"SparkListenerTaskEnd"'):  # most of the log is query plans
            continue
        event = json.loads(line)
        launched = event["Task Info"]["Launch Time"] / 1e3
        for span in spans:
            if span.started <= launched <= span.started + span.seconds:
                _add(found[span.stage], event)
                break
    return found


def _add(work: Work, event: Mapping[str, Any]) -> None:
    metrics = event.get("Task Metrics") or {}
    read = metrics.get("Shuffle Read Metrics", {})
    work.tasks += 1
    work.task_seconds += metrics.get("Executor Run Time", 0) / 1e3
    work.spill_bytes += metrics.get("Disk Bytes Spilled", 0)
    work.shuffle_read_bytes += read.get("Remote Bytes Read", 0) + read.get("Local Bytes Read", 0)
    work.shuffle_write_bytes += metrics.get("Shuffle Write Metrics", {}).get("Shuffle Bytes Written", 0)
    for total in event["Task Info"]["Accumulables"]:
        if total.get("Name") == "time to run Python workers":
            work.python_seconds += int(total["Update"]) / 1e3


def table_of(rows: Sequence[str], columns: Mapping[str, Callable[[str], str]], width: int = 14) -> str:
    """Give a table as text: a line for each row name, a value for each column."""
    lines = [f"{'':16}" + "".join(f"{name:>{width}}" for name in columns)]
    lines += [f"{row:16}" + "".join(f"{cell(row):>{width}}" for cell in columns.values()) for row in rows]
    return "\n".join(lines)
