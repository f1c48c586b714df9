"""How well clusters agree with labels, and what confidences are worth, overall and by slices.

The formulas are those of `kernels.metrics`, written as sums over the contingency table n_ij and over its
margins a_i = |identity i| and b_j = |cluster j|, N faces:

    pairwise  t = sum n_ij^2 - N, P = t / (sum b_j^2 - N), R = t / (sum a_i^2 - N)
    BCubed    P = 1/N sum_j (sum_i n_ij^2) / b_j, R = 1/N sum_i (sum_j n_ij^2) / a_i
    NMI       I / mean(H_a, H_b), I = H_a + H_b - H_n, where H_x = ln N - 1/N sum x ln x

so that each identity and each cluster is a row of sums, and no row meets another. With p the confidence of
each of M members, and m_j the faces of cluster j's main identity, on which the last sum is:

    Brier     1/M sum (p - right)^2 = 1/M (sum p^2 + sum_j (m_j - 2 sum p))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from faceclust_spark.stages.slices import NO_VALUE, slices_of
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.schemas import EVALUATION_COUNTS, EVALUATION_METRICS, EVALUATION_RELIABILITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame

ALL = "all"

# Exact, and so the same in any order of the rows; sums of doubles change with the partitions. 18 digits
# after the point, 20 before it.
_EXACT = "decimal(38,18)"
_PART, _RANK = "_part", "_rank"
_SLICE = (_PART, _RANK, c.SLICE_VALUE)  # the number of the slice column, and a value of it
_IS_CLUSTER, _KEY = "_is_cluster", "_key"  # a margin: one identity, or one cluster
_FACES = "_faces"
_SQUARES, _LOGARITHMS = "_squares", "_logarithms"  # of the cells of an identity or a cluster, summed
_SURE, _SURE_SQUARES = "_sure", "_sure_squares"  # confidences, and their squares, summed
_MAIN, _LEAST = "_main", "_least"  # the cell of most faces, of equals the first: by minus their number
# Of all identities or all clusters of a slice:
_IDENTITIES, _CLUSTERS = "_identities", "_clusters"
_ROWS, _SINGLES, _PAIRWISE, _BCUBED, _ENTROPY = "rows", "singles", "pairwise", "bcubed", "entropy"
_CELL_ENTROPY = "cell_entropy"
_MEMBERS, _RIGHT = "members", "right"


def evaluation(clusters: DataFrame, labels: DataFrame, slices: Sequence[str]) -> DataFrame:
    """Score the clusters against the labels: one row for all faces, and one a slice.

    clusters: image_id, cluster_id, confidence.
    labels: image_id, label and the columns sliced by, one row an image (`stages.labels.labels_of`);
    `slices_of` says what the slices of a column are. Rows come in the order asked for, `all` first; the
    values of a column in their order, faces without a value last.

    Only faces with a label are scored, and `faces` counts these. To the scores the others are not there:
    a cluster of one labelled face and five without is a singleton. The same holds within a slice: its
    scores and counts are of its own faces, with identities and clusters cut down to them.

    Confidences are compared with whether a face shows the person whom most scored faces of its cluster show,
    of equals the first by label, where it is not the only one (`members`).

    A rate over no pairs at all is null. The same bits for any partitioning. Sums of squares are BIGINT:
    enough up to 3.0e9 faces in one cluster or identity.
    """
    names = list(dict.fromkeys(slices))
    margins = _margins(_contingency(clusters, labels, names))
    return (
        _sides(margins)
        .withColumn(c.SLICE_COLUMN, F.element_at(F.array(*map(F.lit, [ALL, *names])), F.col(_PART) + 1))
        .repartition(1)  # in this order, also once it is a table
        .sortWithinPartitions(_PART, F.col(c.SLICE_VALUE) == NO_VALUE, F.asc_nulls_last(_RANK), c.SLICE_VALUE)
        .select(c.SLICE_COLUMN, c.SLICE_VALUE, *_counts(), *_metrics(), *_reliability())
    )


def _contingency(clusters: DataFrame, labels: DataFrame, names: Sequence[str]) -> DataFrame:
    """Count the faces of each identity in each cluster, in each slice."""
    labelled = labels.where(F.col(c.LABEL).isNotNull())
    sure = F.col(c.CONFIDENCE).cast("double")
    of_clusters = clusters.select(
        c.IMAGE_ID,
        F.col(c.CLUSTER_ID).alias(_KEY),
        sure.cast(_EXACT).alias(_SURE),
        (sure * sure).cast(_EXACT).alias(_SURE_SQUARES),
    )
    scored = labelled.join(of_clusters, c.IMAGE_ID)
    rest = (_KEY, _SURE, _SURE_SQUARES)
    parts = [(F.lit(0), F.lit(None).cast("double"), F.lit(ALL))]
    for number, part in enumerate(slices_of(scored, names).values(), start=1):
        parts.append((F.lit(number), part.rank, part.value))
    of_face = F.array(
        *(
            F.struct(*(column.alias(name) for name, column in zip(_SLICE, part, strict=True)))
            for part in parts
        )
    )
    return (
        scored.select(F.col(c.LABEL).cast("string").alias(c.LABEL), *rest, of_face.alias(_PART))
        .select(c.LABEL, *rest, F.explode(_PART).alias(_PART))
        .groupBy(*(F.col(f"{_PART}.{name}").alias(name) for name in _SLICE), c.LABEL, _KEY)
        .agg(F.count(F.lit(1)).alias(_FACES), *(F.sum(name).alias(name) for name in (_SURE, _SURE_SQUARES)))
    )


def _margins(contingency: DataFrame) -> DataFrame:
    """Sum the cells of each identity, and those of each cluster, in each slice.

    Every cell is sent twice rather than read twice: once to its identity, once to its cluster.
    """
    faces = F.col(_FACES)
    of_identity = F.struct(F.lit(False).alias(_IS_CLUSTER), F.col(c.LABEL).alias(_KEY))
    of_cluster = F.struct(F.lit(True).alias(_IS_CLUSTER), F.col(_KEY).alias(_KEY))
    return (
        contingency.withColumn(_KEY, F.explode(F.array(of_identity, of_cluster)))
        .select(*_SLICE, f"{_KEY}.*", c.LABEL, _FACES, _SURE, _SURE_SQUARES)
        .groupBy(*_SLICE, _IS_CLUSTER, _KEY)
        .agg(
            F.sum(faces).alias(c.SIZE),
            F.sum(faces * faces).alias(_SQUARES),
            F.sum(_times_log(faces)).alias(_LOGARITHMS),
            *(F.sum(name).alias(name) for name in (_SURE, _SURE_SQUARES)),
            F.min(F.struct((-faces).alias(_LEAST), c.LABEL, F.col(_SURE))).alias(_MAIN),
        )
    )


def _sides(margins: DataFrame) -> DataFrame:
    """Give a row a slice, with what is known of all its identities, and the same of all its clusters.

    `pairwise` and `bcubed` of the identities are recalls, those of the clusters precisions.
    """
    size, faces = F.col(c.SIZE), F.sum(c.SIZE)
    share = (F.col(_SQUARES) / size).cast(_EXACT)

    def of_members(value: Column) -> Column:
        return F.sum(F.when(size > 1, value))

    sides = margins.groupBy(*_SLICE, _IS_CLUSTER).agg(
        F.struct(
            faces.alias(_FACES),
            F.count(F.lit(1)).alias(_ROWS),
            F.count_if(size == 1).alias(_SINGLES),
            F.try_divide(F.sum(_SQUARES) - faces, F.sum(size * size) - faces).alias(_PAIRWISE),
            (_double(F.sum(share)) / faces).alias(_BCUBED),
            _entropy(F.sum(_times_log(size)), faces).alias(_ENTROPY),
            _entropy(F.sum(_LOGARITHMS), faces).alias(_CELL_ENTROPY),
            of_members(size).alias(_MEMBERS),
            of_members(-F.col(_MAIN)[_LEAST]).alias(_RIGHT),
            *(_double(of_members(F.col(name))).alias(name) for name in (_SURE, _SURE_SQUARES)),
            _double(of_members(F.col(_MAIN)[_SURE])).alias(_MAIN),
        ).alias(_KEY)
    )
    return sides.groupBy(*_SLICE).agg(
        F.max(F.when(~F.col(_IS_CLUSTER), F.col(_KEY))).alias(_IDENTITIES),
        F.max(F.when(F.col(_IS_CLUSTER), F.col(_KEY))).alias(_CLUSTERS),
    )


def _counts() -> list[Column]:
    identities, clusters = F.col(_IDENTITIES), F.col(_CLUSTERS)
    counts = (clusters[_FACES], identities[_ROWS], clusters[_ROWS], clusters[_SINGLES])
    return [count.alias(name) for name, count in zip(EVALUATION_COUNTS, counts, strict=True)]


def _metrics() -> list[Column]:
    metrics = (*_rates(_PAIRWISE), *_rates(_BCUBED), _nmi())
    return [metric.alias(name) for name, metric in zip(EVALUATION_METRICS, metrics, strict=True)]


def _reliability() -> list[Column]:
    side = F.col(_CLUSTERS)
    misses = side[_SURE_SQUARES] + side[_RIGHT] - 2 * side[_MAIN]
    sums = (side[_SURE], side[_RIGHT], misses)
    values = (F.coalesce(side[_MEMBERS], F.lit(0)), *(F.try_divide(one, side[_MEMBERS]) for one in sums))
    return [value.alias(name) for name, value in zip(EVALUATION_RELIABILITY, values, strict=True)]


def _rates(name: str) -> tuple[Column, Column, Column]:
    """Give precision, recall and F; F of two zeros is zero."""
    precision, recall = F.col(_CLUSTERS)[name], F.col(_IDENTITIES)[name]
    both = precision + recall
    return precision, recall, F.when(both == 0, 0.0).otherwise(F.try_divide(2 * precision * recall, both))


def _nmi() -> Column:
    identities, clusters = F.col(_IDENTITIES), F.col(_CLUSTERS)
    mean = (identities[_ENTROPY] + clusters[_ENTROPY]) / 2
    mutual = identities[_ENTROPY] + clusters[_ENTROPY] - clusters[_CELL_ENTROPY]
    bounded = F.greatest(F.lit(0.0), F.least(F.lit(1.0), F.try_divide(mutual, mean)))
    # The entropies of one identity, or of one cluster, are zero, but for the last bits.
    single = (identities[_ROWS] == 1).cast("int") + (clusters[_ROWS] == 1).cast("int")
    return F.when(single == 2, 1.0).when(single == 1, 0.0).otherwise(bounded)


def _entropy(logarithms: Column, faces: Column) -> Column:
    return F.log(faces) - _double(logarithms) / faces


def _times_log(count: Column) -> Column:
    return (count * F.log(count)).cast(_EXACT)


def _double(value: Column) -> Column:
    return value.cast("double")
