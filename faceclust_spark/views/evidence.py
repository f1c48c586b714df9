"""`faceclust explain IMAGE IMAGE`: reads what bears on two faces, and nothing else, from the tables."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as F

from faceclust_spark.arrow import attributes_from_arrow, vectors_from_arrow
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.links import log_odds_between, log_odds_of_face
from faceclust_spark.kernels.refined import RefinedGroup
from faceclust_spark.kernels.similarities import attribute_similarities, face_similarities, fuse
from faceclust_spark.stages.confidences import read_refinements
from faceclust_spark.stages.paths import edges_inside, strongest_path
from faceclust_spark.tables import columns as c
from faceclust_spark.tables import schemas
from faceclust_spark.views.explanation import (
    Compared,
    ExplainedFace,
    Explanation,
    GroupsAt,
    Link,
    Meeting,
    Similarity,
    Step,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

    from faceclust_spark.config import Config, SimilaritiesConfig
    from faceclust_spark.tables.storage import TableStore

Row = dict[str, Any]


def explain(store: TableStore, image_a: str, image_b: str, config: Config) -> Explanation:
    """Say why two images are, or are not, in one cluster.

    Reads the rows of the two faces, their root groups and their clusters. The strongest path is looked
    for inside a common root group, else in the whole forest, by one task on an executor.

    Raises DataError for an image that is not in the gallery, was quarantined or is not clustered yet.
    """
    ids = _find_faces(store, (image_a, image_b))
    members = _read_members(store, ids)
    row_of = {row[c.FACE_ID]: row for row in members}
    own = (row_of[ids[0]], row_of[ids[1]])
    refined = _read_refined(store, {row[c.ROOT_KEY] for row in own})
    ranked = _rank_neighbours(store, ids)
    a, b = (_describe_face(row, members, refined, rank) for row, rank in zip(own, ranked, strict=True))
    return Explanation(
        a=a,
        b=b,
        similarity=_compare_features(store, ids, config.similarities),
        path=_find_path(store, ids, own[0][c.ROOT_KEY] == own[1][c.ROOT_KEY]),
        groups=_compare_groups(store, ids, refined),
        compared=_compare_refined(store, own, members, refined, config),
        meetings=_find_meetings(store, own, members),
        least_log_odds=config.rounds.least_log_odds,
    )


def _rows(frame: DataFrame) -> list[Row]:
    """Collect a frame that its caller has bounded."""
    rows: list[Row] = frame.toArrow().to_pylist()
    return rows


def _find_faces(store: TableStore, images: Sequence[str]) -> list[int]:
    """Give the face ids of the images. Raises DataError that says what is known of missing ones."""
    if images[0] == images[1]:
        raise DataError(f"{images[0]!r} was given twice: name two different images")
    faces = store.read(schemas.FACES).where(F.col(c.IMAGE_ID).isin(*images))
    found = {row[c.IMAGE_ID]: row[c.FACE_ID] for row in _rows(faces.select(c.IMAGE_ID, c.FACE_ID))}
    missing = [image for image in images if image not in found]
    if missing:
        raise DataError("\n".join(_describe_missing(store, missing)))
    return [found[image] for image in images]


def _describe_missing(store: TableStore, images: Sequence[str]) -> list[str]:
    reasons: dict[str, str] = {}
    if store.exists(schemas.QUARANTINE):
        refused = store.read(schemas.QUARANTINE).where(F.col(c.IMAGE_ID).isin(*images))
        for row in _rows(refused.select(c.IMAGE_ID, c.REASON, c.DETAIL).distinct()):
            reasons[row[c.IMAGE_ID]] = f"{row[c.REASON]}: {row[c.DETAIL]}"
    return [
        f"the image {image!r} is not clustered, because ingest put it into quarantine ({reasons[image]})"
        if image in reasons
        else f"there is no image {image!r} in these tables: check the image_id, and --tables"
        for image in images
    ]


def _read_members(store: TableStore, ids: Sequence[int]) -> list[Row]:
    """Read the rows of `clusters` of both faces and of all that share a cluster with either."""
    clusters = store.read(schemas.CLUSTERS).drop(c.RUN_ID)
    own = _rows(clusters.where(F.col(c.FACE_ID).isin(*ids)))
    if len(own) < len(ids):
        raise DataError(
            "an image has been ingested but not clustered yet: run `faceclust run` on these tables"
        )
    cluster_ids = {row[c.CLUSTER_ID] for row in own}
    return _rows(clusters.where(F.col(c.CLUSTER_ID).isin(*cluster_ids)).orderBy(c.FACE_ID))


def _read_refined(store: TableStore, root_keys: set[int]) -> dict[int, RefinedGroup]:
    """Read the refined root groups, one or two rows, by their keys."""
    rows = store.read(schemas.REFINEMENTS).where(F.col(c.ROOT_KEY).isin(*root_keys)).toArrow()
    return {group.root_key: group for batch in rows.to_batches() for group in read_refinements(batch)}


def _compare_groups(
    store: TableStore, ids: Sequence[int], refined: dict[int, RefinedGroup]
) -> tuple[GroupsAt, ...]:
    """Give both faces' coarse groups at each threshold, lowest first."""
    coarse = store.read(schemas.COARSE_GROUPS).where(F.col(c.FACE_ID).isin(*ids))
    level = {(row[c.FACE_ID], row[c.THRESHOLD]): row[c.LEVEL] for row in _rows(coarse)}
    group_of = {face: group for group in refined.values() for face in ids if face in group.face_ids}
    thresholds = group_of[ids[0]].thresholds
    places = [int(np.searchsorted(group_of[face].face_ids, face)) for face in ids]
    compared = []
    for at, threshold in enumerate(thresholds.tolist()):
        keys = [group_of[face].keys[at] for face in ids]
        sure = [group_of[face].refinement.confidences[at] for face in ids]
        compared.append(
            GroupsAt(
                threshold=threshold,
                same_group=bool(keys[0][places[0]] == keys[1][places[1]]),
                size_a=int((keys[0] == keys[0][places[0]]).sum()),
                size_b=int((keys[1] == keys[1][places[1]]).sum()),
                level_a=level[ids[0], threshold],
                level_b=level[ids[1], threshold],
                confidence_a=float(sure[0][places[0]]),
                confidence_b=float(sure[1][places[1]]),
            )
        )
    return tuple(compared)


def _rank_neighbours(store: TableStore, ids: Sequence[int]) -> list[tuple[int, int | None]]:
    """Give, for each of the two, its number of neighbours and the other's rank among them."""
    rows = store.read(schemas.NEIGHBOURS).where(F.col(c.FACE_ID).isin(*ids))
    lists = {row[c.FACE_ID]: row[c.NEIGHBOURS] for row in _rows(rows)}
    ranked: list[tuple[int, int | None]] = []
    for face, other in (ids, reversed(ids)):
        near = lists.get(face, [])
        ranked.append((len(near), near.index(other) + 1 if other in near else None))
    return ranked


def _describe_face(
    row: Row, members: list[Row], refined: dict[int, RefinedGroup], ranked: tuple[int, int | None]
) -> ExplainedFace:
    return ExplainedFace(
        image_id=row[c.IMAGE_ID],
        cluster_id=row[c.CLUSTER_ID],
        cluster_size=sum(other[c.CLUSTER_ID] == row[c.CLUSTER_ID] for other in members),
        status=row[c.STATUS],
        confidence=row[c.CONFIDENCE],
        runner_up=row[c.RUNNER_UP],
        margin=row[c.MARGIN],
        root_group_size=len(refined[row[c.ROOT_KEY]].face_ids),
        neighbours=ranked[0],
        rank=ranked[1],
    )


def _compare_features(store: TableStore, ids: Sequence[int], config: SimilaritiesConfig) -> Similarity:
    """Compare face features and attributes of the two, as they are stored."""
    rows = store.read(schemas.VECTORS).where(F.col(c.FACE_ID).isin(*ids)).toArrow()
    face = face_similarities(vectors_from_arrow(rows[c.VECTOR]))
    attributes = attributes_from_arrow(rows[c.ATTRIBUTES])
    known = attributes.shape[1] > 0
    attribute = attribute_similarities(attributes) if known else None
    fused = fuse(face, attribute, config)
    of_attributes = None if attribute is None else float(attribute[0, 1])
    return Similarity(float(face[0, 1]), of_attributes, float(fused[0, 1]))


def _find_path(store: TableStore, ids: Sequence[int], same_root: bool) -> tuple[Step, ...]:
    """Find the strongest path, first among the members of a common root group."""
    forest = store.read(schemas.FOREST)
    rows: list[Row] = []
    if same_root:
        inside = edges_inside(forest, store.read(schemas.COARSE_GROUPS), ids[0])
        rows = _rows(strongest_path(inside, ids[0], ids[1]))
    rows = rows or _rows(strongest_path(forest, ids[0], ids[1]))
    passed = [ids[0]]
    for row in rows:  # in walking order, but each edge names its smaller face first
        passed.append(row[c.FACE_B] if row[c.FACE_A] == passed[-1] else row[c.FACE_A])
    faces = store.read(schemas.FACES).where(F.col(c.FACE_ID).isin(*passed))
    image = {row[c.FACE_ID]: row[c.IMAGE_ID] for row in _rows(faces.select(c.FACE_ID, c.IMAGE_ID))}
    ends = itertools.pairwise(image[face] for face in passed)
    return tuple(Step(a, b, row[c.COSINE]) for (a, b), row in zip(ends, rows, strict=True))


def _compare_refined(
    store: TableStore,
    own: tuple[Row, Row],
    members: list[Row],
    refined: dict[int, RefinedGroup],
    config: Config,
) -> Compared:
    """Find the refined pairs that bore on the two; none where their root groups differ."""
    first, second = own
    if first[c.ROOT_KEY] != second[c.ROOT_KEY]:
        return Compared()
    group = refined[first[c.ROOT_KEY]]
    pairs, size = group.refinement.pairs, len(group.face_ids)
    place = {face: row for row, face in enumerate(group.face_ids.tolist())}
    inside = [row for row in members if row[c.FACE_ID] in place]
    links: dict[frozenset[str], Link] = {}
    for face, other in (own, reversed(own)):
        odds = log_odds_of_face(pairs, size, place[face[c.FACE_ID]])
        for row in inside:
            value = odds[place[row[c.FACE_ID]]]
            if row[c.CLUSTER_ID] == other[c.CLUSTER_ID] and not np.isnan(value):
                link = Link(face[c.IMAGE_ID], row[c.IMAGE_ID], float(value))
                links.setdefault(frozenset((link.image_a, link.image_b)), link)
    direct = links.get(frozenset((first[c.IMAGE_ID], second[c.IMAGE_ID])))
    ranked = tuple(sorted(links.values(), key=lambda k: (-k.log_odds, k.image_a, k.image_b)))
    log_odds = None if direct is None else direct.log_odds
    if first[c.CLUSTER_ID] == second[c.CLUSTER_ID]:
        return Compared(True, log_odds, ranked, bias=config.clusters.bias)
    sides = [
        np.array([place[r[c.FACE_ID]] for r in inside if r[c.CLUSTER_ID] == row[c.CLUSTER_ID]]) for row in own
    ]
    between = log_odds_between(pairs, size, sides[0], sides[1])
    apart = config.clusters.same_photo == "apart"
    shared = _count_shared_photos(store, own) if apart else 0
    return Compared(True, log_odds, ranked, between.pairs, between.log_odds, config.clusters.bias, shared)


def _find_meetings(store: TableStore, own: tuple[Row, Row], members: list[Row]) -> tuple[Meeting, ...]:
    """Find the joins that the two's cluster was made by; where they have two, what compared these."""
    if not store.exists(schemas.ROUNDS):
        return ()
    by_id = {row[c.FACE_ID]: row for row in members}
    ends = [F.col(end).isin(*by_id) for end in (c.VISITOR, c.HOST)]
    together = own[0][c.CLUSTER_ID] == own[1][c.CLUSTER_ID]
    rows = _rows(store.read(schemas.ROUNDS).where(ends[0] & ends[1] & (F.col(c.JOINED) == F.lit(together))))
    found = []
    for row in sorted(rows, key=lambda row: (row[c.ROUND], row[c.VISITOR])):
        visitor, host = by_id[row[c.VISITOR]], by_id[row[c.HOST]]
        if together or visitor[c.CLUSTER_ID] != host[c.CLUSTER_ID]:
            images, size = (visitor[c.IMAGE_ID], host[c.IMAGE_ID]), row[c.VISITOR_SIZE]
            found.append(Meeting(row[c.ROUND], images[0], size, images[1], row[c.LOG_ODDS], row[c.JOINED]))
    return tuple(found)


def _count_shared_photos(store: TableStore, own: tuple[Row, Row]) -> int:
    """Count the photos that show a face of either cluster."""
    members = store.read(schemas.CLUSTERS).where(
        F.col(c.CLUSTER_ID).isin(*(row[c.CLUSTER_ID] for row in own))
    )
    faces = store.read(schemas.FACES).where(F.col(c.PHOTO_ID).isNotNull())
    return (
        faces.join(members.select(c.FACE_ID, c.CLUSTER_ID), c.FACE_ID)
        .groupBy(c.PHOTO_ID)
        .agg(F.count_distinct(c.CLUSTER_ID).alias(c.SIZE))
        .where(F.col(c.SIZE) > 1)
        .count()
    )
