"""Signals in the middle of calls to Spark: what is raised, and what becomes of the jobs."""

import os
import signal
import threading

import pytest

from faceclust_spark.interrupts import cancelling_on_interrupt


def _one_long_call(spark):
    spark.range(10**12).selectExpr("sum(sin(id))").toArrow()


def _many_short_calls(spark):
    while True:
        spark.range(3).count()


@pytest.fixture
def handlers():
    """Put back what the tests set."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("calls", [_one_long_call, _many_short_calls])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_jobs_and_is_raised_as_such(spark, handlers, calls, number):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = signal.getsignal(number)
    for seconds in (0.5, 0.55, 0.6):  # the very call that a signal cuts is another one each time
        timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
        with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark):
            timer.start()
            calls(spark)
        assert signal.getsignal(number) is before
        assert spark.range(7).count() == 7  # on a connection that holds no answer of a cut call
        assert not spark.sparkContext.statusTracker().getActiveJobsIds()


def test_an_interrupt_within_an_inner_one_is_one(spark, handlers):
    with pytest.raises(KeyboardInterrupt), cancelling_on_interrupt(spark), cancelling_on_interrupt(spark):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        _one_long_call(spark)


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
