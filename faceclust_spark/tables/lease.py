"""The lease: one run at a time on the tables of a gallery.

Delta's blind appends never conflict, and one run's replaced tables would silently become another's input.
So a run first takes the one row of the table `lease`, by making the table or by a conditional UPDATE: of two
at the same moment Delta lets one commit. A thread keeps renewing it; the clock is the Spark driver's.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import secrets
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from faceclust_spark.errors import LeaseHeldError
from faceclust_spark.tables import columns as c
from faceclust_spark.tables.schemas import LEASE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from faceclust_spark.tables.storage import TableStore

log = logging.getLogger(__name__)

_RENEWALS = 4  # a lease


class Lease:
    """Held inside a `with`: entering raises LeaseHeldError where another run has the tables.

    A lease of the same run, left by a process that was killed, is taken over at once; another run's
    after it has expired. `confirm` before a write tells whether it is still held.
    """

    def __init__(self, spark: SparkSession, store: TableStore, run_id: str, seconds: float = 900.0) -> None:
        self._spark, self._store, self._run_id, self._seconds = spark, store, run_id, seconds
        self._token = secrets.token_hex(8)
        self._renewed = 0.0  # on the monotonic clock
        self._version = 0  # of the table, when it last was this process's
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="faceclust-lease", daemon=True)

    def __enter__(self) -> Lease:
        try:
            since, row = time.monotonic(), self._row(self._seconds)
            if not self._store.exists(LEASE) and self._store.create(LEASE, row, self._run_id):
                self._renewed = since  # the table was made with this row: nobody else can have it
            else:
                self._take()
            self._thread.start()
        except LeaseHeldError:
            raise
        except BaseException:  # it may just have been taken, and be kept by now
            self._ended.set()
            with contextlib.suppress(Exception):
                self._expire()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._give_back()
        except BaseException as fault:
            log.warning("the lease was not given back and expires in %.0f s: %s", self._seconds, fault)
            if not isinstance(fault, Exception):  # else the run's own outcome counts
                raise

    def confirm(self) -> None:
        """Raise LeaseHeldError where another run, or another process of this one, has taken over."""
        if time.monotonic() - self._renewed > self._seconds / 2:
            self._renew()

    def _give_back(self) -> None:
        """Let the lease expire now.

        By a plain write, which takes a session seconds less than its first UPDATE, where it cannot have
        expired and nobody has written since. Delta refuses it if somebody does while it is written.
        """
        held = time.monotonic() - self._renewed < self._seconds
        same = held and self._store.version(LEASE) == self._version
        if same and self._read()[c.TOKEN] == self._token:  # a broken lease's table is another one
            self._store.replace(LEASE, self._row(0.0), self._run_id)
        else:
            self._expire()

    def _expire(self) -> None:
        self._update(f"{c.EXPIRES_AT} = current_timestamp()", self._is_own())

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            try:
                self._renew()
            except LeaseHeldError:
                self._renewed = -self._seconds  # so that the next `confirm` looks, and raises
                return
            except Exception as fault:  # a next attempt follows; `confirm` sees if none succeeds
                log.debug("the lease was not renewed: %s", fault)

    def _renew(self) -> None:
        with self._lock:
            self._change(f"{c.EXPIRES_AT} = {self._end()}", self._is_own())

    def _take(self) -> None:
        """Take the row where its lease has expired, or is an earlier process's of the same run."""
        assignments = {
            c.RUN_ID: _literal(self._run_id),
            c.TOKEN: _literal(self._token),
            c.HOLDER: _literal(_process()),
            c.SINCE: "current_timestamp()",
            c.EXPIRES_AT: self._end(),
        }
        self._change(
            ", ".join(f"{name} = {value}" for name, value in assignments.items()),
            f"{c.EXPIRES_AT} <= current_timestamp() OR {c.RUN_ID} = {_literal(self._run_id)}",
        )

    def _change(self, assignments: str, condition: str) -> None:
        """Change the row and have the lease. Raises LeaseHeldError where it is another's now."""
        since = time.monotonic()
        if self._update(assignments, condition):  # which tells: the row need not be read
            self._renewed, self._version = since, self._store.version(LEASE)
        else:
            self._require_own()

    def _update(self, assignments: str, condition: str) -> bool:
        """Change the row where the condition holds, and tell whether it did; a lost race changes nothing."""
        table = self._store.sql_name(LEASE)
        try:
            changed = self._spark.sql(f"UPDATE {table} SET {assignments} WHERE {condition}").toArrow()
        except PySparkException as error:
            if "DELTA_CONCURRENT" not in str(error):
                raise
            return False
        return bool(changed["num_affected_rows"][0].as_py())

    def _is_own(self) -> str:
        return f"{c.TOKEN} = {_literal(self._token)}"

    def _end(self) -> str:
        """Give when a lease ends that is renewed now."""
        return f"current_timestamp() + make_dt_interval(0, 0, 0, CAST({self._seconds} AS DECIMAL(18, 6)))"

    def _row(self, seconds: float) -> DataFrame:
        """Give the row of a lease that starts now."""
        now = F.current_timestamp()
        return self._spark.range(1).select(
            F.lit(self._token).alias(c.TOKEN),
            F.lit(_process()).alias(c.HOLDER),
            now.alias(c.SINCE),
            (now + F.make_dt_interval(secs=F.lit(seconds).cast("decimal(18,6)"))).alias(c.EXPIRES_AT),
        )

    def _read(self) -> dict[str, Any]:
        row: dict[str, Any] = self._store.read(LEASE).toArrow().to_pylist()[0]
        return row

    def _require_own(self) -> None:
        version, row = self._store.version(LEASE), self._read()  # in this order: a later writer is seen
        if row[c.TOKEN] == self._token:  # only when it ends has not moved: `confirm` tries again
            self._version = version
            return
        since, expires = (f"{row[name]:%Y-%m-%d %H:%M:%S} UTC" for name in (c.SINCE, c.EXPIRES_AT))
        raise LeaseHeldError(
            f"the tables in {self._store.base} are in use by run {row[c.RUN_ID]} ({row[c.HOLDER]}) since "
            f"{since}: wait until it has ended. If it was killed, go on with it by --run-id {row[c.RUN_ID]}, "
            f"or wait until its lease expires at {expires}; to break the lease now, delete the table "
            f"`{LEASE.name}` there"
        )


def _literal(text: str) -> str:
    """Give a text for a statement, whatever characters it holds and however the session reads quotes."""
    return f"CAST(X'{text.encode().hex()}' AS STRING)"


def _process() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user} on {platform.node()}, process {os.getpid()}"
