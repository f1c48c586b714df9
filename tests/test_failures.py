"""Failures from outside the package: real ones of Spark and the system, and what a user reads of them."""

import socket

import pytest
from commands import command

from faceclust_spark.errors import DataError, InfrastructureError
from faceclust_spark.failures import as_told


def _raised(work):
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def _on_an_executor(spark, error):
    """Give what reaches the driver of an error raised in a task."""

    def failing(batches):
        for _ in batches:
            raise error
        yield

    return _raised(spark.range(3, numPartitions=1).mapInArrow(failing, "id long").toArrow)


def test_an_error_raised_on_purpose_on_an_executor_is_that_error_again(spark):
    message = "3 rows cannot be used:\n  one, none allowed\nleave them out"
    told = as_told(_on_an_executor(spark, DataError(message)))
    assert type(told) is DataError
    assert str(told) == message


def test_another_error_on_an_executor_is_its_last_line(spark):
    told = as_told(_on_an_executor(spark, ZeroDivisionError("division by zero")))
    assert type(told) is InfrastructureError
    assert str(told) == "Spark failed: ZeroDivisionError: division by zero (-v shows all of it)"


def test_an_executor_without_the_package_is_told_the_remedy(spark):
    told = as_told(_on_an_executor(spark, ModuleNotFoundError("No module named 'faceclust_spark'")))
    assert str(told) == (
        "Spark failed: ModuleNotFoundError: No module named 'faceclust_spark' (install the package for the "
        "Python of every executor as well)"
    )


def test_errors_of_java_and_of_analysis_are_one_line(spark, tmp_path):
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "below")
    failures = {
        "Spark failed: [UNRESOLVED_COLUMN.WITH_SUGGESTION] ": lambda: spark.range(3).select("other"),
        "Spark failed: java.lang.RuntimeException: java.lang.ClassNotFoundException: ": (
            lambda: spark.read.parquet("s3a://bucket/gallery")
        ),
        "Spark failed: org.apache.hadoop.fs.ParentNotDirectoryException: ": lambda: spark.range(
            3
        ).write.parquet(below),
        "Spark failed: ": lambda: spark.range(3).write.format("delta").save(below),
    }
    for told, work in failures.items():
        message = str(as_told(_raised(work)))
        assert message.startswith(told)
        assert "\n" not in message
        assert "SQLSTATE" not in message


def test_a_lost_spark_and_a_refusing_system_are_infrastructure(tmp_path):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # a port that nobody listens on
        told = as_told(_raised(lambda: socket.create_connection(unheard.getsockname())))
    assert type(told) is InfrastructureError
    assert str(told).startswith("Spark has gone away")
    told = as_told(_raised((tmp_path / "none").read_text))
    assert str(told) == f"the operating system says: No such file or directory ({tmp_path / 'none'})"


def test_a_fault_of_the_program_stays_what_it_is():
    assert as_told(_raised(lambda: {}["none"])) is None


def test_the_command_shows_the_traceback_on_request_only(spark, tmp_path):
    (tmp_path / "file").touch()
    arguments = ("synth", "--faces", "10", "--output", tmp_path / "file" / "below")
    short = command(*arguments)
    assert (short.code, short.out) == (4, "")
    assert short.err.startswith("faceclust: Spark failed: ")
    assert short.err.count("\n") == 1
    long = command(*arguments, "-v")
    assert (long.code, long.out) == (4, "")
    assert "Traceback (most recent call last)" in long.err
    assert long.err.endswith(short.err)
