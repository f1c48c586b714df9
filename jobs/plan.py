"""Predict what a run of a gallery takes, and by which settings, from a sample of its source.

spark-submit --properties-file conf/spark-defaults.conf jobs/plan.py --source gallery.parquet --faces 1000000

The arguments are those of `faceclust plan`. The machine that it runs on is the one whose speed is measured.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
