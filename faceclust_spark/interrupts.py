"""Ctrl-C, and a scheduler's SIGTERM, in the middle of a call to Spark.

Python's own handler leaves a call at once, and Spark's jobs running: one could still commit after its run has
given the lease back. Spark's asks the JVM to cancel them, on the connection of the very call that the signal
has cut, which mostly fails and comes out as a Py4JError. The two contexts here take their place, in the main
thread, the only one where signals arrive. They let a call come back before they raise. Handlers of the user's
are left as they are.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
_CALLS = ("py4j", "grpc")  # packages that wait for Spark
_PAUSE = 0.1  # seconds between two looks at whether the call has come back
_PATIENCE = 15.0  # seconds that it may take
_LONGEST = 120.0  # seconds that jobs are cancelled for


def cancelling_on_interrupt(spark: SparkSession) -> contextlib.AbstractContextManager[None]:
    """Let an interrupt inside end all jobs of the session, then be raised as KeyboardInterrupt.

    Jobs are cancelled until the context is left: one may only be planned when the signal arrives.
    """

    def cancel() -> None:
        try:
            spark.interruptAll()
        except Exception as fault:  # the interrupt counts, whatever has become of Spark
            log.debug("Spark's jobs were not cancelled: %s", fault)

    return _interruptible(cancel)


def raising_on_interrupt() -> contextlib.AbstractContextManager[None]:
    """Let an interrupt inside be raised as KeyboardInterrupt once a call to Spark has come back."""
    return _interruptible(lambda: None)


class _Interrupt:
    """An interrupt, from the signal until its context is left."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel, self._since, self._is_raised, self._number = cancel, 0.0, False, 0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._pursue, name="faceclust-interrupt", daemon=True)

    @property
    def has_come(self) -> bool:
        return self._since > 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the first, a repetition by the thread, or a further one of the user's."""
        if self._left.is_set():
            return
        if not self.has_come:
            self._since, self._number = time.monotonic(), number
            self._thread.start()
        if _is_in_call(frame) and time.monotonic() - self._since < _PATIENCE:
            return
        self._is_raised = True
        raise KeyboardInterrupt

    def end(self) -> None:
        self._left.set()
        if self._thread.ident:
            self._thread.join()

    def _pursue(self) -> None:
        """Cancel, and let the main thread look again, until it has raised and the context is left."""
        while not self._left.is_set() and time.monotonic() - self._since < _LONGEST:
            self._cancel()
            if not self._left.wait(_PAUSE) and not self._is_raised:
                _thread.interrupt_main(signal.Signals(self._number))


@contextlib.contextmanager
def _interruptible(cancel: Callable[[], None]) -> Iterator[None]:
    interrupt, replaced = _Interrupt(cancel), dict[int, Any]()
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                old = signal.getsignal(number)
                if _is_known(old):
                    replaced[number] = old
                    signal.signal(number, interrupt.handle)
        try:
            yield
        except Exception as error:  # may be that of a cancelled job
            if interrupt.has_come:
                raise KeyboardInterrupt from error
            raise
        if interrupt.has_come:  # whoever caught it, or the call that came back was the last
            raise KeyboardInterrupt
    finally:
        interrupt.end()
        for number, old in replaced.items():
            signal.signal(number, old)


def _is_known(handler: Any) -> bool:
    """Tell whether a handler is Python's, Spark's, or an outer one of this module."""
    module = getattr(handler, "__module__", None)
    return handler is signal.default_int_handler or module in ("pyspark.core.context", __name__)


def _is_in_call(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _CALLS:
            return True
        frame = frame.f_back
    return False
