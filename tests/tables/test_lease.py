"""The lease: one run at a time, and a way out after a kill."""

import threading
import time

import pytest
from pyspark.sql import functions as F

from faceclust_spark.errors import LeaseHeldError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.lease import Lease
from faceclust_spark.tables.schemas import LEASE


def test_a_second_run_is_refused_until_the_first_has_ended(spark, store):
    with Lease(spark, store, "first") as lease:
        with pytest.raises(LeaseHeldError) as raised, Lease(spark, store, "second"):
            pass
        told = str(raised.value)
        assert all(
            part in told for part in (store.base, "run first", "since 20", "--run-id first", "`lease`")
        )
        lease.confirm()
    with Lease(spark, store, "second"):
        pass
    assert store.read(LEASE).count() == 1


def test_a_killed_run_takes_its_lease_over_and_the_dead_process_notices(spark, store):
    killed = Lease(spark, store, "first", seconds=600)
    killed.__enter__()
    with Lease(spark, store, "first"):
        killed._renewed = -600.0  # as if it had slept
        with pytest.raises(LeaseHeldError):
            killed.confirm()
        killed.__exit__(None, None, None)
        with pytest.raises(LeaseHeldError), Lease(spark, store, "second"):
            pass


def test_the_end_of_a_run_whose_lease_was_broken_leaves_the_next_one_its_own(spark, store):
    broken = Lease(spark, store, "first")
    broken.__enter__()
    store.drop(LEASE)  # as the refusal tells to
    with Lease(spark, store, "second"):
        assert store.version(LEASE) == broken._version == 0
        broken.__exit__(None, None, None)
        with pytest.raises(LeaseHeldError, match="run second"), Lease(spark, store, "third"):
            pass


def test_a_lease_is_given_back_without_an_update(spark, store, monkeypatch):
    with Lease(spark, store, "first"):
        monkeypatch.setattr(Lease, "_update", lambda *_: pytest.fail("an UPDATE takes seconds"))
    monkeypatch.undo()
    with Lease(spark, store, "second"):
        pass
    assert store.read(LEASE).count() == 1


@pytest.mark.parametrize("step", ["create", "_take"])
def test_an_interrupt_right_after_the_lease_was_taken_gives_it_back(spark, store, monkeypatch, step):
    place = type(store) if step == "create" else Lease
    take = getattr(place, step)

    def interrupted(*arguments):
        take(*arguments)
        raise KeyboardInterrupt

    if step == "_take":
        with Lease(spark, store, "first"):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(place, step, interrupted)
        with pytest.raises(KeyboardInterrupt), Lease(spark, store, "second"):
            pass
    assert store.read(LEASE).toArrow()[c.RUN_ID].to_pylist() == ["second"]
    with Lease(spark, store, "third"):
        pass


def test_an_expired_lease_goes_to_whoever_comes(spark, store):
    slept = Lease(spark, store, "first", seconds=0.01)
    slept._thread = threading.Thread()  # nobody renews it
    slept.__enter__()
    time.sleep(0.01)
    with Lease(spark, store, "second"), pytest.raises(LeaseHeldError, match="run second"):
        slept.confirm()


def test_the_lease_is_renewed_while_it_is_held(spark, store):
    with Lease(spark, store, "first", seconds=20) as lease:
        before = lease._read()[c.EXPIRES_AT]
        deadline = time.monotonic() + 120
        while lease._read()[c.EXPIRES_AT] == before and time.monotonic() < deadline:
            time.sleep(0.5)
        assert lease._read()[c.EXPIRES_AT] > before


def test_of_two_at_the_same_moment_one_is_let_in(spark, store):
    barrier, entered, refused = threading.Barrier(2), [], []
    ended = threading.Event()

    def enter(name):
        barrier.wait()
        try:
            with Lease(spark, store, name):
                entered.append(name)
                ended.wait(120)
        except LeaseHeldError:
            refused.append(name)
            ended.set()

    threads = [threading.Thread(target=enter, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 1)
    assert store.read(LEASE).where(F.col(c.RUN_ID) == entered[0]).count() == 1
