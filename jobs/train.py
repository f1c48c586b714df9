"""Train the graph convolution on a labelled gallery.

spark-submit --properties-file conf/spark-defaults.conf jobs/train.py --source gallery.parquet --model model

The arguments are those of `faceclust train`.
"""

import sys

from faceclust_spark.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
