"""Optimizers: one module each, with one function `build(rate, **settings)`.

It returns a Keras optimizer of that learning rate, a number or a schedule. Its keyword-only
parameters are the settings that params.yaml gives beside `learning_rate` and `schedule`. Keras is
imported inside `build`, so that params.yaml is checked without it.
"""

import math

import numpy as np

WARM_UP = 0.2  # share of a one-cycle schedule in which the learning rate rises


def learning_rates(peak: float, schedule: str, *, steps: int) -> float | np.ndarray:
    """Return the learning rate of a training: a number, or one for each step.

    Args:
        peak: the highest one.
        schedule: `constant`; `cosine`: it falls to 0 along half a cosine (Loshchilov and Hutter
            2017, equation 5); `one_cycle`: it rises in a line, from a first step above 0, over the
            first fifth, and falls along half a cosine over the rest (after Smith and Topin 2018).
        steps: batches of the whole training.

    Returns:
        `peak`, or float32 (steps,).
    """
    if schedule == "constant":
        return peak
    rise = int(WARM_UP * steps) if schedule == "one_cycle" else 0
    step = np.arange(steps)
    fall = 0.5 * (1 + np.cos(math.pi * (step - rise) / (steps - rise)))
    return (peak * np.where(step < rise, (step + 1) / (rise + 1), fall)).astype(np.float32)
