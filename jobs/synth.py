"""Write a synthetic gallery.

spark-submit --properties-file conf/spark-defaults.conf jobs/synth.py --output gallery.parquet --faces 1000000

The arguments are those of `faceclust synth`.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["synth", *sys.argv[1:]])
