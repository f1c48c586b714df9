"""Logging: one line a stage on stderr."""

from __future__ import annotations

import logging
import sys


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
