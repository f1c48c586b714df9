import logging
import time

import pytest

from faceclust_spark.log import configure_logging, still_working


@pytest.fixture
def package_logger():
    logger = logging.getLogger("faceclust_spark")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


def test_the_log_goes_to_stderr_once_however_often_it_is_set_up(package_logger, capsys):
    configure_logging()
    configure_logging()
    logging.getLogger("faceclust_spark.pipeline").info("ingest 10 faces")
    logging.getLogger("faceclust_spark.pipeline").debug("unseen")
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.count("ingest 10 faces") == 1
    assert "unseen" not in seen.err


def test_a_long_stage_says_what_it_is_busy_with(package_logger, caplog):
    package_logger.propagate = True
    deadline = time.monotonic() + 60
    with caplog.at_level(logging.INFO), still_working("neighbours", "10,000 faces", every=0.01):
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages[0] == "neighbours     still working on 10,000 faces after 0 min"
    told = len(caplog.records)
    time.sleep(0.05)
    assert len(caplog.records) == told
