"""Scripts that measure, each run as `python -m benchmarks.NAME`; see README.md beside them."""
