"""How time, memory and shuffles grow with the gallery: the whole pipeline at several sizes.

    python tests/benchmarks/growth.py                       # 50,000 to 1,000,000 x 256 faces, local[2]
    python tests/benchmarks/growth.py --faces 50000,100000

Each size is a fresh process and session. `slope` is the least-squares slope of log seconds over log faces:
1 is linear. `peak_gib` is the highest memory of driver, JVM and Python workers together. The last line on
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Child,
    answer,
    run_pipelines,
    say,
    synthetic_blocks,
    table_of,
    write_gallery,
)
from options import make_parser

from faceclust_spark.config import SynthConfig

MIB = 1 << 20


def measure(faces: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the pipeline on one size, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="faceclust-growth-") as folder:
        config = SynthConfig(faces=faces, dimension=arguments.dimension, seed=1)
        source = write_gallery(synthetic_blocks(config), Path(folder) / "gallery.parquet")
        child = run_pipelines(
            [(source, str(Path(folder) / "tables"))], arguments.cores, arguments, by_tasks=True
        )
    row = row_of(child)
    say(describe(row))
    return row


def row_of(child: Child) -> dict[str, Any]:
    """Give what one size took: a row of the results."""
    (ran,) = child.runs
    return {
        "faces": ran.faces,
        "seconds": ran.seconds,
        "session_seconds": child.session_seconds,
        **child.memory._asdict(),
        "shuffle_bytes": sum(work.shuffle_write_bytes for work in ran.work.values()),
        "largest_group": ran.largest_groups[0],
        "stages": {
            stage: {"seconds": seconds, **asdict(ran.work[stage])} for stage, seconds in ran.stages.items()
        },
    }


def slope_of(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Give the slope of log seconds over log faces; None for fewer than two sizes."""
    if len({row["faces"] for row in rows}) < 2:
        return None
    logs = np.log([[row["faces"], row["seconds"]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def describe(row: Mapping[str, Any]) -> str:
    stages = row["stages"]
    columns = {
        "seconds": lambda stage: f"{stages[stage]['seconds']:.1f}",
        "in tasks": lambda stage: f"{stages[stage]['task_seconds']:.1f}",
        "in Python": lambda stage: f"{stages[stage]['python_seconds']:.1f}",
        "shuffled MiB": lambda stage: f"{stages[stage]['shuffle_write_bytes'] / MIB:.1f}",
        "spilled MiB": lambda stage: f"{stages[stage]['spill_bytes'] / MIB:.1f}",
    }
    return (
        f"{row['faces']:,} faces: {row['seconds']:.1f} s, peak {row['peak_gib']:.2f} GiB (driver "
        f"{row['driver_gib']:.2f}, JVM {row['jvm_gib']:.2f}, workers {row['workers_gib']:.2f}), largest root "
        f"group {row['largest_group']:,}\n{table_of(list(stages), columns)}\n"
    )


def main() -> None:
    parser = make_parser(__doc__, "50000,100000,200000,500000,1000000")
    parser.add_argument("--cores", type=int, default=2, help="of the local session; default 2")
    arguments = parser.parse_args()
    rows = [measure(faces, arguments) for faces in arguments.faces]
    slope, peak = slope_of(rows), max(row["peak_gib"] for row in rows)
    say(f"slope {slope:.2f}" if slope is not None else "slope: needs two sizes")
    say(f"peak {peak:.2f} GiB")
    answer(rows, slope=slope, peak_gib=peak)


if __name__ == "__main__":
    main()
