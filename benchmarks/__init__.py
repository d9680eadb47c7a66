"""Benchmarks: one file each, run as `python -m benchmarks.NAME` from the checkout; results lie in docs/results/."""
