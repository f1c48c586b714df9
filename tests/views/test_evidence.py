"""`explain` on a small gallery, stage by stage in real tables; networkx as oracle of the path."""

import itertools
import json

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from grouped_gallery import SCALE, coarse_frame, cosine_model, faces_frame, make_gallery, vectors_frame

from faceclust_spark.config import Config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.forest import Edges, maximum_spanning_forest
from faceclust_spark.kernels.grid import cosine_matrix
from faceclust_spark.kernels.model import model_bytes
from faceclust_spark.stages.clusters import clusters, placed
from faceclust_spark.stages.confidences import refinements
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.stages.root_groups import root_groups
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore
from faceclust_spark.views.evidence import explain
from faceclust_spark.views.explanation import (
    Compared,
    ExplainedFace,
    Explanation,
    GroupsAt,
    Meeting,
    Similarity,
)

CONFIG = Config()
FLOOR = 0.3
GALLERY = make_gallery([14, 9, 6, 4, 2, 1, 1, 1], seed=11, noise=1.0)
COSINES = cosine_matrix(GALLERY.vectors, GALLERY.vectors)


def frame(spark, table, rows):
    arrow = pa.Table.from_pylist(rows, schema=arrow_output(table))
    return spark.createDataFrame(arrow, schema=stage_schema(table))


def near_rows():
    ids = GALLERY.face_ids.tolist()
    for row, cosines in enumerate(COSINES.tolist()):
        near = [i for i in np.argsort(-COSINES[row], kind="stable") if cosines[i] >= FLOOR and i != row]
        yield {
            c.FACE_ID: ids[row],
            c.NEIGHBOURS: [ids[i] for i in near],
            c.COSINES: [cosines[i] for i in near],
        }


def forest_rows():
    first, second = np.triu_indices(len(COSINES), 1)
    kept = COSINES[first, second] >= FLOOR
    edges = Edges(
        GALLERY.face_ids[first[kept]],
        GALLERY.face_ids[second[kept]],
        COSINES[first[kept], second[kept]],
    )
    names = (c.FACE_A, c.FACE_B, c.COSINE)
    columns = (column.tolist() for column in maximum_spanning_forest(edges))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def store(shared_session, tmp_path_factory):
    spark = shared_session
    tables = TableStore(spark, str(tmp_path_factory.mktemp("explained")))
    faces, vectors = faces_frame(spark, GALLERY), vectors_frame(spark, GALLERY)
    coarse = coarse_frame(spark, GALLERY)
    grouped = root_groups(coarse, vectors, CONFIG.confidences)
    refused = {c.IMAGE_ID: "grey", c.REASON: "zero_vector", c.DETAIL: "length 0", c.SOURCE: "test"}
    content = {
        schemas.FACES: faces,
        schemas.VECTORS: vectors,
        schemas.COARSE_GROUPS: coarse,
        schemas.NEIGHBOURS: frame(spark, schemas.NEIGHBOURS, list(near_rows())),
        schemas.FOREST: frame(spark, schemas.FOREST, forest_rows()),
        schemas.QUARANTINE: frame(spark, schemas.QUARANTINE, [{**refused, c.ROW: "{}", c.CONTENT_HASH: ""}]),
        schemas.REFINEMENTS: refinements(
            grouped, model_bytes(cosine_model()), CONFIG.confidences, CONFIG.similarities, SCALE
        ),
    }
    for table, rows in content.items():
        tables.replace(table, rows, "run")
    refined = tables.read(schemas.REFINEMENTS)
    tables.replace(schemas.CLUSTERS, clusters(placed(refined, faces, CONFIG.clusters, None), faces), "run")
    return tables


@pytest.fixture(scope="module")
def cluster_of(store):
    rows = store.read(schemas.CLUSTERS).toArrow().to_pylist()
    return {row[c.IMAGE_ID]: row for row in rows}


def weakest_between(a, b):
    """Give the highest cosine that connects two rows, from all pairs above the floor."""
    graph = nx.from_numpy_array(np.where(COSINES >= FLOOR, COSINES, 0) - np.diag(np.diag(COSINES)))
    tree = nx.maximum_spanning_tree(graph)
    if not nx.has_path(tree, a, b):
        return None
    path = nx.shortest_path(tree, a, b)
    return min(COSINES[x, y] for x, y in itertools.pairwise(path))


def find_pair(cluster_of, same_cluster, same_root):
    """Give the first rows that are, or are not, in one cluster and one root group."""
    rows = range(len(GALLERY.face_ids))
    for a in rows:
        for b in rows[a + 1 :]:
            one, other = (cluster_of[GALLERY.image_ids[row]] for row in (a, b))
            found = tuple(one[name] == other[name] for name in (c.CLUSTER_ID, c.ROOT_KEY))
            if found == (same_cluster, same_root):
                return a, b
    pytest.fail("the gallery has no such pair")
    return None


@pytest.mark.parametrize(("same_cluster", "same_root"), [(True, True), (False, True), (False, False)])
def test_facts_of_a_pair(store, cluster_of, same_cluster, same_root):
    a, b = find_pair(cluster_of, same_cluster, same_root)
    images = [GALLERY.image_ids[row] for row in (a, b)]
    found = explain(store, *images, CONFIG)
    assert found.together is same_cluster
    assert found.compared.in_one_root is same_root
    assert found.similarity.faces == COSINES[a, b]
    above = np.count_nonzero(COSINES[a] > COSINES[a, b])  # itself included
    own = cluster_of[images[0]]
    assert (found.a.runner_up, found.a.margin) == (own[c.RUNNER_UP], own[c.MARGIN])
    assert (own[c.RUNNER_UP] is not None) == (f"next best: cluster {own[c.RUNNER_UP]}, log" in str(found))
    assert found.a.rank == (above if COSINES[a, b] >= FLOOR else None)
    weakest = weakest_between(a, b)
    if weakest is None:
        assert found.path == ()
        assert "no chain of neighbours" in str(found)
    else:
        assert found.weakest_step.cosine == weakest
        assert (found.path[0].image_a, found.path[-1].image_b) == tuple(images)
        for one, following in zip(found.path, found.path[1:], strict=False):
            assert one.image_b == following.image_a
    for at, threshold in enumerate(GALLERY.coarse.thresholds):
        keys = GALLERY.coarse.keys[at]
        assert found.groups[at].threshold == threshold
        assert found.groups[at].same_group == (keys[a] == keys[b])
        assert found.groups[at].size_a == np.count_nonzero(keys == keys[a])
    assert found.verdict.startswith("Together" if same_cluster else "Apart")
    text = str(found)
    assert all(image in text for image in images)
    assert json.loads(json.dumps(found.to_dict()))["verdict"] == found.verdict


def test_links_that_decided_involve_the_pair(store, cluster_of):
    a, b = find_pair(cluster_of, same_cluster=False, same_root=True)
    images = {GALLERY.image_ids[row] for row in (a, b)}
    found = explain(store, GALLERY.image_ids[a], GALLERY.image_ids[b], CONFIG)
    sizes = (found.a.cluster_size, found.b.cluster_size)
    assert found.compared.pairs_between == sizes[0] * sizes[1]
    assert len(found.compared.links) == sum(sizes) - 1
    for link in found.compared.links:
        assert {link.image_a, link.image_b} & images
        clusters = {cluster_of[i][c.CLUSTER_ID] for i in (link.image_a, link.image_b)}
        assert clusters == {found.a.cluster_id, found.b.cluster_id}
    ordered = [link.log_odds for link in found.compared.links]
    assert ordered == sorted(ordered, reverse=True)


def test_images_that_cannot_be_explained(store):
    known = GALLERY.image_ids[0]
    with pytest.raises(DataError, match=r"'stranger'.*check the image_id"):
        explain(store, known, "stranger", CONFIG)
    with pytest.raises(DataError, match=r"'grey'.*quarantine .zero_vector: length 0"):
        explain(store, "grey", known, CONFIG)
    with pytest.raises(DataError, match="given twice"):
        explain(store, known, known, CONFIG)


@pytest.mark.parametrize(
    ("meetings", "told"),
    [
        ([], "never compared, since no chain"),
        ([(-2.0, False)], "held them for two people"),
        ([(0.2, False), (-1.0, False)], "held them for two people"),  # not above what joining takes
        ([(-1.0, False), (0.3, False)], "joined a third"),
    ],
)
def test_rounds_that_left_two_faces_apart(meetings, told):
    one, other = (
        ExplainedFace(name, f"c{name}", 1, "left", 0.5, "c9", margin, 1, 4, None)
        for name, margin in (("a", 1.25), ("b", -0.5))
    )
    at = GroupsAt(0.4, False, 1, 1, 0.4, 0.4, 1.0, 1.0)
    met = tuple(Meeting(1, "a", 1, "b", log_odds, joined) for log_odds, joined in meetings)
    found = Explanation(one, other, Similarity(0.3, None, 0.3), (), (at,), Compared(), met, 0.25)
    assert found.verdict.startswith("Apart: ") and told in found.verdict
    assert "next best: cluster c9, log-odds 1.25 behind\n" in str(found)
    assert "next best: cluster c9, log-odds 0.50 ahead of its own\n" in str(found)
    assert found.to_dict()["a"]["margin"] == 1.25
