"""Stochastic gradient descent with Nesterov's momentum (Sutskever et al. 2013)."""

from stages.params import Fraction, NotNegative


def build(rate, *, momentum: Fraction, weight_decay: NotNegative):
    """Return stochastic gradient descent.

    Args:
        rate: learning rate, a number or a schedule.
        momentum: share of the last step that the next one keeps.
        weight_decay: share of every weight that is taken off at each step, times the learning
            rate, apart from the momentum (Loshchilov and Hutter 2019, algorithm 1).
    """
    import keras

    return keras.optimizers.SGD(
        rate, momentum=momentum, nesterov=True, weight_decay=weight_decay or None
    )
