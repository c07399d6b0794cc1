"""The siamese leg of the one-shot assignment on CIFAR-100 (TU Eindhoven 2IMM10)."""

from stages.params import Fraction, NotNegative, Real


def build(
    shape: tuple[int, int, int],
    *,
    scale: Real,
    offset: Real,
    dropout: Fraction,
    convolution_l2: NotNegative,
    dense_l2: NotNegative,
):
    """Return the leg: four convolutions and a dense layer of 1,024 sigmoids, `neural_codes`.

    1,219,840 parameters on 32x32 RGB.

    Args:
        shape: (height, width, channels) of the uint8 images.
        scale: pixels enter the network as value * scale + offset.
        offset: see `scale`.
        dropout: share of values dropped after each convolution's block.
        convolution_l2: weight of the L2 penalty on each convolution's kernel.
        dense_l2: the same on the dense layer's.
    """
    import keras
    from keras import layers

    small, large = keras.regularizers.L2(convolution_l2), keras.regularizers.L2(dense_l2)
    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(scale, offset)(images)
    for filters, kernel in ((32, 3), (64, 2), (64, 2)):
        x = layers.Conv2D(filters, kernel, activation="relu", kernel_regularizer=small)(x)
        x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization()(x)
        x = layers.Dropout(dropout)(x)
    x = layers.Conv2D(128, 1, activation="relu", kernel_regularizer=small)(x)
    x = layers.Flatten()(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(dropout)(x)
    codes = layers.Dense(1024, activation="sigmoid", kernel_regularizer=large, name="neural_codes")(
        x
    )
    return keras.Model(images, codes, name="cifar_siamese")
