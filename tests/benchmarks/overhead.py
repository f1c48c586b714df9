"""What Spark and Delta cost: the whole pipeline beside the same kernels in one process.

    python tests/benchmarks/overhead.py                      # 200,000 and 1,000,000 x 256 faces, local[2]
    python tests/benchmarks/overhead.py --faces 200000

In process: `faceclust_spark.cluster`, arrays loaded before, all cores, after --small faces have compiled
what is compiled. Pipeline: from the Parquet source to `clusters` in Delta, without the start of the session;
`cold` is the first run of a session, `warm` comes after a run of --small faces. All must give the same
clusters, or the benchmark fails. `ratio_to_in_process` is warm over in process, at the top level the worst of
all sizes; `small_seconds` is a run of --small faces as the first of a session such as `faceclust run` starts
for so few. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from common import (
    Child,
    Memory,
    answer,
    run_child,
    run_pipelines,
    say,
    synthetic_blocks,
    table_of,
    write_gallery,
)
from options import make_parser

from faceclust_spark.config import SynthConfig


def measure(faces: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cluster one size in memory, as a first run of a session, and after a small one."""
    with tempfile.TemporaryDirectory(prefix="faceclust-overhead-") as name:
        folder = Path(name)
        source, small = (
            write_gallery(
                synthetic_blocks(SynthConfig(faces=count, dimension=arguments.dimension, seed=2)),
                folder / f"{what}.parquet",
            )
            for what, count in (("gallery", faces), ("small", arguments.small))
        )
        warm = run_pipelines(
            [(small, str(folder / "small")), (source, str(folder / "warm"))], arguments.cores, arguments
        )
        alone = run_pipelines([(small, str(folder / "alone"))], arguments.cores, arguments, quick=True)
        cold = None
        if not arguments.no_cold:
            cold = run_pipelines([(source, str(folder / "cold"))], arguments.cores, arguments)
        told, memory = run_child(
            {
                "kind": "arrays",
                "source": source,
                "overrides": arguments.overrides,
                "warm_up": min(faces, arguments.small),
                "clusters": str(folder / "in-process.parquet"),
            }
        )
        expected = pq.read_table(folder / "in-process.parquet")
        for run in (*warm.runs[1:], *(cold.runs if cold else ())):
            require_same(expected, run.tables)
    row = row_of(warm, cold, alone, told["seconds"], memory)
    say(describe(row))
    return row


def require_same(expected: pa.Table, tables: str) -> None:
    """Raise RuntimeError where `clusters` differs from image ids and cluster ids computed otherwise."""
    found = deltalake.DeltaTable(f"{tables}/clusters").to_pyarrow_table(columns=["image_id", "cluster_id"])
    one, other = (
        dict(zip(table["image_id"].to_pylist(), table["cluster_id"].to_pylist(), strict=True))
        for table in (expected, found)
    )
    differ = [image for image in one.keys() | other.keys() if one.get(image) != other.get(image)]
    if differ:
        raise RuntimeError(
            f"{len(differ):,} of {len(one):,} images are in other clusters in {tables}, such as {differ[0]}"
        )


def row_of(
    warm: Child, cold: Child | None, alone: Child, in_process: float, memory: Memory
) -> dict[str, Any]:
    """Give what one size took: a row of the results. warm: a small run, then the one that counts."""
    (small,), ran = alone.runs, warm.runs[1]
    row = {
        "faces": ran.faces,
        "in_process_seconds": in_process,
        "warm_seconds": ran.seconds,
        "ratio_to_in_process": ran.seconds / in_process,
        "stages": dict(ran.stages),
        "peak_gib": warm.memory.peak_gib,
        "in_process_peak_gib": memory.peak_gib,
        "session_seconds": alone.session_seconds,
        "small": {"faces": small.faces, "seconds": small.seconds, "stages": dict(small.stages)},
    }
    if cold:
        first = cold.runs[0].seconds
        row |= {"cold_seconds": first, "ratio_cold": first / in_process}
    return row


def describe(row: Mapping[str, Any]) -> str:
    small = row["small"]
    cold = f", cold {row['cold_seconds']:.1f} s" if "cold_seconds" in row else ""
    columns = {
        "warm s": lambda stage: f"{row['stages'][stage]:.1f}",
        f"{small['faces']:,} faces s": lambda stage: f"{small['stages'][stage]:.1f}",
    }
    return (
        f"{row['faces']:,} faces: in process {row['in_process_seconds']:.1f} s, pipeline warm "
        f"{row['warm_seconds']:.1f} s{cold}, ratio {row['ratio_to_in_process']:.2f}, the same clusters; "
        f"{small['faces']:,} faces in a fresh session {small['seconds']:.1f} s\n"
        f"{table_of(list(row['stages']), columns)}\n"
    )


def main() -> None:
    parser = make_parser(__doc__, "200000,1000000")
    parser.add_argument("--cores", type=int, default=2, help="of the local session; default 2")
    parser.add_argument("--small", type=int, default=1_000, help="faces of the small run; default 1,000")
    parser.add_argument("--no-cold", action="store_true", help="leave out the run that is a session's first")
    arguments = parser.parse_args()
    rows = [measure(faces, arguments) for faces in arguments.faces]
    ratio = max(row["ratio_to_in_process"] for row in rows)
    small = max(row["small"]["seconds"] for row in rows)
    say(f"ratio to in process, at worst {ratio:.2f}; {arguments.small:,} faces in at most {small:.1f} s")
    answer(rows, ratio_to_in_process=ratio, small_faces=arguments.small, small_seconds=small)


if __name__ == "__main__":
    main()
