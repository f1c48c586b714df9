"""The ledger: what is written of a stage, and what it lets a resumed run skip."""

import contextlib
import json
import logging

import pytest

from faceclust_spark.config import load_config
from faceclust_spark.errors import ResumeError, TableError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.ledger import Ledger, Outcome
from faceclust_spark.tables.schemas import FOREST, NEIGHBOURS, RUNS

CONFIG = load_config(values={"source": "gallery.parquet", "tables": "out"})


def _finish(ledger, stage, outcome, inputs=()):
    with contextlib.closing(ledger), ledger.stage(stage, inputs) as record:
        record.outcome = outcome


def test_a_stage_is_written_with_its_inputs_and_result(spark, store):
    for run in ("zero", "one"):
        store.replace(FOREST, spark.sql("SELECT 1L face_a, 2L face_b, 0.5F cosine"), run)
    ledger = Ledger(spark, store, CONFIG, "one")
    _finish(ledger, "groups", Outcome(12, 5, details={"groups": 3}), (FOREST, NEIGHBOURS))
    (entry,) = store.read(RUNS).toArrow().to_pylist()
    assert (entry[c.RUN_ID], entry[c.STAGE], entry[c.STATUS]) == ("one", "groups", "finished")
    assert (entry[c.ROWS], entry[c.LARGEST_GROUP]) == (12, 5)
    assert dict(entry[c.INPUTS]) == {"forest": 1}
    assert json.loads(entry[c.CONFIG])["source"] == "gallery.parquet"
    assert entry[c.CONFIG_HASH] == CONFIG.hash()
    assert {"pyspark", "delta-spark", "numpy"} <= set(dict(entry[c.PACKAGES]))
    assert entry[c.SECONDS] >= 0


def test_the_log_counts_what_a_stage_wrote(spark, store, caplog):
    with caplog.at_level(logging.INFO, logger="faceclust_spark"):
        _finish(Ledger(spark, store, CONFIG, "one"), "cells", Outcome(1, unit="cells"))
        _finish(Ledger(spark, store, CONFIG, "two"), "groups", Outcome(1_200, 50, unit="groups"))
    told = [message.rsplit(",", 1)[0] for message in caplog.messages]
    assert told == ["cells          1 cell", "groups         1,200 groups, largest group 50"]


def test_a_resumed_run_knows_what_was_finished_and_what_failed(spark, store):
    ledger = Ledger(spark, store, CONFIG, "one")
    with ledger.stage("ingest") as record:
        record.outcome = Outcome(10, details={"quarantined": 1})
    with pytest.raises(ZeroDivisionError), ledger.stage("neighbours"):
        raise ZeroDivisionError("by nought")
    resumed = Ledger(spark, store, CONFIG, "one")
    assert resumed.finished("ingest")
    assert resumed.details("ingest") == {"quarantined": 1}
    assert not resumed.finished("neighbours")
    told = store.read(RUNS).where("status = 'failed'").toArrow().to_pylist()
    assert [entry[c.MESSAGE] for entry in told] == ["by nought"]
    assert not Ledger(spark, store, CONFIG, "two").finished("ingest")


def test_a_run_is_not_resumed_with_another_config_or_source(spark, store):
    _finish(Ledger(spark, store, CONFIG, "one"), "ingest", Outcome(10))
    changes = {"neighbours": {"k": 7}, "source": "other.parquet", "tables": "out"}
    with pytest.raises(ResumeError, match=r"neighbours\.k: 40 then, 7 now; source: 'gallery\.parquet' then"):
        Ledger(spark, store, load_config(values=changes), "one")
    session_only = {"spark": {"shuffle_partitions": 9}, "source": "gallery.parquet", "tables": "out"}
    assert Ledger(spark, store, load_config(values=session_only), "one").finished("ingest")


def test_what_the_write_of_an_entry_raised_is_raised_at_the_next_or_at_the_end(spark, store, monkeypatch):
    def fail(*_):
        raise TableError("no room")

    ledger = Ledger(spark, store, CONFIG, "one")
    monkeypatch.setattr(type(store), "append", fail)
    _raises_when_closed(ledger, "ingest")
    again = Ledger(spark, store, CONFIG, "two")
    with again.stage("ingest"):
        pass
    with pytest.raises(TableError, match="no room"), again.stage("neighbours"):
        pass


def _raises_when_closed(ledger, stage):
    with ledger.stage(stage):
        pass
    with pytest.raises(TableError, match="no room"):
        ledger.close()
