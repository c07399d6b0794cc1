"""The classifier of the one-shot assignment on CIFAR-100 (TU Eindhoven 2IMM10)."""

from stages.params import Fraction, Real


def build(shape: tuple[int, int, int], *, scale: Real, offset: Real, dropout: Fraction):
    """Return two convolutions and two dense layers; the second's 512 values are `neural_codes`.

    2,947,984 parameters on 32x32 RGB, together with the classifier's head for 80 classes.

    Args:
        shape: (height, width, channels) of the uint8 images.
        scale: pixels enter the network as value * scale + offset.
        offset: see `scale`.
        dropout: share of values dropped after each convolution's block and before the head.
    """
    import keras
    from keras import layers

    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(scale, offset)(images)
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, activation="relu")(x)
        x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization()(x)
        x = layers.Dropout(dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(1024, activation="relu")(x)
    x = layers.Dense(512, activation="relu", name="neural_codes")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(images, x, name="cifar_classifier")
