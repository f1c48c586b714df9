"""The work of each stage: what it reads, the stage function that it calls, what it writes and reports."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from faceclust_spark.errors import DataError
from faceclust_spark.running import driver_steps
from faceclust_spark.running.driver_ingest import ingested_here
from faceclust_spark.stages.cells import cells, cells_frame
from faceclust_spark.stages.clusters import clusters, placed, with_thresholds
from faceclust_spark.stages.coarse_groups import coarse_groups
from faceclust_spark.stages.confidences import confidences, refinements
from faceclust_spark.stages.forest import forest
from faceclust_spark.stages.ingest import (
    Gallery,
    IngestCounts,
    Ingested,
    check_quarantined_share,
    ingested,
)
from faceclust_spark.stages.meetings import Nodes
from faceclust_spark.stages.neighbours import neighbours, shard_count
from faceclust_spark.stages.output import stage_schema
from faceclust_spark.stages.recall import recall_audit
from faceclust_spark.stages.root_groups import root_groups, shuffle_partitions
from faceclust_spark.stages.rounds import Played, play_rounds, sure_alone
from faceclust_spark.stages.similarities import similarities
from faceclust_spark.stages.sources import read_source
from faceclust_spark.stages.summaries import cluster_summary
from faceclust_spark.stages.thresholds import thresholds, thresholds_frame
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.ledger import Outcome
from faceclust_spark.tables.scratch import FOREST_SCRATCH, INGEST_SCRATCH, rounds_scratch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from faceclust_spark.kernels.model import Model
    from faceclust_spark.running.run_state import Run

log = logging.getLogger(__name__)

_FACES_PER_FOREST = 10_000  # below it a further task costs more than it spreads


def write_ingest(run: Run) -> Outcome:
    """Check the source's rows and merge its faces; what cannot be used goes to `quarantine`."""
    first = not run.store.exists(schemas.FACES)
    source = read_source(run.spark, run.source, run.config.ingest)
    try:
        batch = ingested_here(run, source) or _ingested_by_tasks(run, source)
        if batch.counts.quarantined:
            run.merge(schemas.QUARANTINE, batch.quarantine)
            _tell_quarantined(batch.counts)
        check_quarantined_share(batch.counts, run.config.ingest)
        writes = [partial(run.merge, schemas.VECTORS, batch.vectors)]
        if batch.statistics is not None:
            writes.append(partial(run.write, schemas.ATTRIBUTE_STATISTICS, batch.statistics))
        if not run.store.exists(schemas.QUARANTINE):
            writes.append(partial(run.merge, schemas.QUARANTINE, batch.quarantine))
        run.together(writes)
        run.merge(schemas.FACES, batch.faces)
    finally:
        run.store.clear_scratch(*INGEST_SCRATCH)  # copies of the source's embeddings
    counts = batch.counts
    run.known.faces = counts.new if first else None
    faces = run.faces()
    if not faces:
        raise DataError(f"the gallery holds no face: all rows of {run.source} went to the table `quarantine`")
    details = {
        "faces": faces,
        "read": counts.read,
        "new": counts.new,
        "replaced": counts.replaced,
        "unchanged": counts.unchanged,
        "duplicates": counts.duplicates,
        **{f"quarantined {reason}": rows for reason, rows in counts.quarantined.items()},
    }
    return Outcome(faces, details=details)


def _ingested_by_tasks(run: Run, source: DataFrame) -> Ingested:
    stored = (schemas.FACES, schemas.VECTORS, schemas.ATTRIBUTE_STATISTICS)
    gallery = Gallery(*(run.read_if_there(table) for table in stored))
    return ingested(source, run.source, gallery, run.config.ingest, run.store.materialise)


def _tell_quarantined(counts: IngestCounts) -> None:
    for reason, rows in counts.quarantined.items():
        log.warning("quarantined: %s rows, %s, such as %s", f"{rows:,}", reason, counts.examples[reason])


def write_thresholds(run: Run) -> Outcome:
    """Choose the floor and the first thresholds."""
    if run.fits_driver():
        driver_steps.write_thresholds(run)
    else:
        config, vectors = run.config, run.read(schemas.VECTORS)
        chosen = thresholds(vectors, run.faces(), config.neighbours, config.coarse_groups)
        run.write(schemas.THRESHOLDS, thresholds_frame(run.spark, chosen))
        run.known.thresholds = chosen
    chosen = run.thresholds()
    levels = ", ".join(f"{t:.3f}" for t in chosen.groups)
    log.info("%-14s %s: %s", "thresholds", levels, chosen.groups_chosen_by)
    log.info("%-14s floor %.3f: %s", "thresholds", chosen.floor, chosen.floor_chosen_by)
    if chosen.doubt:
        log.warning("%s", chosen.doubt)
    return Outcome(1 + len(chosen.groups), unit="thresholds")


def write_cells(run: Run) -> Outcome:
    """Train the cells."""
    if run.fits_driver():
        driver_steps.write_cells(run)
    else:
        run.known.cells = cells(run.read(schemas.VECTORS), run.faces(), run.config.cells)
        run.write(schemas.CELLS, cells_frame(run.spark, run.known.cells))
    return Outcome(len(run.cells().centroids), unit="cells")


def write_neighbours(run: Run) -> Outcome:
    """Search each face's neighbours, and audit the search where it is asked for."""
    vectors, floor = run.read(schemas.VECTORS), run.thresholds().floor
    if run.fits_driver():
        driver_steps.write_neighbours(run)
    else:
        shards = shard_count(run.faces(), shuffle_partitions(vectors))
        run.write(schemas.NEIGHBOURS, neighbours(vectors, run.cells(), floor, run.config.neighbours, shards))
    if run.config.neighbours.audit:
        found = run.read(schemas.NEIGHBOURS)
        run.write(schemas.RECALL_AUDIT, recall_audit(vectors, found, floor, run.config.neighbours))
        audit = run.read(schemas.RECALL_AUDIT).toArrow().to_pylist()[0]
        recalls = {name: audit[name] for name in (c.EDGE_RECALL, c.RECALL_AT_K) if audit[name] is not None}
        log.info("%-14s %s", "recall audit", ", ".join(f"{k} {v:.4f}" for k, v in recalls.items()))
        parts_per_million = {f"{name} ppm": round(1e6 * value) for name, value in recalls.items()}
        return Outcome(run.faces(), details=parts_per_million)
    return Outcome(run.faces())


def write_coarse_groups(run: Run) -> Outcome:
    """Span the forest, and cut it into coarse groups."""
    if run.fits_driver():
        return driver_steps.write_coarse_groups(run)
    vectors, found = run.read(schemas.VECTORS), run.read(schemas.NEIGHBOURS)
    config = run.config.coarse_groups
    levels = run.thresholds().groups
    faces = run.faces()
    tasks = min(shuffle_partitions(vectors), -(-faces // _FACES_PER_FOREST))
    try:
        spanning = forest(found, faces, config, tasks, run.store.materialise)
        run.write(schemas.FOREST, spanning.edges)
        stored, materialise = run.read(schemas.FOREST), run.store.materialise
        run.write(schemas.COARSE_GROUPS, coarse_groups(stored, vectors, levels, config, tasks, materialise))
    finally:
        if faces > config.max_forest_edges:
            run.store.clear_scratch(*FOREST_SCRATCH)
    sizes = run.read(schemas.COARSE_GROUPS).groupBy(c.THRESHOLD, c.GROUP_KEY).agg(F.count("*").alias(c.SIZE))
    by_threshold = sizes.groupBy(c.THRESHOLD).agg(
        F.count("*").alias(c.COUNT), F.max(c.SIZE).alias(c.LARGEST_GROUP), F.sum(c.SIZE).alias(c.ROWS)
    )
    rows = by_threshold.orderBy(c.THRESHOLD).toArrow().to_pylist()
    details = {f"groups at {row[c.THRESHOLD]:.4f}": row[c.COUNT] for row in rows}
    details |= {f"largest at {row[c.THRESHOLD]:.4f}": row[c.LARGEST_GROUP] for row in rows}
    details["forest rounds"] = spanning.rounds
    return Outcome(rows[0][c.ROWS], rows[0][c.LARGEST_GROUP], details=details)


def write_similarities(run: Run) -> Outcome:
    """Keep the similarity matrices."""
    groups = root_groups(run.read(schemas.COARSE_GROUPS), run.read(schemas.VECTORS), run.config.confidences)
    run.write(schemas.SIMILARITIES, similarities(groups, run.config.similarities))
    return Outcome(run.read(schemas.SIMILARITIES).count(), unit="groups kept")


def write_confidences(run: Run) -> Outcome:
    """Refine each root group: confidences, and log-odds of its pairs."""
    if run.fits_driver():
        return driver_steps.write_confidences(run)
    from faceclust_spark.kernels.in_memory import scale_of
    from faceclust_spark.kernels.model import model_bytes

    config, vectors = run.config, run.read(schemas.VECTORS)
    model = run.model()
    _check_model(model, run)
    scale = scale_of(run.thresholds())
    groups = root_groups(run.read(schemas.COARSE_GROUPS), vectors, config.confidences)
    packed = model_bytes(model)
    refined = refinements(groups, packed, config.confidences, config.similarities, scale)
    run.write(schemas.REFINEMENTS, refined)
    stored = run.read(schemas.REFINEMENTS)
    run.write(schemas.CONFIDENCES, confidences(stored))
    size = F.size(c.FACE_IDS)
    counted = stored.agg(F.count("*").alias(c.ROWS), F.max(size).alias(c.LARGEST_GROUP)).toArrow().to_pylist()
    return Outcome(counted[0][c.ROWS], counted[0][c.LARGEST_GROUP], unit="groups")


def write_clusters(run: Run) -> Outcome:
    """Cluster the root groups again, play the rounds, and describe the clusters."""
    if run.fits_driver():
        return driver_steps.write_clusters(run)
    refined, faces = run.read(schemas.REFINEMENTS), run.read(schemas.FACES)
    everyone = placed(refined, faces, run.config.clusters, run.model().calibration)
    try:
        played = _play_rounds(run, everyone, faces)
        if played.hosts is None:
            run.write(schemas.ROUNDS, run.spark.createDataFrame([], stage_schema(schemas.ROUNDS)))
        else:
            run.write(schemas.ROUNDS, played.hosts)
            settled = run.store.materialise(played.placed, "round_settled")  # read several times
            calibration = run.model().alone
            settled = sure_alone(settled, calibration) if calibration else settled
            everyone = with_thresholds(settled, run.read(schemas.COARSE_GROUPS))
        run.write(schemas.CLUSTERS, clusters(everyone, faces))
    finally:
        run.store.clear_scratch(*rounds_scratch(run.config.rounds.count))
    published = run.read(schemas.CLUSTERS)
    pairs_per_task = run.config.confidences.pairs_per_task
    described = cluster_summary(published, run.read(schemas.VECTORS), refined, pairs_per_task)
    run.write(schemas.CLUSTER_SUMMARY, described)
    size = F.col(c.SIZE)
    counts = run.read(schemas.CLUSTER_SUMMARY).agg(
        F.count("*").alias("clusters"),
        F.count_if(size == 1).alias("singletons"),
        F.sum(size).alias("faces"),
        F.max(size).alias("largest"),
    )
    details = counts.toArrow().to_pylist()[0]
    return Outcome(details["faces"], details["largest"], details=details)


def _play_rounds(run: Run, everyone: DataFrame, faces: DataFrame) -> Played:
    """Let clusters join, where the model and the rule of re-clustering know how."""
    from faceclust_spark.kernels.in_memory import scale_of
    from faceclust_spark.kernels.model import model_bytes

    config = run.config
    model = run.model()
    if model.joiner is None or config.clusters.rule != "correlation" or not config.rounds.count:
        return Played(everyone, None)
    photos = faces.where(F.col(c.PHOTO_ID).isNotNull()).select(c.FACE_ID, c.PHOTO_ID)
    nodes = Nodes(
        run.read(schemas.NEIGHBOURS),
        run.read(schemas.VECTORS),
        photos if config.clusters.same_photo == "apart" else None,
        scale_of(run.thresholds()),
    )
    return play_rounds(everyone, nodes, model_bytes(model), config.rounds, run.store.materialise)


def _check_model(model: Model, run: Run) -> None:
    """Raise ModelMismatchError where a bound model meets another embedding, or other attributes."""
    width = F.length(c.VECTOR) / 2
    first = run.read(schemas.VECTORS).select(width.cast("int").alias(c.WIDTH)).limit(1)
    stated = run.read(schemas.FACES).select(c.EMBEDDING_MODEL).limit(1)
    found = first.crossJoin(stated).toArrow()
    model.check(
        found[c.WIDTH][0].as_py(), found[c.EMBEDDING_MODEL][0].as_py(), run.config.ingest.attribute_names
    )
