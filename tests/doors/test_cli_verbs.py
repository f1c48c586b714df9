"""Every verb on a small gallery, by the command line alone: what it prints, writes and refuses."""

import datetime
import json
import logging
import re
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import command
from deltalake import DeltaTable

from faceclust_spark.pipeline import STAGES

FACES = 240
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \S.*")


def the_json(ended):
    """Give what stdout holds: one JSON object, and nothing else."""
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    assert all(LOG_LINE.fullmatch(line) for line in ended.err.splitlines()), ended.err
    return json.loads(ended.out)


def rows_of(tables, name):
    return DeltaTable(str(tables / name)).to_pyarrow_table().to_pylist()


@pytest.fixture(scope="module")
def place(shared_session, tmp_path_factory):
    """A folder with a synthetic gallery, a config file that names it and its tables, and the run's answer."""
    folder = tmp_path_factory.mktemp("cli")
    gallery = folder / "gallery.parquet"
    made = the_json(command("synth", "--faces", FACES, "--seed", 3, "--output", gallery, "--json"))
    assert made == {"gallery": str(gallery), "faces": FACES, "seed": 3}
    settings = {
        "source": str(gallery),
        "tables": str(folder / "tables"),
        "ingest": {"extra": ["quality_band"]},
        "neighbours": {"k": 25},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    ended = command("run", "--config", folder / "settings.yaml", "--run-id", "first", "--json")
    (folder / "answer.json").write_text(json.dumps(the_json(ended)))
    return folder


@pytest.fixture
def tables(place, spark):
    return place / "tables"


def test_a_run_by_a_config_file_answers_in_json(place, tables):
    answer = json.loads((place / "answer.json").read_text())
    assert (answer["run_id"], answer["faces"], answer["tables"]) == ("first", FACES, str(tables))
    assert answer["ingested"]["new"] == FACES
    clustered = rows_of(tables, "clusters")
    assert len({row["image_id"] for row in clustered}) == len(clustered) == FACES
    assert len({row["cluster_id"] for row in clustered}) == answer["clusters"]
    stages = list(answer["seconds"])
    assert (stages[0], stages[-1]) == ("ingest", "clusters")


def test_a_run_of_the_same_id_is_done_already_and_says_so(place, tables):
    before = DeltaTable(str(tables / "clusters")).version()
    again = ("run", "--config", place / "settings.yaml", "--run-id", "first")
    ended = command(*again)
    assert ended.code == 0, ended.err
    assert re.search(rf"^faces in the gallery +{FACES}$", ended.out, re.MULTILINE)
    assert ended.err.count("done before") == ended.err.count("\n") - 1
    assert DeltaTable(str(tables / "clusters")).version() == before
    other = command(
        "run", "--config", place / "settings.yaml", "--run-id", "first", "--set", "neighbours.k=9"
    )
    assert (other.code, other.out) == (4, "")
    assert "neighbours.k: 25 then, 9 now" in other.err


def test_scores_are_a_table_or_json_and_are_kept(place, tables):
    slices = ("--slice", "quality_band", "--slice", "identity_size")
    told = command("evaluate", "--tables", tables, *slices)
    assert told.code == 0, told.err
    found = [line[:24].strip() for line in told.out.splitlines()]
    assert found[:2] == ["", "all"]
    assert {"by quality_band", "high", "by identity_size", "2-4"} <= set(found)
    scores = the_json(command("evaluate", "--config", place / "settings.yaml", *slices, "--json"))
    rows = scores["evaluation"]
    assert rows == rows_of(tables, "evaluation")
    assert (rows[0]["slice_column"], rows[0]["faces"]) == ("all", FACES)
    assert 0 < rows[0]["bcubed_f"] <= 1


def test_labels_may_come_from_elsewhere(tables, tmp_path):
    some = [row["image_id"] for row in rows_of(tables, "clusters")[:50]]
    labels = pa.table({"image_id": some, "label": ["one person"] * 50, "site": ["a"] * 20 + ["b"] * 30})
    pq.write_table(labels, tmp_path / "labels.parquet")
    arguments = ("--tables", tables, "--labels", tmp_path / "labels.parquet", "--slice", "site", "--json")
    rows = the_json(command("evaluate", *arguments))["evaluation"]
    assert [(r["slice_value"], r["faces"]) for r in rows] == [("all", 50), ("a", 20), ("b", 30)]


def test_an_evaluation_that_cannot_be_is_refused(tables, tmp_path):
    absent = command("evaluate", "--tables", tables, "--slice", "weather", "--slice", "site")
    assert (absent.code, absent.out) == (3, "")
    assert "no column 'weather' to slice by" in absent.err
    assert "no column 'site' to slice by" in absent.err
    empty = command("evaluate", "--tables", tmp_path)
    assert (empty.code, empty.out) == (4, "")
    assert "there is no table `clusters`" in empty.err


def test_two_images_are_explained_in_words_or_json(tables):
    a, b = (row["image_id"] for row in rows_of(tables, "clusters")[:2])
    told = command("explain", a, b, "--tables", tables)
    assert told.code == 0, told.err
    assert re.match("(Together|Apart): ", told.out)
    assert a in told.out
    explained = the_json(command("explain", a, b, "--tables", tables, "--json"))
    assert explained["verdict"] == told.out.splitlines()[0]
    unknown = command("explain", a, "nobody", "--tables", tables)
    assert (unknown.code, unknown.out) == (3, "")
    assert "nobody" in unknown.err


def test_ingest_adds_faces_and_clusters_nothing(place, tables):
    before = DeltaTable(str(tables / "clusters")).version()
    answer = the_json(command("ingest", "--config", place / "settings.yaml", "--json"))
    assert answer["ingested"] == {"read": FACES, "new": 0, "replaced": 0, "unchanged": FACES, "duplicates": 0}
    assert (answer["clusters"], list(answer["seconds"])) == (None, ["ingest"])
    assert DeltaTable(str(tables / "clusters")).version() == before


def test_all_that_a_source_lacks_is_told_at_once(spark, tmp_path):
    pq.write_table(pa.table({"name": ["a"], "vec": [[1.0, 2.0]]}), tmp_path / "faces.parquet")
    arguments = ("--source", tmp_path / "faces.parquet", "--tables", tmp_path / "tables")
    ended = command("run", *arguments, "--set", "ingest.columns.label=person", "--set", "ingest.extra=[site]")
    assert (ended.code, ended.out) == (3, "")
    for told in ("image_id", "embedding", "person", "site", "name, vec"):
        assert told in ended.err
    assert "Traceback" not in ended.err
    nowhere = command("ingest", "--source", tmp_path / "none.parquet", "--tables", tmp_path / "tables")
    assert (nowhere.code, nowhere.out) == (3, "")
    assert "none.parquet" in nowhere.err


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_a_fresh_start_asks_first_and_takes_no_for_an_answer(place, tables, answer):
    before = sorted((path, path.stat().st_mtime_ns) for path in tables.rglob("*"))
    ended = command("run", "--config", place / "settings.yaml", "--fresh", "--json", answer=answer)
    assert ended.code == 1
    assert ended.out.strip() == ""
    assert f"Delete all faceclust tables in {tables}? [y/N]" in ended.err
    assert ended.err.endswith("stopped, nothing was deleted (--yes deletes without asking)\n")
    assert sorted((path, path.stat().st_mtime_ns) for path in tables.rglob("*")) == before


def test_a_source_that_cannot_be_read_costs_nobodys_tables(place, tables):
    arguments = ("--source", place / "none.parquet", "--tables", tables, "--fresh", "--yes")
    assert command("run", *arguments).code == 3
    assert len(rows_of(tables, "clusters")) == FACES


class _Interrupts(logging.Handler):
    """Presses Ctrl-C when a stage has ended."""

    def emit(self, record):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_ends_with_130_and_gives_its_lease_back(place, spark, tmp_path):
    log, handler = logging.getLogger("faceclust_spark.tables.ledger"), _Interrupts()
    log.addHandler(handler)
    try:
        ended = command("run", "--config", place / "settings.yaml", "--tables", tmp_path)
    finally:
        log.removeHandler(handler)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err.splitlines()[-1].startswith("faceclust: interrupted; ")
    assert "Traceback" not in ended.err
    (lease,) = rows_of(tmp_path, "lease")
    assert lease["expires_at"] <= datetime.datetime.now(datetime.UTC)
    entries = {row["stage"]: row["status"] for row in rows_of(tmp_path, "runs")}
    begun = [stage.name for stage in STAGES if stage.name in entries]
    assert begun[0] == "ingest" and entries["ingest"] == "finished" and "clusters" not in begun
    # The ledger is written while the next stage begins, which may be short: the last one may have failed.
    assert [entries[stage] for stage in begun[1:-1]] == ["finished"] * (len(begun) - 2)


def test_a_model_is_trained_and_tells_how_to_use_it(place, spark, tmp_path):
    pytest.importorskip("faceclust_spark.stages.labelled")
    arguments = ("train", "--source", place / "gallery.parquet", "--model", tmp_path / "model")
    few = ("steps=4", "half_steps=4", "join_steps=4", "draws=1", "validate_every=2")
    few = tuple(part for setting in few for part in ("--set", f"train.{setting}"))
    card = the_json(command(*arguments, *few, "--json"))
    assert {"model.safetensors", "card.json"} <= {path.name for path in (tmp_path / "model").iterdir()}
    assert card["kind"] == "relations"
    unlabelled = pa.table(pq.read_table(place / "gallery.parquet").select(["image_id", "embedding"]))
    pq.write_table(unlabelled, tmp_path / "unlabelled.parquet")
    refused = command("train", "--source", tmp_path / "unlabelled.parquet", "--model", tmp_path / "other")
    assert (refused.code, refused.out) == (3, "")
    assert "label" in refused.err
    assert not (tmp_path / "other").exists()


def test_a_fresh_start_deletes_what_was_there(place, tables, tmp_path):
    """The last on these tables. No row of the new gallery can be used: that ends the run early."""
    ids = [f"image {number}" for number in range(12)]
    pq.write_table(pa.table({"image_id": ids, "embedding": [[0.0] * 16] * 12}), tmp_path / "zeros.parquet")
    arguments = ("--source", tmp_path / "zeros.parquet", "--config", place / "settings.yaml", "--fresh")
    ended = command("run", *arguments, "--set", "ingest.extra=[]", answer="y\n")
    assert (ended.code, ended.out.strip()) == (3, "")
    assert "quarantined: 12 rows" in ended.err
    assert len(rows_of(tables, "quarantine")) == 12
    assert not [name for name in ("clusters", "faces", "evaluation") if (tables / name).exists()]
    assert "first" not in {row["run_id"] for row in rows_of(tables, "runs")}
