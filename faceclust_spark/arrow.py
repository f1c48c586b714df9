"""Between Arrow columns and numpy arrays, without copies where the layout allows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Column: TypeAlias = pa.Array | pa.ChunkedArray


def vectors_from_arrow(column: Column) -> NDArray[np.int16]:
    """Read a column of packed grid vectors of equal width: read-only int16 `(n, d)`."""
    array = _one_chunk(column)
    if not len(array):
        return np.empty((0, 0), np.int16)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        start = array.offset * width
        values = array.buffers()[1]
    else:
        kind = np.int64 if pa.types.is_large_binary(array.type) else np.int32
        offsets = np.frombuffer(array.buffers()[1], kind)[array.offset : array.offset + len(array) + 1]
        widths = np.diff(offsets)
        width, start = int(widths[0]), int(offsets[0])
        if (widths != width).any() or array.null_count:
            raise ValueError(f"vectors differ in width: {sorted(set((widths // 2).tolist()))[:5]} components")
        values = array.buffers()[2]
    flat = np.frombuffer(values, "<i2", count=len(array) * width // 2, offset=start)
    return flat.reshape(len(array), -1)


def vectors_to_arrow(vectors: NDArray[np.int16]) -> pa.BinaryArray:
    """Pack grid vectors `(n, d)` into a BINARY column."""
    count, width = vectors.shape
    if 2 * width * count > np.iinfo(np.int32).max:
        raise ValueError(f"{count} vectors of {width} components in one batch; at most 2^31 - 1 bytes fit")
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(2 * width)
    data = np.ascontiguousarray(vectors, "<i2")
    return pa.BinaryArray.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def texts_to_arrow(texts: NDArray[np.str_], mask: NDArray[np.bool_] | None = None) -> pa.StringArray:
    """Give a STRING column, null where `mask` is true; pyarrow parts it beyond 16 MB of text by itself."""
    return _one_chunk(pa.array(texts, pa.string(), mask=mask))


def attributes_from_arrow(column: Column) -> NDArray[np.float32]:
    """Read an ARRAY<FLOAT> column: float32 `(n, a)`, missing values NaN.

    A null row misses all of its attributes; without a single row that has some, a is 0.
    """
    array = _one_chunk(column)
    lengths = np.asarray(array.value_lengths().fill_null(0))
    width = int(lengths.max(initial=0))
    result = np.full((len(array), width), np.nan, np.float32)
    if width:
        present = lengths == width
        if (lengths[~present] != 0).any():
            raise ValueError(f"attribute vectors differ in width: {sorted(set(lengths.tolist()))[:5]}")
        values = array.flatten().cast(pa.float32())
        result[present] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
    return result


def lists_from_arrow(column: Column) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Read a list column without nulls: all values in a row, and the offsets `(n + 1,)` of each list."""
    array = _one_chunk(column)
    lengths = np.asarray(array.value_lengths().fill_null(0), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return array.flatten().to_numpy(zero_copy_only=False), offsets


def lists_to_arrow(values: NDArray[np.generic], offsets: NDArray[np.int64]) -> pa.ListArray:
    """Build a list column from its values and the offsets `(n + 1,)` of each list."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"{offsets[-1]} list elements in one batch; at most 2^31 - 1 fit: send smaller batches"
        )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def pack_lists(values: NDArray[np.floating], widths: NDArray[np.int64]) -> pa.BinaryArray:
    """Give each list's numbers as bytes: a BINARY column; widths `(n,)`, at most 0 for a list without any."""
    ends = np.concatenate([[0], np.cumsum(np.maximum(widths, 0))]) * values.dtype.itemsize
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"{ends[-1]} bytes of lists in one batch; at most 2^31 - 1 fit: send smaller batches"
        )
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(widths), buffers)


def unpack_lists(column: Column, width: int) -> NDArray[np.floating]:
    """Read lists of equal width that were packed: float32 or float64 `(n, width)`, as they were."""
    array = _one_chunk(column)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    size = int(offsets[1] - offsets[0]) // width
    if (np.diff(offsets) != size * width).any() or array.null_count:
        raise ValueError(f"packed lists differ in width, or are not of {width} numbers")
    kind = {4: np.float32, 8: np.float64}[size]
    flat = np.frombuffer(array.buffers()[2], kind, len(array) * width, int(offsets[0]))
    return flat.reshape(len(array), width)


def _one_chunk(column: Column) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
