"""Seconds of each stage: kernels by the rates of this machine, Spark by constants that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from faceclust_spark.config import Config
from faceclust_spark.kernels.cells import FLAT_PROBED, FLAT_TRAINED
from faceclust_spark.planning.laws import STAGES, Counts, Gallery, training_cost
from faceclust_spark.planning.rates import Rates


class Overhead(NamedTuple):
    """What Spark, Delta and Arrow add to the kernels of a stage."""

    seconds: float  # whatever the gallery's size
    per_mib: float  # core seconds for each MiB that the stage moves (laws.moved_bytes)


# From runs of 2,000 and 200,000 x 256 faces on 2 slow cores with Spark 4.1: the seconds of small work, and
# what the run took beyond those and the kernels. tests/benchmarks/plan.py --calibrate prints what its runs
# would have needed: these with `--set spark.driver_faces=0`.
OVERHEADS = {
    "ingest": Overhead(18.0, 0.06),
    "thresholds": Overhead(3.5, 0.007),
    "cells": Overhead(1.4, 0.001),
    "neighbours": Overhead(3.6, 0.009),
    "coarse_groups": Overhead(10.0, 0.1),
    "confidences": Overhead(12.7, 0.01),
    "clusters": Overhead(31.7, 0.08),
}
# The same where the driver clusters by itself, spark.driver_faces: reading and writing of tables is left.
IN_DRIVER = {
    "ingest": OVERHEADS["ingest"],
    "thresholds": Overhead(4.0, 0.03),
    "cells": Overhead(1.0, 0.001),
    "neighbours": Overhead(2.0, 0.02),
    "coarse_groups": Overhead(1.9, 0.01),
    "confidences": Overhead(2.1, 0.01),
    "clusters": Overhead(2.3, 0.08),
}
# And where the driver also checks the source, driver_ingest: then thresholds need not read the vectors.
CHECKED_IN_DRIVER = IN_DRIVER | {"ingest": Overhead(6.0, 0.04), "thresholds": Overhead(1.4, 0.0)}
MIB = float(1 << 20)
_DRIVER_CORES = 4.0  # that train the cells of shards side by side: drivers are no larger


class Seconds(NamedTuple):
    """The time of one stage."""

    kernels: float  # core seconds, divided among the cores
    serial: float  # seconds on one core while the others wait
    tasks: float  # that the kernels are divided into, at most

    def on(self, cores: int) -> float:
        """Give the wall seconds on so many cores."""
        return self.serial + self.kernels / max(min(float(cores), self.tasks), 1.0)


def kernel_seconds(rates: Rates, gallery: Gallery, counts: Counts, config: Config) -> dict[str, Seconds]:
    """Give the kernels' seconds of each stage.

    The driver trains the cells, and one task merges the last forests and cuts the result: there more cores
    help little, or not at all. A forest of more than `max_forest_edges` is merged in rounds, each of which
    halves it, and cut in parts.
    """
    faces, cells = gallery.faces, counts.cells
    compared_cells = 0 if cells == 1 else min(cells, FLAT_PROBED) + cells // FLAT_PROBED
    search = rates.search * counts.compared + rates.probe * (faces * compared_cells + counts.divided)
    merge = rates.merge * (counts.partial_entries + faces) if cells > 1 else 0.0
    refine_tasks = max(counts.refined / config.confidences.pairs_per_task, counts.refined / 50_000)
    nothing = Seconds(0.0, 0.0, 1.0)
    return {
        "ingest": Seconds(rates.prepare * faces, 0.0, float(faces)),
        "thresholds": nothing,
        "cells": Seconds(
            rates.train * training_cost(cells, counts.trained_on),
            0.0,
            1.0 if cells <= FLAT_TRAINED else _DRIVER_CORES,
        ),
        "neighbours": Seconds(search + merge, 0.0, float(counts.shards)),
        "coarse_groups": _grouping(rates, faces, counts.entries, config),
        "confidences": Seconds(rates.refine * counts.refined, 0.0, max(refine_tasks, 1.0)),
        "clusters": Seconds(rates.assign * counts.refined, 0.0, float(faces)),
    }


def _grouping(rates: Rates, faces: int, entries: float, config: Config) -> Seconds:
    limit = config.coarse_groups.max_forest_edges
    merged = rates.forest * 3.0 * faces + 2.0 * rates.cut * faces
    if faces <= limit:
        return Seconds(rates.forest * entries, merged, float(faces))
    rounds = 1 + math.ceil(math.log2(faces / limit))
    fixed = rounds * OVERHEADS["coarse_groups"].seconds
    return Seconds(2.0 * rates.forest * entries + merged, fixed, float(faces))


def stage_seconds(
    kernels: dict[str, Seconds],
    moved: dict[str, float],
    cores: int,
    overheads: Mapping[str, Overhead] = OVERHEADS,
) -> dict[str, float]:
    """Give the wall seconds of each stage on `cores` cores like those of this machine.

    fixed + serial + kernels / min(cores, tasks) + moved / cores.
    """
    return {
        stage: overheads[stage].seconds
        + kernels[stage].on(cores)
        + overheads[stage].per_mib * moved[stage] / MIB / cores
        for stage in STAGES
    }
