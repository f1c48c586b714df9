"""Rounds on Spark against the same rounds in one process: labels, confidences, statuses, who met whom."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from grouped_gallery import SCALE, cosine_model, faces_frame, make_gallery, vectors_frame
from pyspark.sql import functions as F

from faceclust_spark.config import NeighboursConfig, RoundsConfig
from faceclust_spark.kernels.assignment import LEFT, MEMBER
from faceclust_spark.kernels.calibration import AloneCalibration
from faceclust_spark.kernels.cells import Cells
from faceclust_spark.kernels.encounters import neighbour_links
from faceclust_spark.kernels.joiner import Joiner
from faceclust_spark.kernels.model import Model, model_bytes
from faceclust_spark.kernels.neighbours import find_neighbours
from faceclust_spark.kernels.rounds import Gallery, Placed, join_clusters
from faceclust_spark.kernels.rounds import sure_alone as kernel_sure_alone
from faceclust_spark.kernels.standing import NO_CLUSTER
from faceclust_spark.stages.meetings import Nodes
from faceclust_spark.stages.neighbours import lists_to_batches
from faceclust_spark.stages.rounds import play_rounds, sure_alone
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.scratch import rounds_scratch

PEOPLE = [70, 24, 13, 8, 6, 5, 4, 3, 3, 2, *[1] * 14]


def a_joiner(seed=3):
    """Random weights, steep enough that some visitors join and some do not."""
    torch.manual_seed(seed)
    joiner = Joiner()
    with torch.no_grad():
        for member in joiner.members:
            member[0].weight.mul_(4)
            member[4].weight.mul_(20)
    return joiner.eval()


def a_start(gallery, seed=1):
    """People in pieces of one to five faces, but for the largest; faces of one photo apart."""
    generator = np.random.default_rng(seed)
    pieces = np.where(gallery.labels < 2, 0, generator.integers(3, size=len(gallery.labels)))
    shown = {}
    for row, photo in enumerate(gallery.photos):
        if photo is not None:
            key = (gallery.labels[row], pieces[row], photo)
            shown[key] = shown.get(key, 0) + 1
            pieces[row] += 10 * (shown[key] - 1)
    _, first, inverse = np.unique(
        np.stack([gallery.labels, pieces]), axis=1, return_index=True, return_inverse=True
    )
    labels = gallery.face_ids[first][inverse]
    sizes = np.bincount(inverse)[inverse]
    sure = generator.random(len(labels)).astype(np.float32)
    others = generator.permutation(labels)
    others[(generator.random(len(labels)) < 0.3) | (others == labels)] = NO_CLUSTER
    margins = np.where(others == NO_CLUSTER, np.nan, generator.normal(size=len(labels))).astype(np.float32)
    return Placed(labels, sure, np.where(sizes > 1, MEMBER, LEFT), others, margins)


def in_frames(spark, gallery, placed, lists):
    columns = {
        c.FACE_ID: gallery.face_ids,
        c.CLUSTER_KEY: placed.labels,
        c.CONFIDENCE: placed.confidences,
        c.STATUS: placed.statuses.astype(object),
        c.THRESHOLD: np.full(len(placed.labels), 0.5, np.float32),
        c.RUNNER_UP_KEY: pa.array(placed.runner_ups, mask=placed.runner_ups == NO_CLUSTER),
        c.MARGIN: pa.array(placed.margins, mask=placed.runner_ups == NO_CLUSTER),
    }
    start = spark.createDataFrame(pa.table(columns)).repartition(5, c.CONFIDENCE)
    found = spark.createDataFrame(pa.Table.from_batches(list(lists_to_batches(lists))))
    photos = faces_frame(spark, gallery).where(F.col(c.PHOTO_ID).isNotNull()).select(c.FACE_ID, c.PHOTO_ID)
    return start, Nodes(found, vectors_frame(spark, gallery), photos, SCALE)


@pytest.mark.parametrize(("count", "apart"), [(1, True), (3, True), (2, False)])
def test_rounds_give_what_they_give_in_one_process(spark, scratch, count, apart):
    gallery = make_gallery(PEOPLE, seed=count, noise=1.1)
    placed = a_start(gallery)
    one_cell = Cells(gallery.vectors[:1], np.zeros(1, np.int32))
    lists = find_neighbours(gallery.face_ids, gallery.vectors, one_cell, 0.2, NeighboursConfig(k=12))
    codes = {photo: code for code, photo in enumerate(sorted(filter(None, gallery.photos)))}
    numbers = np.array([codes.get(photo, -1) if apart else -1 for photo in gallery.photos])
    config = RoundsConfig(count=count, largest_visitor=6, hosts=3, least_log_odds=0.0)
    joiner = a_joiner()
    alone, rounds = join_clusters(
        Gallery(gallery.face_ids, gallery.vectors, gallery.attributes, gallery.norms, numbers),
        placed,
        neighbour_links(gallery.face_ids, lists),
        joiner,
        SCALE,
        config,
    )
    start, nodes = in_frames(spark, gallery, placed, lists)
    nodes = nodes if apart else nodes._replace(photos=None)
    packed = model_bytes(with_joiner(joiner))
    played = play_rounds(start, nodes, packed, config, scratch[0])
    rows = sorted(played.placed.toArrow().to_pylist(), key=lambda row: row[c.FACE_ID])
    assert [row[c.FACE_ID] for row in rows] == gallery.face_ids.tolist()
    assert [row[c.CLUSTER_KEY] for row in rows] == alone.labels.tolist()
    assert [row[c.STATUS] for row in rows] == alone.statuses.tolist()
    assert [row[c.CONFIDENCE] for row in rows] == alone.confidences.tolist()
    runner_ups = [label if label != NO_CLUSTER else None for label in alone.runner_ups.tolist()]
    assert [row[c.RUNNER_UP_KEY] for row in rows] == runner_ups
    margins = [None if np.isnan(margin) else margin for margin in alone.margins.tolist()]
    assert [row[c.MARGIN] for row in rows] == margins
    assert {None} < set(runner_ups) and len(set(margins)) > 10
    assert set(scratch[1]) <= set(rounds_scratch(count))  # all of it is cleared away
    told = played.hosts.toArrow().to_pylist()
    assert sorted(map(tuple, (row.values() for row in told))) == sorted(
        (number, *row)
        for number, (found, sizes) in enumerate(rounds, 1)
        for row in zip(found.visitor, found.host, sizes, found.log_odds, found.joins, strict=True)
    )
    moved = set(placed.labels[alone.labels != placed.labels].tolist())
    assert sum(row[c.JOINED] for row in told) >= len(moved) > 3  # the test sees joins
    assert any(not row[c.JOINED] for row in told)
    for row in rows:  # a cluster that grew has lost its threshold, no other has
        grew = row[c.CLUSTER_KEY] in set(alone.labels[alone.labels != placed.labels].tolist())
        assert (row[c.THRESHOLD] is None) == (grew or row[c.CLUSTER_KEY] in hosts_of(told, alone, placed))


@pytest.mark.parametrize("parts", [1, 4])
def test_those_alone_are_as_sure_as_in_one_process(spark, parts):
    gallery = make_gallery(PEOPLE, seed=2, noise=1.1)
    placed = a_start(gallery)
    one_cell = Cells(gallery.vectors[:1], np.zeros(1, np.int32))
    lists = find_neighbours(gallery.face_ids, gallery.vectors, one_cell, 0.2, NeighboursConfig(k=12))
    start, _ = in_frames(spark, gallery, placed, lists)
    calibration = AloneCalibration(-0.5, 0.4, 1.3)
    found = sure_alone(start.repartition(parts), calibration)
    assert found.schema == start.schema
    rows = sorted(found.toArrow().to_pylist(), key=lambda row: row[c.FACE_ID])
    expected = kernel_sure_alone(placed, calibration)
    assert [row[c.CONFIDENCE] for row in rows] == expected.confidences.tolist()
    assert 10 < (expected.confidences != placed.confidences).sum() < len(rows)
    kept = [name for name in start.columns if name != c.CONFIDENCE]
    before = sorted(start.toArrow().to_pylist(), key=lambda row: row[c.FACE_ID])
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in before]


def hosts_of(told, alone, placed):
    """Labels of the clusters that somebody joined."""
    label_of = dict(zip(placed.labels.tolist(), alone.labels.tolist(), strict=True))
    return {label_of[row[c.HOST]] for row in told if row[c.JOINED] and row[c.HOST] in label_of}


def with_joiner(joiner):
    model = cosine_model()
    return Model(model.network, {**model.card, "joiner": {"inputs": len(joiner.mean)}}, joiner)
