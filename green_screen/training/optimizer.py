"""The four optimizers, each with one fused update kernel for each variable.

All come from one family, ``tf.keras.optimizers.legacy`` (TensorFlow Addons' AdamW is built on it):
its updates are single TensorFlow kernels. Keras 2.15's newer family launches one XLA program for
each variable on a GPU, or a dozen small kernels without XLA, which leaves the GPU waiting for the
host (benchmarks/dispatch.py shows it).
"""

from __future__ import annotations

import warnings
from typing import Any

import tensorflow as tf

from green_screen.space import TrainingConfig
from green_screen.training.schedule import make_schedule

with warnings.catch_warnings():
    # TensorFlow Addons announces at each import that its development has ended.
    warnings.simplefilter("ignore")
    import tensorflow_addons as tfa

WEIGHT_DECAY = 0.001

# Added to a denominator. Keras's 1e-7 is no normal number of float16 (the smallest is 6e-5): the
# squared gradients underflow, the quotient explodes, and Adam ends in NaN within two epochs.
EPSILON = 1e-7
FLOAT16_EPSILON = 1e-4
# RMSProp adds it under the root, so it needs less; float16 still holds it, as a subnormal number.
FLOAT16_RMSPROP_EPSILON = 1e-6

# Pure float16 scales the loss by a constant power of two: within the backward pass, gradients down
# to 2**-34 then survive. The scale is halved where a gradient overflows, and that step is skipped;
# it never grows, because beyond 2**24 its reciprocal is zero in float16.
FLOAT16_LOSS_SCALE = 2**10
_NEVER = 2**31 - 1


def make_optimizer(config: TrainingConfig, total_steps: int) -> Any:
    """Return the optimizer that an effective configuration asks for.

    - ``SGD``: v = m v - lr g; w += v (Sutskever et al. 2013); without momentum w -= lr g.
    - ``RMSProp``: s = 0.9 s + 0.1 g^2; v = m v + lr g / sqrt(s + eps); w -= v (Hinton 2012).
    - ``Adam``: Kingma & Ba 2015 (arXiv:1412.6980), beta 0.9 and 0.999.
    - ``AdamW``: TensorFlow Addons', decoupled weight decay 0.001 (Loshchilov & Hutter 2019,
      arXiv:1711.05101): w -= d w, then Adam's step. There d is 0.001 times the schedule's
      multiplier, not times the learning rate, as in the paper; so d follows the same schedule.

    Under the float16 policies it is wrapped in a Keras ``LossScaleOptimizer``: Keras's dynamic one
    for mixed_float16, a constant scale for pure float16.

    Args:
        config: The effective configuration.
        total_steps: Steps of the whole training, over which the schedule decays.
    """
    legacy = tf.keras.optimizers.legacy
    pure_float16 = config.precision == "float16"
    epsilon = FLOAT16_EPSILON if pure_float16 else EPSILON
    rate = make_schedule(config.lr_schedule, config.lr, total_steps)
    optimizer: Any
    if config.optimizer == "SGD":
        optimizer = legacy.SGD(rate, momentum=config.optimizer_momentum)
    elif config.optimizer == "RMSProp":
        momentum = config.optimizer_momentum
        # A callable makes Keras take the fused kernel for momentum 0 as well; its other branch is
        # seven kernels and adds epsilon outside the root.
        optimizer = legacy.RMSprop(
            rate,
            momentum=lambda: momentum,
            epsilon=FLOAT16_RMSPROP_EPSILON if pure_float16 else EPSILON,
        )
    elif config.optimizer == "Adam":
        optimizer = legacy.Adam(rate, epsilon=epsilon)
    elif config.optimizer == "AdamW":
        optimizer = tfa.optimizers.AdamW(
            make_schedule(config.lr_schedule, WEIGHT_DECAY, total_steps), rate, epsilon=epsilon
        )
    else:
        raise ValueError(
            f"optimizer must be a level of the experiment, but got {config.optimizer!r}"
        )
    scale = tf.keras.mixed_precision.LossScaleOptimizer
    if pure_float16:
        return scale(optimizer, initial_scale=FLOAT16_LOSS_SCALE, dynamic_growth_steps=_NEVER)
    if config.precision == "global_policy_float16":
        return scale(optimizer)
    return optimizer
