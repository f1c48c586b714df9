"""Ctrl-C, and a scheduler's SIGTERM, in the middle of a call to Spark.

Python's own handler leaves Spark's jobs running, so that one could still commit after its run has given the
lease back. Spark's asks the JVM to cancel them, on the connection of the very call that the signal has cut:
that mostly fails and comes out as a Py4JError. The two contexts here take their place, in the main thread,
the only one where signals arrive. Handlers of the user's are left as they are.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds between two looks for jobs to cancel


@contextlib.contextmanager
def cancelling_on_interrupt(spark: SparkSession) -> Iterator[None]:
    """Let an interrupt inside end all jobs of the session, then be raised as KeyboardInterrupt.

    Jobs are cancelled until the context is left: one may only be planned when the signal arrives.
    """
    left = threading.Event()
    canceller = threading.Thread(target=_cancel, args=(spark, left), name="faceclust-cancel", daemon=True)

    def start() -> None:
        if not canceller.ident:
            canceller.start()

    with raising_on_interrupt(start):
        try:
            yield
        except Exception as error:  # may be that of a cancelled job, raised by whoever cleaned up after it
            if canceller.ident:
                raise KeyboardInterrupt from error
            raise
        finally:
            left.set()
            if canceller.ident:
                canceller.join()


@contextlib.contextmanager
def raising_on_interrupt(first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let an interrupt inside be raised as KeyboardInterrupt, after a call of `first`, and cancel nothing."""
    replaced: dict[int, Callable[..., Any]] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        replaced = {number: old for number, old in found.items() if callable(old) and _is_known(old)}

    def handle(number: int, frame: object) -> NoReturn:
        first()
        raise KeyboardInterrupt

    for number in replaced:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)


def _is_known(handler: Callable[..., Any]) -> bool:
    """Tell whether a handler is Python's, Spark's, or an outer one of this module."""
    module = getattr(handler, "__module__", None) or ""
    return handler is signal.default_int_handler or module in ("pyspark.core.context", __name__)


def _cancel(spark: SparkSession, left: threading.Event) -> None:
    while not left.is_set():
        try:
            spark.interruptAll()
        except Exception as fault:  # the interrupt counts, whatever has become of Spark
            log.debug("Spark's jobs were not cancelled: %s", fault)
        left.wait(_PAUSE)
