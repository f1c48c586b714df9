"""Check a source and merge its faces into the tables.

spark-submit --properties-file conf/spark-defaults.conf jobs/ingest.py --source gallery.parquet --tables out

The arguments are those of `faceclust ingest`.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
