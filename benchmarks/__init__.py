"""Benchmarks of speed, on random images and codes: `python -m benchmarks.<name>`."""
