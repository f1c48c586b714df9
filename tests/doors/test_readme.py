"""Everything that the README says to type is typed here, in its order, on a small gallery."""

import re
import shlex
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from commands import ROOT, command
from test_jobs import README_LINE

import faceclust_spark
from faceclust_spark.config import Config, load_config

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
MAKE = {
    "demo": "faceclust demo",
    "test": "python -m pytest",
}  # not run: they install
FEW_STEPS = tuple(
    part
    for setting in ("steps=4", "half_steps=4", "join_steps=4", "draws=1", "validate_every=2")
    for part in ("--set", f"train.{setting}")
)


class Place(NamedTuple):
    """The folder that the README's reader stands in, and two images of the gallery there."""

    folder: object
    images: tuple[str, str]

    def names(self, text):
        """Put real names in the place of the README's; Spark stands in another folder than this process."""
        image_a, image_b = self.images
        text = text.replace("IMAGE_A", image_a).replace("IMAGE_B", image_b)
        return re.sub(r"\bgallery\.parquet\b", str(self.folder / "gallery.parquet"), text)


@pytest.fixture(scope="module")
def place(shared_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    made = command("synth", "--faces", 60, "--output", folder / "gallery.parquet")
    assert made.code == 0, made.err
    return Place(folder, tuple(pq.read_table(folder / "gallery.parquet")["image_id"].to_pylist()[:2]))


def type_line(line, place):
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        (target,) = arguments
        recipe = re.search(rf"^{target}:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert recipe
        assert MAKE[target] in recipe[1]
        return
    if program == "spark-submit":
        assert line == README_LINE  # which test_jobs submits
        return
    assert program == "faceclust", f"not known how to run: {line}"
    extra = FEW_STEPS if arguments[0] == "train" else ()
    ended = command(*(place.names(argument) for argument in arguments), *extra)
    assert ended.code == 0, ended.err
    assert ended.out


@pytest.mark.parametrize(("language", "text"), BLOCKS, ids=[text.partition("\n")[0] for _, text in BLOCKS])
def test_every_block_runs_as_it_stands(language, text, place, spark, monkeypatch):
    monkeypatch.chdir(place.folder)
    match language:
        case "bash":
            for line in text.splitlines():
                type_line(line, place)
        case "python":
            exec(compile(place.names(text), "README.md", "exec"), {})
        case "yaml":
            (place.folder / "settings.yaml").write_text(place.names(text))
            assert load_config(place.folder / "settings.yaml") != Config()
        case _:
            pytest.fail(f"not known how to run a block of {language or 'no language'}: {text}")


def test_the_first_commands_are_those_of_a_newcomer():
    assert BLOCKS[0] == ("bash", "make demo\nmake test\n")


def test_files_that_are_named_are_there():
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named = re.findall(r"`((?:conf|jobs|faceclust_spark|notebooks)/[\w./-]+)`", README)
    assert linked
    assert named
    assert [path for path in {*linked, *named} if not (ROOT / path).exists()] == []


def test_settings_that_are_named_are_there():
    sections = Config.model_fields
    named = re.findall(rf"\b({'|'.join(sections)})\.(?!parquet\b|py\b|run\b)(\w+)", README)
    assert len(named) >= 4
    known = Config().model_dump()
    assert [(section, key) for section, key in named if key not in (known[section] or {})] == []


def test_functions_and_verbs_that_are_named_are_there():
    names = set(re.findall(r"faceclust_spark\.(\w+)\(", README))
    (likewise,) = re.findall(r"functions likewise: (.+)\.$", README, re.MULTILINE)
    names |= set(re.findall(r"`(\w+)`", likewise))
    assert names <= set(faceclust_spark.__all__)
    assert {"cluster", "run", "evaluate", "ingest", "explain", "synthesise", "train_model"} <= names


def test_the_columns_of_the_answer_are_as_told(place, spark):
    clusters = spark.read.format("delta").load(str(place.folder / "out" / "clusters"))
    named = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert named == clusters.columns[: len(named)]
    statuses = {row["status"] for row in clusters.select("status").distinct().toArrow().to_pylist()}
    assert all(f"`{status}`" in README for status in statuses)


def test_the_patent_is_named():
    assert "CN109800744B" in README
