"""Adam (Kingma and Ba 2015)."""


def build(rate, *, amsgrad: bool):
    """Return Adam with Keras' own moments, 0.9 and 0.999.

    Args:
        rate: learning rate, a number or a schedule.
        amsgrad: divide by the largest second moment so far (Reddi et al. 2018, algorithm 2).
    """
    import keras

    return keras.optimizers.Adam(rate, amsgrad=amsgrad)
