"""The cells of a gallery, as an artefact and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from faceclust_spark.arrow import vectors_from_arrow, vectors_to_arrow
from faceclust_spark.kernels.cells import SAMPLE, Cells, sample_size, train_cells
from faceclust_spark.stages.output import arrow_output, frame_of
from faceclust_spark.stages.vectors import sample_vectors
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import CellsConfig


def cells(vectors: DataFrame, faces: int, config: CellsConfig) -> Cells:
    """Train the cells of a gallery of `faces` faces on its sample, in this process.

    The same cells as `local` trains, for any partitioning. The sample is `sample_per_cell` faces a cell, at
    most about a million: 512 MB at 256-d.
    """
    sample = sample_vectors(vectors, sample_size(faces, config), SAMPLE, faces)
    return train_cells(sample.vectors, faces, config)


def cells_frame(spark: SparkSession, trained: Cells) -> DataFrame:
    """Give the cells as rows. Fulfils CELLS."""
    rows = {
        c.CELL: np.arange(len(trained.centroids), dtype=np.int32),
        c.SHARD: trained.shards,
        c.CENTROID: vectors_to_arrow(trained.centroids),
    }
    return frame_of(spark, schemas.CELLS, [pa.RecordBatch.from_pydict(rows, arrow_output(schemas.CELLS))])


def cells_from_frame(rows: DataFrame) -> Cells:
    """Read stored cells back, in their order."""
    stored = rows.select(c.CELL, c.SHARD, c.CENTROID).toArrow().sort_by(c.CELL)
    return Cells(vectors_from_arrow(stored[c.CENTROID]), stored[c.SHARD].to_numpy())
