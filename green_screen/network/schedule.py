"""Learning-rate schedules over the whole training.

Step ``t`` counts from 0 and the training has ``T`` steps; the first step uses the full learning
rate ``lr``, the last one the value at ``T - 1``. Steps beyond ``T``, which only measurement makes,
stay at or below the final value.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# exponential: lr * EXPONENTIAL_END ** (t / T). Two drops by ten, as in He et al. 2015, made smooth.
EXPONENTIAL_END = 0.01
# polynomial: lr * (1 - t / T) ** POLYNOMIAL_POWER, "poly(2)" of You et al. 2017, arXiv:1708.03888.
POLYNOMIAL_POWER = 2.0


def make_schedule(name: str, initial: float, total_steps: int) -> Any:
    """Return a Keras schedule that starts at `initial` and decays over `total_steps`.

    All four are Keras schedules, the constant one too, so that every level executes the same kind
    of thing.

    Args:
        name: ``constant``; ``exponential``: to 1 % of `initial`; ``polynomial``: to zero with power
            2; ``cosine``: to zero along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983,
            without restarts).
        initial: Value at step 0.
        total_steps: Steps of the whole training, at least 1.
    """
    schedules = tf.keras.optimizers.schedules
    if name == "constant":
        return schedules.ExponentialDecay(initial, total_steps, decay_rate=1.0)
    if name == "exponential":
        return schedules.ExponentialDecay(initial, total_steps, decay_rate=EXPONENTIAL_END)
    if name == "polynomial":
        return schedules.PolynomialDecay(
            initial, total_steps, end_learning_rate=0.0, power=POLYNOMIAL_POWER
        )
    if name == "cosine":
        return schedules.CosineDecay(initial, total_steps)
    raise ValueError(f"lr_schedule must be a level of the experiment, but got {name!r}")
