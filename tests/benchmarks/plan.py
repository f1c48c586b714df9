"""How well `faceclust plan` predicts: a plan from 50,000 faces, then the run, side by side.

    python tests/benchmarks/plan.py                                # 50,000, 200,000 and 1,000,000 x 256 faces
    python tests/benchmarks/plan.py --faces 100000 --set synth.mean_identity_size=20
    python tests/benchmarks/plan.py --source gallery.parquet --tables out      # a run that has been made
    python tests/benchmarks/plan.py --calibrate --faces 200000     # prints constants of planning/timing.py

`ratio` is predicted over measured; `worst_ratio` is the worst of these or their inverses among the totals:
seconds, pairs refined, shuffled bytes, bytes of tables. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import answer, run_pipelines, say, synthetic_blocks, write_gallery
from deltalake import DeltaTable
from options import make_parser

from faceclust_spark.config import Config, load_config
from faceclust_spark.kernels.grouping import scored_pairs
from faceclust_spark.tables import columns as c

SMALL = 2_000  # faces whose seconds are taken for what a stage takes at any size
TOTALS = ("seconds", "pairs refined", "shuffled bytes", "table bytes")
TABLES = ("faces", "vectors", "neighbours", "forest", "coarse_groups", "refinements", "confidences")
TABLES = (*TABLES, "clusters", "cluster_summary")


class Measured(NamedTuple):
    """What a run took."""

    seconds: Mapping[str, float]  # by stage
    shuffles: Mapping[str, float]  # bytes by stage; none where no event log was kept
    tables: str


def plan(source: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan by the command, in a process of its own."""
    settings = [*arguments.overrides, f"spark.master=local[{arguments.cores}]"]
    settings.append(f"spark.driver_memory={arguments.driver_memory}")
    settings.append(f"spark.shuffle_partitions={2 * arguments.cores}")  # as a local session has them
    command = ["plan", "--source", source, "--cores", str(arguments.cores), "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    if arguments.sample:
        rows = sum(pq.ParquetFile(path).metadata.num_rows for path in Path(source).glob("*.parquet"))
        command += ["--sample", str(min(arguments.sample, rows))]
    ended = subprocess.run(
        [sys.executable, "-m", "faceclust_spark.cli", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(ended.stdout.splitlines()[-1])


def run(source: str, tables: str, planned: Mapping[str, Any], arguments: argparse.Namespace) -> Measured:
    """Run the pipeline by the plan's settings."""
    chosen = [
        f"{choice['section']}.{choice['key']}={json.dumps(choice['value'])}"
        for choice in planned["choices"]
        if choice["section"] != "spark"
    ]
    settings = argparse.Namespace(**{**vars(arguments), "overrides": [*arguments.overrides, *chosen]})
    (ran,) = run_pipelines([(source, tables)], arguments.cores, settings).runs
    shuffles = {stage: work.shuffle_write_bytes for stage, work in ran.work.items()}
    return Measured(ran.stages, shuffles, tables)


def stored(tables: str) -> Measured:
    """Read what an earlier run took from its ledger: the latest of each stage."""
    rows = DeltaTable(f"{tables}/runs").to_pyarrow_table(columns=[c.STAGE, c.STATUS, c.SECONDS, c.STARTED_AT])
    finished = rows.filter(pc.equal(rows[c.STATUS], "finished")).sort_by(c.STARTED_AT).to_pylist()
    return Measured({row[c.STAGE]: row[c.SECONDS] for row in finished}, {}, tables)


def compare(planned: Mapping[str, Any], measured: Measured, config: Config) -> list[dict[str, Any]]:
    """Give a row for each quantity: predicted, measured and their ratio."""
    sizes = pc.list_value_length(_column(measured.tables, "refinements", c.FACE_IDS)).to_numpy()
    pairs = sum(scored_pairs(int(size), config.confidences) for size in sizes)
    entries = pc.sum(pc.list_value_length(_column(measured.tables, "neighbours", c.NEIGHBOURS))).as_py()
    bytes_of = {name: _table_bytes(measured.tables, name) for name in TABLES}
    rows: list[tuple[str, float, float]] = [
        ("pairs refined", planned["counts"]["refined"], pairs),
        ("neighbours kept", planned["counts"]["entries"], entries),
        ("root groups", planned["counts"]["groups"], len(sizes)),
        *((f"bytes of {name}", planned["tables"][name], size) for name, size in bytes_of.items()),
        ("table bytes", sum(planned["tables"].values()), sum(bytes_of.values())),
    ]
    for stage in planned["stages"]:
        name = stage["stage"]
        rows.append((f"seconds of {name}", stage["seconds"], measured.seconds[name]))
        if measured.shuffles.get(name):
            rows.append((f"shuffled by {name}", stage["shuffle_bytes"], measured.shuffles[name]))
    rows.append(("seconds", planned["seconds"], sum(measured.seconds.values())))
    if measured.shuffles:
        predicted = sum(stage["shuffle_bytes"] for stage in planned["stages"])
        rows.append(("shuffled bytes", predicted, sum(measured.shuffles.values())))
    return [
        {
            "faces": planned["faces"],
            "quantity": quantity,
            "predicted": float(predicted),
            "measured": float(found),
            "ratio": float(predicted) / float(found) if found else None,
        }
        for quantity, predicted, found in rows
    ]


def worst_ratio(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Give the worst ratio of the totals, as a number of 1 or more."""
    ratios = [row["ratio"] for row in rows if row["quantity"] in TOTALS and row["ratio"]]
    return max((max(ratio, 1 / ratio) for ratio in ratios), default=None)


def overheads(
    small: tuple[Mapping[str, Any], Measured], large: tuple[Mapping[str, Any], Measured], cores: int
) -> str:
    """Give the constants under which the small and the large run would have been predicted.

    Of one mapping of planning/timing.py: for Spark's tasks, or for a driver that holds galleries so large.
    """
    lines = ["{"]
    for first, second in zip(small[0]["stages"], large[0]["stages"], strict=True):
        name = first["stage"]
        fixed = max(small[1].seconds[name] - first["kernel_seconds"], 0.1)
        rest = large[1].seconds[name] - second["kernel_seconds"] - fixed
        per_mib = max(rest * cores / (second["moved_bytes"] / (1 << 20)), 0.0)
        lines.append(f'    "{name}": Overhead({fixed:.1f}, {per_mib:.4f}),')
    return "\n".join([*lines, "}"])


def _column(tables: str, table: str, column: str) -> Any:
    return DeltaTable(f"{tables}/{table}").to_pyarrow_table(columns=[column])[column]


def _table_bytes(tables: str, table: str) -> int:
    import pyarrow as pa

    files = pa.table(DeltaTable(f"{tables}/{table}").get_add_actions(flatten=True))
    return int(pc.sum(files["size_bytes"]).as_py() or 0)


def describe(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'':28}{'predicted':>14}{'measured':>14}{'ratio':>8}"]
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(f"{row['quantity']:28}{row['predicted']:>14.4g}{row['measured']:>14.4g}{ratio:>8}")
    return "\n".join(lines) + "\n"


def measure(
    faces: int, arguments: argparse.Namespace
) -> tuple[dict[str, Any], Measured, list[dict[str, Any]]]:
    """Make a gallery, plan, run and compare."""
    with tempfile.TemporaryDirectory(prefix="faceclust-plan-") as folder:
        config = load_config(None, arguments.overrides)
        synth = config.synth.model_copy(update={"faces": faces, "dimension": arguments.dimension, "seed": 1})
        source = write_gallery(synthetic_blocks(synth), Path(folder) / "gallery.parquet")
        planned = plan(source, arguments)
        measured = run(source, str(Path(folder) / "tables"), planned, arguments)
        rows = compare(planned, measured, config)
    say(f"{faces:,} faces from {planned['sampled']:,}\n{describe(rows)}")
    return planned, measured, rows


def main() -> None:
    parser = make_parser(__doc__, "50000,200000,1000000")
    parser.add_argument("--cores", type=int, default=2, help="of the local session; default 2")
    parser.add_argument("--sample", type=int, help="faces that the plan is made from; default 50,000 or all")
    parser.add_argument("--calibrate", action="store_true", help="print the constants for planning/timing.py")
    parser.add_argument("--source", help="a gallery that was run, in place of synthetic ones")
    parser.add_argument("--tables", help="the tables of that run")
    arguments = parser.parse_args()
    if bool(arguments.source) != bool(arguments.tables):
        parser.error("--source and --tables go together")
    if arguments.source:
        planned = plan(arguments.source, arguments)
        rows = compare(planned, stored(arguments.tables), load_config(None, arguments.overrides))
        say(describe(rows))
    else:
        done = [measure(faces, arguments) for faces in arguments.faces]
        rows = [row for one in done for row in one[2]]
        if arguments.calibrate:
            small = measure(SMALL, arguments)
            say(overheads(small[:2], done[-1][:2], arguments.cores))
    answer(rows, worst_ratio=worst_ratio(rows))


if __name__ == "__main__":
    main()
