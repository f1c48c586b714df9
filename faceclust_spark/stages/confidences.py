"""The graph convolution over the root groups: a confidence for each face in each of its groups."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from faceclust_spark.kernels.grouping import batch_groups
from faceclust_spark.kernels.model import model_from_bytes
from faceclust_spark.kernels.refine import PairLogOdds, Refinement, refine_groups
from faceclust_spark.kernels.refined import RefinedGroup, refined_groups
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.stages.root_groups import groups_from_arrow, whole_groups
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.config import ConfidencesConfig, SimilaritiesConfig
    from faceclust_spark.kernels.model import Model
    from faceclust_spark.kernels.nearest import Scale
    from faceclust_spark.stages.root_groups import RootGroups

_PAIRS_PER_BATCH = 500_000  # refined at once: bounds a worker's memory, does not change a bit


@lru_cache(maxsize=1)
def _load_once(model: bytes) -> Model:
    """Load the model once a worker process."""
    return model_from_bytes(model)


def refinements(
    root_groups: RootGroups,
    model: bytes,
    config: ConfidencesConfig,
    similarities: SimilaritiesConfig,
    scale: Scale,
) -> DataFrame:
    """Refine every root group: confidences at each threshold, and pair log-odds. Claim 1.

    One row a root group, small groups in batches of bounded cost. A face alone is sure of its group
    (confidence 1) and has no pairs.

    model: what `kernels.model.model_bytes` gives; it travels with the function, some hundred KB. scale:
    centre and spread of the cosines of random pairs, as stored with the thresholds.
    """
    refined = root_groups.together.mapInArrow(
        _refine(model, config, similarities, scale), stage_schema(schemas.REFINEMENTS)
    )
    return refined.unionByName(alone_refined(root_groups.alone))


def confidences(refinements: DataFrame) -> DataFrame:
    """Give the confidence that each face is assigned to its group, at each threshold. Claims 1, 4.

    One row a threshold and face; groups of one face included, with confidence 1.
    """
    by_threshold = refinements.select(
        c.FACE_IDS,
        F.inline(F.arrays_zip(c.THRESHOLDS, c.GROUP_KEYS, c.CONFIDENCES)).alias(
            c.THRESHOLD, c.GROUP_KEY, c.CONFIDENCE
        ),
    )
    by_face = by_threshold.select(
        c.THRESHOLD,
        F.inline(F.arrays_zip(c.GROUP_KEY, c.FACE_IDS, c.CONFIDENCE)).alias(
            c.GROUP_KEY, c.FACE_ID, c.CONFIDENCE
        ),
    )
    return by_face.select(c.THRESHOLD, c.GROUP_KEY, c.FACE_ID, c.CONFIDENCE)


def read_refinements(rows: pa.RecordBatch) -> Iterator[RefinedGroup]:
    """Give the refined groups that rows of the table hold, one at a time, without copying pairs."""
    for at in range(rows.num_rows):
        face_ids = rows[c.FACE_IDS][at].values.to_numpy()
        pairs = PairLogOdds(
            first=np.frombuffer(rows[c.PAIR_FIRST][at].as_buffer(), dtype="<i4"),
            second=np.frombuffer(rows[c.PAIR_SECOND][at].as_buffer(), dtype="<i4"),
            log_odds=np.frombuffer(rows[c.PAIR_LOG_ODDS][at].as_buffer(), dtype="<i2"),
        )
        yield RefinedGroup(
            root_key=rows[c.ROOT_KEY][at].as_py(),
            face_ids=face_ids,
            thresholds=rows[c.THRESHOLDS][at].values.to_numpy(),
            keys=_matrix(rows[c.GROUP_KEYS][at], len(face_ids)),
            refinement=Refinement(_matrix(rows[c.CONFIDENCES][at], len(face_ids)), pairs),
        )


def _matrix(nested: pa.ListScalar, width: int) -> NDArray[Any]:
    """Give a list of lists of equal length as a matrix `(rows, width)`."""
    return np.asarray(nested.values.flatten().to_numpy()).reshape(-1, width)


def alone_refined(alone: DataFrame) -> DataFrame:
    """Give the refinement of groups of one face (root_key, thresholds), without leaving Spark."""
    own = F.array(c.ROOT_KEY)
    sure = F.array(F.lit(1.0).cast("float"))
    nothing = F.lit(b"")
    return alone.select(
        c.ROOT_KEY,
        own.alias(c.FACE_IDS),
        c.THRESHOLDS,
        F.transform(c.THRESHOLDS, lambda _: own).alias(c.GROUP_KEYS),
        F.transform(c.THRESHOLDS, lambda _: sure).alias(c.CONFIDENCES),
        nothing.alias(c.PAIR_FIRST),
        nothing.alias(c.PAIR_SECOND),
        nothing.alias(c.PAIR_LOG_ODDS),
    )


def _refine(
    model: bytes, config: ConfidencesConfig, similarities: SimilaritiesConfig, scale: Scale
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def refine(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        loaded = _load_once(model)
        for rows in whole_groups(batches, c.ROOT_KEY):
            thresholds = rows[c.THRESHOLDS][0].values.to_numpy()
            for groups in batch_groups(groups_from_arrow(rows), config, _PAIRS_PER_BATCH):
                refined = refine_groups(groups, loaded, config, similarities, scale)
                yield refined_to_batch(refined_groups(groups, refined, thresholds))

    return refine


def refined_to_batch(refined: Sequence[RefinedGroup]) -> pa.RecordBatch:
    """Give refined groups as rows of REFINEMENTS."""
    pairs = [one.refinement.pairs for one in refined]
    columns = {
        c.ROOT_KEY: [one.root_key for one in refined],
        c.FACE_IDS: [one.face_ids for one in refined],
        c.THRESHOLDS: [one.thresholds for one in refined],
        c.GROUP_KEYS: [list(one.keys) for one in refined],
        c.CONFIDENCES: [list(one.refinement.confidences) for one in refined],
        c.PAIR_FIRST: [own.first.astype("<i4").tobytes() for own in pairs],
        c.PAIR_SECOND: [own.second.astype("<i4").tobytes() for own in pairs],
        c.PAIR_LOG_ODDS: [own.log_odds.astype("<i2").tobytes() for own in pairs],
    }
    return pa.RecordBatch.from_pydict(columns, schema=arrow_output(schemas.REFINEMENTS))
