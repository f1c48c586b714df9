"""What the driver's process holds of a gallery, as arrays: made by its stages, or read from their tables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from faceclust_spark.arrow import attributes_from_arrow, vectors_from_arrow
from faceclust_spark.kernels.assignment import NO_PHOTO
from faceclust_spark.kernels.groups import CoarseGroups
from faceclust_spark.kernels.neighbours import join_lists
from faceclust_spark.kernels.rounds import Gallery
from faceclust_spark.stages.confidences import read_refinements
from faceclust_spark.stages.neighbours import lists_from_batch
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame

    from faceclust_spark.kernels.neighbours import NeighbourLists
    from faceclust_spark.kernels.refined import RefinedGroup
    from faceclust_spark.tables.schemas import Table

_NAMES = [c.FACE_ID, c.IMAGE_ID, c.PHOTO_ID, c.EMBEDDING_MODEL]


class Held:
    """A gallery in memory; rows by ascending face id.

    A stage sets what it has made, so that the next one need not read it; a resumed run reads it.
    """

    def __init__(self, read: Callable[[Table], DataFrame]) -> None:
        self._read = read

    def hold(self, faces: pa.Table, vectors: pa.Table) -> None:
        """Take the rows of the tables `faces` and `vectors`, which need not be read then."""
        self._names = faces.select(_NAMES).sort_by(c.FACE_ID)
        self.gallery = self._gallery_of(vectors)

    @cached_property
    def gallery(self) -> Gallery:
        """The faces: ids, grid vectors, standardised attributes, norms, numbers of their photos."""
        return self._gallery_of(
            self._read(schemas.VECTORS).select(c.FACE_ID, c.VECTOR, c.ATTRIBUTES, c.NORM).toArrow()
        )

    def _gallery_of(self, stored: pa.Table) -> Gallery:
        face_ids = stored[c.FACE_ID].to_numpy()
        order = np.argsort(face_ids)
        vectors = np.concatenate(
            [vectors_from_arrow(chunk) for chunk in stored[c.VECTOR].chunks if len(chunk)]
        )
        attributes = attributes_from_arrow(stored[c.ATTRIBUTES])
        photos = pc.fill_null(self._names[c.PHOTO_ID].combine_chunks().dictionary_encode().indices, NO_PHOTO)
        numbers = photos.to_numpy(zero_copy_only=False).astype(np.int64)
        norms = stored[c.NORM].to_numpy()
        return Gallery(face_ids[order], vectors[order], attributes[order], norms[order], numbers)

    @property
    def image_ids(self) -> pa.Array:
        """The name of each face."""
        return self._names[c.IMAGE_ID].combine_chunks()

    @property
    def embedding_model(self) -> str | None:
        """The name of the embedding's model, where the gallery tells."""
        name: str | None = self._names[c.EMBEDDING_MODEL][0].as_py()
        return name

    @cached_property
    def lists(self) -> NeighbourLists:
        """Each face's neighbours."""
        stored = self._read(schemas.NEIGHBOURS).select(c.FACE_ID, c.NEIGHBOURS, c.COSINES).toArrow()
        batches = stored.sort_by(c.FACE_ID).to_batches()
        return join_lists([lists_from_batch(batch) for batch in batches if batch.num_rows])

    @cached_property
    def coarse(self) -> CoarseGroups:
        """Each face's coarse group at each first threshold."""
        names = (c.THRESHOLD, c.FACE_ID, c.GROUP_KEY, c.LEVEL)
        stored = self._read(schemas.COARSE_GROUPS).select(*names).toArrow()
        thresholds, ids, keys, levels = (stored[name].to_numpy() for name in names)
        order = np.lexsort((ids, thresholds))
        steps = np.unique(thresholds)
        keys, levels = (column[order].reshape(len(steps), -1) for column in (keys, levels))
        return CoarseGroups(ids[order][: keys.shape[1]], steps, keys, levels)

    @cached_property
    def refined(self) -> list[RefinedGroup]:
        """The root groups of several faces, refined; by ascending root key."""
        rows = self._read(schemas.REFINEMENTS).where(F.size(c.FACE_IDS) > 1).toArrow()
        groups = [group for batch in rows.to_batches() for group in read_refinements(batch)]
        return sorted(groups, key=lambda group: group.root_key)

    @cached_property
    def _names(self) -> pa.Table:
        faces = self._read(schemas.FACES).select(*_NAMES).toArrow()
        return faces.sort_by(c.FACE_ID)
