"""The command line before any work: help, usage, settings, Java. And the demo, as a newcomer sees it."""

import re
from importlib.metadata import version

import pytest
from commands import command, process

VERBS = ("demo", "run", "evaluate", "explain", "ingest", "plan", "synth", "train")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d \S.*")


def test_help_lists_the_verbs_in_the_order_one_meets_them():
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    listed = re.findall(r"^  (\w+)  +(.+)$", out.partition("Commands:")[2], re.MULTILINE)
    assert [verb for verb, _ in listed[: len(VERBS)]] == list(VERBS)
    assert all(text.endswith(".") and not text.endswith("...") for _, text in listed[: len(VERBS)])
    assert "\n    faceclust run --source gallery.parquet --tables out  your own\n" in out
    assert "4 infrastructure" in out


def test_without_a_verb_the_help_is_shown_and_nothing_has_been_done():
    code, out, err = command()
    assert (code, out) == (2, "")
    assert err == command("--help").out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_takes_settings(verb):
    code, out, err = command(verb, "--help")
    assert (code, err) == (0, "")
    assert all(option in out for option in ("--config", "--set", "--json", "--verbose"))
    assert "\\b" not in out
    assert max(map(len, out.splitlines())) <= 110


def test_the_version_is_that_of_the_installed_package():
    assert command("--version").out == f"faceclust, version {version('faceclust-spark')}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cluster"], "No such command 'cluster'"),
        (["run", "--sources", "x"], "No such option"),
        (["synth"], "Missing option '--output'"),
        (["synth", "--output", "x", "--faces", "many"], "'many' is not a valid integer"),
        (["explain", "a", "--tables", "out"], "Missing argument 'IMAGE_B'"),
        (["train", "--model", "model"], "Missing option '--source'"),
        (["run"], "no source and no tables given: use --source and --tables, or `source:` and `tables:`"),
        (["ingest", "--tables", "out"], "no source given: use --source, or `source:` in the config file"),
        (["evaluate"], "no tables given"),
        (["explain", "a", "b"], "no tables given"),
        (["run", "--set", "neighbours.k"], "expected section.key=value, such as neighbours.k=80"),
        (["run", "--config", "nowhere.yaml"], "cannot read the config file nowhere.yaml"),
        (["demo", "--faces", "3"], "synth.faces: Input should be greater than or equal to 10 (found 3)"),
    ],
)
def test_what_cannot_be_meant_is_told_before_spark_starts(arguments, told):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_all_faults_of_the_settings_are_told_at_once(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("neighbours: {kk: 3}\nclustering: {}\ncoarse_groups: {max_size: 1}\n")
    code, out, err = command(
        "run", "--config", settings, "--set", "cells.probes=2", "--set", "ingest.extra=3"
    )
    assert (code, out) == (2, "")
    for told in (
        "neighbours.kk: unknown key; known here: k, floor, probes, largest_cell, audit",
        "clustering: unknown key",
        "coarse_groups.max_size: Input should be greater than or equal to 2 (found 1)",
        "cells.probes: unknown key",
        "ingest.extra: ",
    ):
        assert told in err


def test_a_setting_on_the_command_line_wins_over_the_file(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("synth: {faces: 20}\n")
    assert "(found 4)" in command("demo", "--config", settings, "--set", "synth.faces=4").err
    assert "(found 5)" in command("demo", "--config", settings, "--faces", "5").err


def test_without_java_one_sentence_says_what_to_install(tmp_path):
    arguments = ("--source", "gallery.parquet", "--tables", "out", "--json")
    code, out, err = process("faceclust", "run", *arguments, cwd=tmp_path, JAVA_HOME=str(tmp_path))
    assert (code, out) == (4, "")
    assert err.startswith(
        f"faceclust: Spark needs Java and JAVA_HOME ({tmp_path}) holds none that can be run:"
    )
    assert "install Java 17 or 21" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_first_screen_is_ours(tmp_path):
    code, out, err = process("faceclust", "demo", "--faces", 1000, "--folder", "first", cwd=tmp_path)
    assert code == 0, err
    lines = err.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), err
    assert [line.split()[1] for line in (lines[0], lines[-1])] == ["synth", "evaluation"]
    summary, scores, further = out.split("\n\n")
    assert summary.startswith("run ")
    assert re.search(r"^faces in the gallery +1,000$", summary, re.MULTILINE)
    assert re.search(r"^clusters of two or more +\d+$", summary, re.MULTILINE)
    header, everything, *slices, confidences = scores.splitlines()
    assert header.split()[:4] == ["faces", "people", "clusters", "alone"]
    assert everything.startswith("all ")
    assert [line.split()[0] for line in slices[1:]] == ["high", "low", "middle"]
    assert re.fullmatch(r"confidences of the \d+ faces .+ Brier score 0\.\d{4}", confidences)
    assert "faceclust run --source YOUR.parquet --tables out" in further
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]
    made = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert made == [".faceclust-demo", "gallery.parquet", "tables"]
