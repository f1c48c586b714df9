"""How the benchmarks measure: sizes, galleries, memory, tasks; and one of them from end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import all as every
import common
import growth
import numpy as np
import options
import pyarrow.parquet as pq
import pytest
from commands import ROOT

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.synth import draw_gallery

SMALL = SynthConfig(faces=600, dimension=32)
FOLDER = ROOT / "tests" / "benchmarks"


def only_json(out: str) -> dict[str, object]:
    """Read the last line of stdout, which has to be one object with a row for each size."""
    found = json.loads(out.strip().splitlines()[-1])
    assert found["results"] and all(row["faces"] > 0 for row in found["results"])
    return found


def test_sizes_are_read_as_typed():
    assert options.numbers("200000,1_000_000") == [200_000, 1_000_000]
    parsed = options.make_parser("about", "5,6").parse_args([])
    assert (parsed.faces, parsed.dimension, parsed.overrides) == ([5, 6], 256, [])
    for wrong in ("", "many", "5,0"):
        with pytest.raises(Exception, match="expected"):
            options.numbers(wrong)


def test_a_gallery_is_written_as_it_is_drawn(tmp_path):
    path = common.write_gallery(common.synthetic_blocks(SMALL), tmp_path / "gallery.parquet")
    drawn, table = draw_gallery(SMALL), pq.read_table(path)
    assert table["image_id"].to_pylist() == drawn.image_ids.tolist()
    embeddings = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(embeddings, drawn.embeddings)
    attributes = np.array(table["attributes"].to_pylist(), float)  # None becomes NaN
    np.testing.assert_array_equal(attributes.astype(np.float32), drawn.attributes)
    assert np.isnan(attributes).any()


def test_memory_is_that_of_the_whole_tree():
    holding = "x = b'1' * (100 << 20); print(1, flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holding!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdout.readline()
    with common.MemoryWatch(process.pid) as watch:
        process.communicate(b"\n")
    memory = watch.memory()
    assert 0.095 < memory.peak_gib < 0.3
    assert memory.driver_gib == memory.peak_gib
    assert memory.jvm_gib == memory.workers_gib == 0.0


def event(launched: float, **metrics: object) -> str:
    update = [{"Name": "time to run Python workers", "Update": "1500"}, {"ID": 3}]
    told = {
        "Event": "SparkListenerTaskEnd",
        "Task Info": {"Launch Time": launched * 1e3, "Accumulables": update},
        "Task Metrics": metrics,
    }
    return json.dumps(told, separators=(",", ":"))


def test_tasks_count_for_the_stage_that_they_were_launched_in():
    spans = [common.Span("cells", 100.0, 5.0), common.Span("neighbours", 105.5, 5.0)]
    read = {"Remote Bytes Read": 3, "Local Bytes Read": 4}
    metrics = {
        "Executor Run Time": 2_000,
        "Shuffle Read Metrics": read,
        "Shuffle Write Metrics": {"Shuffle Bytes Written": 9},
    }
    lines = [
        event(99.0, **metrics),
        event(104.0, **metrics),
        event(104.0, **metrics, **{"Disk Bytes Spilled": 6}),
        '{"Event":"SparkListenerTaskStart"}',
        event(106.0, **metrics),
    ]
    found = common.read_events(lines, spans)
    assert found["cells"] == common.Work(2, 4.0, 3.0, 18, 14, 6)
    assert found["neighbours"] == common.Work(1, 2.0, 1.5, 9, 7, 0)


def test_the_slope_is_the_exponent():
    rows = [{"faces": n, "seconds": 0.01 * n**1.1} for n in (50_000, 100_000, 1_000_000)]
    assert growth.slope_of(rows) == pytest.approx(1.1)
    assert growth.slope_of(rows[:1]) is None


def test_growth_from_end_to_end(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["growth.py", "--faces", "300", "--dimension", "32"])
    growth.main()
    found = only_json(capfd.readouterr().out)
    (row,) = found["results"]
    assert row["faces"] == 300 and found["slope"] is None
    stages = row["stages"]
    assert set(common.HEAVY) <= set(stages)
    assert sum(stage["seconds"] for stage in stages.values()) <= row["seconds"]
    assert all(stage["tasks"] > 0 for stage in stages.values())
    assert stages["neighbours"]["python_seconds"] > 0 and stages["neighbours"]["shuffle_write_bytes"] > 0
    assert row["peak_gib"] > max(row["jvm_gib"], 0.3) and row["workers_gib"] > 0.05


def test_all_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    (tmp_path / "knn.py").write_text("print('a line'); print('{\"results\": [{\"faces\": 5}]}')")
    (tmp_path / "growth.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(every, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "growth,knn"])
    with pytest.raises(SystemExit) as left:
        every.main()
    assert left.value.code == 1
    assert json.loads(capsys.readouterr().out)["results"] == [
        {"benchmark": "growth", "failed": "exit code 3"},
        {"benchmark": "knn", "results": [{"faces": 5}]},
    ]


def test_the_page_names_benchmarks_and_options_that_there_are():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    commands = re.findall(r"make bench-(\w+)(?: ARGS='([^']*)')?", page)
    assert {name for name, _ in commands} >= {"knn", "overhead", "growth", "cores", "skew", "refinement"}
    shared = (FOLDER / "options.py").read_text(encoding="utf-8")
    for name, given in commands:
        source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        source += shared if "make_parser" in source else ""
        for option in re.findall(r"--[\w-]+", given):
            assert f'"{option}"' in source, f"{name} has no {option}"
