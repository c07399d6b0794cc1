"""Blocks of convolution, batch normalisation, relu and pooling: few-shot learning's "Conv-4"."""

from stages.params import Count, Fraction, Real, Whole


def build(
    shape: tuple[int, int, int],
    *,
    scale: Real,
    offset: Real,
    blocks: Count,
    pools: Whole,
    filters: Count,
    momentum: Fraction,
    dropout: Fraction,
):
    """Return `blocks` times 3x3 convolution, pooling by 2, batch normalisation, relu.

    After the embedding of Matching Networks (Vinyals et al. 2016, section 4.1), with two changes.
    Pooling comes before normalisation, which sees a quarter of the values and, while its scales
    are positive, gives the same. The last blocks may go without pooling, so that the codes keep
    where a stroke is. The flattened last block is `neural_codes`.

    Args:
        shape: (height, width, channels) of the uint8 images.
        scale: pixels enter the network as value * scale + offset.
        offset: see `scale`.
        blocks: number of blocks.
        pools: how many of them, the first ones, halve height and width.
        filters: convolution filters of every block.
        momentum: of the moving statistics of batch normalisation; in a training of few batches
            Keras' own 0.99 leaves them far behind.
        dropout: share of values dropped after each block.
    """
    import keras
    from keras import layers

    images = keras.Input(shape, dtype="uint8", name="images")
    x = layers.Rescaling(scale, offset)(images)
    for block in range(blocks):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        if block < pools:
            x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.ReLU()(x)
        x = layers.Dropout(dropout)(x)
    return keras.Model(images, layers.Flatten(name="neural_codes")(x), name="conv_blocks")
