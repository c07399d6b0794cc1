"""Measures: arrays in, named numbers out. No Keras, no params, no files."""
