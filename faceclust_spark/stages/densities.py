"""How dense the components are that cutting may ask about: samples of their faces, and mean cosines.

Cutting is done where the edges are, and the vectors stand elsewhere. So samples are drawn first, measured,
and handed to the cutting tasks as rows among the edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.types import DoubleType, LongType, StructField, StructType

from faceclust_spark.arrow import vectors_from_arrow
from faceclust_spark.kernels.forest import Edges, join_edges
from faceclust_spark.kernels.groups import Density, density_samples, mean_cosine
from faceclust_spark.stages.contraction_rounds import ArrowFunction, to_batches
from faceclust_spark.stages.forest import edges_from_batch
from faceclust_spark.stages.output import to_arrow_schema
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import CoarseGroupsConfig

SAMPLE = "_sample"  # names the faces that a component's density is measured on
SAMPLED = StructType([StructField(SAMPLE, LongType(), False), StructField(c.FACE_ID, LongType(), False)])
MEASURED = StructType([StructField(SAMPLE, LongType(), False), StructField(c.MEAN, DoubleType(), False)])


def densities(samples: DataFrame, vectors: DataFrame) -> DataFrame:
    """Give the mean cosine of each sample, MEASURED; samples: a row a face, with `_sample`."""
    members = samples.select(SAMPLE, c.FACE_ID).join(vectors.select(c.FACE_ID, c.VECTOR), c.FACE_ID)
    return members.groupBy(SAMPLE).applyInArrow(_measure, MEASURED)


def sampler(
    steps: NDArray[np.float32], thresholds: NDArray[np.float32], config: CoarseGroupsConfig
) -> ArrowFunction:
    """Give the function that draws the samples of a partition's edges, SAMPLED. It runs on the executors."""

    def sample(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        edges = join_edges([edges_from_batch(batch) for batch in batches if batch.num_rows])
        for own in density_samples(edges, steps, thresholds, config):
            yield from to_batches((np.full(len(own), _sample_key(own)), own), SAMPLED)

    return sample


def read_measured(batches: Iterable[pa.RecordBatch]) -> tuple[Edges, Density]:
    """Read a partition of edges and MEASURED rows: the edges, and how dense their components are."""
    known: dict[int, float] = {}
    parts = []
    for batch in batches:
        of_samples = batch.filter(pc.is_valid(batch[SAMPLE]))
        known.update(zip(of_samples[SAMPLE].to_pylist(), of_samples[c.MEAN].to_pylist(), strict=True))
        parts.append(edges_from_batch(batch.filter(pc.is_null(batch[SAMPLE]))))
    return join_edges(parts), lambda face_ids: known[_sample_key(face_ids)]


def _measure(members: pa.Table) -> pa.Table:
    """Give the mean cosine of one sample. Runs on the executors."""
    mean = mean_cosine(vectors_from_arrow(members[c.VECTOR]))
    rows = {SAMPLE: [members[SAMPLE][0].as_py()], c.MEAN: [mean]}
    return pa.Table.from_pydict(rows, schema=to_arrow_schema(MEASURED))


def _sample_key(face_ids: NDArray[np.int64]) -> int:
    """Name a sample by its faces."""
    return int.from_bytes(hashlib.sha256(face_ids.tobytes()).digest()[:8], "big") >> 1
