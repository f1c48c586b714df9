"""What errors from outside the package mean to a user: Spark's, an executor's, the operating system's.

Spark tells of a failed task by pages of Java; of those one line matters. An error that a UDF raised on
purpose arrives as text inside them, and is made the error again that it was.
"""

from __future__ import annotations

import re

from faceclust_spark import errors
from faceclust_spark.errors import FaceclustError, InfrastructureError

_LONGEST = 600  # characters of a message from outside
_SPARK = {"pyspark", "py4j", "grpc"}
_OURS = re.compile(r"faceclust_spark\.errors\.(\w+): (.*?)(?=\n\s*\n|\n\s*at |\Z)", re.DOTALL)
_RAISED_BY_PYTHON = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(.+)")
_BEFORE_THE_CAUSE = re.compile(
    r"^An error occurred while calling \S+\n: |^[\w.$]+(?:Exception|Error): (?=\[)|^\([\w.$]+\) (?=\[)"
    r"|.*?Job aborted due to stage failure: .*?executor \S+\): "
)
_SQLSTATE = re.compile(r"\s*SQLSTATE: \w+;?")
_REMEDIES = (
    ("OutOfMemoryError", "give Spark more memory: --set spark.driver_memory=8g where it runs on one machine"),
    ("No module named 'faceclust_spark'", "install the package for the Python of every executor as well"),
    ("FileSystem not found", "add the jars of that storage: --set spark.settings or spark-submit --packages"),
    ("UnsupportedFileSystemException", "add the jars of that storage to the session"),
    ("No space left on device", "make room, or let SPARK_LOCAL_DIRS point at a larger disk"),
)
_GONE = (
    "Spark has gone away: its Java process ended, often because the machine ran out of memory. Start the run "
    "again with its --run-id to go on where it stopped"
)


def as_told(error: BaseException) -> FaceclustError | None:
    """Give the error to tell a user in place of one from outside; None where it is a fault of the program."""
    if isinstance(error, FaceclustError):
        return error
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if isinstance(error, ConnectionError | EOFError) or "py4j.Py4JNetworkError" in names:
        return InfrastructureError(_GONE)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return InfrastructureError(f"the operating system says: {error.strerror or error}{place}")
    if any(name.partition(".")[0] in _SPARK for name in names):
        text = str(error)
        return _raised_on_an_executor(text) or InfrastructureError(_short(text))
    return None


def _raised_on_an_executor(text: str) -> FaceclustError | None:
    """Give the error of ours that a UDF raised, where the text tells of one."""
    found = _OURS.findall(text)
    if not found or found[-1][0] not in errors.__all__:
        return None
    name, message = found[-1]
    raised: FaceclustError = getattr(errors, name)(message.strip())
    return raised


def _short(text: str) -> str:
    """Give the one line that matters, and what to do where that is known."""
    by_python = _RAISED_BY_PYTHON.findall(text)
    cause = by_python[-1] if by_python else text
    for _ in range(2):  # Py4J's line, then Spark's
        cause = _BEFORE_THE_CAUSE.sub("", cause.strip(), count=1)
    line = _SQLSTATE.sub("", cause.partition("\n")[0]).strip()[:_LONGEST]
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in text), "-v shows all of it")
    return f"Spark failed: {line or 'without a message'} ({remedy})"
