"""Root groups, similarities, confidences, clusters and summaries against the kernels in one process."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from grouped_gallery import SCALE, coarse_frame, cosine_model, faces_frame, make_gallery, vectors_frame
from pyspark.sql import functions as F

from faceclust_spark.config import ClustersConfig, ConfidencesConfig, SimilaritiesConfig
from faceclust_spark.kernels.assignment import assign_faces, mint_cluster_ids, name_photos
from faceclust_spark.kernels.calibration import Calibration
from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.grouping import gather_groups
from faceclust_spark.kernels.model import model_bytes
from faceclust_spark.kernels.refine import refine_groups
from faceclust_spark.stages.clusters import clusters, placed
from faceclust_spark.stages.confidences import confidences, refinements
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.root_groups import root_groups
from faceclust_spark.stages.similarities import similarities
from faceclust_spark.stages.summaries import cluster_summary
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

SIMILARITIES = SimilaritiesConfig()
CLUSTERS = ClustersConfig()
CALIBRATION = Calibration(0.3, 0.5, 0.2, -0.1)
ONE_TASK = ConfidencesConfig(dense_size=30, block_neighbours=8, block_negatives=4)
MANY_TASKS = ONE_TASK.model_copy(update={"pairs_per_task": 60})
GALLERIES = {
    "one face": [1],
    "two faces together": [2],
    "all alone": [1] * 12,
    "mixed, one group over the dense size": [45, 17, 9, 5, 4, 3, 3, 2, 2, *[1] * 15],
}


@cache
def model():
    return cosine_model()


def in_process(gallery, config):
    """Give (image_id, cluster_id, confidence, status, threshold) of each face, and its confidences."""
    groups = gather_groups(gallery.coarse, gallery.vectors, gallery.attributes, gallery.norms)
    image_of = dict(zip(gallery.face_ids.tolist(), gallery.image_ids, strict=True))
    codes = {photo: code for code, photo in enumerate(sorted(filter(None, gallery.photos)))}
    photo_of = {
        face: codes.get(photo, -1)
        for face, photo in zip(gallery.face_ids.tolist(), gallery.photos, strict=True)
    }
    rows, sure = set(), set()
    for group, refined in zip(
        groups, refine_groups(groups, model(), config, SIMILARITIES, SCALE), strict=True
    ):
        photos = np.array([photo_of[face] for face in group.face_ids.tolist()])
        named = name_photos(group.face_ids, photos)
        found = assign_faces(
            group.face_ids,
            gallery.coarse.thresholds,
            group.keys,
            refined,
            CLUSTERS,
            named if (named >= 0).any() else None,
            CALIBRATION,
        )
        ids = mint_cluster_ids(found.labels).tolist()
        for i, face in enumerate(group.face_ids.tolist()):
            of_face = (ids[i], float(found.confidences[i]), str(found.statuses[i]))
            rows.add((image_of[face], *of_face, float(found.thresholds[i])))
            for t, threshold in enumerate(gallery.coarse.thresholds.tolist()):
                key, value = int(group.keys[t, i]), float(refined.confidences[t, i])
                sure.add((threshold, key, face, value))
    return rows, sure


def rows_of(frame, *columns):
    arrow = frame.select(*columns).toArrow()
    rows = list(zip(*(arrow[name].to_pylist() for name in columns), strict=True))
    assert len(rows) == len(set(rows)), "a row came twice"
    return set(rows)


def check_schema(frame, table):
    expected = [(f.name, f.dataType.simpleString()) for f in stage_schema(table)]
    assert [(f.name, f.dataType.simpleString()) for f in frame.schema] == expected


def check_summary(summary, clustered, gallery):
    """Compare with brute force over all pairs of each cluster."""
    row_of = {image: row for row, image in enumerate(gallery.image_ids)}
    members, sure, highest = {}, {}, {}
    for image, cluster, confidence, _, threshold in clustered:
        members.setdefault(cluster, []).append(row_of[image])
        sure.setdefault(cluster, []).append(confidence)
        highest[cluster] = threshold
    rows = summary.toArrow().to_pylist()
    assert sorted(row[c.CLUSTER_ID] for row in rows) == sorted(members)
    for row in rows:
        faces = sorted(members[row[c.CLUSTER_ID]])
        cosines = cosine_matrix(gallery.vectors[faces], gallery.vectors[faces])
        others = cosines.astype(float) - np.diag(np.diag(cosines))
        assert row[c.SIZE] == len(faces)
        assert row[c.MEDOID] == gallery.image_ids[faces[int(others.sum(axis=1).argmax())]]
        assert row[c.MEAN_CONFIDENCE] == pytest.approx(np.mean(sure[row[c.CLUSTER_ID]]), abs=1e-6)
        up_to = [t for t in gallery.coarse.thresholds.tolist() if t <= highest[row[c.CLUSTER_ID]]]
        assert row[c.THRESHOLDS] == up_to
        if len(faces) == 1:
            assert row[c.LOWEST_SIMILARITY] is None
        else:
            assert row[c.LOWEST_SIMILARITY] == cosines[~np.eye(len(faces), dtype=bool)].min()


@pytest.mark.parametrize("name", GALLERIES)
def test_spark_equals_one_process(spark, name):
    gallery = make_gallery(GALLERIES[name], seed=len(name))
    expected, expected_sure = in_process(gallery, ONE_TASK)
    assert len(expected) == len(gallery.face_ids)
    coarse, vectors = coarse_frame(spark, gallery), vectors_frame(spark, gallery)
    faces = faces_frame(spark, gallery)
    for config, parts in ((ONE_TASK, 1), (MANY_TASKS, 5)):
        grouped = root_groups(coarse.repartition(parts), vectors.repartition(parts), config)
        refined = refinements(grouped, model_bytes(model()), config, SIMILARITIES, SCALE).cache()
        check_schema(refined, schemas.REFINEMENTS)
        sure = confidences(refined)
        check_schema(sure, schemas.CONFIDENCES)
        names = (c.THRESHOLD, c.GROUP_KEY, c.FACE_ID, c.CONFIDENCE)
        assert rows_of(sure, *names) == expected_sure
        found = clusters(placed(refined, faces.repartition(parts), CLUSTERS, CALIBRATION), faces).cache()
        check_schema(found, schemas.CLUSTERS)
        columns = (c.IMAGE_ID, c.CLUSTER_ID, c.CONFIDENCE, c.STATUS, c.THRESHOLD)
        assert rows_of(found, *columns) == expected
        summary = cluster_summary(found, vectors, refined, config.pairs_per_task)
        check_schema(summary, schemas.CLUSTER_SUMMARY)
        check_summary(summary, expected, gallery)
        refined.unpersist()
        found.unpersist()


@pytest.mark.parametrize("limit", [20, 3_000])  # below and beyond the size up to which all pairs are scored
def test_similarities_of_groups_up_to_their_own_limit(spark, limit):
    gallery = make_gallery(GALLERIES["mixed, one group over the dense size"], seed=3)
    grouped = root_groups(coarse_frame(spark, gallery), vectors_frame(spark, gallery), MANY_TASKS)
    found = similarities(grouped, SIMILARITIES.model_copy(update={"max_size": limit}))
    check_schema(found, schemas.SIMILARITIES)
    rows = {row[c.ROOT_KEY]: row for row in found.toArrow().to_pylist()}
    sizes = Counter(gallery.coarse.keys[0].tolist())
    assert set(rows) == {root for root, n in sizes.items() if 2 <= n <= limit}
    assert 20 < ONE_TASK.dense_size < max(sizes.values()) < 3_000
    for root, row in rows.items():
        members = np.flatnonzero(gallery.coarse.keys[0] == root)
        cosines = cosine_matrix(gallery.vectors[members], gallery.vectors[members])
        upper = np.triu_indices(len(members), 1)
        assert row[c.FACE_IDS] == gallery.face_ids[members].tolist()
        np.testing.assert_array_equal(np.float32(row[c.FACE_SIMILARITY]), cosines[upper])
        assert len(row[c.FUSED_SIMILARITY]) == len(row[c.ATTRIBUTE_SIMILARITY]) == len(upper[0])


def test_tasks_share_the_cost(spark):
    generator = np.random.default_rng(8)
    sizes = [*generator.integers(20, 60, size=15).tolist(), *generator.integers(2, 6, 40).tolist()]
    gallery = make_gallery(sizes, seed=1, noise=0.3)
    config = ConfidencesConfig(pairs_per_task=2_000)
    together = root_groups(coarse_frame(spark, gallery), vectors_frame(spark, gallery), config).together
    cost = F.sum((F.col(c.SIZE) - 1) / 2)  # over its faces: the pairs of a group
    rows = together.groupBy(F.spark_partition_id()).agg(cost.alias("cost")).collect()
    costs = [row["cost"] for row in rows]
    largest = max(sizes) * (max(sizes) - 1) / 2
    assert len(costs) > 4
    assert max(costs) <= 2 * config.pairs_per_task + largest


def test_a_huge_group_is_one_task_and_leaves_no_others_empty(spark):
    gallery = make_gallery([150, *[5] * 30], seed=3)
    config = ConfidencesConfig(pairs_per_task=100)
    together = root_groups(coarse_frame(spark, gallery), vectors_frame(spark, gallery), config).together
    rows = together.select(c.ROOT_KEY, c.SIZE, F.spark_partition_id().alias("task")).distinct().collect()
    sizes = [row[c.SIZE] for row in rows]
    assert sum(sizes) == 300 and max(sizes) == 150  # 11,175 pairs: by themselves 112 tasks
    tasks = -(-sum(min(size * (size - 1) // 2, 100) for size in sizes) // 100)
    assert 4 <= tasks < 10
    assert {row["task"] for row in rows} == set(range(tasks))


def test_a_face_without_a_group_fails_loudly(spark):
    gallery = make_gallery([2, 1], seed=2)
    grouped = root_groups(coarse_frame(spark, gallery), vectors_frame(spark, gallery), ONE_TASK)
    refined = refinements(grouped, model_bytes(model()), ONE_TASK, SIMILARITIES, SCALE)
    faces = faces_frame(spark, gallery)
    stranger = faces.limit(1).withColumns({c.FACE_ID: F.lit(7), c.IMAGE_ID: F.lit("stranger")})
    with pytest.raises(Exception, match="no root group holds the image stranger"):
        everyone = faces.unionByName(stranger)
        clusters(placed(refined, everyone, CLUSTERS, None), everyone).toArrow()
