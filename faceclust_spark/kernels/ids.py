"""Face ids, and the samples that they define."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ID_BITS = 63


def hash_image_ids(image_ids: Iterable[str], bits: int = ID_BITS) -> NDArray[np.int64]:
    """Give the face id of each image: the top `bits` bits of the SHA-256 of its UTF-8 id.

    63 bits keep it a non-negative BIGINT. The same id can be computed anywhere, without Spark.
    Among 10^9 images a collision is about 5 % likely; ingest quarantines the later image.

    Returns int64 `(n,)`, in the order given.
    """
    digests = (hashlib.sha256(image_id.encode("utf-8")).digest() for image_id in image_ids)
    shift = 64 - bits
    return np.fromiter((int.from_bytes(d[:8], "big") >> shift for d in digests), dtype=np.int64)


def is_missing(name: Any) -> bool:
    """Tell whether a photo or person is not named: None, an empty text, NaN, or a missing value of pandas."""
    try:
        nothing = name is None or name == ""
        return bool(nothing) or (isinstance(name, float | np.floating) and math.isnan(name))
    except TypeError:  # pandas.NA is neither equal to anything nor unequal
        return True


def sample_mask(purpose: str) -> int:
    """Give the 63-bit mask that turns face ids into the sampling order of one purpose.

    Face ids are hashes, so the faces with the smallest `face_id XOR mask` are a random sample that
    depends on the gallery only, not on partitions or row order. A sample is a stretch of ids around
    the mask, and each purpose has its own mask, so that small samples have no face in common.
    """
    return int.from_bytes(hashlib.sha256(purpose.encode("utf-8")).digest()[:8], "big") >> 1


def sure_sample(size: int) -> int:
    """Give how many ids to expect below a bound, so that the `size` smallest of all are surely among them."""
    return size + 6 * math.isqrt(size) + 100


def sample_rows(face_ids: NDArray[np.int64], size: int, purpose: str) -> NDArray[np.int64]:
    """Give the row numbers of a purpose's sample, ordered by `face_id XOR mask`.

    Spark's side of the same rule is `stages.vectors.sample_vectors`. Returns int64 `(min(size, n),)`.
    """
    order = np.argsort(face_ids ^ np.int64(sample_mask(purpose)), kind="stable")
    return order[:size]
