"""A residual network of few layers, made to be trained soon (after Page 2018, "ResNet-9")."""

from typing import Annotated, Literal

import pydantic

from stages.params import Count, Fraction, Real


def build(
    shape: tuple[int, int, int],
    *,
    scale: Real,
    offset: Real,
    stem: Count,
    stride: Count,
    filters: Annotated[list[Count], pydantic.Field(min_length=1)],
    momentum: Fraction,
    fused: bool,
    pool: Literal["max", "none"],
    dense: Count | None,
    members: Count,
):
    """Return a first convolution, and a stage of three for each of `filters`.

    A stage halves height and width and adds to what it has so far a block of two convolutions
    (He et al. 2016); the sums that end the stages are the layers `add`, `add_1` and so on. All
    convolutions are 3x3, batch-normalised, with relu; pooling comes before normalisation, which
    then sees a quarter of the values. What the last stage says is the code, `neural_codes`, or
    what a dense layer makes of it.

    Args:
        shape: (height, width, channels) of the uint8 images.
        scale: pixels enter the network as value * scale + offset.
        offset: see `scale`.
        stem: filters of the first convolution.
        stride: of the first convolution; 2 quarters the work of the whole network.
        filters: of the convolutions of each stage.
        momentum: of the moving statistics of batch normalisation.
        fused: batch normalisation of convolutions as one operation of TensorFlow: sooner, with
            other last bits. False: as Keras composes it.
        pool: `max`: a code is the largest value of each filter over the last stage's image, which
            asks what is there, not where. `none`: all of its values, for kinds that are told apart
            by where a part is, such as strokes.
        dense: units of a dense layer after the pooling, batch-normalised, with relu, which are the
            code then; None for none.
        members: so many of these networks side by side, each from initial weights of its own; 1:
            one. Several are an ensemble (Lakshminarayanan et al. 2017), of which each is trained as
            if it were alone: their codes joined are `neural_codes`, the names of a member's own
            layers end in `_of_member_1` and so on, and the output is (n, members, dim).
    """
    import keras
    from keras import layers

    from stages.backend import FusedBatchNormalization

    normalised = FusedBatchNormalization if fused else layers.BatchNormalization

    def convolution(x, filters, *, stride=1, pool=1):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        if pool > 1:
            x = layers.MaxPooling2D(pool)(x)
        return layers.ReLU()(normalised(momentum=momentum)(x))

    def member(x, ending):
        x = convolution(x, stem, stride=stride)
        for stage, width in enumerate(filters):
            x = convolution(x, width, pool=2)
            # Keras' own names, in whatever network of a process
            name = (f"add_{stage}" if stage else "add") + ending
            x = layers.Add(name=name)([x, convolution(convolution(x, width), width)])
        pooled = layers.GlobalMaxPooling2D if pool == "max" else layers.Flatten
        x = pooled(name=("pooled" if dense else "neural_codes") + ending)(x)
        if dense:
            x = layers.BatchNormalization(momentum=momentum)(layers.Dense(dense, use_bias=False)(x))
            x = layers.ReLU(name="neural_codes" + ending)(x)
        return x

    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(scale, offset)(images)
    if members == 1:
        return keras.Model(images, member(x, ""), name="resnet9")
    each = [member(x, f"_of_member_{number}") for number in range(1, members + 1)]
    codes = layers.Concatenate(name="neural_codes")(each)
    return keras.Model(images, layers.Reshape((members, -1))(codes), name="resnet9")
