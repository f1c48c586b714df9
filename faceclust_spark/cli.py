"""The `faceclust` command: one verb a pipeline, the same functions that notebooks and jobs call.

Logs go to stderr, the result to stdout: a readable table, or one JSON object with `--json`.
Exit codes: 0 done, 1 a fault of the program, 2 config, 3 data, 4 infrastructure (errors.py), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from faceclust_spark.errors import ConfigError
from faceclust_spark.failures import as_told
from faceclust_spark.options import (
    CONFIG_OPTIONS,
    EPILOG,
    FACES,
    HELP,
    PLAN_OPTIONS,
    RUN_ID,
    SEED,
    SOURCE,
    TABLES,
    Command,
    Option,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.config import Config

log = logging.getLogger(__name__)

_FEW = 50_000  # faces that are drawn in a minute


def _command(*options: Option) -> Callable[[Command], click.Command]:
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

        command: Command = run
        for option in reversed((*options, *CONFIG_OPTIONS)):
            command = option(command)
        return cli.command()(command)

    return decorate


class _InOrder(click.Group):
    """Lists the verbs in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        order = ("demo", "run", "evaluate", "explain", "ingest", "plan", "synth", "train")
        return sorted(self.commands, key=order.index)


@click.group(
    cls=_InOrder,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="faceclust-spark")
def cli() -> None:
    """Give click what all verbs hang on; its text is HELP."""


@_command(
    SOURCE,
    TABLES,
    RUN_ID,
    click.option("--fresh", is_flag=True, help="Delete the tables first; asks before it does."),
    click.option("--yes", is_flag=True, help="With --fresh: do not ask."),
)
def run(config: Config, run_id: str | None, fresh: bool, yes: bool, as_json: bool) -> None:
    """Cluster a gallery: from embeddings to Delta tables.

    The tables: clusters (the answer), cluster_summary, quarantine (rows that could not be used, and why),
    runs (what ran), and the intermediate ones. On tables that hold a gallery already, the source's faces are
    added, or replace those of the same image_id, and the whole gallery is clustered anew.
    """
    from faceclust_spark import pipeline, report

    source, tables = _need(config, "source", "tables")
    if fresh and not yes:
        click.confirm(f"Delete all faceclust tables in {tables}?", abort=True, err=True)
    with _session(config, source, tables=tables) as session:
        summary = pipeline.run(session, source, tables, config, run_id=run_id, fresh=fresh)
    _answer(summary.to_dict(), report.describe_run(summary), as_json)


@_command(
    SOURCE,
    TABLES,
    RUN_ID,
)
def ingest(config: Config, run_id: str | None, as_json: bool) -> None:
    """Check a source and add its faces, without clustering.

    What cannot be used goes to the table quarantine, with the reason. A later `run` clusters all faces.
    """
    from faceclust_spark import pipeline, report

    source, tables = _need(config, "source", "tables")
    with _session(config, source, tables=tables) as session:
        summary = pipeline.ingest(session, source, tables, config, run_id=run_id)
    _answer(summary.to_dict(), report.describe_run(summary), as_json)


@_command(
    SOURCE,
    *PLAN_OPTIONS,
)
def plan(config: Config, output: Path | None, as_json: bool, **asked: Any) -> None:
    """Predict what a run takes, and choose its settings.

    From a sample of the source: time, shuffles, tables and memory, and the settings with their reasons. The
    kernels are timed on this machine, and people and links of a larger gallery are worked out.
    """
    from faceclust_spark.planning import report, verb

    (source,) = _need(config, "source")
    given = {name: value for name, value in asked.items() if value is not None}
    with _session(config, source) as session:
        found = verb.plan(session, source, config, **given)
    if output is not None:
        output.write_text(report.plan_file(found), encoding="utf-8")
    _answer(found.to_dict(), report.describe_plan(found), as_json)


@_command(
    click.option("--output", required=True, metavar="PATH", help="Parquet folder to write."),
    FACES,
    SEED,
)
def synth(config: Config, output: str, faces: int | None, seed: int | None, as_json: bool) -> None:
    """Write a synthetic gallery with labels, to try things on.

    The people, their photos and the noise of bad images are drawn from the settings of `synth`; the same
    settings and seed give the same gallery.
    """
    from faceclust_spark import verbs

    config = _with_synth(config, faces, seed)
    with _session(config, faces=config.synth.faces) as session:
        result = verbs.synthesise(session, output, config)
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

    The sources need the column `label`. Use the result by `run --set confidences.model=DIRECTORY`.
    """
    from faceclust_spark import report, verbs

    with _session(config, *sources) as session:
        card = verbs.train_model(session, sources, folder, config)
    _answer(card, report.describe_model(card, folder), as_json)


@_command(
    TABLES,
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
        help="Also score each value of this column apart, such as quality or identity_size (images of a "
        "person). May be repeated.",
    ),
)
def evaluate(config: Config, labels: str | None, slices: Sequence[str], as_json: bool) -> None:
    """Compare the clusters with labels: pairwise, BCubed, NMI.

    Labels are those that the source had in its column `label`, or those of --labels. Only faces with a label
    are scored. The scores are also kept in the table evaluation.
    """
    from faceclust_spark import report, verbs

    (tables,) = _need(config, "tables")
    with _session(config, *([labels] if labels else ()), tables=tables) as session:
        rows = verbs.evaluate(session, tables, config, labels=labels, slices=tuple(slices))
    _answer({"evaluation": rows}, report.describe_evaluation(rows), as_json)


@_command(
    click.argument("image_a"),
    click.argument("image_b"),
    TABLES,
)
def explain(config: Config, image_a: str, image_b: str, as_json: bool) -> None:
    """Say why two images are, or are not, in one cluster.

    IMAGE_A and IMAGE_B are image ids: their similarity, what connects them, and what decided.
    """
    from faceclust_spark import verbs

    (tables,) = _need(config, "tables")
    with _session(config, tables=tables) as session:
        explanation = verbs.explain(session, tables, image_a, image_b)
    _answer(explanation.to_dict(), str(explanation), as_json)


@_command(
    FACES,
    SEED,
    click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("demo"),
        show_default=True,
        help="Folder for the gallery and the tables.",
    ),
)
def demo(config: Config, faces: int | None, seed: int | None, folder: Path, as_json: bool) -> None:
    """Cluster a synthetic gallery and compare with the truth.

    Takes a minute or two. Writes FOLDER/gallery.parquet and FOLDER/tables, in place of an earlier demo's.
    """
    from faceclust_spark import report, verbs

    config = _with_synth(config, faces, seed)
    with _session(config, faces=config.synth.faces) as session:
        result = verbs.demo(session, folder, config)
    _answer(result.to_dict(), report.describe_demo(result), as_json)


def _need(config: Config, *names: str) -> list[str]:
    """Give what --source and --tables, or the config file, have set; tell all that is missing at once."""
    found: dict[str, str | None] = {name: getattr(config, name) for name in names}
    missing = [name for name, value in found.items() if not value]
    if missing:
        options = " and ".join(f"--{name}" for name in missing)
        keys = " and ".join(f"`{name}:`" for name in missing)
        raise ConfigError(f"no {' and no '.join(missing)} given: use {options}, or {keys} in the config file")
    return [value for value in found.values() if value]


def _with_synth(config: Config, faces: int | None, seed: int | None) -> Config:
    from faceclust_spark.config import load_config

    given = {k: v for k, v in (("faces", faces), ("seed", seed)) if v is not None}
    values = config.model_dump(exclude_unset=True)
    values.setdefault("synth", {}).update(given)
    return load_config(None, (), values)


@contextlib.contextmanager
def _session(
    config: Config, *sources: str | None, tables: str | None = None, faces: int = 0
) -> Iterator[SparkSession]:
    """Give a session, of a JVM for quick work where sources and tables are small and few faces are drawn."""
    from faceclust_spark.interrupts import cancelling_on_interrupt
    from faceclust_spark.java import holds_little
    from faceclust_spark.session import get_session

    session = get_session(config.spark, quick=faces <= _FEW and holds_little(*sources, tables=tables))
    with cancelling_on_interrupt(session):
        yield session


def _answer(result: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(result, default=str) if as_json else text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with the exit code that the error, if any, stands for."""
    if threading.current_thread() is threading.main_thread():
        # YARN, Kubernetes and `timeout` end a job so: as after Ctrl-C, the lease is given back.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(args=arguments, prog_name="faceclust", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as abort:
        _leave(abort.__cause__)  # click has caught what it stands for; nothing: the answer was no
    except Exception as error:
        _leave(error)


def _leave(error: BaseException | None) -> NoReturn:
    """Tell an error in its own short words, with the traceback under -v only, and leave."""
    if error is None:
        click.echo("faceclust: stopped, nothing was deleted (--yes deletes without asking)", err=True)
        sys.exit(1)
    if isinstance(error, KeyboardInterrupt):
        click.echo("faceclust: interrupted; a run goes on where it stopped by its --run-id", err=True)
        sys.exit(130)
    told = as_told(error)
    if told is None:
        raise error
    log.debug("%s", type(error).__name__, exc_info=error)
    click.echo(f"faceclust: {told}", err=True)
    sys.exit(told.exit_code)


if __name__ == "__main__":
    main()
