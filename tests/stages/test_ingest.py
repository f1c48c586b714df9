import json
import uuid

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from faceclust_spark.config import IngestConfig
from faceclust_spark.errors import DataError, QuarantineError
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.ids import hash_image_ids, sample_rows
from faceclust_spark.stages.attribute_statistics import check_attribute_names
from faceclust_spark.stages.ingest import (
    Gallery,
    IngestCounts,
    check_quarantined_share,
    expected_of,
    ingested,
)
from faceclust_spark.stages.output import arrow_output, stage_schema
from faceclust_spark.stages.vectors import sample_faces, sample_vectors
from faceclust_spark.tables import schemas

SOURCE = (
    "image_id string, embedding array<float>, attributes array<float>, photo_id string, "
    "quality float, label string, embedding_model string, extra map<string,string>"
)
STORED = schemas.FACES, schemas.VECTORS, schemas.ATTRIBUTE_STATISTICS
NAN = float("nan")


def row(image_id, embedding, attributes=None, label=None, model="m", extra=None):
    return (image_id, embedding, attributes, None, None, label, model, extra)


class Tables:
    """Tables in memory, merged into as the pipeline does: by key, where the content differs."""

    def __init__(self, spark, folder):
        self.spark, self.folder = spark, folder
        self.rows = {table.name: {} for table in schemas.ALL_TABLES}

    def read(self, table):
        schema = stage_schema(table)
        rows = pa.Table.from_pylist(list(self.rows[table.name].values()), arrow_output(table))
        return self.spark.createDataFrame(rows, schema)

    def materialise(self, rows, name):
        path = str(self.folder / f"{name}-{uuid.uuid4()}")
        rows.write.parquet(path)
        return self.spark.read.parquet(path)

    def merge(self, table, rows):
        assert rows.columns == stage_schema(table).names
        keys = table.keys or ("version", "position")
        stored = self.rows[table.name]
        found = rows.toArrow().to_pylist()
        by_key = {tuple(row[key] for key in keys): row for row in found}
        assert len(by_key) == len(found)
        changed = {
            key: row
            for key, row in by_key.items()
            if key not in stored or stored[key]["content_hash"] != row["content_hash"]
        }
        stored.update(changed)

    def ingest(self, source, config=None, **settings):
        if isinstance(source, list):
            source = self.spark.createDataFrame(source, SOURCE)
        gallery = Gallery(*(self.read(table) for table in STORED))
        result = ingested(source, "s", gallery, config or IngestConfig(), self.materialise, **settings)
        if result.statistics is not None:
            self.merge(schemas.ATTRIBUTE_STATISTICS, result.statistics)
        self.merge(schemas.QUARANTINE, result.quarantine)
        self.merge(schemas.VECTORS, result.vectors)
        self.merge(schemas.FACES, result.faces)
        return result.counts

    def content(self, table):
        return sorted(self.rows[table.name].values(), key=lambda row: json.dumps(row, default=str))


@pytest.fixture
def tables(spark, tmp_path):
    return Tables(spark, tmp_path)


def vector_of(embedding):
    return prepare_faces(np.array([embedding], dtype=np.float32)).vectors.tobytes()


BAD_ROWS = [
    (row(None, [1.0, 2.0]), "null_id", "null or empty"),
    (row("", [1.0, 2.0]), "null_id", "null or empty"),
    (row("none", None), "null_embedding", "null or empty"),
    (row("empty", []), "null_embedding", "null or empty"),
    (row("wide", [1.0, 2.0, 3.0]), "wrong_width", "3 components, the gallery has 2"),
    (row("wide nan", [1.0, 2.0, NAN]), "wrong_width", "3 components, the gallery has 2"),
    (row("nan", [1.0, NAN]), "not_finite", "1 of 2 components"),
    (row("null inside", [1.0, None]), "not_finite", "1 of 2 components"),
    (row("infinite", [float("inf"), 1.0]), "not_finite", "1 of 2 components"),
    (row("zero", [0.0, 0.0]), "zero_norm", "every component"),
    (row("model", [1.0, 2.0], model="x"), "mixed_embedding_model", "x, the gallery's is m"),
    (row("no model", [1.0, 2.0], model=None), "mixed_embedding_model", "not stated"),
    (row("attributes", [1.0, 2.0], [1.0]), "wrong_attribute_width", "1 attributes"),
    (row("twice", [1.0, 2.0], [1.0, 2.0]), "conflicting_rows", "differ"),
    (row("twice", [1.0, 2.5], [1.0, 2.0]), "conflicting_rows", "differ"),
    (row("label", [1.0, 2.0], label="p"), "conflicting_rows", "differ"),
    (row("label", [1.0, 2.0], label="q"), "conflicting_rows", "differ"),
]
GOOD_ROWS = [
    row("a", [3.0, 4.0], [1.0, 5.0], label="p", extra={"source": "wild"}),
    row("b", [1.0, -1.0], [3.0, 5.0]),
    row("c", [-2.0, 1.0], [NAN, None]),
    row("d", [1.0, 0.0]),
    row("e", [1.0, 7.0], []),
    row("e", [1.0, 7.0], []),
]


def test_every_kind_of_bad_row_goes_to_quarantine(tables):
    batch = [*(bad for bad, _, _ in BAD_ROWS), *GOOD_ROWS]
    repeated = [row(None, [5.0, 6.0])] * 3
    counts = tables.ingest([*batch, *repeated])
    assert counts.read == len(batch) + 3
    assert (counts.new, counts.accepted, counts.duplicates) == (5, 5, 1)
    found = tables.content(schemas.QUARANTINE)
    assert len(found) == sum(counts.quarantined.values()) == len(BAD_ROWS) + 3
    for bad, reason, detail in BAD_ROWS:
        stored = [r for r in found if r["image_id"] == bad[0] and r["reason"] == reason]
        assert stored and all(detail in r["detail"] for r in stored), bad
    told = next(r for r in found if r["image_id"] == "nan")
    assert json.loads(told["row"])["embedding"] == [1.0, "NaN"]
    faces = {r["image_id"]: r for r in tables.content(schemas.FACES)}
    assert sorted(faces) == ["a", "b", "c", "d", "e"]
    assert faces["a"]["label"] == "p" and faces["a"]["extra"] == [("source", "wild")]
    vectors = {r["face_id"]: r for r in tables.content(schemas.VECTORS)}
    ids = dict(zip("abcde", hash_image_ids("abcde").tolist(), strict=True))
    assert {name: faces[name]["face_id"] for name in faces} == ids
    assert vectors[ids["a"]]["vector"] == vector_of([3.0, 4.0])
    assert vectors[ids["a"]]["attributes"] == [-1.0, 0.0]
    for name in "cde":
        assert vectors[ids[name]]["attributes"] == [None, None]

    # The same batch once more changes nothing.
    all_tables = *STORED, schemas.QUARANTINE
    before = [tables.content(table) for table in all_tables]
    assert counts.examples["null_id"].startswith("a row without id: ")
    again = tables.ingest(list(reversed([*batch, *repeated])))
    assert (again.unchanged, again.new, again.replaced) == (5, 0, 0)
    assert again.quarantined == counts.quarantined
    assert [tables.content(table) for table in all_tables] == before


def test_a_later_batch_replaces_faces_and_keeps_width_model_and_statistics(tables):
    tables.ingest([row("a", [3.0, 4.0], [1.0]), row("b", [4.0, 3.0], [3.0])])
    later = [
        row("a", [0.0, 2.0], [5.0]),
        row("b", [4.0, 3.0], [3.0]),
        *(row(f"w{i}", [1.0, 2.0, 3.0], [1.0]) for i in range(5)),
        *(row(f"x{i}", [1.0, 2.0], [1.0], model="x") for i in range(5)),
        row("c", [1.0, 1.0], [1.0, 2.0]),
        row("d", [1.0, 1.0], [None]),
    ]
    counts = tables.ingest(later)
    assert (counts.new, counts.replaced, counts.unchanged) == (1, 1, 1)
    assert counts.quarantined == {
        "mixed_embedding_model": 5,
        "wrong_width": 5,
        "wrong_attribute_width": 1,
    }
    vectors = {r["face_id"]: r for r in tables.content(schemas.VECTORS)}
    replaced = vectors[hash_image_ids(["a"]).item()]
    assert replaced["vector"] == vector_of([0.0, 1.0])
    assert replaced["attributes"] == [3.0]
    assert len(vectors) == len(tables.content(schemas.FACES)) == 3


def test_collisions_go_to_quarantine_and_the_stored_face_stays(tables):
    names = [f"image {i:03d}" for i in range(60)]
    ids = dict(zip(names, hash_image_ids(names, bits=5).tolist(), strict=True))
    counts = tables.ingest([row(n, [1.0, 2.0]) for n in reversed(names[30:])], id_bits=5)
    owners = {}
    for name in [*names[30:], *names[:30]]:
        owners.setdefault(ids[name], name)
    kept = {owner for owner in owners.values() if owner >= names[30]}
    assert {r["image_id"] for r in tables.content(schemas.FACES)} == kept
    assert counts.quarantined == {"face_id_collision": 30 - len(kept)}

    counts = tables.ingest([row(n, [1.0, 2.0]) for n in names], id_bits=5)
    assert counts.unchanged == len(kept)
    assert {r["image_id"] for r in tables.content(schemas.FACES)} == set(owners.values())
    told = [r for r in tables.content(schemas.QUARANTINE) if r["image_id"] == names[29]]
    if owners[ids[names[29]]] != names[29]:
        assert told[0]["detail"].endswith(owners[ids[names[29]]])


def test_the_first_batch_votes_and_the_smaller_wins_a_tie(tables):
    rows = [(w, m, 4, None) for w in (3, 2) for m in ("x", "m") for _ in "12"]
    rows += [(2, "m", 5, "zero_norm"), (9, None, 7, None), (2, "m", 0, None), (3, "x", 5, None)]
    schema = "width int, embedding_model string, attribute_width int, reason string"
    checked = tables.spark.createDataFrame(rows, schema)
    gallery = Gallery(*(tables.read(table) for table in STORED))
    tied = checked.where("attribute_width > 0 AND (width != 3 OR attribute_width != 5)")
    assert expected_of(tied, gallery, 0) == (2, "m", 4)
    assert expected_of(checked.where("width > 2"), gallery, 0) == (3, "x", 4)
    assert expected_of(checked.where("reason IS NOT NULL"), gallery, 0) == (None, None, 0)


def big_gallery(spark, faces=3_000, partitions=1):
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((faces, 24)).astype(np.float32)
    attributes = rng.lognormal(size=(faces, 5)).astype(np.float32)
    attributes[rng.random(attributes.shape) < 0.1] = np.nan
    ids = [f"image {i}" for i in range(faces)]
    order = rng.permutation(faces) if partitions > 1 else range(faces)
    rows = [row(ids[i], embeddings[i].tolist(), attributes[i].tolist()) for i in order]
    return ids, embeddings, attributes, spark.createDataFrame(rows, SOURCE).repartition(partitions)


def test_ingest_equals_the_in_process_door_for_any_partitioning(spark, tmp_path):
    config = IngestConfig(statistics_sample=700, attribute_names=tuple("abcde"))
    content = []
    for partitions in (1, 7):
        ids, embeddings, attributes, source = big_gallery(spark, partitions=partitions)
        tables = Tables(spark, tmp_path / str(partitions))
        tables.ingest(source, config)
        content.append([tables.content(t) for t in (schemas.FACES, schemas.VECTORS)])
        content[-1].append(tables.content(schemas.ATTRIBUTE_STATISTICS))
    assert content[0] == content[1]
    assert [r["name"] for r in content[0][2]] == list("abcde")
    expected = prepare_faces(embeddings, attributes, ids, statistics_sample=700)
    stored = {r["face_id"]: r for r in content[0][1]}
    for face_id, vector, scores, norm in zip(*expected, strict=True):
        assert stored[face_id]["vector"] == vector.tobytes()
        assert np.float32(stored[face_id]["norm"]) == norm
        np.testing.assert_array_equal(np.array(stored[face_id]["attributes"], np.float32), scores)

    vectors = tables.read(schemas.VECTORS)
    sample_ids, sample = sample_vectors(vectors.repartition(5), 100, "cells", None)
    chosen = sample_rows(expected.face_ids, 100, "cells")
    np.testing.assert_array_equal(sample_ids, expected.face_ids[chosen])
    np.testing.assert_array_equal(sample, expected.vectors[chosen])
    for name, values in sample_faces(vectors.repartition(5), 100, "cells", None)._asdict().items():
        np.testing.assert_array_equal(values, getattr(expected, name)[chosen])


def test_a_gallery_without_attributes_works(tables):
    counts = tables.ingest([row("a", [1.0, 2.0]), row("b", [1.0, 2.0], [])])
    assert counts.accepted == 2
    assert tables.read(schemas.ATTRIBUTE_STATISTICS).count() == 0
    assert tables.read(schemas.VECTORS).where(F.col("attributes").isNotNull()).count() == 0


def test_too_many_bad_rows_stop_the_run_with_reasons():
    examples = {"zero_norm": "'b': every component is 0", "null_id": "a row without id: empty"}
    counts = IngestCounts(3, 1, 0, 0, 0, {"null_id": 1, "zero_norm": 1}, examples)
    check_quarantined_share(counts, IngestConfig(max_quarantined_share=0.7))
    with pytest.raises(QuarantineError) as error:
        check_quarantined_share(counts, IngestConfig())
    message = str(error.value)
    assert "2 of 3 rows (66.7%)" in message
    assert "zero_norm: 1 rows, such as 'b': every component is 0" in message
    assert "--set ingest.max_quarantined_share=" in message
    with pytest.raises(DataError, match="holds no row"):
        check_quarantined_share(IngestCounts(0, 0, 0, 0, 0, {}, {}), IngestConfig())


def test_attribute_names_must_be_as_many_as_attributes():
    names = IngestConfig(attribute_names=("age",))
    check_attribute_names(1, names)
    with pytest.raises(DataError, match="1 names, the faces have 2 attributes"):
        check_attribute_names(2, names)
