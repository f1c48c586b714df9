"""Signals in the middle of calls to Spark: what is raised, and what becomes of the jobs."""

import os
import signal
import threading
import time

import pytest

from faceclust_spark import interrupts
from faceclust_spark.interrupts import cancelling_on_interrupt, raising_on_interrupt


def _one_long_call(spark):
    spark.range(10**10).selectExpr("sum(sin(id))").toArrow()


def _many_short_calls(spark):
    for _ in range(1_000):
        spark.range(3).count()


def _press(seconds, number=signal.SIGINT):
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def _threads():
    return [thread.name for thread in threading.enumerate() if thread.name == "faceclust-interrupt"]


def _none_active(spark):
    """Wait a while for jobs to end that have been told to: 10^10 sines take longer."""
    tracker, deadline = spark.sparkContext.statusTracker(), time.monotonic() + 20
    while tracker.getActiveJobsIds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not tracker.getActiveJobsIds()


@pytest.fixture
def handlers():
    """Put back what the tests set."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not _threads()


@pytest.mark.parametrize("calls", [_one_long_call, _many_short_calls])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_jobs_and_is_raised_as_such(spark, handlers, calls, number):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = signal.getsignal(number)
    for seconds in (0.02, 0.5, 0.55):  # the very call that a signal cuts is another one each time
        with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
            _press(seconds, number)
            calls(spark)
        assert signal.getsignal(number) is before
        assert spark.range(7).count() == 7  # on a connection that holds no answer of a cut call
        assert _none_active(spark)


def test_a_write_that_is_interrupted_does_not_commit_later(spark, handlers, tmp_path):
    for seconds in (0.01, 0.05, 0.1, 0.2, 0.4):
        path = tmp_path / str(seconds)
        with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
            _press(seconds)
            spark.range(10**10).selectExpr("sum(sin(id)) AS sum").write.format("delta").save(str(path))
        assert _none_active(spark)
        time.sleep(0.5)
        assert _none_active(spark)
        assert not list(path.rglob("*.json"))  # of its log


@pytest.mark.parametrize("context", [cancelling_on_interrupt, lambda _: raising_on_interrupt()])
def test_a_call_that_nothing_ends_comes_back_before_the_interrupt_is_raised(spark, handlers, context):
    done = []
    with pytest.raises(KeyboardInterrupt), context(spark):
        _press(0.3)
        spark._jvm.Thread.sleep(1_000)
        done.append("slept")
        for _ in range(1_000):
            time.sleep(0.05)
    assert done == ["slept"]


def test_an_interrupt_outside_of_a_call_is_raised_at_once(spark, handlers):
    with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
        _press(0.2)
        time.sleep(60)
        pytest.fail("slept on")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_swallows_is_raised_at_the_end(spark, handlers):
    class Last:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
        Last()


def test_a_signal_while_handlers_are_set_leaves_nothing_behind(spark, handlers, monkeypatch):
    before, set_handler = signal.getsignal(signal.SIGINT), signal.signal

    def setting(number, handler):
        set_handler(number, handler)
        if number == signal.SIGINT and handler is not before:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(interrupts.signal, "signal", setting)
    with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
        pytest.fail("the signal came before")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    assert not _threads()
    assert spark.range(7).count() == 7


def test_an_interrupt_within_an_inner_one_is_one(spark, handlers):
    with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark), raising_on_interrupt():
        with cancelling_on_interrupt(spark):
            _press(0.5)
            _one_long_call(spark)
        pytest.fail("an interrupt goes on to the outer context")


def test_another_error_stays_what_it_is(spark, handlers):
    with pytest.raises(ZeroDivisionError), cancelling_on_interrupt(spark):
        1 / 0  # noqa: B018


def test_a_handler_of_the_users_stays(spark, handlers):
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with cancelling_on_interrupt(spark):
        os.kill(os.getpid(), signal.SIGINT)
        assert spark.range(7).count() == 7
    assert seen == [signal.SIGINT]


def test_another_thread_may_use_it_where_no_signal_arrives(spark, handlers):
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with cancelling_on_interrupt(spark):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
