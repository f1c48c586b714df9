"""The sample that a plan is made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from faceclust_spark.errors import ConfigError, DataError

LARGEST_SAMPLE = 50_000  # faces: 50 MB at 256-d, and a minute of measuring


class GallerySample(NamedTuple):
    """Some faces of a gallery, chosen by hash and in the order of their hash, so at random."""

    rows: int  # of the source
    image_ids: list[str]
    embeddings: NDArray[np.floating]  # (m, d) as in the source, finite and not zero
    attributes: NDArray[np.float32]  # (m, a) NaN where missing; a may be 0


def sample_size(rows: int, asked: int | None, faces: int | None) -> int:
    """Give how many faces to sample from a source of `rows` rows, for a gallery of `faces`.

    Raises ConfigError where more are asked for than there are, DataError for a source of fewer than 2 rows.
    """
    if rows < 2:
        raise DataError(f"the source holds {rows} rows: a plan needs at least 2 faces to compare")
    if asked is not None and not 2 <= asked <= LARGEST_SAMPLE:
        raise ConfigError(f"a sample of {asked:,} faces: a plan takes 2 to {LARGEST_SAMPLE:,}; use --sample")
    if asked is not None and asked > rows:
        raise ConfigError(
            f"a sample of {asked:,} faces is larger than the gallery of {rows:,}: leave --sample out to take "
            "what there is"
        )
    if faces is not None and faces < max(asked or 2, 2):
        raise ConfigError(
            f"a plan for {faces:,} faces: give --faces at least the {max(asked or 2, 2):,} of the sample"
        )
    return min(rows, asked or LARGEST_SAMPLE, faces or rows)


def usable(
    image_ids: Sequence[str | None],
    embeddings: Sequence[NDArray[np.floating]],
    attributes: Sequence[NDArray[np.floating]],
) -> tuple[list[str], NDArray[np.floating], NDArray[np.float32]]:
    """Keep the rows that ingest would keep, as far as rows tell by themselves, each image once.

    The widths of embedding and attributes are those of most rows. Raises DataError where fewer than 2 stay.
    """
    width, attribute_width = _most(map(len, embeddings)), _most(len(a) for a in attributes if len(a))
    kept: dict[str, int] = {}
    for row, (image_id, embedding) in enumerate(zip(image_ids, embeddings, strict=True)):
        fits = len(embedding) == width and len(attributes[row]) in (0, attribute_width)
        if image_id and fits and np.isfinite(embedding).all() and embedding.any():
            kept.setdefault(image_id, row)
    if width == 0 or len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(image_ids)} sampled rows can be used: a plan needs 2 with an id and a "
            "finite embedding that is not zero; `faceclust ingest` tells what is wrong with the rest"
        )
    missing = np.full(attribute_width, np.nan, np.float32)
    rows = list(kept.values())
    described = np.stack([attributes[row] if len(attributes[row]) else missing for row in rows])
    return list(kept), np.stack([embeddings[row] for row in rows]), described.astype(np.float32)


def _most(widths: Iterable[int]) -> int:
    """Give the most frequent width, the smaller at a tie; 0 where there is none."""
    values, counts = np.unique(np.fromiter(widths, np.int64), return_counts=True)
    return int(values[np.argmax(counts)]) if len(values) else 0
