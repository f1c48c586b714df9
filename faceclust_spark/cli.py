"""The `faceclust` command: one verb a pipeline, the same functions that notebooks and jobs call.

Logs go to stderr, the result to stdout: a readable table, or one JSON object with `--json`.
Exit codes: 0 done, 1 a fault of the program, 2 config, 3 data, 4 infrastructure (errors.py), 130 interrupted.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faceclust_spark.command import InOrder, answer, command, leave, need, session_for, with_synth
from faceclust_spark.options import EPILOG, FACES, HELP, PLAN_OPTIONS, RUN_ID, SEED, SOURCE, TABLES

if TYPE_CHECKING:
    from faceclust_spark.config import Config


@click.group(
    cls=InOrder,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="faceclust-spark")
def cli() -> None:
    """Give click what all verbs hang on; its text is HELP."""


@command(
    cli,
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

    source, tables = need(config, "source", "tables")
    if fresh and not yes:
        click.confirm(f"Delete all faceclust tables in {tables}?", abort=True, err=True)
    with session_for(config, source, tables=tables) as session:
        summary = pipeline.run(session, source, tables, config, run_id=run_id, fresh=fresh)
    answer(summary.to_dict(), report.describe_run(summary), as_json)


@command(
    cli,
    SOURCE,
    TABLES,
    RUN_ID,
)
def ingest(config: Config, run_id: str | None, as_json: bool) -> None:
    """Check a source and add its faces, without clustering.

    What cannot be used goes to the table quarantine, with the reason. A later `run` clusters all faces.
    """
    from faceclust_spark import pipeline, report

    source, tables = need(config, "source", "tables")
    with session_for(config, source, tables=tables) as session:
        summary = pipeline.ingest(session, source, tables, config, run_id=run_id)
    answer(summary.to_dict(), report.describe_run(summary), as_json)


@command(
    cli,
    SOURCE,
    *PLAN_OPTIONS,
)
def plan(config: Config, output: Path | None, as_json: bool, **asked: Any) -> None:
    """Predict what a run takes, and choose its settings.

    From a sample of the source: time, shuffles, tables and memory, and the settings with their reasons. The
    kernels are timed on this machine, and people and links of a larger gallery are worked out.
    """
    from faceclust_spark.planning import report, verb

    (source,) = need(config, "source")
    given = {name: value for name, value in asked.items() if value is not None}
    with session_for(config, source) as session:
        found = verb.plan(session, source, config, **given)
    if output is not None:
        output.write_text(report.plan_file(found), encoding="utf-8")
    answer(found.to_dict(), report.describe_plan(found), as_json)


@command(
    cli,
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

    config = with_synth(config, faces, seed)
    with session_for(config, faces=config.synth.faces) as session:
        result = verbs.synthesise(session, output, config)
    answer(result, f"{result['faces']:,} faces written to {output}", as_json)


@command(
    cli,
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

    with session_for(config, *sources) as session:
        card = verbs.train_model(session, sources, folder, config)
    answer(card, report.describe_model(card, folder), as_json)


@command(
    cli,
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

    (tables,) = need(config, "tables")
    with session_for(config, *([labels] if labels else ()), tables=tables) as session:
        rows = verbs.evaluate(session, tables, config, labels=labels, slices=tuple(slices))
    answer({"evaluation": rows}, report.describe_evaluation(rows), as_json)


@command(
    cli,
    click.argument("image_a"),
    click.argument("image_b"),
    TABLES,
)
def explain(config: Config, image_a: str, image_b: str, as_json: bool) -> None:
    """Say why two images are, or are not, in one cluster.

    IMAGE_A and IMAGE_B are image ids: their similarity, what connects them, and what decided.
    """
    from faceclust_spark import verbs

    (tables,) = need(config, "tables")
    with session_for(config, tables=tables) as session:
        explanation = verbs.explain(session, tables, image_a, image_b)
    answer(explanation.to_dict(), str(explanation), as_json)


@command(
    cli,
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

    config = with_synth(config, faces, seed)
    with session_for(config, faces=config.synth.faces) as session:
        result = verbs.demo(session, folder, config)
    answer(result.to_dict(), report.describe_demo(result), as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with the exit code that the error, if any, stands for."""
    if threading.current_thread() is threading.main_thread():
        # YARN, Kubernetes and `timeout` end a job so: as after Ctrl-C, the lease is given back.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(args=arguments, prog_name="faceclust", standalone_mode=False)
    except click.Abort as abort:
        leave(abort.__cause__)  # click has caught what it stands for; nothing: the answer was no
    except Exception as error:
        leave(error)


if __name__ == "__main__":
    main()
