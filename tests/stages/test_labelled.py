import logging

import numpy as np
import pytest

from faceclust_spark.config import load_config
from faceclust_spark.errors import DataError
from faceclust_spark.kernels.faces import prepare_faces
from faceclust_spark.kernels.grid import normalise
from faceclust_spark.stages.labelled import labelled_galleries, labelled_gallery
from faceclust_spark.training.loop import train

SCHEMA = (
    "image_id string, embedding array<float>, attributes array<float>, label string, embedding_model string"
)
PEOPLE, IMAGES, WIDTH = 12, 4, 16


def make_rows(seed=0, label="person-%02d", model="m1", width=WIDTH):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), IMAGES)
    centres = normalise(generator.normal(size=(PEOPLE, width)))
    raw = 5 * (centres[person] + 0.5 * normalise(generator.normal(size=(len(person), width))))
    attributes = generator.normal(3, 2, (len(person), 2)).astype(np.float32)
    return [
        (f"image-{row:03d}", vector, own, label % number if label else None, model)
        for row, (vector, own, number) in enumerate(
            zip(raw.tolist(), attributes.tolist(), person.tolist(), strict=True)
        )
    ]


@pytest.fixture
def stored(spark, tmp_path):
    def store(rows, parts=1, name="gallery"):
        path = str(tmp_path / name)
        spark.createDataFrame(rows, SCHEMA).repartition(parts).write.mode("overwrite").parquet(path)
        return path

    return store


def test_the_gallery_is_that_of_the_same_arrays_in_memory_whatever_the_partitions(spark, stored):
    rows = make_rows()
    found = labelled_gallery(spark, stored(rows), load_config())
    columns = list(zip(*rows, strict=True))
    embeddings, attributes = np.array(columns[1], np.float32), np.array(columns[2], np.float32)
    expected = prepare_faces(embeddings, attributes, columns[0])
    order = np.argsort(expected.face_ids)
    assert found.gallery.vectors.dtype == found.gallery.attributes.dtype == np.float32
    np.testing.assert_allclose(found.gallery.vectors, normalise(embeddings)[order], atol=3e-4)
    np.testing.assert_allclose(np.linalg.norm(found.gallery.vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found.gallery.attributes, expected.attributes[order])
    np.testing.assert_array_equal(found.gallery.norms, expected.norms[order])
    people = np.unique(np.array(columns[3])[order], return_inverse=True)[1]
    np.testing.assert_array_equal(found.gallery.labels, people)
    assert found.description == {
        "source": "gallery",
        "embedding_model": "m1",
        "rows": PEOPLE * IMAGES,
        "faces": PEOPLE * IMAGES,
        "people": PEOPLE,
        "left_out": {},
    }
    other = labelled_gallery(spark, stored(rows[::-1], parts=5), load_config()).gallery
    for this, that in zip(found.gallery, other, strict=True):
        np.testing.assert_array_equal(this, that)


def test_rows_that_cannot_be_used_are_counted_and_left_out(spark, stored, caplog):
    rows = make_rows()
    rows[0] = (*rows[0][:3], None, "m1")
    rows[1] = (*rows[1][:3], "", "m1")
    rows[2] = (rows[2][0], None, *rows[2][2:])
    rows[3] = (*rows[3][:4], "another")
    rows.append(rows[-1])
    with caplog.at_level(logging.INFO, logger="faceclust_spark"):
        found = labelled_gallery(spark, stored(rows), load_config())
    assert found.description["left_out"] == {
        "null_embedding": 1,
        "mixed_embedding_model": 1,
        "duplicate": 1,
        "no_label": 2,
    }
    assert found.description["faces"] == len(found.gallery.labels) == PEOPLE * IMAGES - 4
    assert "no_label 2" in caplog.text


def test_too_large_a_gallery_is_cut_to_whole_people(spark, stored):
    source = stored([(*row[:2], None, *row[3:]) for row in make_rows()])
    found = labelled_gallery(spark, source, load_config(None, ["train.max_faces=22"]))
    sizes = np.bincount(found.gallery.labels)
    assert sizes.tolist() == [IMAGES] * 5
    assert found.gallery.attributes.shape == (20, 0)
    assert found.description["left_out"] == {"beyond_max_faces": PEOPLE * IMAGES - 20}
    with pytest.raises(DataError, match=r"leaves no identity of .* 48 labelled faces: raise it"):
        labelled_gallery(spark, source, load_config(None, ["train.max_faces=3"]))


def test_a_gallery_without_labels_is_refused(spark, stored):
    path = stored(make_rows(label=None))
    spark.read.parquet(path).drop("label").write.parquet(path + "-bare")
    with pytest.raises(DataError, match=r"48 rows read.*ingest\.columns\.label=COLUMN"):
        labelled_gallery(spark, path + "-bare", load_config())


def test_a_bound_model_is_trained_from_its_source(spark, stored):
    few = ["train.steps=4", "train.half_steps=4", "train.join_steps=4", "train.draws=1", "train.hidden=8"]
    config = load_config(None, [*few, "train.kind=bound"])
    galleries, description = labelled_galleries(spark, [stored(make_rows())], config)
    card = train(galleries, config, description).model.card
    assert card["embedding"] == {"width": WIDTH, "model": "m1"}
    assert card["data"]["sources"][0]["people"] == card["data"]["galleries"][0]["people"] == PEOPLE


def test_sources_of_two_embedding_models_do_not_make_a_bound_model(spark, stored):
    sources = [stored(make_rows(), name="one"), stored(make_rows(model="m2"), name="two")]
    with pytest.raises(DataError, match="m1, m2"):
        labelled_galleries(spark, sources, load_config(None, ["train.kind=bound"]))
