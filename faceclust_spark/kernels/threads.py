"""One thread for each caller: Spark, or a pool of ours, already runs as many callers as there are cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Part = TypeVar("Part")
Result = TypeVar("Result")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP libraries that are loaded by now to one thread, until the end of the block."""
    with threadpool_limits(limits=1):
        yield


def map_parts(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Give the result of each part, in order, with a thread a core; `work` shall release the GIL."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with one_thread(), ThreadPoolExecutor(max(1, min(cores, len(parts)))) as pool:
        return list(pool.map(work, parts))
