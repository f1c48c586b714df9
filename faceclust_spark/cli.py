"""The `faceclust` command: one verb a pipeline, the same functions that notebooks and jobs call.

Logs go to stderr, the result to stdout: a readable table, or one JSON object with `--json`.
Exit codes: 0 done, 1 a fault of the program, 2 config, 3 data, 4 infrastructure (errors.py).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceclust_spark.errors import ConfigError, FaceclustError

if TYPE_CHECKING:
    from faceclust_spark.config import Config

Command = Callable[..., Any]

_CONFIG_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="YAML file with the settings that differ from the defaults.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, such as neighbours.k=80. May be repeated; wins over --config.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
    click.option("-v", "--verbose", is_flag=True, help="Log more than one line a stage."),
)
_SOURCE = click.option(
    "--source",
    metavar="PATH|TABLE",
    help="The gallery: Parquet, Delta or numpy folder as path or URI, or catalog.schema.table.",
)
_TABLES = click.option(
    "--tables",
    metavar="DIR|SCHEMA",
    help="Where the tables live: a folder or URI, or catalog.schema.",
)


def _command(*options: Callable[[Command], Command]) -> Callable[[Command], click.Command]:
    """Make a verb with the options that all verbs share, logging set up and the config loaded."""

    def decorate(function: Command) -> click.Command:
        @functools.wraps(function)
        def run(config_path: Path | None, overrides: Sequence[str], verbose: bool, **values: Any) -> None:
            from faceclust_spark.config import load_config
            from faceclust_spark.log import configure_logging

            configure_logging(verbose)
            places = {k: values.pop(k) for k in ("source", "tables") if values.get(k)}
            for name in ("source", "tables"):
                values.pop(name, None)
            function(load_config(config_path, overrides, places), **values)

        for option in reversed((*options, *_CONFIG_OPTIONS)):
            run = option(run)
        return cli.command()(run)

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="faceclust-spark")
def cli() -> None:
    r"""Find out which images show the same person, with a confidence for each.

    \b
    First steps:
      faceclust demo                                    a synthetic gallery, start to finish
      faceclust run --source gallery.parquet --tables out
    The gallery needs the columns image_id and embedding; attributes, photo_id, quality, label and
    embedding_model are used where present. The answer is the Delta table out/clusters.
    """


@_command(
    _SOURCE,
    _TABLES,
    click.option("--run-id", help="Name of the run; the id of a run that was cut short resumes it."),
    click.option("--fresh", is_flag=True, help="Delete the tables first; asks before it does."),
    click.option("--yes", is_flag=True, help="With --fresh: do not ask."),
)
def run(config: Config, run_id: str | None, fresh: bool, yes: bool, as_json: bool) -> None:
    """Cluster a gallery: from a source of embeddings to Delta tables.

    On tables that hold a gallery already, the source's faces are added, or replace those of the
    same image_id, and the whole gallery is clustered anew.
    """
    from faceclust_spark import pipeline, report

    source, tables = _need(config, "source"), _need(config, "tables")
    if fresh and not yes:
        click.confirm(f"Delete all faceclust tables in {tables}?", abort=True, err=True)
    summary = pipeline.run(_session(config), source, tables, config, run_id=run_id, fresh=fresh)
    _answer(summary.to_dict(), report.describe_run(summary), as_json)


@_command(
    _SOURCE,
    _TABLES,
    click.option("--run-id", help="Name of the run; the id of a run that was cut short resumes it."),
)
def ingest(config: Config, run_id: str | None, as_json: bool) -> None:
    """Check a source and merge its faces into the tables, without clustering."""
    from faceclust_spark import pipeline, report

    source, tables = _need(config, "source"), _need(config, "tables")
    summary = pipeline.ingest(_session(config), source, tables, config, run_id=run_id)
    _answer(summary.to_dict(), report.describe_run(summary), as_json)


@_command(
    click.option("--output", required=True, metavar="PATH", help="Parquet folder to write."),
    click.option("--faces", type=int, help="Number of faces (synth.faces)."),
    click.option("--seed", type=int, help="Seed (synth.seed)."),
)
def synth(config: Config, output: str, faces: int | None, seed: int | None, as_json: bool) -> None:
    """Write a synthetic gallery with labels, to try things on."""
    from faceclust_spark import verbs

    config = _with_synth(config, faces, seed)
    result = verbs.synthesise(_session(config), output, config)
    _answer(result, f"{result['faces']:,} faces written to {output}", as_json)


@_command(
    click.option(
        "--source",
        "sources",
        multiple=True,
        required=True,
        metavar="PATH|TABLE",
        help="A labelled gallery. May be repeated: galleries of several embeddings or sources.",
    ),
    click.option(
        "--model",
        "folder",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder to write the model to: model.safetensors and card.json.",
    ),
)
def train(config: Config, sources: Sequence[str], folder: Path, as_json: bool) -> None:
    """Train the graph convolution on labelled galleries.

    Use the result with --set confidences.model=FOLDER.
    """
    from faceclust_spark import report, verbs

    card = verbs.train_model(_session(config), sources, folder, config)
    _answer(card, report.describe_model(card, folder), as_json)


@_command(
    _TABLES,
    click.option(
        "--labels",
        metavar="PATH|TABLE",
        help="Parquet or Delta with image_id, label and any column to slice by; else the faces' own.",
    ),
    click.option(
        "--slice",
        "slices",
        multiple=True,
        metavar="COLUMN",
        help="Also report each value of this column apart. May be repeated.",
    ),
)
def evaluate(config: Config, labels: str | None, slices: Sequence[str], as_json: bool) -> None:
    """Compare the clusters with labels: pairwise, BCubed, NMI."""
    from faceclust_spark import report, verbs

    rows = verbs.evaluate(
        _session(config), _need(config, "tables"), config, labels=labels, slices=tuple(slices)
    )
    _answer({"evaluation": rows}, report.describe_evaluation(rows), as_json)


@_command(
    click.argument("image_a"),
    click.argument("image_b"),
    _TABLES,
)
def explain(config: Config, image_a: str, image_b: str, as_json: bool) -> None:
    """Say why two images are, or are not, in one cluster."""
    from faceclust_spark import verbs

    explanation = verbs.explain(_session(config), _need(config, "tables"), image_a, image_b)
    _answer(explanation.to_dict(), str(explanation), as_json)


@_command(
    click.option("--faces", type=int, help="Number of faces (synth.faces)."),
    click.option("--seed", type=int, help="Seed (synth.seed)."),
    click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("demo"),
        show_default=True,
        help="Folder for the gallery and the tables.",
    ),
)
def demo(config: Config, faces: int | None, seed: int | None, folder: Path, as_json: bool) -> None:
    """Make a synthetic gallery, cluster it, and compare with the truth."""
    from faceclust_spark import report, verbs

    config = _with_synth(config, faces, seed)
    result = verbs.demo(_session(config), folder, config)
    _answer(result.to_dict(), report.describe_demo(result), as_json)


def _need(config: Config, name: str) -> str:
    value: str | None = getattr(config, name)
    if not value:
        raise ConfigError(f"no {name} given: use --{name}, or `{name}:` in the config file")
    return value


def _with_synth(config: Config, faces: int | None, seed: int | None) -> Config:
    from faceclust_spark.config import load_config

    given = {k: v for k, v in (("faces", faces), ("seed", seed)) if v is not None}
    values = config.model_dump(exclude_unset=True)
    values.setdefault("synth", {}).update(given)
    return load_config(None, (), values)


def _session(config: Config) -> Any:
    from faceclust_spark.session import get_session

    return get_session(config.spark)


def _answer(result: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(result, default=str) if as_json else text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with the exit code that the error, if any, stands for."""
    try:
        cli.main(args=arguments, prog_name="faceclust", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Stopped; nothing was deleted or begun.", err=True)
        sys.exit(1)
    except FaceclustError as error:
        click.echo(f"faceclust: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
