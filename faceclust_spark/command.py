"""What every verb of the command does alike: config and logging before it, session, answer and exit code."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from faceclust_spark.errors import ConfigError
from faceclust_spark.failures import as_told
from faceclust_spark.options import CONFIG_OPTIONS, Command, Option

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from faceclust_spark.config import Config

log = logging.getLogger(__name__)

_FEW = 50_000  # faces that are drawn in a minute


class InOrder(click.Group):
    """Lists the verbs in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of the verbs."""
        order = ("demo", "run", "evaluate", "explain", "ingest", "plan", "synth", "train")
        return sorted(self.commands, key=order.index)


def command(group: click.Group, *options: Option) -> Callable[[Command], click.Command]:
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

        verb: Command = run
        for option in reversed((*options, *CONFIG_OPTIONS)):
            verb = option(verb)
        return group.command()(verb)

    return decorate


def need(config: Config, *names: str) -> list[str]:
    """Give what --source and --tables, or the config file, have set; tell all that is missing at once."""
    found: dict[str, str | None] = {name: getattr(config, name) for name in names}
    missing = [name for name, value in found.items() if not value]
    if missing:
        options = " and ".join(f"--{name}" for name in missing)
        keys = " and ".join(f"`{name}:`" for name in missing)
        raise ConfigError(f"no {' and no '.join(missing)} given: use {options}, or {keys} in the config file")
    return [value for value in found.values() if value]


def with_synth(config: Config, faces: int | None, seed: int | None) -> Config:
    """Give the config with what --faces and --seed say."""
    from faceclust_spark.config import load_config

    given = {k: v for k, v in (("faces", faces), ("seed", seed)) if v is not None}
    values = config.model_dump(exclude_unset=True)
    values.setdefault("synth", {}).update(given)
    return load_config(None, (), values)


@contextlib.contextmanager
def session_for(
    config: Config, *sources: str | None, tables: str | None = None, faces: int = 0
) -> Iterator[SparkSession]:
    """Give a session, of a JVM for quick work where sources and tables are small and few faces are drawn."""
    from faceclust_spark.interrupts import cancelling_on_interrupt
    from faceclust_spark.java import holds_little
    from faceclust_spark.session import get_session

    session = get_session(config.spark, quick=faces <= _FEW and holds_little(*sources, tables=tables))
    with cancelling_on_interrupt(session):
        yield session


def answer(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print the result: the text, or one JSON object."""
    click.echo(json.dumps(result, default=str) if as_json else text)


def leave(error: BaseException | None) -> NoReturn:
    """Tell an error in its own short words, the traceback under -v only, and leave with its exit code."""
    if error is None:
        click.echo("faceclust: stopped, nothing was deleted (--yes deletes without asking)", err=True)
        sys.exit(1)
    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        click.echo("faceclust: interrupted; a run goes on where it stopped by its --run-id", err=True)
        sys.exit(130)
    told = as_told(error)
    if told is None:
        raise error
    log.debug("%s", type(error).__name__, exc_info=error)
    click.echo(f"faceclust: {told}", err=True)
    sys.exit(told.exit_code)
