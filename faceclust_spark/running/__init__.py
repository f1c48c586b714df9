"""How a run does its stages: what it holds and writes, in Spark's tasks and in the driver's process."""
