"""What the benchmarks of speed compute of what they measured, and what fails a comparison."""

from __future__ import annotations

from collections.abc import Iterator

import common
import cores
import knn
import numpy as np
import overhead
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skew
from deltalake import write_deltalake

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.grid import cosine_matrix, normalise, quantise

MEMORY = common.Memory(3.0, 0.5, 1.5, 1.0)
SMALL = SynthConfig(faces=600, dimension=32)


def ran(faces: int, factor: float, tables: str = "tables") -> common.Ran:
    """A run whose stages take 1, 2, 3 ... seconds times a factor."""
    stages = {stage: factor * number for number, stage in enumerate(common.HEAVY, 1)}
    work = {stage: common.Work(tasks=4, task_seconds=seconds) for stage, seconds in stages.items()}
    return common.Ran(faces, sum(stages.values()), stages, work, [30, 20], 0, tables)


def child(*runs: common.Ran) -> common.Child:
    return common.Child(5.0, MEMORY, runs)


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
