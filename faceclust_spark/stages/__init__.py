"""Pure steps: DataFrames and a config in, a DataFrame out. Nothing here writes."""
