"""Compare the clusters with labels.

spark-submit --properties-file conf/spark-defaults.conf jobs/evaluate.py --tables out

The arguments are those of `faceclust evaluate`.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
