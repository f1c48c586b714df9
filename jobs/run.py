"""Cluster a gallery, from a source to Delta tables.

spark-submit --properties-file conf/spark-defaults.conf jobs/run.py --source gallery.parquet --tables out

The arguments are those of `faceclust run`.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
