import numpy as np
import pyarrow as pa
import pytest

from faceclust_spark.config import IngestConfig
from faceclust_spark.errors import ConfigError, DataError
from faceclust_spark.planning.sample import sample_size, usable
from faceclust_spark.planning.source import sample_source


def test_a_sample_is_what_is_asked_for_within_limits():
    assert sample_size(1_000_000, None, None) == 50_000
    assert sample_size(300, None, None) == 300
    assert sample_size(1_000_000, 200, 10**9) == 200
    assert sample_size(1_000_000, None, 400) == 400


@pytest.mark.parametrize(
    ("rows", "asked", "faces", "error", "told"),
    [
        (0, None, None, DataError, "the source holds 0 rows"),
        (100, 200, None, ConfigError, "larger than the gallery of 100"),
        (100_000, 60_000, None, ConfigError, "a plan takes 2 to 50,000"),
        (100, 0, None, ConfigError, "a sample of 0 faces"),
        (100, None, 1, ConfigError, "a plan for 1 faces"),
        (100, 50, 20, ConfigError, "at least the 50 of the sample"),
    ],
)
def test_what_cannot_be_sampled_is_told(rows, asked, faces, error, told):
    with pytest.raises(error, match=told):
        sample_size(rows, asked, faces)


def test_rows_that_ingest_would_refuse_are_left_out():
    good, other = np.arange(1.0, 5.0), np.arange(4.0, 8.0)
    embeddings = [good, other, good[:3], good * np.nan, good * 0, good, other, good[:0]]
    ids = ["a", "b", "c", "d", "e", "a", None, "f"]
    attributes = [np.ones(2), np.empty(0), *[np.ones(2)] * 6]
    kept, vectors, described = usable(ids, embeddings, attributes)
    assert kept == ["a", "b"]
    assert np.array_equal(vectors, [good, other])
    assert np.array_equal(described, [[1, 1], [np.nan, np.nan]], equal_nan=True)
    with pytest.raises(DataError, match="1 of 1 sampled rows"):
        usable(ids[:1], embeddings[:1], attributes[:1])


@pytest.fixture
def source(spark, tmp_path):
    generator = np.random.default_rng(0)
    rows = pa.table(
        {
            "image_id": [f"image {number}" for number in range(600)],
            "embedding": [row.tolist() for row in generator.normal(size=(600, 4))],
            "attributes": [None if number % 5 == 0 else [1.0, None] for number in range(600)],
        }
    )
    frame = spark.createDataFrame(rows)
    frame.write.parquet(str(tmp_path / "one"))
    frame.repartition(5, "image_id").write.parquet(str(tmp_path / "other"))
    return rows, [str(tmp_path / "one"), str(tmp_path / "other")]


def test_the_sample_depends_on_the_images_only(spark, source):
    rows, places = source
    one, other = (sample_source(spark, place, IngestConfig(), 100, None) for place in places)
    assert (one.rows, len(one.image_ids)) == (600, 100)
    assert one.image_ids == other.image_ids
    assert np.array_equal(one.embeddings, other.embeddings)
    at = {image_id: number for number, image_id in enumerate(rows["image_id"].to_pylist())}
    numbers = [at[image_id] for image_id in one.image_ids]
    assert np.array_equal(one.embeddings, np.array(rows["embedding"].to_pylist())[numbers])
    assert np.array_equal(np.isnan(one.attributes[:, 0]), np.array(numbers) % 5 == 0)
    assert np.isnan(one.attributes[:, 1]).all()
    whole = sample_source(spark, places[0], IngestConfig(), None, None)
    assert set(whole.image_ids) == set(at)
    assert whole.image_ids[:100] == one.image_ids
