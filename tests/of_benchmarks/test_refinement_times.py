"""The benchmark of refinement: its time in parts, in this process and inside Spark's workers."""

from __future__ import annotations

import common
import numpy as np
import pytest
import refinement
import refinement_stages

from faceclust_spark.config import Config
from faceclust_spark.kernels import refine
from faceclust_spark.kernels.assignment import assign_faces, mint_cluster_ids
from faceclust_spark.kernels.model import load_model, model_bytes
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.tables import schemas


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
