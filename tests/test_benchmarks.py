"""The benchmarks: what they compute of what they measure, and one of them from end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ROOT
from deltalake import write_deltalake

from faceclust_spark.config import Config, SynthConfig
from faceclust_spark.kernels import refine
from faceclust_spark.kernels.assignment import assign_faces, mint_cluster_ids
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise
from faceclust_spark.kernels.model import load_model, model_bytes
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.tables import schemas

FOLDER = ROOT / "tests" / "benchmarks"
sys.path.insert(0, str(FOLDER))

import all as every  # noqa: E402
import common  # noqa: E402
import cores  # noqa: E402
import growth  # noqa: E402
import knn  # noqa: E402
import options  # noqa: E402
import overhead  # noqa: E402
import refinement  # noqa: E402
import refinement_stages  # noqa: E402
import skew  # noqa: E402

MEMORY = common.Memory(3.0, 0.5, 1.5, 1.0)
SMALL = SynthConfig(faces=600, dimension=32)


def ran(faces: int, factor: float, tables: str = "tables") -> common.Ran:
    """A run whose stages take 1, 2, 3 ... seconds times a factor."""
    stages = {stage: factor * number for number, stage in enumerate(common.HEAVY, 1)}
    work = {stage: common.Work(tasks=4, task_seconds=seconds) for stage, seconds in stages.items()}
    return common.Ran(faces, sum(stages.values()), stages, work, [30, 20], 0, tables)


def child(*runs: common.Ran) -> common.Child:
    return common.Child(5.0, MEMORY, runs)


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


def test_other_clusters_fail_a_comparison(tmp_path):
    expected = pa.table({"image_id": ["a", "b"], "cluster_id": ["1", "2"]})
    write_deltalake(str(tmp_path / "clusters"), expected)
    overhead.require_same(expected, str(tmp_path))
    other = pa.table({"image_id": ["a", "b"], "cluster_id": ["1", "1"]})
    fewer = expected.slice(0, 1)
    for wrong in (other, fewer):
        with pytest.raises(RuntimeError, match="such as b"):
            overhead.require_same(wrong, str(tmp_path))


def test_overhead_compares_with_the_warm_run():
    warm, cold, alone = child(ran(1_000, 0.1), ran(9_000, 2.0)), child(ran(9_000, 3.0)), child(ran(900, 0.2))
    row = overhead.row_of(warm, cold, alone, 10.0, MEMORY)
    assert (row["faces"], row["ratio_to_in_process"], row["ratio_cold"]) == (9_000, 3.0, 4.5)
    assert row["small"]["faces"] == 900
    assert "ratio 3.00" in overhead.describe(row)


def test_the_speed_up_is_the_least_of_the_heavy_stages():
    one = ran(9_000, 2.0)
    several = ran(9_000, 1.0)
    several.stages["neighbours"] = 3.2  # type: ignore[index]
    row = cores.row_of(one, several, 2)
    assert row["least_heavy_speed_up"] == pytest.approx(4.0 / 3.2)
    assert row["stages"]["ingest"]["speed_up"] == 2.0
    assert "1.25" in cores.describe(row)


def test_what_the_machine_gains_is_told_for_each_kind_of_work():
    gain = cores.machine_gain(2, seconds=0.3)
    assert list(gain) == ["products", "copies", "look-ups"]
    assert all(0 < value < 10 for value in gain.values())


def test_skew_compares_stages_and_faces():
    row = skew.row_of(child(ran(1_000, 1.0)), child(ran(1_500, 3.0)))
    assert row["slowest_ratio"] == 3.0
    assert row["stages"]["clusters"]["ratio_per_face"] == 2.0
    told = skew.describe(
        {**row, "identity_clusters": 1, "identity_largest": 2, "hub_clusters": 3, "hub_largest": 4}
    )
    assert "no face lost" in told


def test_a_lost_or_quarantined_face_fails_the_skew():
    skew.require_all(child(ran(1_000, 1.0)), 1_000)
    with pytest.raises(RuntimeError, match="999 are clustered"):
        skew.require_all(child(ran(999, 1.0)), 1_000)


def cosines(blocks: Iterator[object]) -> np.ndarray:
    vectors = quantise(normalise(np.concatenate([block.embeddings for block in blocks])))
    return cosine_matrix(vectors, vectors)[np.triu_indices(len(vectors), 1)]


def test_the_identity_is_one_person_and_the_hub_many_that_look_alike():
    config = SynthConfig(dimension=256)
    identity = cosines(skew.draw_identity(300, config))
    assert identity.mean() == pytest.approx(1 / (1 + config.noise**2), abs=0.02)
    pull = config.attractor_pull
    hub = cosines(skew.draw_hub(300, config))
    assert hub.mean() == pytest.approx(pull**2 / (pull**2 + (1 - pull) ** 2), abs=0.03)
    blocks = list(skew.draw_hub(skew.CHUNK + 5, SynthConfig(dimension=8)))
    assert [len(block.labels) for block in blocks] == [skew.CHUNK, 5]
    assert len(set(np.concatenate([block.labels for block in blocks]))) == skew.CHUNK + 5


def test_skewed_rows_are_of_the_types_of_the_others(tmp_path):
    blocks = (*skew.draw_identity(5, SMALL), *skew.draw_hub(5, SMALL), *common.synthetic_blocks(SMALL))
    common.write_gallery(blocks, tmp_path / "gallery.parquet")
    schemas_found = {str(pq.read_schema(path)) for path in (tmp_path / "gallery.parquet").iterdir()}
    assert len(schemas_found) == 1


def test_where_the_identity_ended_is_counted(tmp_path):
    images = ["identity-1", "identity-2", "identity-3", "hub-1", "face-1"]
    write_deltalake(
        str(tmp_path / "clusters"), pa.table({"image_id": images, "cluster_id": ["a", "a", "b", "c", "c"]})
    )
    assert skew.where_ended(str(tmp_path)) == {
        "identity_clusters": 2,
        "identity_largest": 2,
        "hub_clusters": 1,
        "hub_largest": 1,
    }


def test_edge_recall_is_the_share_of_true_edges(monkeypatch):
    monkeypatch.setattr(knn, "AUDITED", 50)
    gallery = knn.make_gallery(400, 32)
    every_cosine = cosine_matrix(gallery.vectors[gallery.sample], gallery.vectors)
    every_cosine[np.arange(50), gallery.sample] = -1
    order = np.argsort(-every_cosine, axis=1)[:, : knn.K]
    near = np.take_along_axis(every_cosine, order, 1) >= knn.FLOOR
    assert near.sum() > 50
    found = np.where(near, order, -1)
    assert knn.edge_recall(gallery, found) == 1.0
    half = found.copy()
    half[:25] = -1
    assert knn.edge_recall(gallery, half) == pytest.approx(near[25:].sum() / near.sum())


def test_search_tells_the_worst_of_all_sizes():
    ours = knn.Measured("ours", 5.0, 0.995)
    peers = {"faiss": knn.Measured("faiss", 20.0, 0.995), "hnswlib": knn.Measured("hnswlib", 50.0, 0.996)}
    rows = [knn.row_of(200, ours, peers), knn.row_of(1_000, ours._replace(edge_recall=0.99), {})]
    assert (rows[0]["ratio_to_faiss"], rows[0]["ratio_to_hnswlib"]) == (0.25, 0.1)
    assert knn.summary_of(rows) == {"ratio_to_faiss": 0.25, "edge_recall": 0.99}
    assert knn.summary_of(rows[1:])["ratio_to_faiss"] is None


def test_refinement_divides_its_time():
    groups = refinement.make_groups(120, 40, 32)
    assert [len(group.face_ids) for group in groups] == [40, 40, 40]
    for group in groups:  # nested: each group of a higher threshold lies in one of the lower
        for lower, higher in zip(group.keys, group.keys[1:], strict=False):
            assert len(np.unique(np.stack([lower, higher]), axis=1).T) == len(np.unique(higher))
        assert (np.diff(group.face_ids) > 0).all() and (group.keys[0] == group.face_ids[0]).all()
    config = Config()
    describe = refine.describe
    scored, parts = refinement.profile(groups, load_model("default"), config, Scale(0.0, 32**-0.5))
    assert refine.describe is describe
    inside = [parts[name] for name in ("similarity", "torch", "packing", "recluster")]
    assert min(inside) > 0 and sum(inside) == pytest.approx(parts["seconds"])
    row = refinement.row_of(groups, scored, parts)
    assert (row["pairs"], row["faces"], row["groups"]) == (3 * 780, 120, 3)
    transfer = refinement_stages.transfer_row(common.Span("clusters", 0.0, 4.0), common.Work(2, 8.0), 6.0)
    assert (transfer["transfer_seconds"], transfer["transfer_share"]) == (2.0, 0.25)
    assert "25%" in refinement.describe([row], {"clusters": transfer})


def test_kernels_are_timed_inside_the_workers(spark, store, tmp_path):
    groups = refinement.make_groups(90, 30, 32) + refinement.make_groups(20, 10, 32)
    model, config, scale = load_model("default"), Config(), Scale(0.0, 32**-0.5)
    tables = refinement_stages.tables_of(groups, refinement.THRESHOLDS)
    refinement_stages.write_tables(store, spark, tables, tmp_path)
    refining = refinement_stages.Refining(model_bytes(model), config, scale)
    spans = refinement_stages.time_stages(store, refining, tmp_path)
    assert [span.stage for span in spans] == ["refinements", "clusters"]
    for span in spans:
        assert 0 < refinement_stages.kernel_seconds(tmp_path / span.stage) < 2 * span.seconds
    rows = store.read(schemas.CLUSTERS).toArrow()
    assert len(set(rows["face_id"].to_pylist())) == rows.num_rows == 110
    refined = refine.refine_groups(groups, model, config.confidences, config.similarities, scale)
    found = dict(zip(rows["face_id"].to_pylist(), rows["cluster_id"].to_pylist(), strict=True))
    for group, one in zip(groups, refined, strict=True):
        own = assign_faces(group.face_ids, refinement.THRESHOLDS, group.keys, one, config.clusters)
        assert [found[face] for face in group.face_ids.tolist()] == mint_cluster_ids(own.labels).tolist()


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
