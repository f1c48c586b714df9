"""The real embeddings in halves of people, what they are compared with, and what grouping costs them.

Half A is for training and every choice, half B for the figures that are reported.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.forest import Edges, component_keys, maximum_spanning_forest
from faceclust_spark.kernels.grid import cosine_matrix, normalise
from faceclust_spark.kernels.metrics import Scores, score
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.training.galleries import Composition, LabelledGallery, take
from faceclust_spark.training.validation import mean_f

DEV_SETS = ("dev", "dev_512")
_BLOCK = 1_024
_LOWEST = 2.0  # s.d. above random pairs: components of a lower threshold swallow any gallery


def read_half(name: str, half: str) -> LabelledGallery:
    """Read the faces of half A or B of one file, or of both; a person is in the same half in every file."""
    folder = Path(os.environ.get("FACECLUST_DATA", ""))
    path = folder / f"{name}.parquet"
    if not path.exists():
        sys.exit(f"{path} is not there: let FACECLUST_DATA point at the folder of the real embeddings")
    table = pq.read_table(path)
    labels = table["label"].to_pylist()
    gallery = make_gallery(
        _matrix(table["embedding"]), _matrix(table["attributes"]), table["image_id"].to_pylist(), labels
    )
    in_half = {label: half in ("both", half_of(label)) for label in set(labels)}
    numbered = np.array([in_half[label] for label in sorted(in_half)])
    return take(gallery, numbered[gallery.labels])


def half_of(label: str) -> str:
    """Give the half that a person belongs to, by the hash of the label."""
    return "AB"[int(hashlib.sha256(f"half:{label}".encode()).hexdigest()[:8], 16) % 2]


def synthetic(seed: int, faces: int, dimension: int) -> LabelledGallery:
    """Draw a synthetic gallery with the config's defaults."""
    drawn = draw_gallery(SynthConfig(faces=faces, seed=seed, dimension=dimension))
    return make_gallery(drawn.embeddings, drawn.attributes, drawn.image_ids.tolist(), drawn.labels.tolist())


def make_gallery(embeddings, attributes, image_ids, labels) -> LabelledGallery:
    """Give faces by ascending face id, as ingest would order and scale them."""
    faces = prepare_faces(embeddings, attributes, image_ids)
    order = np.argsort(faces.face_ids)
    people = np.unique(np.array(labels, object), return_inverse=True)[1].astype(np.int64)
    vectors = normalise(faces.vectors.astype(np.float32)).astype(np.float32)
    return LabelledGallery(vectors[order], faces.attributes[order], people[order])


def _matrix(column) -> np.ndarray:
    lists = column.combine_chunks()
    return np.asarray(lists.flatten()).reshape(len(lists), -1).astype(np.float32)


def best_components(composition: Composition) -> tuple[float, Scores]:
    """Give the best threshold of connected components over all pairs, chosen on the answer itself."""
    labels, vectors = np.concatenate(composition.labels), _vectors(composition)
    scale = composition.scale
    lowest = scale.mean + _LOWEST * scale.standard_deviation
    forest = maximum_spanning_forest(_all_edges(vectors, lowest))
    found = []
    for threshold in np.arange(np.ceil(lowest * 100) / 100, 0.95, 0.01):
        strong = forest.cosine >= np.float32(threshold)
        clusters = component_keys(forest.first[strong], forest.second[strong], len(labels))
        found.append((float(threshold), score(labels, clusters)))
    return max(found, key=lambda one: mean_f(one[1]))


def _vectors(composition: Composition) -> np.ndarray:
    return np.concatenate([group.vectors for group in composition.groups])


def _all_edges(vectors: np.ndarray, lowest: float) -> Edges:
    parts = []
    for start in range(0, len(vectors), _BLOCK):
        cosines = cosine_matrix(vectors[start : start + _BLOCK], vectors)
        first, second = np.nonzero(cosines >= np.float32(lowest))
        upper = first + start < second
        parts.append((first[upper] + start, second[upper], cosines[first[upper], second[upper]]))
    return Edges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def count_cut_people(composition: Composition) -> dict[str, float]:
    """Tell what the size cap costs: people who would hang together, but lie in several root groups.

    cut_people: share of the people of two or more images of whom some are linked by cosines of their own
    at or above the lowest first threshold, and yet lie in different root groups. ceiling_f: mean of both
    F if every decision inside the root groups were right.
    """
    labels, vectors = np.concatenate(composition.labels), _vectors(composition)
    roots = np.repeat(np.arange(len(composition.groups)), [len(own) for own in composition.labels])
    lowest = np.float32(composition.lowest)
    order = np.argsort(labels, kind="stable")
    several, cut = 0, 0
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(rows) == 1:
            continue
        several += 1
        linked = component_keys(*np.nonzero(cosine_matrix(vectors[rows], vectors[rows]) >= lowest), len(rows))
        cut += len(np.unique(linked * len(labels) + roots[rows])) > len(np.unique(linked))
    people = int(labels.max()) + 1
    return {
        "cut_people": cut / several,
        "largest_root_group": int(np.bincount(roots).max()),
        "largest_person": int(np.bincount(labels).max()),
        "ceiling_f": mean_f(score(labels, roots * people + labels)),
    }
