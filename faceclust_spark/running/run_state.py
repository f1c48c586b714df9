"""What every stage of one run is given: where it reads and writes, and what it need not read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from faceclust_spark.running.driver_limit import ANYWHERE, most_faces, place_of
from faceclust_spark.running.held import Held
from faceclust_spark.stages.cells import cells_from_frame
from faceclust_spark.stages.thresholds import thresholds_from_frame
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.config import Config
    from faceclust_spark.kernels.cells import Cells
    from faceclust_spark.kernels.model import Model
    from faceclust_spark.kernels.thresholds import Thresholds
    from faceclust_spark.tables.lease import Lease
    from faceclust_spark.tables.schemas import Table
    from faceclust_spark.tables.storage import TableStore


@dataclass
class Known:
    """What a run has read or written and need not read again, while it holds the lease."""

    faces: int | None = None
    thresholds: Thresholds | None = None
    cells: Cells | None = None
    model: Model | None = None
    held: Held | None = None
    driver_faces: int | None = None


@dataclass(frozen=True)
class Run:
    """What every stage of one run is given."""

    spark: SparkSession
    store: TableStore
    lease: Lease
    config: Config
    run_id: str
    source: str
    known: Known = field(default_factory=Known)

    def read(self, table: Table) -> DataFrame:
        """Read a table's newest version."""
        return self.store.read(table)

    def read_if_there(self, table: Table) -> DataFrame | None:
        """Read a table, where it has been written."""
        return self.read(table) if self.store.exists(table) else None

    def faces(self) -> int:
        """Give the number of faces of the gallery."""
        if self.known.faces is None:
            self.known.faces = self.read(schemas.FACES).count()
        return self.known.faces

    def thresholds(self) -> Thresholds:
        """Give the floor and the first thresholds, as stored."""
        if self.known.thresholds is None:
            self.known.thresholds = thresholds_from_frame(self.read(schemas.THRESHOLDS))
        return self.known.thresholds

    def cells(self) -> Cells:
        """Give the cells."""
        if self.known.cells is None:
            self.known.cells = cells_from_frame(self.read(schemas.CELLS))
        return self.known.cells

    def model(self) -> Model:
        """Give the model that the config names."""
        if self.known.model is None:
            self.known.model = load_model_of(self.config)
        return self.known.model

    @property
    def held(self) -> Held:
        """Give the gallery as arrays of this process; see `fits_driver`."""
        if self.known.held is None:
            self.known.held = Held(self.read)
        return self.known.held

    def fits_driver(self) -> bool:
        """Tell whether the gallery is small enough to be clustered in this process."""
        faces = self.faces()
        if self.known.driver_faces is None:
            config, place, width = self.config.spark, place_of(self.spark), 0
            if config.driver_faces == "auto" and (faces > ANYWHERE or place.result_bytes is not None):
                components = (F.length(c.VECTOR) / 2).cast("int").alias(c.WIDTH)
                width = self.read(schemas.VECTORS).select(components).limit(1).toArrow()[c.WIDTH][0].as_py()
            self.known.driver_faces = most_faces(config, width, place)
        return faces <= self.known.driver_faces

    def write(self, table: Table, rows: DataFrame) -> None:
        """Replace a table by this run's rows, in one commit, while the lease is held."""
        self.lease.confirm()
        self.store.replace(table, rows, self.run_id)

    def together(self, writes: Sequence[Callable[[], None]]) -> None:
        """Write several tables at once: a commit of a small table is waiting, not work."""
        with ThreadPoolExecutor(len(writes)) as pool:
            running = [pool.submit(write) for write in writes]
        for write in running:
            write.result()

    def merge(self, table: Table, rows: DataFrame) -> None:
        """Merge rows into a table by its keys, in one commit, while the lease is held."""
        self.lease.confirm()
        self.store.merge(table, rows, self.run_id)


def load_model_of(config: Config) -> Model:
    """Load the model that the config names. Raises ConfigError where there is none, or it does not fit."""
    from faceclust_spark.kernels.model import load_model

    model = load_model(config.confidences.model)
    model.check_rule(config.clusters.rule)
    return model
