"""Galleries in numpy files: `embeddings.npy`, `attributes.npy`, and ids as text or Parquet.

    embeddings.npy    (n, d) numbers
    attributes.npy    (n, a) numbers, optional
    ids.txt           one id a line; or
    ids.parquet       the id column, and any of photo_id, quality, label, embedding_model, extras

The executors map the files into memory and read their slice, so every worker must see the folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import ArrayType, DoubleType, FloatType, StructField, StructType

from faceclust_spark.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import IngestConfig

EMBEDDINGS_FILE = "embeddings.npy"
ATTRIBUTES_FILE = "attributes.npy"
IDS_TEXT = "ids.txt"
IDS_PARQUET = "ids.parquet"
_ROWS_A_TASK = 65_536


class NumpyGallery(NamedTuple):
    """The files of a gallery, and the columns that they give: column name to Arrow type."""

    folder: Path
    rows: int
    embedding: str
    attributes: str | None
    texts: dict[str, pa.DataType]  # columns of the ids file; of a text file, the id alone


def read_numpy_folder(spark: SparkSession, folder: Path, config: IngestConfig) -> DataFrame:
    """Give the rows of a folder of numpy files, under the column names of the config.

    Raises DataError if files are missing, or do not agree on the number of rows.
    """
    gallery = _open_gallery(folder.absolute(), config)
    tasks = max(1, -(-gallery.rows // _ROWS_A_TASK))
    rows = spark.range(0, gallery.rows, 1, tasks)
    return rows.mapInArrow(_slice_reader(gallery), _schema(gallery))


def numpy_rows(folder: Path) -> int:
    """Give the number of rows of a folder of numpy files. Raises DataError as `read_numpy_folder`."""
    return len(_open_array(folder / EMBEDDINGS_FILE))


def _open_gallery(folder: Path, config: IngestConfig) -> NumpyGallery:
    columns = config.columns
    embeddings = _open_array(folder / EMBEDDINGS_FILE)
    with_attributes = (folder / ATTRIBUTES_FILE).exists() and columns.attributes is not None
    sizes = {EMBEDDINGS_FILE: len(embeddings)}
    if with_attributes:
        sizes[ATTRIBUTES_FILE] = len(_open_array(folder / ATTRIBUTES_FILE))
    if (folder / IDS_PARQUET).exists():
        ids = pq.ParquetFile(folder / IDS_PARQUET)
        sizes[IDS_PARQUET] = ids.metadata.num_rows
        texts = {
            field.name: _kept_type(field.type)
            for field in ids.schema_arrow
            if not pa.types.is_nested(field.type)
            and field.name not in (columns.embedding, columns.attributes)
        }
    elif (folder / IDS_TEXT).exists():
        with (folder / IDS_TEXT).open(encoding="utf-8") as lines:
            sizes[IDS_TEXT] = sum(1 for _ in lines)
        texts = {columns.image_id: pa.string()}
    else:
        raise DataError(
            f"{folder} has neither {IDS_TEXT} (one image id a line) nor {IDS_PARQUET} "
            f"(a column {columns.image_id!r}), in the order of {EMBEDDINGS_FILE}: add one of them"
        )
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(f"the files of {folder} do not have the same number of rows: {listing}")
    attributes = columns.attributes if with_attributes else None
    return NumpyGallery(folder, len(embeddings), columns.embedding, attributes, texts)


def _open_array(path: Path) -> NDArray[np.floating]:
    try:
        array: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot open {path}: {error}. Every worker must see the folder under this path, and "
            "the arrays must be plain numbers; else convert the gallery to Parquet"
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(
            f"{path} has shape {array.shape} and type {array.dtype}; "
            "expected a numeric array with one row a face"
        )
    return array


def _kept_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(found):
        return pa.int64()
    return pa.float64() if pa.types.is_floating(found) else pa.string()


def _schema(gallery: NumpyGallery) -> StructType:
    array = _open_array(gallery.folder / EMBEDDINGS_FILE)
    element = FloatType() if _kept_dtype(array.dtype) == np.float32 else DoubleType()
    fields = [StructField(gallery.embedding, ArrayType(element))]
    if gallery.attributes is not None:
        fields.append(StructField(gallery.attributes, ArrayType(FloatType())))
    for name, kind in gallery.texts.items():
        fields.append(StructField(name, from_arrow_type(kind)))
    return StructType(fields)


def _kept_dtype(found: np.dtype) -> type[np.float32] | type[np.float64]:
    """Give the type that holds the file's numbers exactly."""
    return np.float32 if found in (np.float16, np.float32) else np.float64


def _slice_reader(
    gallery: NumpyGallery,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function that gives the rows of a range of row numbers. Runs on the executors."""

    def read(ranges: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        embeddings = _open_array(gallery.folder / EMBEDDINGS_FILE)
        texts = _TextReader(gallery)
        for numbers in ranges:
            if numbers.num_rows:
                start, stop = numbers.column(0)[0].as_py(), numbers.column(0)[-1].as_py() + 1
                lists = {gallery.embedding: _lists(embeddings[start:stop])}
                if gallery.attributes is not None:
                    attributes = _open_array(gallery.folder / ATTRIBUTES_FILE)[start:stop]
                    lists[gallery.attributes] = _lists(attributes, np.float32)
                yield pa.RecordBatch.from_pydict({**lists, **texts.read(start, stop)})

    return read


def _lists(rows: NDArray[np.floating], kept: type[np.float32] | type[np.float64] | None = None) -> pa.Array:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(rows, dtype=kept or _kept_dtype(rows.dtype))
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(offsets, values.reshape(-1))


class _TextReader:
    """Reads slices of the ids file, each further on than the one before."""

    def __init__(self, gallery: NumpyGallery) -> None:
        self._gallery = gallery
        self._position = 0
        self._lines: Iterator[str] | None = None

    def read(self, start: int, stop: int) -> dict[str, pa.Array]:
        """Give the columns of the ids file for these rows."""
        parquet = self._gallery.folder / IDS_PARQUET
        if parquet.exists():
            return self._read_parquet(parquet, start, stop)
        if self._lines is None:
            self._lines = _lines(self._gallery.folder / IDS_TEXT)
        ids = list(itertools.islice(self._lines, start - self._position, stop - self._position))
        self._position = stop
        return {name: pa.array(ids, pa.string()) for name in self._gallery.texts}

    def _read_parquet(self, path: Path, start: int, stop: int) -> dict[str, pa.Array]:
        """Read the row groups that hold the slice, and no others."""
        with pq.ParquetFile(path) as ids:
            sizes = [ids.metadata.row_group(g).num_rows for g in range(ids.num_row_groups)]
            ends = np.cumsum([0, *sizes])
            groups = [g for g in range(len(sizes)) if ends[g] < stop and ends[g + 1] > start]
            table = ids.read_row_groups(groups, columns=list(self._gallery.texts))
        rows = table.slice(start - int(ends[groups[0]]), stop - start)
        return {name: rows[name].cast(kind).combine_chunks() for name, kind in self._gallery.texts.items()}


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\r\n")
