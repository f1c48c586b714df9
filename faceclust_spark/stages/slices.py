"""Parts of a gallery that are scored apart: the values of a column, and bins of its numbers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Window
from pyspark.sql import functions as F

from faceclust_spark.errors import DataError
from faceclust_spark.stages.sources import column_named
from faceclust_spark.tables import columns as c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

NO_VALUE = "(none)"  # the slice of the faces whose value is null or NaN

_MOST_VALUES = 1000  # more are no slices but ids, and their table nobody reads
_MOST_NUMBERS = 20  # more are cut at their quartiles
_SAMPLED = 10_000  # faces: a quartile's standard error is 0.4 % of the faces, and the driver holds 1 MB
_IDENTITY_SIZES = (1, 4, 11, 39)  # the upper ends of the bands of labelled images of an identity
_IDENTITY_BANDS = ("1", "2-4", "5-11", "12-39", "40+")


class Slice(NamedTuple):
    """The slice of each face by one column: the value shown, and a number that sorts before it."""

    value: Column
    rank: Column


def slices_of(scored: DataFrame, names: Sequence[str]) -> dict[str, Slice]:
    """Give, for each name, the slice that each face belongs to.

    scored: the faces, with image_id, label and the columns named. Values are their own slices, as text.
    A column of more than 20 different numbers, such as quality or age, also where they are text, is cut
    at its quartiles instead; each bin holds its upper end. `identity_size`, unless there is a column of
    that name, is the number of labelled images of the face's identity, in bands. Kinds and quartiles are
    those of 10,000 faces chosen by hash, so they do not depend on partitions.

    Raises DataError for a column of more than 1,000 values among those faces.
    """
    of_column = [name for name in names if name in scored.columns]
    slices = {}
    if of_column:
        sample = _sample(scored, of_column)
        crowded = [name for name in of_column if _is_crowded(sample[name])]
        if crowded:
            raise DataError(
                f"slice columns with more than {_MOST_VALUES:,} values: {', '.join(crowded)}. Slice by "
                "columns of fewer values, or of numbers, which are cut at their quartiles"
            )
        slices = {name: _slice(_text(name), _cuts(sample[name])) for name in of_column}
    return {name: slices[name] if name in slices else _identity_size() for name in names}


def _sample(scored: DataFrame, names: Sequence[str]) -> dict[str, pa.Array]:
    """Give the values of the faces whose hash is smallest, those without one left out, as text."""
    chosen = (
        scored.orderBy(F.xxhash64(c.IMAGE_ID), c.IMAGE_ID)
        .limit(_SAMPLED)
        .select(*(_text(name).alias(f"_{number}") for number, name in enumerate(names)))
        .toArrow()
    )
    columns = zip(names, chosen.columns, strict=True)
    return {name: column.combine_chunks().drop_null() for name, column in columns}


def _text(name: str) -> Column:
    text = column_named(name).cast("string")
    return F.when(~F.isnan(_number(text)), text)  # isnan is false where it is no number


def _number(text: Column) -> Column:
    """Give the number that a text is; null where it is none."""
    return text.try_cast("double")


def _is_crowded(values: pa.Array) -> bool:
    return pc.count_distinct(values).as_py() > _MOST_VALUES and _numbers(values) is None


def _numbers(values: pa.Array) -> NDArray[np.float64] | None:
    try:
        return np.asarray(values.cast(pa.float64()))
    except pa.ArrowInvalid:
        return None


def _cuts(values: pa.Array) -> list[float]:
    """Give the upper ends of the bins but the last, to four digits; none where values stay as they are."""
    numbers = _numbers(values)
    if numbers is None or len(np.unique(numbers)) <= _MOST_NUMBERS:
        return []
    quartiles = np.quantile(numbers, (0.25, 0.5, 0.75), method="inverted_cdf")
    return sorted({float(f"{quartile:.4g}") for quartile in quartiles})


def _slice(text: Column, cuts: Sequence[float]) -> Slice:
    number = _number(text)
    if not cuts:
        return Slice(F.coalesce(text, F.lit(NO_VALUE)), number)
    ends = [np.format_float_positional(cut, trim="-") for cut in cuts]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(ends)]
    return _bins(number, cuts, [f"up to {ends[0]}", *between, f"over {ends[-1]}"])


def _identity_size() -> Slice:
    # Counted beside the faces, not joined to them: the faces are read once.
    images = F.count(F.lit(1)).over(Window.partitionBy(c.LABEL))
    return _bins(images, _IDENTITY_SIZES, _IDENTITY_BANDS)


def _bins(number: Column, cuts: Sequence[float], names: Sequence[str]) -> Slice:
    """Name the bin of each number: that of the first cut which is not below it."""
    # Not element_at: with a null index, in Spark 4.1, it gives an element of the array.
    rank, name = F.when(number > cuts[-1], len(cuts)), F.when(number > cuts[-1], names[-1])
    for position, cut in enumerate(cuts):
        rank, name = rank.when(number <= cut, position), name.when(number <= cut, names[position])
    return Slice(F.coalesce(name, F.lit(NO_VALUE)), rank.cast("double"))
