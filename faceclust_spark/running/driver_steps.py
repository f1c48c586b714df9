"""The stages after ingest, for a gallery that the driver's process holds.

Up to `spark.driver_faces` faces Spark's own work (planning, shuffles, the start of tasks) takes far longer
than the method: then Spark reads and writes the tables, and the kernels run here, on all cores of the driver.
The tables are the same, row for row, as those of the stages that Spark's tasks work out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StructField, StructType

from faceclust_spark.arrow import texts_to_arrow, vectors_to_arrow
from faceclust_spark.kernels.assignment import NO_PHOTO, highest_whole, mint_cluster_ids
from faceclust_spark.kernels.encounters import neighbour_links
from faceclust_spark.kernels.forest import edges_of_lists, maximum_spanning_forest
from faceclust_spark.kernels.in_memory import (
    alone_in_root,
    cut_groups,
    find_cells,
    find_thresholds,
    place_faces,
    refine_gallery,
    scale_of,
)
from faceclust_spark.kernels.neighbours import find_neighbours
from faceclust_spark.kernels.rounds import Placed, Played, join_clusters
from faceclust_spark.kernels.standing import NO_CLUSTER
from faceclust_spark.kernels.threads import map_parts
from faceclust_spark.stages.cells import cells_frame
from faceclust_spark.stages.coarse_groups import groups_to_batches
from faceclust_spark.stages.confidences import alone_refined, confidences, refined_to_batch
from faceclust_spark.stages.contraction_rounds import to_batches
from faceclust_spark.stages.neighbours import lists_to_batches
from faceclust_spark.stages.output import arrow_output, frame_of, frame_of_rows, stage_schema
from faceclust_spark.stages.summaries import described_clusters, summary_frame
from faceclust_spark.stages.thresholds import thresholds_frame
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.tables.ledger import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    from faceclust_spark.kernels.model import Model
    from faceclust_spark.running.held import Held
    from faceclust_spark.running.run_state import Run
    from faceclust_spark.tables.schemas import Table

_KEYS = StructType([StructField(c.ROOT_KEY, LongType(), False)])
_CLUSTERS_AT_ONCE = 2_000  # described by a thread


def write_thresholds(run: Run) -> None:
    """Choose the floor and the first thresholds. Claims 2, 3."""
    face_ids, vectors, attributes, norms, _ = run.held.gallery
    run.known.thresholds = find_thresholds(face_ids, vectors, norms, attributes, run.config)
    run.write(schemas.THRESHOLDS, thresholds_frame(run.spark, run.known.thresholds))


def write_cells(run: Run) -> None:
    """Train the cells."""
    face_ids, vectors, *_ = run.held.gallery
    run.known.cells = find_cells(face_ids, vectors, run.config)
    run.write(schemas.CELLS, cells_frame(run.spark, run.known.cells))


def write_neighbours(run: Run) -> None:
    """Search each face's neighbours. Claim 2."""
    face_ids, vectors, *_ = run.held.gallery
    floor = run.thresholds().floor
    run.held.lists = find_neighbours(face_ids, vectors, run.cells(), floor, run.config.neighbours)
    run.write(schemas.NEIGHBOURS, frame_of(run.spark, schemas.NEIGHBOURS, lists_to_batches(run.held.lists)))


def write_coarse_groups(run: Run) -> Outcome:
    """Span the forest, and cut it into coarse groups. Claims 2, 3."""
    face_ids, vectors, *_ = run.held.gallery
    forest = maximum_spanning_forest(edges_of_lists(run.held.lists))
    edges = to_batches(forest, stage_schema(schemas.FOREST))
    found = cut_groups(face_ids, vectors, forest, run.thresholds().groups, run.config.coarse_groups)
    run.held.coarse = found
    rows = {schemas.FOREST: edges, schemas.COARSE_GROUPS: groups_to_batches(found)}
    _write(run, *((table, frame_of(run.spark, table, batches)) for table, batches in rows.items()))
    sizes = [np.unique(keys, return_counts=True)[1] for keys in found.keys]
    counted = list(zip(found.thresholds.tolist(), sizes, strict=True))
    details = {f"groups at {threshold:.4f}": len(own) for threshold, own in counted}
    details |= {f"largest at {threshold:.4f}": int(own.max()) for threshold, own in counted}
    details["forest rounds"] = 0
    return Outcome(len(face_ids), int(sizes[0].max()), details=details)


def write_confidences(run: Run) -> Outcome:
    """Refine each root group: confidences, and log-odds of its pairs. Claims 1, 4."""
    held, model = run.held, run.model()
    model.check(held.gallery.vectors.shape[1], held.embedding_model, run.config.ingest.attribute_names)
    held.refined = refine_gallery(held.gallery, held.coarse, model, run.config, scale_of(run.thresholds()))
    several = frame_of(run.spark, schemas.REFINEMENTS, [refined_to_batch(held.refined)])
    alone = held.coarse.face_ids[alone_in_root(held.coarse)]
    steps = F.array(*(F.lit(float(step)).cast("float") for step in held.coarse.thresholds))
    keys = frame_of_rows(run.spark, pa.table({c.ROOT_KEY: alone}), _KEYS)
    refined = several.unionByName(alone_refined(keys.select(c.ROOT_KEY, steps.alias(c.THRESHOLDS))))
    _write(run, (schemas.REFINEMENTS, refined), (schemas.CONFIDENCES, confidences(refined)))
    largest = max((len(group.face_ids) for group in held.refined), default=1)
    return Outcome(len(held.refined) + len(alone), largest, unit="groups")


def write_clusters(run: Run) -> Outcome:
    """Cluster the root groups again, play the rounds, and describe the clusters. Claim 1, last step."""
    held, config, model = run.held, run.config, run.model()
    placed = place_faces(held.coarse, held.refined, held.gallery.photos, config.clusters, model.calibration)
    played = _play_rounds(run, placed, model)
    rows = _cluster_rows(held, played.placed)
    _write(
        run,
        (schemas.ROUNDS, frame_of(run.spark, schemas.ROUNDS, _round_rows(played))),
        (schemas.CLUSTERS, frame_of(run.spark, schemas.CLUSTERS, [rows])),
        (schemas.CLUSTER_SUMMARY, _described(run, played.placed, rows)),
    )
    sizes = np.unique(played.placed.labels, return_counts=True)[1]
    details = {
        "clusters": len(sizes),
        "singletons": int((sizes == 1).sum()),
        "faces": int(sizes.sum()),
        "largest": int(sizes.max()),
    }
    return Outcome(details["faces"], details["largest"], details=details)


def _write(run: Run, *rows: tuple[Table, DataFrame]) -> None:
    run.together([partial(run.write, *own) for own in rows])


def _play_rounds(run: Run, placed: Placed, model: Model) -> Played:
    """Let clusters join, where the model and the rule of re-clustering know how."""
    config, gallery = run.config, run.held.gallery
    if model.joiner is None or config.clusters.rule != "correlation":
        return Played(placed, [])
    if config.clusters.same_photo != "apart":
        gallery = gallery._replace(photos=np.full(len(gallery.photos), NO_PHOTO))
    links = neighbour_links(gallery.face_ids, run.held.lists)
    scale = scale_of(run.thresholds())
    return join_clusters(gallery, placed, links, model.joiner, scale, config.rounds, model.alone)


def _cluster_rows(held: Held, placed: Placed) -> pa.RecordBatch:
    """Give rows of CLUSTERS, by ascending face id."""
    coarse, known = held.coarse, placed.runner_ups != NO_CLUSTER
    highest = highest_whole(placed.labels, coarse.keys)  # -1: a round joined faces of several root groups
    columns = {
        c.IMAGE_ID: held.image_ids,
        c.CLUSTER_ID: texts_to_arrow(mint_cluster_ids(placed.labels)),
        c.CONFIDENCE: placed.confidences,
        c.STATUS: texts_to_arrow(placed.statuses),
        c.FACE_ID: coarse.face_ids,
        c.ROOT_KEY: coarse.keys[0],
        c.THRESHOLD: pa.array(coarse.thresholds[highest], mask=highest < 0),
        c.RUNNER_UP: texts_to_arrow(mint_cluster_ids(placed.runner_ups), ~known),
        c.MARGIN: pa.array(placed.margins, mask=~known),
    }
    return pa.RecordBatch.from_pydict(columns, schema=arrow_output(schemas.CLUSTERS))


def _round_rows(played: Played) -> list[pa.RecordBatch]:
    schema = arrow_output(schemas.ROUNDS)
    rows = []
    for number, (hosts, sizes) in enumerate(played.rounds, 1):
        columns = {
            c.ROUND: np.full(len(hosts.visitor), number, np.int32),
            c.VISITOR: hosts.visitor,
            c.HOST: hosts.host,
            c.VISITOR_SIZE: sizes,
            c.LOG_ODDS: hosts.log_odds,
            c.JOINED: hosts.joins,
        }
        rows.append(pa.RecordBatch.from_pydict(columns, schema=schema))
    return rows


def _described(run: Run, placed: Placed, rows: pa.RecordBatch) -> DataFrame:
    """Give rows of CLUSTER_SUMMARY. rows: of CLUSTERS, by ascending face id."""
    _, cluster, sizes = np.unique(placed.labels, return_inverse=True, return_counts=True)
    order = np.argsort(cluster, kind="stable")
    together = order[sizes[cluster[order]] > 1]
    alone = rows.take(pa.array(order[sizes[cluster[order]] == 1]))
    names = (c.CLUSTER_ID, c.IMAGE_ID, c.CONFIDENCE, c.THRESHOLD)

    def describe(members: NDArray[np.int64]) -> list[pa.RecordBatch]:
        own = rows.select(names).take(pa.array(members))
        vectors = vectors_to_arrow(run.held.gallery.vectors[members])
        columns = [*own.columns, vectors, pa.array(sizes[cluster[members]])]
        batch = pa.RecordBatch.from_arrays(columns, names=[*names, c.VECTOR, c.SIZE])
        return list(described_clusters([batch]))

    ends = np.flatnonzero(np.diff(cluster[together])) + 1
    parts = np.split(together, ends[_CLUSTERS_AT_ONCE - 1 :: _CLUSTERS_AT_ONCE])
    described = [batch for part in map_parts(describe, parts) for batch in part]
    return summary_frame(run.spark, described, alone, run.held.coarse.thresholds)
