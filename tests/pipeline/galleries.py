"""Small synthetic galleries as sources of the pipeline, and what is compared of its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faceclust_spark.config import Config, load_config
from faceclust_spark.kernels.synth import SyntheticFaces
from faceclust_spark.local import Clustering
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.storage import TableStore

CONFIG: Config = load_config(None, ["synth.faces=400", "synth.dimension=64", "coarse_groups.max_size=60"])
ALL = slice(None)


def write_gallery(faces: SyntheticFaces, path: Path, rows: slice | list[int] = ALL) -> str:
    """Write some rows of a gallery, in the order given, as Parquet; gives the path as text."""
    numbers = list(range(len(faces.image_ids)))[rows] if isinstance(rows, slice) else rows
    columns = {
        "image_id": [faces.image_ids[row] for row in numbers],
        "embedding": pa.array(list(faces.embeddings[numbers]), pa.list_(pa.float32())),
        "attributes": pa.array(list(faces.attributes[numbers]), pa.list_(pa.float32())),
        "photo_id": [faces.photo_ids[row] for row in numbers],
        "quality": pa.array([faces.quality[row] for row in numbers], pa.float32()),
        "label": [faces.labels[row] for row in numbers],
    }
    pq.write_table(pa.table(columns), path, row_group_size=100)
    return str(path)


def cluster_rows(store: TableStore) -> list[tuple[str, str, float, str, str | None, float | None]]:
    """Give what `clusters` says of every image, by image id."""
    names = (c.IMAGE_ID, c.CLUSTER_ID, c.CONFIDENCE, c.STATUS, c.RUNNER_UP, c.MARGIN)
    rows = store.read(schemas.CLUSTERS).toArrow()
    return sorted(zip(*(rows[name].to_pylist() for name in names), strict=True), key=lambda row: row[0])


def rows_of(image_ids: Iterable[str], found: Clustering) -> list[tuple]:
    """Give the same of the call without Spark."""
    id_of = dict(zip(found.labels.tolist(), found.cluster_ids.tolist(), strict=True))
    runner_ups = [id_of.get(label) for label in found.runner_ups.tolist()]
    margins = [None if math.isnan(margin) else margin for margin in found.margins.tolist()]
    columns = (found.cluster_ids, found.confidences, found.statuses)
    told = zip(image_ids, *(column.tolist() for column in columns), runner_ups, margins, strict=True)
    return sorted(told, key=lambda row: row[0])
