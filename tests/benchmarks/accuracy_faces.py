"""The labelled faces of the real sets, and the folds: halves of their people."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faceclust_spark.config import SynthConfig
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.kernels.synth import draw_gallery
from faceclust_spark.training.galleries import LabelledGallery

DEV_SETS = ("dev", "dev_512")
FOLDS = (("A", "B"), ("B", "A"))  # tuned or trained on, scored on
_QUICK_SHARE = 6  # one person in six


class Faces(NamedTuple):
    """Rows of a gallery as a source holds them."""

    image_ids: NDArray[np.object_]  # (n,) str, unique
    embeddings: NDArray[np.float32]  # (n, d), raw
    attributes: NDArray[np.float32]  # (n, a), raw scales
    labels: NDArray[np.object_]  # (n,) str: the person
    sources: NDArray[np.object_]  # (n,) str: where the image is from

    def take(self, rows: NDArray[np.bool_ | np.int64]) -> Faces:
        """Give some of the rows."""
        return Faces(*(part[rows] for part in self))

    def vectors(self) -> NDArray[np.float32]:
        """Give unit vectors, as the peers take them."""
        return normalise(self.embeddings).astype(np.float32)

    def labelled(self) -> LabelledGallery:
        """Give what training takes; attributes are standardised over these rows alone."""
        return make_gallery(
            self.embeddings, self.attributes, self.image_ids.tolist(), [str(label) for label in self.labels]
        )


def read_faces(name: str, quick: bool = False) -> Faces:
    """Read one file of the folder FACECLUST_DATA; quick: a sixth of the people."""
    path = Path(os.environ.get("FACECLUST_DATA", "")) / f"{name}.parquet"
    if not path.exists():
        sys.exit(f"{path} is not there: let FACECLUST_DATA point at the folder of the real embeddings")
    table = pq.read_table(path)
    faces = Faces(
        _strings(table["image_id"]),
        _matrix(table["embedding"]),
        _matrix(table["attributes"]),
        _strings(table["label"]),
        _strings(table["source"]),
    )
    return faces.take(_of_people(faces.labels, _is_quick)) if quick else faces


def half(faces: Faces, which: str) -> Faces:
    """Give the faces of the people of half A or B."""
    return faces.take(_of_people(faces.labels, lambda label: half_of(label) == which))


def half_of(label: str) -> str:
    """Give the half that a person belongs to, by the hash of the label: the same in every file."""
    return "AB"[int(hashlib.sha256(f"half:{label}".encode()).hexdigest()[:8], 16) % 2]


def synthetic(seed: int, faces: int, dimension: int = 128) -> Faces:
    """Draw a synthetic gallery, otherwise with the config's defaults."""
    drawn = draw_gallery(SynthConfig(faces=faces, seed=seed, dimension=dimension))
    source = np.full(faces, "synthetic", object)
    return Faces(drawn.image_ids, drawn.embeddings, drawn.attributes, drawn.labels, source)


def make_gallery(embeddings, attributes, image_ids, labels) -> LabelledGallery:
    """Give faces by ascending face id, as ingest would order and scale them."""
    faces = prepare_faces(embeddings, attributes, image_ids)
    order = np.argsort(faces.face_ids)
    people = np.unique(np.array(labels, object), return_inverse=True)[1].astype(np.int64)
    vectors = normalise(faces.vectors.astype(np.float32)).astype(np.float32)
    return LabelledGallery(vectors[order], faces.attributes[order], faces.norms[order], people[order])


def _is_quick(label: str) -> bool:
    return int(hashlib.sha256(f"quick:{label}".encode()).hexdigest()[:8], 16) % _QUICK_SHARE == 0


def _of_people(labels, is_kept) -> NDArray[np.bool_]:
    people, place = np.unique(labels, return_inverse=True)
    return np.array([is_kept(person) for person in people], bool)[place]


def _strings(column) -> NDArray[np.object_]:
    return np.array(column.to_pylist(), object)


def _matrix(column) -> NDArray[np.float32]:
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False)  # a null becomes NaN
    return values.reshape(len(lists), -1).astype(np.float32)
