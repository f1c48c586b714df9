"""Logging: one line a stage on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator

log = logging.getLogger(__name__)


def configure_logging(verbose: bool = False) -> None:
    """Send the package's log to stderr; only commands call this, a library leaves it to its user."""
    logger = logging.getLogger("faceclust_spark")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
    # Spark would print each SQL error a second time, as pages of JSON; the exception carries it already.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.CRITICAL)


@contextlib.contextmanager
def still_working(stage: str, amount: str | None = None, every: float = 60.0) -> Iterator[None]:
    """Log a line a minute while the stage inside lasts: what it is busy with, such as `10,000 faces`.

    Tells the time only: a share done is known to no session but Spark Connect's.
    """
    begun, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            on = f" on {amount}" if amount else ""
            log.info("%-14s still working%s after %.0f min", stage, on, (time.monotonic() - begun) / 60)

    thread = threading.Thread(target=tell, name="faceclust-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
