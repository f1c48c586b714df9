from __future__ import annotations

import numpy as np
import pytest

from faceclust_spark.arrow import attributes_from_arrow
from faceclust_spark.config import ColumnsConfig, SynthConfig
from faceclust_spark.kernels.synth import count_blocks, draw_gallery
from faceclust_spark.stages import synth
from faceclust_spark.stages.synth import SYNTHETIC_GALLERY, synthetic_gallery
from faceclust_spark.tables import columns as c

CONFIG = SynthConfig(faces=25_003, dimension=12, attributes=4, missing_attribute_share=0.1, seed=5)
ARROW_BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


def assert_equals_the_kernel(rows, config: SynthConfig) -> None:
    table = rows.toArrow().sort_by(c.IMAGE_ID)
    expected = draw_gallery(config)
    assert table.num_rows == config.faces
    assert table[c.IMAGE_ID].to_pylist() == expected.image_ids.tolist()
    values = table[c.EMBEDDING].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(values.reshape(config.faces, -1), expected.embeddings)
    np.testing.assert_array_equal(attributes_from_arrow(table[c.ATTRIBUTES]), expected.attributes)
    np.testing.assert_array_equal(table[c.QUALITY].to_numpy(), expected.quality)
    assert table[c.PHOTO_ID].to_pylist() == expected.photo_ids.tolist()
    assert table[c.QUALITY_BAND].to_pylist() == expected.quality_bands.tolist()
    assert table[c.LABEL].to_pylist() == expected.labels.tolist()
    assert set(table[c.EMBEDDING_MODEL].to_pylist()) == {f"synthetic-{config.dimension}"}


def test_columns_are_those_that_ingest_looks_for(spark) -> None:
    rows = synthetic_gallery(spark, SynthConfig(faces=10))
    assert rows.schema == SYNTHETIC_GALLERY
    assert set(ColumnsConfig().model_dump().values()) == {*rows.columns} - {c.QUALITY_BAND}
    assert rows.count() == 10


def test_spark_equals_the_kernel(spark) -> None:
    assert_equals_the_kernel(synthetic_gallery(spark, CONFIG), CONFIG)


@pytest.mark.parametrize(("tasks", "ids_per_batch", "bytes_per_batch"), [(1, 2, 10_000), (2, 1, 1 << 30)])
def test_rows_do_not_depend_on_tasks_and_batches(
    spark, monkeypatch, tasks: int, ids_per_batch: int, bytes_per_batch: int
) -> None:
    monkeypatch.setattr(synth, "FEWEST_TASKS", tasks)
    monkeypatch.setattr(synth, "BATCH_BYTES", bytes_per_batch)
    usual = spark.conf.get(ARROW_BATCH)
    spark.conf.set(ARROW_BATCH, ids_per_batch)
    try:
        assert count_blocks(CONFIG) == 3
        assert_equals_the_kernel(synthetic_gallery(spark, CONFIG), CONFIG)
    finally:
        spark.conf.set(ARROW_BATCH, usual)


def test_missing_attributes_are_null_elements(spark) -> None:
    config = SynthConfig(faces=2_000, dimension=8, missing_attribute_share=0.25)
    values = synthetic_gallery(spark, config).toArrow()[c.ATTRIBUTES].combine_chunks().flatten()
    assert len(values) == 2_000 * config.attributes
    assert values.null_count / len(values) == pytest.approx(0.25, abs=0.01)
    assert np.isfinite(values.drop_null().to_numpy()).all()


def test_without_attributes_the_column_is_null(spark) -> None:
    rows = synthetic_gallery(spark, SynthConfig(faces=40, attributes=0))
    assert rows.toArrow()[c.ATTRIBUTES].null_count == 40
