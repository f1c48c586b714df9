from faceclust_spark import report
from faceclust_spark.tables.schemas import EVALUATION_COUNTS, EVALUATION_METRICS, EVALUATION_RELIABILITY


def row(column, value, counts, *metrics, worth=(0, None, None, None)):
    names = ("slice_column", "slice_value", *EVALUATION_COUNTS, *EVALUATION_METRICS, *EVALUATION_RELIABILITY)
    return dict(zip(names, (column, value, *counts, *metrics, *worth), strict=True))


def test_an_evaluation_is_a_table_of_slices_under_their_columns():
    some = (0.5, 0.25, 0.3333333, 0.8, 0.6, 0.6857, 0.61)
    rows = [
        row("all", "all", (1_234_567, 3, 4, 2), *some),
        row("quality", "up to 0.5", (4, 1, 2, 0), *some),
        row("quality", "(none)", (3, 2, 3, 3), None, 0.0, None, 1.0, 1.0, 1.0, 1.0),
        row("a column", "a value of a very great length", (1, 1, 1, 1), *some),
    ]
    header, *lines = report.describe_evaluation(rows).splitlines()
    assert header.split()[:4] == ["faces", "people", "clusters", "alone"]
    assert [line[:24].rstrip() for line in lines] == [
        *("all", "by quality", "  up to 0.5", "  (none)", "by a column", "  a value of a very gr…"),
    ]
    assert lines[0].split()[1:8] == ["1,234,567", "3", "4", "2", "0.500", "/", "0.250"]
    assert lines[3].split()[5:10] == ["-", "/", "0.000", "/", "-"]
    assert len({len(line) for line in [header, *lines] if not line.startswith("by ")}) == 1


def test_an_evaluation_ends_with_what_confidences_are_worth():
    some = (0.5, 0.25, 0.3333333, 0.8, 0.6, 0.6857, 0.61)
    rows = [
        row("all", "all", (12_000, 3, 4, 2), *some, worth=(9_876, 0.91234, 0.9, 0.056789)),
        row("quality", "high", (4, 1, 2, 0), *some, worth=(4, 0.5, 0.5, 0.25)),
    ]
    assert report.describe_evaluation(rows).splitlines()[-1] == (
        "confidences of the 9,876 faces that are not alone: 0.912 in the mean, 0.900 are right; "
        "Brier score 0.0568"
    )
