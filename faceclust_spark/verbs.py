"""What can be done beside a run: make a gallery, train, evaluate, explain, and the demo of it all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from faceclust_spark import pipeline
from faceclust_spark.config import Config
from faceclust_spark.errors import ConfigError, DataError
from faceclust_spark.report import DemoResult
from faceclust_spark.stages.evaluation import evaluation
from faceclust_spark.stages.labels import labels_of
from faceclust_spark.stages.synth import synthetic_gallery
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.ledger import Ledger, Outcome, config_of
from faceclust_spark.tables.storage import TableStore
from faceclust_spark.views.evidence import explain as explain_stored

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.views.explanation import Explanation

log = logging.getLogger(__name__)


def synthesise(spark: SparkSession, output: str, config: Config | None = None) -> dict[str, Any]:
    """Write a synthetic gallery with labels as Parquet (`synth` of the config says of what kind).

    Gives where it is and how many faces it has. Raises ConfigError where something is there already.
    """
    config = config or Config()
    try:
        synthetic_gallery(spark, config.synth).write.mode("error").parquet(output)
    except AnalysisException as error:
        if error.getCondition() != "PATH_ALREADY_EXISTS":
            raise
        raise ConfigError(f"{output} is there already: name another place, or delete it first") from None
    return {"gallery": output, "faces": config.synth.faces, "seed": config.synth.seed}


def train_model(
    spark: SparkSession, sources: Sequence[str], folder: str | Path, config: Config | None = None
) -> dict[str, Any]:
    """Train the graph convolution on labelled galleries, and write the model into a folder.

    sources: as `run` takes them, each with labels; of several embeddings for a model that serves any.
    Gives the model's card. Use it with `confidences.model=FOLDER`. Raises DataError without labels.
    """
    from faceclust_spark.kernels.model import save_model
    from faceclust_spark.stages.labelled import labelled_galleries
    from faceclust_spark.training.loop import train

    config = config or Config()
    galleries, description = labelled_galleries(spark, sources, config)
    trained = train(galleries, config, description)
    save_model(trained.model, Path(folder))
    return dict(trained.model.card)


def evaluate(
    spark: SparkSession,
    tables: str,
    config: Config | None = None,
    *,
    labels: str | None = None,
    slices: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Compare the clusters with labels: a row for all faces, and one for each slice.

    labels: Parquet or Delta with image_id and label; else those that the faces were ingested with.
    slices: columns whose values are scored apart, besides the config's `evaluate.slices`.

    The rows are also kept in the table `evaluation`, under the run that the clusters come from.
    Raises DataError where labels or columns are missing, TableError where nothing is clustered yet.
    """
    config = (config or Config()).model_copy(update={"source": labels, "tables": tables})
    store = TableStore(spark, tables)
    clusters, faces = store.read(schemas.CLUSTERS), store.read(schemas.FACES)
    names = tuple(dict.fromkeys((*config.evaluate.slices, *(slices or ()))))
    with (
        closing(Ledger(spark, store, config, f"evaluate-{pipeline.new_run_id()}", new=True)) as ledger,
        ledger.stage("evaluation", (schemas.CLUSTERS, schemas.FACES)) as record,
    ):
        found = labels_of(clusters, faces, labels, names, config.ingest.columns)
        if found.unscored:
            log.info("%s faces have no label and are not scored", f"{found.unscored:,}")
        store.replace(schemas.EVALUATION, evaluation(clusters, found.rows, names), _run_of(store))
        record.outcome = Outcome(found.scored)
    rows: list[dict[str, Any]] = store.read(schemas.EVALUATION).toArrow().to_pylist()
    return rows


def explain(spark: SparkSession, tables: str, image_a: str, image_b: str) -> Explanation:
    """Say why two images are, or are not, in one cluster, by the settings that clustered them.

    Raises DataError for an image that is not in the gallery, was quarantined or is not clustered yet.
    """
    store = TableStore(spark, tables)
    of_run = _run_of(store)
    used = config_of(store, of_run)
    if used is None:
        log.warning("the settings of run %s cannot be read: explained by the defaults", of_run)
    return explain_stored(store, image_a, image_b, used or Config())


def _run_of(store: TableStore) -> str:
    """Give the run that the clusters come from. Raises DataError where there is none."""
    ids = store.read(schemas.CLUSTERS).select(c.RUN_ID).limit(1).toArrow()[c.RUN_ID].to_pylist()
    if not ids:
        raise DataError(
            f"nothing is clustered in {store.base} yet: run `faceclust run` with these tables first"
        )
    return str(ids[0])


def demo(spark: SparkSession, folder: str | Path, config: Config | None = None) -> DemoResult:
    """Make a synthetic gallery, cluster it into Delta tables, and compare with the truth.

    Everything goes into the folder; the gallery and tables of an earlier demo there are replaced. Raises
    ConfigError for a folder that holds anything else.
    """
    config = config or Config()
    gallery, tables = Path(folder) / "gallery.parquet", Path(folder) / "tables"
    _claim(Path(folder))
    shutil.rmtree(gallery, ignore_errors=True)
    made = synthesise(spark, str(gallery), config)
    log.info("%-14s %s faces into %s", "synth", f"{made['faces']:,}", gallery)
    with_band = config.ingest.model_copy(update={"extra": (*config.ingest.extra, c.QUALITY_BAND)})
    settings = config.model_copy(update={"ingest": with_band})
    summary = pipeline.run(spark, str(gallery), str(tables), settings, fresh=True)
    rows = evaluate(spark, str(tables), settings, slices=(c.QUALITY_BAND,))
    return DemoResult(str(gallery), summary, rows)


def _claim(folder: Path) -> None:
    """Mark a folder as the demo's own: what a user keeps under the same names is not the demo's to delete."""
    marker = folder / ".faceclust-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise ConfigError(f"{folder} is not empty, and not a demo's folder: name another one with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
