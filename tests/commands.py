"""The `faceclust` command in this process, on the session that the tests share, and in one of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from faceclust_spark.cli import main

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*arguments: object, answer: str = "") -> Ended:
    """Run a command as if typed; answer: what is typed after it."""
    out, err = io.StringIO(), io.StringIO()
    logger = logging.getLogger("faceclust_spark")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()  # set up anew, for this command's stderr
    typed, sys.stdin = sys.stdin, io.StringIO(answer)
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = left.code
    finally:
        sys.stdin = typed
        logger.handlers[:], logger.level, logger.propagate = before
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())


def process(*command_line: object, cwd: Path, **environment: str) -> Ended:
    """Run a program of the environment, such as `faceclust` or `spark-submit`, in a process of its own."""
    program, *arguments = map(str, command_line)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    kept["SPARK_SUBMIT_OPTS"] = os.environ["SPARK_SUBMIT_OPTS"]  # see conftest
    ended = subprocess.run(
        [str(BIN / program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=kept | environment,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
