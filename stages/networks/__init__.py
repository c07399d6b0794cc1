"""Networks: one module each, with one function `build` that maps images to codes.

`build(shape, **settings)` returns an uncompiled Keras model from uint8 images of that shape
(height, width, channels) to what the objective is put upon. Its keyword-only parameters are the
settings that params.yaml gives. Layers whose output is written as codes carry a name. Keras is
imported inside `build`, so that params.yaml is checked without it.
"""
