"""How large a gallery the driver's process clusters by itself: `spark.driver_faces`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from faceclust_spark.session_settings import LAUNCHED_HEAP

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.config import SparkConfig

ANYWHERE = 200_000  # faces: below it tasks take longer to start than to work, on any cluster
ON_ONE_MACHINE = 1_000_000  # where the tasks would have no more cores than the driver has
_SHARE = 0.5  # of the machine's memory: the JVM needs the rest
_FACE = 6_000  # bytes a face besides its vector: lists, pairs, rows to be written
_COMPONENT = 10  # bytes, with the copies that are made
_SENT = 200  # bytes of a face that are sent with its vector: attributes, ids, what Arrow adds
_ADDED = 1.25  # by Spark, to the bytes of a source's rows
_SOURCE_HERE, _SOURCE_ANYWHERE = 1 << 29, 1 << 28  # bytes that are sent at most; a heap of 1 GB holds them
_HEAP_SHARE, _LARGEST_SOURCE = 3, 3 << 29  # a larger heap holds a third of its size; 1.1 GB was measured
_RESULT, _SPARKS_RESULT = "spark.driver.maxResultSize", "1g"  # as Spark has it by itself
_HEAP = "spark.driver.memory"
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Place(NamedTuple):
    """Where a session's tasks run, how much they may send to the driver at once, and the driver's heap."""

    one_machine: bool  # the driver's own, as on `local[*]`
    result_bytes: int | None = None  # spark.driver.maxResultSize; None: any
    heap_bytes: int | None = None  # of the driver's JVM; None: unknown


def most_faces(config: SparkConfig, dimension: int, place: Place) -> int:
    """Give the most faces that the driver clusters by itself.

    `auto`: 200,000, and where driver and tasks share one machine up to 1,000,000, as far as half of the
    machine's memory holds them; fewer where their vectors may not be sent at once. The tables are the same
    either way.
    """
    if config.driver_faces != "auto":
        return config.driver_faces
    most = ANYWHERE
    if place.one_machine:
        held = int(_SHARE * machine_memory() / (_FACE + _COMPONENT * dimension))
        most = min(max(held, ANYWHERE), ON_ONE_MACHINE)
    if place.result_bytes is None:
        return most
    return min(most, place.result_bytes // (_SENT + 2 * dimension))


def may_be_sent(size: int, place: Place) -> bool:
    """Tell whether a source of so many bytes may be sent to the driver at once.

    Where driver and tasks share one machine the larger of 512 MB and a third of the driver's heap, 1.5 GB at
    most; 256 MB elsewhere.
    """
    here = max(_SOURCE_HERE, (place.heap_bytes or 0) // _HEAP_SHARE)
    most = min(here, _LARGEST_SOURCE) if place.one_machine else _SOURCE_ANYWHERE
    return size <= most and (place.result_bytes is None or size * _ADDED <= place.result_bytes)


def machine_memory() -> int:
    """Give the bytes of memory that this process may have: the machine's, or its container's."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _CGROUPS):
        if path.exists() and (told := path.read_text().strip()).isdigit():
            limits.append(int(told))
    return min(limits)


def place_of(session: SparkSession) -> Place:
    """Ask a session where its tasks run, what they may send, and the size of its heap.

    The heap is known where this process has launched it: `spark.driver.memory` is what somebody asked for.
    """
    from pyspark.sql.utils import is_remote

    here = not is_remote() and (session.conf.get("spark.master", None) or "").startswith("local")
    heap = session.conf.get(LAUNCHED_HEAP, None) if here else None
    return _place(here, session.conf.get(_RESULT, None) or _SPARKS_RESULT, heap)


def place_of_plan(config: SparkConfig, cores: int) -> Place:
    """Tell where the tasks of a session that this package starts will run, what they may send, and its heap.

    More cores than this machine has are a cluster's, which has Spark's own limit unless the config sets one.
    So has a session that somebody else starts on this machine, which `place_of` sees and a plan cannot.
    """
    here = cores <= (os.cpu_count() or 1) and (config.master or "local").startswith("local")
    result = config.settings.get(_RESULT, "0" if here else _SPARKS_RESULT)
    return _place(here, result, config.settings.get(_HEAP, config.driver_memory) if here else None)


def _place(here: bool, result: str, heap: str | None) -> Place:
    return Place(here, _bytes_of(result), _bytes_of(heap or ""))


def _bytes_of(told: str) -> int | None:
    """Read a size as Spark writes it, such as 512m; None for 0, no limit, and for what is not a size."""
    size = re.fullmatch(r"(\d+)([kmgt]?)b?", told.strip().lower())
    if size is None or size[1] == "0":
        return None
    return int(size[1]) << _SHIFTS[size[2]]
