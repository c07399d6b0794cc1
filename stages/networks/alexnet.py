"""The network of the neural-codes assignment on Tiny ImageNet (TU Eindhoven 2IMM10).

After that of Babenko et al. 2014, "Neural codes for image retrieval", section 3, which is the
network of Krizhevsky et al. 2012: five convolutions and three dense layers.
"""

from stages.params import Count, Fraction, Real


def build(
    shape: tuple[int, int, int], *, scale: Real, offset: Real, units: Count, dropout: Fraction
):
    """Return five convolutions and two dense layers, whose codes are `L5`, `L6` and `L7`.

    With 2,048 units 40,516,382 parameters on 64x64 RGB, together with the classifier's head for
    190 classes. `L5` are the 16,384 values of the last convolution after pooling and relu, `L6`
    and `L7` those of the dense layers after relu; `L5_before_relu` and so on are the same before
    it. (Pooling and relu may change places: the largest value is the largest after relu too.)

    Args:
        shape: (height, width, channels) of the uint8 images.
        scale: pixels enter the network as value * scale + offset.
        offset: see `scale`.
        units: of each of the two dense layers.
        dropout: share of values dropped before `L6` and before `L7`.
    """
    import keras
    from keras import layers

    def convolution(x, filters, kernel):
        return layers.Conv2D(filters, kernel, padding="same", activation="relu")(x)

    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(scale, offset)(images)
    x = layers.MaxPooling2D()(convolution(x, 96, 4))
    x = layers.MaxPooling2D()(convolution(x, 192, 5))
    x = convolution(convolution(x, 288, 3), 288, 3)
    x = layers.MaxPooling2D()(layers.Conv2D(256, 3, padding="same")(x))
    x = layers.Flatten(name="L5_before_relu")(x)
    x = layers.ReLU(name="L5")(x)
    for name in ("L6", "L7"):
        x = layers.Dropout(dropout)(x)
        x = layers.Dense(units, name=f"{name}_before_relu")(x)
        x = layers.ReLU(name=name)(x)
    return keras.Model(images, x, name="alexnet")
