"""Benchmarks: speed only, on random images and codes; each is run as `python -m benchmarks.<name>`."""
