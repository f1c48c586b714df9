"""The plan of a run: what it will take, and by which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from faceclust_spark.config import Config
from faceclust_spark.errors import ConfigError
from faceclust_spark.kernels.cells import cell_count
from faceclust_spark.planning.choices import (
    TASKS_PER_CORE,
    USED,
    Choice,
    Cluster,
    choose_settings,
    with_choices,
)
from faceclust_spark.planning.laws import (
    STAGES,
    Counts,
    Gallery,
    count_work,
    moved_bytes,
    shuffle_bytes,
    source_bytes,
    table_bytes,
    task_memory,
)
from faceclust_spark.planning.measured import Measured, measure
from faceclust_spark.planning.rates import Rates
from faceclust_spark.planning.routing import gallery_visits
from faceclust_spark.planning.sample import GallerySample
from faceclust_spark.planning.timing import (
    CHECKED_IN_DRIVER,
    IN_DRIVER,
    OVERHEADS,
    kernel_seconds,
    stage_seconds,
)
from faceclust_spark.running.driver_limit import may_be_sent, most_faces, place_of_plan
from faceclust_spark.stages.neighbours import shard_count

if TYPE_CHECKING:
    from faceclust_spark.kernels.model import Model

SMALLEST_MEMORY = 1 << 29  # bytes of a core


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    stage: str
    seconds: float
    kernel_seconds: float  # of them in kernels, what one core does alone included
    moved_bytes: float  # read, shuffled and written
    shuffle_bytes: float
    task_bytes: float | None  # that one task holds; None where it is small


@dataclass(frozen=True)
class Plan:
    """What a run of a gallery will take, predicted from a sample."""

    faces: int
    source_rows: int
    sampled: int
    cores: int
    driver_faces: int  # up to which the driver clusters by itself, see spark.driver_faces
    checked_in_driver: bool  # a first source too, see driver_ingest
    floor: float
    thresholds: Sequence[float]
    counts: Counts
    rates: Rates  # of this machine
    pairs_per_face: float  # refined
    largest_group: int  # about
    recall: float  # of the sample's links at the middle threshold
    stages: Sequence[StagePlan]
    tables: Mapping[str, float]  # bytes
    choices: Sequence[Choice]
    config: Config  # of the run, choices included

    @property
    def seconds(self) -> float:
        """Give the time of a whole run."""
        return sum(stage.seconds for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Give the plan as JSON-ready values."""
        values = asdict(self)
        values["config"] = self.config.model_dump(mode="json", exclude_unset=True)
        for name in ("counts", "rates"):
            values[name] = values[name]._asdict()
        values["choices"] = [choice._asdict() for choice in self.choices]
        return values | {"seconds": self.seconds, "hours": self.seconds / 3600}


def check_cluster(cores: int, memory: float) -> None:
    """Raise ConfigError where nothing could run."""
    if cores < 1:
        raise ConfigError(f"a plan for {cores} cores: give --cores 1 or more")
    if memory < SMALLEST_MEMORY:
        raise ConfigError(
            f"{memory / 2**30:.2f} GiB for a core: a Python worker needs {SMALLEST_MEMORY / 2**30:g} GiB at "
            "least; use --memory-per-core"
        )


def make_plan(
    sample: GallerySample, model: Model, config: Config, faces: int | None, cores: int, memory: float
) -> Plan:
    """Predict what a run of `faces` faces (as many as the source has) takes on `cores` cores like this one.

    memory: bytes that a core may use. Raises ConfigError for no core or less memory than a worker needs.
    """
    check_cluster(cores, memory)
    faces = faces or sample.rows
    measured = measure(sample, faces, config, model)
    gallery = Gallery(
        faces=faces,
        dimension=sample.embeddings.shape[1],
        attributes=sample.attributes.shape[1],
        value_bytes=sample.embeddings.itemsize,
        thresholds=len(measured.thresholds.groups),
    )
    return predict(gallery, measured, sample, cores, memory)


def predict(gallery: Gallery, measured: Measured, sample: GallerySample, cores: int, memory: float) -> Plan:
    """Predict a run from what was measured."""
    structure = measured.structure
    counts, cluster = _fitting(gallery, measured, cores, memory)
    chosen = choose_settings(gallery, counts, structure, measured.config, cluster, measured.recall)
    config = with_choices(measured.config, chosen)
    tables = table_bytes(gallery, counts, counts.refined)
    place = place_of_plan(config.spark, cores)
    driver_faces = most_faces(config.spark, gallery.dimension, place)
    in_driver = gallery.faces <= driver_faces
    checked_there = in_driver and may_be_sent(int(source_bytes(gallery)), place)
    shuffles = shuffle_bytes(gallery, counts, structure, cluster.partitions)
    if in_driver:
        by_tasks = () if checked_there else ("ingest",)
        shuffles = {stage: sent if stage in by_tasks else 0.0 for stage, sent in shuffles.items()}
    kernels = kernel_seconds(measured.rates, gallery, counts, config)
    moved = moved_bytes(gallery, tables, shuffles)
    overheads = CHECKED_IN_DRIVER if checked_there else IN_DRIVER if in_driver else OVERHEADS
    seconds = stage_seconds(kernels, moved, cores, overheads)
    held = task_memory(gallery, counts, config)
    return Plan(
        faces=gallery.faces,
        source_rows=sample.rows,
        sampled=len(sample.image_ids),
        cores=cores,
        driver_faces=driver_faces,
        checked_in_driver=checked_there,
        floor=measured.thresholds.floor,
        thresholds=measured.thresholds.groups,
        counts=counts,
        rates=measured.rates,
        pairs_per_face=structure.pairs,
        largest_group=structure.largest,
        recall=measured.recall,
        stages=[
            StagePlan(
                stage,
                seconds[stage],
                kernels[stage].on(cores),
                moved[stage],
                shuffles[stage],
                held.get(stage),
            )
            for stage in STAGES
        ],
        tables=tables,
        choices=chosen,
        config=config,
    )


def _fitting(gallery: Gallery, measured: Measured, cores: int, memory: float) -> tuple[Counts, Cluster]:
    """Count the work with as many tasks as the config has, or as fit a core's memory."""
    given = measured.config.spark.shuffle_partitions
    partitions = TASKS_PER_CORE * cores if given == "auto" else given
    counts = _count(gallery, measured, partitions)
    held = task_memory(gallery, counts, measured.config)["neighbours"]
    if held > USED * memory and given == "auto":
        # Twice the share, since more shards are visited by more faces.
        partitions = max(partitions, round(2 * counts.shards * held / (USED * memory)))
        counts = _count(gallery, measured, partitions)
    return counts, Cluster(cores, memory, partitions)


def _count(gallery: Gallery, measured: Measured, partitions: int) -> Counts:
    shards = shard_count(gallery.faces, partitions)
    probes = measured.config.neighbours.probes
    cells = cell_count(gallery.faces, measured.config.cells)
    return count_work(
        gallery,
        measured.structure,
        gallery_visits(measured.vectors, measured.routing, cells, shards, probes),
        shards,
        measured.search.imbalance,
        measured.search.partial_entries,
        measured.config,
    )
