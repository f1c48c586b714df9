"""A small gallery with its coarse groups, found by networkx: input and oracle of the group stages."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession

from faceclust_spark.kernels.graph_convolution import Network
from faceclust_spark.kernels.grid import cosine_matrix, normalise, pack_vectors, quantise
from faceclust_spark.kernels.groups import CoarseGroups
from faceclust_spark.kernels.ids import hash_image_ids
from faceclust_spark.kernels.model import FORMAT, Model
from faceclust_spark.kernels.nearest import Scale
from faceclust_spark.kernels.norms import NormScale
from faceclust_spark.kernels.readings import AttributeWeights
from faceclust_spark.kernels.relations import NODE_INPUTS, PAIR_INPUTS
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

# Of random directions in 64 dimensions.
WEIGHTS = AttributeWeights((0.5, -0.2, 0.0, 0.1), (0.0, 0.6, 0.0, -0.1))
SCALE = Scale(mean=0.0, standard_deviation=0.125, norms=NormScale(2.8, 0.12), attributes=WEIGHTS)
THRESHOLDS = (0.4, 0.55, 0.7)


class Gallery(NamedTuple):
    """Rows by ascending face id; labels tell the true person."""

    face_ids: np.ndarray
    image_ids: list[str]
    vectors: np.ndarray
    attributes: np.ndarray
    norms: np.ndarray
    photos: list[str | None]
    labels: np.ndarray
    coarse: CoarseGroups


def make_gallery(people: list[int], seed: int = 0, noise: float = 0.8, width: int = 4) -> Gallery:
    """Draw a gallery with one person of each size; every third face shares its photo with the next."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(people)), people)
    n, dimension = len(labels), 64
    centres = normalise(generator.normal(size=(len(people), dimension)))
    raw = centres[labels] + noise * generator.normal(size=(n, dimension)) / np.sqrt(dimension)
    image_ids = [f"image-{seed}-{row}" for row in range(n)]
    face_ids = hash_image_ids(image_ids)
    photos = [f"photo-{row // 2}" if row % 3 else None for row in range(n)]
    attributes = generator.normal(size=(n, width)).astype(np.float32)
    attributes[generator.random((n, width)) < 0.2] = np.nan
    norms = np.exp(generator.normal(2.8, 0.12, size=n)).astype(np.float32)
    order = np.argsort(face_ids)
    vectors = quantise(normalise(raw))[order]
    return Gallery(
        face_ids[order],
        [image_ids[row] for row in order],
        vectors,
        attributes[order],
        norms[order],
        [photos[row] for row in order],
        labels[order],
        find_components(face_ids[order], vectors),
    )


def cosine_model() -> Model:
    """Give a model whose log-odds are the cosine less 0.5, times 40, and whose confidences are random."""
    torch.manual_seed(5)
    arguments = {"inputs": NODE_INPUTS, "pair_inputs": PAIR_INPUTS, "hidden": 16, "layers": 1}
    network = Network(**arguments)
    first, _, second, _, last = network.pair
    cosine = 3 * arguments["hidden"]  # the first of the pair's own inputs: 0.1 / 0.125 of it
    with torch.no_grad():
        for layer in (first, second, last):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[0, cosine], first.bias[0] = 50.0, -20.0
        first.weight[1, cosine], first.bias[1] = -50.0, 20.0
        second.weight[0, 0] = second.weight[1, 1] = last.weight[0, 0] = 1.0
        last.weight[0, 1] = -1.0
    network.eval()
    return Model(network, {"format": FORMAT, "kind": "relations", "network": arguments})


def find_components(face_ids: np.ndarray, vectors: np.ndarray) -> CoarseGroups:
    """Give the components of all pairs at or above each threshold, by networkx."""
    cosines = cosine_matrix(vectors, vectors)
    thresholds = np.array(THRESHOLDS, dtype=np.float32)
    keys = np.empty((len(thresholds), len(face_ids)), dtype=np.int64)
    for row, threshold in enumerate(thresholds):
        graph = nx.from_numpy_array(cosines >= threshold)
        for component in nx.connected_components(graph):
            members = sorted(component)
            keys[row, members] = face_ids[members].min()
    levels = np.repeat(thresholds[:, None], len(face_ids), axis=1)
    return CoarseGroups(face_ids, thresholds, keys, levels)


def coarse_frame(spark: SparkSession, gallery: Gallery) -> DataFrame:
    """Give the rows of `coarse_groups`."""
    coarse = gallery.coarse
    count = len(coarse.thresholds)
    rows = {
        c.THRESHOLD: np.repeat(coarse.thresholds, len(coarse.face_ids)),
        c.GROUP_KEY: coarse.keys.ravel(),
        c.ROOT_KEY: np.tile(coarse.keys[0], count),
        c.FACE_ID: np.tile(coarse.face_ids, count),
        c.LEVEL: coarse.levels.ravel(),
    }
    return _frame(spark, rows, schemas.COARSE_GROUPS)


def vectors_frame(spark: SparkSession, gallery: Gallery) -> DataFrame:
    """Give the rows of `vectors`."""
    attributes = [
        None if np.isnan(row).all() else [None if np.isnan(x) else float(x) for x in row]
        for row in gallery.attributes
    ]
    rows = {
        c.FACE_ID: gallery.face_ids,
        c.VECTOR: pack_vectors(gallery.vectors),
        c.ATTRIBUTES: attributes,
        c.NORM: gallery.norms,
        c.CONTENT_HASH: [""] * len(gallery.face_ids),
    }
    return _frame(spark, rows, schemas.VECTORS)


def faces_frame(spark: SparkSession, gallery: Gallery) -> DataFrame:
    """Give the rows of `faces`."""
    n = len(gallery.face_ids)
    rows = {
        c.FACE_ID: gallery.face_ids,
        c.IMAGE_ID: gallery.image_ids,
        c.PHOTO_ID: gallery.photos,
        c.QUALITY: [None] * n,
        c.LABEL: [str(label) for label in gallery.labels],
        c.EMBEDDING_MODEL: [None] * n,
        c.EXTRA: [None] * n,
        c.CONTENT_HASH: [""] * n,
    }
    return _frame(spark, rows, schemas.FACES)


def _frame(spark: SparkSession, rows: dict[str, object], table: schemas.Table) -> DataFrame:
    from faceclust_spark.stages.output import arrow_output, stage_schema

    arrow = pa.Table.from_pydict(rows, schema=arrow_output(table))
    return spark.createDataFrame(arrow, schema=stage_schema(table))
