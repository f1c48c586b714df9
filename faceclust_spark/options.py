"""The words of the command line: its help, and the options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]
Option = Callable[[Command], Command]

# "\b" keeps click from filling the lines that follow it.
HELP = """Find out which images show the same person, with a confidence for each.

\b
First steps:
  faceclust demo                                       a synthetic gallery, start to finish
  faceclust run --source gallery.parquet --tables out  your own

The gallery needs the columns image_id and embedding; attributes, photo_id, quality, label and
embedding_model are used where present, and other names are given by --set ingest.columns.embedding=NAME.
The answer is the Delta table out/clusters: image_id, cluster_id, confidence, status.
"""
EPILOG = """\b
Exit codes:
  0 done            2 config or usage    4 infrastructure: Java, Delta, storage, another run
  1 a program fault 3 data               130 interrupted
"""
CONFIG_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="YAML file with the settings that differ from the defaults, such as `neighbours: {k: 80}`.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, such as neighbours.k=80. May be repeated; wins over --config. "
        "All settings are listed in faceclust_spark/config.py.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout."),
    click.option("-v", "--verbose", is_flag=True, help="Log more, Spark's messages and tracebacks included."),
)
SOURCE = click.option(
    "--source",
    metavar="PATH|TABLE",
    help="The gallery: Parquet, Delta or numpy folder as path or URI, or catalog.schema.table.",
)
TABLES = click.option(
    "--tables",
    metavar="DIR|SCHEMA",
    help="Where the tables live: a folder or URI, or catalog.schema.",
)
RUN_ID = click.option(
    "--run-id",
    metavar="ID",
    help="Name of the run. That of a run that was cut short goes on where it stopped.",
)
FACES = click.option("--faces", type=int, metavar="N", help="Number of faces; short for --set synth.faces=N.")
SEED = click.option("--seed", type=int, metavar="N", help="Short for --set synth.seed=N: other people.")
PLAN_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--faces", type=int, metavar="N", help="Faces of the gallery; default: those of the source."
    ),
    click.option(
        "--cores", type=int, metavar="C", help="Cores of the cluster; default: those of this machine."
    ),
    click.option("--sample", type=int, metavar="N", help="Faces to measure on; default, and most: 50000."),
    click.option("--memory-per-core", metavar="SIZE", help="What a core may use, such as 4g, the default."),
    click.option(
        "--output",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File to write the settings to, for `faceclust run --config FILE`.",
    ),
)
