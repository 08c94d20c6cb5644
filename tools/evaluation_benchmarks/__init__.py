"""The rows of tools/benchmark_evaluation.py, one file per task."""
