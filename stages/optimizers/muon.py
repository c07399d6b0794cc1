"""Orthogonalised momentum for the kernels of convolutions (after Jordan et al. 2024, "Muon")."""

from typing import Annotated

import pydantic

from stages.params import Count, Fraction, NotNegative, Positive

LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315  # of an iteration, by Jordan et al. 2024
NOT_ZERO = 1e-7  # added to norms that are divided by


def build(
    rate,
    *,
    momentum: Annotated[Fraction, pydantic.Field(gt=0)],
    weight_decay: NotNegative,
    others: Positive,
    iterations: Count,
):
    """Return Muon for kernels, and stochastic gradient descent for all other weights.

    A kernel as a matrix, (height * width * channels, filters), moves along Nesterov's momentum
    with all singular values made alike: as far in the directions that few images ask for as in
    those that most do. The learning rate is the step's share of the kernel's norm. The norm itself
    stays, as batch normalisation after a convolution leaves it without meaning.

    Args:
        rate: learning rate, a number or a schedule.
        momentum: share of the last step that the next one keeps.
        weight_decay: share of every weight that is taken off at each step, times the learning
            rate; of a kernel it changes the norm alone.
        others: the learning rate of all weights but kernels, in learning rates of the kernels.
        iterations: by which singular values are made alike; Jordan et al. have five.
    """
    import keras
    from keras import ops

    class Muon(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            if len(variable.shape) < 4:
                return super().update_step(gradient, variable, others * learning_rate)
            past = self.momentums[self._get_variable_index(variable)]
            self.assign(past, momentum * past + gradient)
            matrix = (-1, variable.shape[-1])
            step = orthogonalised(ops.reshape(momentum * past + gradient, matrix), iterations)
            kernel = ops.reshape(variable, matrix)
            length = ops.norm(kernel)
            share = ops.cast(learning_rate, kernel.dtype) / (ops.norm(step) + NOT_ZERO)
            moved = kernel - share * length * step
            moved = moved * length / (ops.norm(moved) + NOT_ZERO)
            return self.assign(variable, ops.reshape(moved, variable.shape))

    return Muon(rate, momentum=momentum, nesterov=True, weight_decay=weight_decay or None)


def orthogonalised(matrix, iterations: int):
    """Return a matrix of the same singular vectors, its singular values brought near 1.

    By the iteration of Newton and Schulz: five bring what is more than a hundredth of the norm to
    between 0.68 and 1.21; what is less stays smaller.

    Args:
        matrix: Keras tensor (rows, columns).
        iterations: each of three matrix products.
    """
    from keras import ops

    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix
    x = x / (ops.norm(x) + NOT_ZERO)  # no singular value is above 1 now
    for _ in range(iterations):
        square = x @ ops.transpose(x)
        x = LINEAR * x + (CUBIC * square + QUINTIC * square @ square) @ x
    return ops.transpose(x) if tall else x
