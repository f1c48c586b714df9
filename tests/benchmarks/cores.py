"""What a second core gives: one gallery on local[1] and on local[2], stage by stage.

    python tests/benchmarks/cores.py                    # 200,000 x 256 faces
    python tests/benchmarks/cores.py --faces 50000 --pin

Two fresh processes on the same source, the one with more cores first, each after a run of 1,000 faces that
is not counted; both must give the same clusters, or the benchmark fails. `speed_up` at the top level is the
least of all heavy stages: ingest, neighbours, coarse_groups, confidences, clusters.

local[1] has one task at a time, but a JVM and a Python worker for it, which work side by side on two
processors. With --pin all processes of a run share as many processors as it has cores. `machine` tells what
the machine itself gains when as many processes as cores do the same work at once and share nothing: virtual
processors may be one core. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deltalake
from common import (
    HEAVY,
    Ran,
    answer,
    run_pipelines,
    say,
    synthetic_blocks,
    table_of,
    write_gallery,
    write_warm_up,
)
from options import make_parser
from overhead import require_same

from faceclust_spark.config import SynthConfig

# Counts how often a process does some work from one moment to another.
_LOOP = """
import sys, time
import numpy as np
name, start, end = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
square = np.random.default_rng(0).random((512, 512), np.float32)
large = np.zeros(1 << 25, np.uint8)
place = np.random.default_rng(0).integers(0, len(large), 1 << 16)
kinds = {"products": lambda: square @ square, "copies": large.copy, "look-ups": lambda: large[place].sum()}
work = kinds[name]
work()
time.sleep(max(0.0, start - time.time()))
count = 0
while time.time() < end:
    work()
    count += 1
print(count)
"""
_KINDS, _LOOP_SECONDS, _START_SECONDS = ("products", "copies", "look-ups"), 3.0, 2.0


def machine_gain(cores: int, seconds: float = _LOOP_SECONDS) -> dict[str, float]:
    """Give how much more as many processes as cores do than one: products of matrices, copies, look-ups."""
    return {kind: sum(_count(kind, cores, seconds)) / sum(_count(kind, 1, seconds)) for kind in _KINDS}


def _count(kind: str, processes: int, seconds: float) -> list[int]:
    """Count the same work in several processes, of one thread each, at the same time."""
    start = time.time() + _START_SECONDS
    command = [sys.executable, "-c", _LOOP, kind, str(start), str(start + seconds)]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(processes)
    ]
    return [int(process.communicate()[0]) for process in running]


def measure(faces: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one gallery with more cores and with one."""
    with tempfile.TemporaryDirectory(prefix="faceclust-cores-") as name:
        folder = Path(name)
        config = SynthConfig(faces=faces, dimension=arguments.dimension, seed=3)
        source = write_gallery(synthetic_blocks(config), folder / "gallery.parquet")
        several, one = (
            run_pipelines(
                [write_warm_up(arguments, folder / f"{cores}"), (source, str(folder / f"on-{cores}"))],
                cores,
                arguments,
                by_tasks=True,
                pinned=arguments.pin,
            ).runs[-1]
            for cores in (arguments.cores, 1)
        )
        columns = ["image_id", "cluster_id"]
        expected = deltalake.DeltaTable(f"{one.tables}/clusters").to_pyarrow_table(columns=columns)
        require_same(expected, several.tables)
    row = row_of(one, several, arguments.cores)
    say(describe(row))
    return row


def row_of(one: Ran, several: Ran, cores: int) -> dict[str, Any]:
    """Give what the cores gain: a row of the results."""
    stages = {
        stage: {
            "one_core_seconds": seconds,
            "seconds": several.stages[stage],
            "speed_up": seconds / several.stages[stage],
        }
        for stage, seconds in one.stages.items()
    }
    return {
        "faces": one.faces,
        "cores": cores,
        "one_core_seconds": one.seconds,
        "seconds": several.seconds,
        "speed_up": one.seconds / several.seconds,
        "least_heavy_speed_up": min(stages[stage]["speed_up"] for stage in HEAVY),
        "stages": stages,
    }


def describe(row: Mapping[str, Any]) -> str:
    stages = row["stages"]
    columns = {
        "one core s": lambda stage: f"{stages[stage]['one_core_seconds']:.1f}",
        f"{row['cores']} cores s": lambda stage: f"{stages[stage]['seconds']:.1f}",
        "speed-up": lambda stage: f"{stages[stage]['speed_up']:.2f}",
    }
    return (
        f"{row['faces']:,} faces: {row['one_core_seconds']:.1f} s on one core, {row['seconds']:.1f} s on "
        f"{row['cores']}, the same clusters\n{table_of(list(stages), columns)}\n"
    )


def main() -> None:
    parser = make_parser(__doc__, "200000")
    parser.add_argument("--cores", type=int, default=2, help="that one core is compared with; default 2")
    parser.add_argument("--pin", action="store_true", help="as many processors as cores for each run")
    arguments = parser.parse_args()
    gain = machine_gain(arguments.cores)
    told = ", ".join(f"{kind} {value:.2f}" for kind, value in gain.items())
    say(f"{arguments.cores} processes side by side do as many times what one does: {told}")
    rows = [measure(faces, arguments) for faces in arguments.faces]
    least = min(row["least_heavy_speed_up"] for row in rows)
    say(f"least speed-up of a heavy stage {least:.2f}")
    answer(rows, speed_up=least, machine=gain, pinned=arguments.pin)


if __name__ == "__main__":
    main()
