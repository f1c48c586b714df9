"""Arithmetic on arrays: numpy, numba, faiss and torch only. Nothing here imports Spark."""
