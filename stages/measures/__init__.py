"""Measures: arrays in, named numbers out. NumPy alone; no Keras, no params, no files."""
