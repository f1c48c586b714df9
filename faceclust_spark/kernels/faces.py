"""Faces as they come in: what makes a row unusable, what tells two rows apart, and usable arrays.

Embeddings and attributes of a batch are ragged, since their widths are not yet trusted: all values
of the batch in one flat array, and the width of each row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.errors import DataError
from faceclust_spark.kernels.attributes import (
    STATISTICS_PURPOSE,
    attribute_statistics,
    standardise,
)
from faceclust_spark.kernels.grid import normalise, quantise
from faceclust_spark.kernels.ids import ID_BITS, hash_image_ids, sample_rows
from faceclust_spark.kernels.norms import feature_norms

# Reason codes of the quarantine. The first six can be told from the row alone, in this order.
NULL_ID = "null_id"
NULL_EMBEDDING = "null_embedding"
NOT_FINITE = "not_finite"
ZERO_NORM = "zero_norm"
WRONG_WIDTH = "wrong_width"
MIXED_MODEL = "mixed_embedding_model"
WRONG_ATTRIBUTE_WIDTH = "wrong_attribute_width"
CONFLICTING_ROWS = "conflicting_rows"
ID_COLLISION = "face_id_collision"

_BLOCK = 1_024  # rows normalised at once: fits the cache, 3.6 times as fast as 16,384 at 256-d
_SHOWN = 5  # bad rows named in an error


class Ragged(NamedTuple):
    """Lists of numbers of a batch of rows.

    values: float32 or float64 `(e,)`, one row after the other; NaN for a null element.
    widths: int64 `(n,)`, -1 for a null list.
    """

    values: NDArray[np.floating]
    widths: NDArray[np.int64]

    def offsets(self) -> NDArray[np.int64]:
        """Give where each row starts, and the end: int64 `(n + 1,)`."""
        return np.concatenate(([0], np.cumsum(np.maximum(self.widths, 0))))


class RowFaults(NamedTuple):
    """Why each row is unusable by itself; None where it is usable. Both of length n."""

    reasons: list[str | None]
    details: list[str | None]


def find_faults(image_ids: Sequence[str | None], embeddings: Ragged) -> RowFaults:
    """Find the rows that no gallery could use: no id, no embedding, NaN, infinity, zero norm.

    Widths and models are compared later, when those of the gallery are known.
    """
    count = len(image_ids)
    offsets = embeddings.offsets()
    not_finite = _count_per_row(~np.isfinite(embeddings.values), offsets)
    not_zero = _count_per_row(embeddings.values != 0, offsets)
    reasons: list[str | None] = [None] * count
    details: list[str | None] = [None] * count
    # From the weakest reason to the strongest: a later one overwrites.
    for row in np.flatnonzero(not_zero == 0):
        reasons[row], details[row] = ZERO_NORM, "every component of the embedding is 0"
    for row in np.flatnonzero(not_finite > 0):
        reasons[row] = NOT_FINITE
        details[row] = f"{not_finite[row]} of {embeddings.widths[row]} components are NaN or infinite"
    for row in np.flatnonzero(embeddings.widths <= 0):
        reasons[row], details[row] = NULL_EMBEDDING, "the embedding is null or empty"
    for anonymous, image_id in enumerate(image_ids):
        if not image_id:
            reasons[anonymous], details[anonymous] = NULL_ID, "the image id is null or empty"
    return RowFaults(reasons, details)


def hash_rows(texts: Sequence[str], embeddings: Ragged, attributes: Ragged) -> list[str]:
    """Give each row's content hash: 128 bits of SHA-256 in hexadecimal, equal for equal rows.

    `texts` holds whatever the row has beside its two vectors. Numbers are hashed as doubles, so
    that a column's type makes no difference; null, NaN and an absent list of attributes are one.
    """
    hashes = []
    face_bytes, face_ends = _doubles(embeddings)
    attribute_bytes, attribute_ends = _doubles(attributes)
    for row, text in enumerate(texts):
        face = face_bytes[face_ends[row] : face_ends[row + 1]]
        attribute = attribute_bytes[attribute_ends[row] : attribute_ends[row + 1]]
        digest = hashlib.sha256(f"{len(face)},{len(attribute)},{text}".encode())
        digest.update(face)
        digest.update(attribute)
        hashes.append(digest.hexdigest()[:32])
    return hashes


class Quantised(NamedTuple):
    """Face features as they are stored: unit vectors on the grid, and what normalising took away."""

    vectors: NDArray[np.int16]  # (n, d)
    norms: NDArray[np.float32]  # (n,)


def quantise_faces(embeddings: NDArray[np.generic]) -> Quantised:
    """Give unit vectors on the grid, and the lengths before: `(n, d)`, finite and not zero.

    Each row depends on itself only, whatever the memory layout and the size of the blocks.
    """
    vectors = np.empty(embeddings.shape, dtype=np.int16)
    norms = np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        block = np.ascontiguousarray(embeddings[start : start + _BLOCK], dtype=np.float64)
        vectors[start : start + _BLOCK] = quantise(normalise(block))
        norms[start : start + _BLOCK] = feature_norms(block)
    return Quantised(vectors, norms)


class PreparedFaces(NamedTuple):
    """A gallery as the kernels use it, row by row as it was given.

    face_ids: int64 `(n,)`; vectors: int16 `(n, d)` on the grid; attributes: float32 `(n, a)`,
    standardised, NaN where missing, a = 0 for a gallery without; norms: float32 `(n,)` of the embeddings.
    """

    face_ids: NDArray[np.int64]
    vectors: NDArray[np.int16]
    attributes: NDArray[np.float32]
    norms: NDArray[np.float32]


def prepare_faces(
    embeddings: NDArray[np.number],
    attributes: NDArray[np.number] | None = None,
    image_ids: Sequence[str] | None = None,
    statistics_sample: int | None = None,
) -> PreparedFaces:
    """Check a gallery in memory and give the very arrays that ingest would store for it.

    Shapes: `(n, d)`, `(n, a)`, n ids; without ids a row's number is its id. statistics_sample: faces
    that attribute statistics are taken from, None for all of them. There is no quarantine here:
    Raises DataError that counts the bad rows of every kind and names the first of each.
    """
    faces = _as_matrix(embeddings, "embeddings")
    ids = [str(row) for row in range(len(faces))] if image_ids is None else list(image_ids)
    if not all(image_id is None or isinstance(image_id, str) for image_id in ids):
        raise DataError("image ids must be strings; turn numbers into text with str()")
    raw = np.empty((len(faces), 0), np.float32)
    if attributes is not None:
        with np.errstate(over="ignore"):
            raw = _as_matrix(attributes, "attributes").astype(np.float32)
    if not len(faces) == len(ids) == len(raw):
        raise DataError(
            f"{len(faces)} embeddings, {len(ids)} image ids and {len(raw)} rows of attributes: "
            "each face needs one of each"
        )
    if len(faces) == 0:
        raise DataError("the gallery holds no face")
    face_ids = _check_rows(ids, faces)
    size = len(faces) if statistics_sample is None else statistics_sample
    sample = sample_rows(face_ids, size, STATISTICS_PURPOSE)
    statistics = attribute_statistics(raw[sample])
    vectors, norms = quantise_faces(faces)
    return PreparedFaces(face_ids, vectors, standardise(raw, statistics), norms)


def _as_matrix(values: NDArray[np.number], name: str) -> NDArray[np.floating]:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise DataError(
            f"{name} of shape {matrix.shape} and type {matrix.dtype}: "
            "expected a numeric array with one row a face"
        )
    if matrix.dtype not in (np.float32, np.float64):
        return matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    return matrix


def _check_rows(image_ids: Sequence[str], faces: NDArray[np.floating]) -> NDArray[np.int64]:
    """Give the face ids. Raises DataError that tells of every bad row."""
    bad: dict[str, list[tuple[int, str]]] = {}

    def report(reason: str | None, row: int, detail: str | None) -> None:
        if reason is not None:
            bad.setdefault(reason, []).append((row, detail or ""))

    for start in range(0, len(faces), _BLOCK):
        block = faces[start : start + _BLOCK]
        ragged = Ragged(block.reshape(-1), np.full(len(block), faces.shape[1], np.int64))
        faults = find_faults(image_ids[start : start + _BLOCK], ragged)
        for row, (reason, detail) in enumerate(zip(*faults, strict=True), start):
            report(reason, row, detail)
    if NULL_ID in bad:
        raise DataError(_describe(bad))
    face_ids = hash_image_ids(image_ids, ID_BITS)
    _report_repeats(image_ids, face_ids, report)
    if bad:
        raise DataError(_describe(bad))
    return face_ids


def _report_repeats(
    image_ids: Sequence[str],
    face_ids: NDArray[np.int64],
    report: Callable[[str, int, str], None],
) -> None:
    """Report each row whose face id an earlier row has."""
    order = np.argsort(face_ids, kind="stable")
    equal = face_ids[order][1:] == face_ids[order][:-1]
    for earlier, row in zip(order[:-1][equal], order[1:][equal], strict=True):
        same = image_ids[earlier] == image_ids[row]
        detail = f"{image_ids[row]!r} has the id of row {earlier}, {image_ids[earlier]!r}"
        report(CONFLICTING_ROWS if same else ID_COLLISION, int(row), detail)


def _describe(bad: dict[str, list[tuple[int, str]]]) -> str:
    lines = []
    for reason, rows in bad.items():
        shown = "; ".join(f"row {row}: {detail}" for row, detail in sorted(rows)[:_SHOWN])
        lines.append(f"  {reason}: {len(rows)} rows ({shown})")
    return (
        "the gallery has rows that cannot be clustered; leave them out, "
        "or ingest it into tables, where such rows go to quarantine:\n" + "\n".join(lines)
    )


def _count_per_row(flags: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
    return running[offsets[1:]] - running[offsets[:-1]]


def _doubles(lists: Ragged) -> tuple[memoryview, NDArray[np.int64]]:
    """Give all values as little-endian doubles with one kind of NaN, and the rows' byte offsets."""
    values = lists.values.astype("<f8")
    values[np.isnan(values)] = np.nan
    return memoryview(values.tobytes()), lists.offsets() * 8
