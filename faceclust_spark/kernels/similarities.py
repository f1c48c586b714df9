"""The similarity matrices of a group, and their fusion [claims 4 to 7]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.config import SimilaritiesConfig
from faceclust_spark.kernels.grid import cosine_matrix


def face_similarities(vectors: NDArray[np.int16]) -> NDArray[np.float32]:
    """Give the face similarity matrix: row i holds the cosines of image i with all images [6, 7].

    Shapes: grid vectors `(n, d)` to float32 `(n, n)`, the diagonal exactly 1.
    """
    matrix = cosine_matrix(vectors, vectors)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def attribute_similarities(attributes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the attribute similarity matrix: cosines of standardised attribute vectors [5 to 7].

    Counts the attributes that both images have. 0 where they share none, or one is all zero; the
    diagonal is 1. Shapes: `(n, a)`, NaN where missing, to float32 `(n, n)` within -1 to 1.
    """
    present = ~np.isnan(attributes)
    values = np.where(present, attributes, 0.0).astype(np.float64)
    shared = present.astype(np.float64)
    lengths = np.sqrt((values * values) @ shared.T)  # of row i, over what j has too
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = (values @ values.T) / (lengths * lengths.T)
    cosines: NDArray[np.float32] = np.clip(np.nan_to_num(matrix), -1.0, 1.0).astype(np.float32)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def fuse(
    face: NDArray[np.float32], attribute: NDArray[np.float32] | None, config: SimilaritiesConfig
) -> NDArray[np.float32]:
    """Give the group's similarity matrix from its face and attribute matrices [4].

    `weighted_sum`: w face + (1 - w) attribute. `product`: face * (1 + attribute) / 2 for positive
    face similarities, so that no two negatives make a positive. Without attributes: the face matrix.
    """
    if attribute is None:
        return face
    if config.fusion == "product":
        return np.where(face > 0, face * (1 + attribute) / 2, face).astype(np.float32)
    weight = np.float32(config.face_weight)
    return weight * face + (np.float32(1) - weight) * attribute
