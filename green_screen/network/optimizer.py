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

from green_screen.network.schedule import make_schedule
from green_screen.space import TrainingConfig

with warnings.catch_warnings():
    # TensorFlow Addons announces at each import that its development has ended.
    warnings.simplefilter("ignore")
    import tensorflow_addons as tfa

WEIGHT_DECAY = 0.001

# Added to a denominator; Keras's value. Float16 has no such normal number (the smallest is 6e-5).
EPSILON = 1e-7
# RMSProp adds it under the root; float16 still holds this one, as a subnormal number.
FLOAT16_RMSPROP_EPSILON = 1e-6
# Adam's step is the same for gradients and epsilon times any number, and in float16 they need one:
# 0.001 g**2 is zero below g = 5.5e-3 and g**2 infinite above 256. Times 2**10 that is 5e-6 and 1/4.
FLOAT16_ADAM_SCALE = 2.0**10
FLOAT16_ADAM_LIMIT = 255.0  # of a scaled gradient
# Where 0.001 g**2 is zero, a scaled gradient is below 2**-7.5: no step gets longer than the rate.
FLOAT16_ADAM_EPSILON = 2.0**-7

# Pure float16 scales the loss by a constant power of two: within the backward pass, gradients down
# to 2**-34 then survive. The scale is halved where a gradient overflows, and that step is skipped;
# it never grows, because beyond 2**24 its reciprocal is zero in float16.
FLOAT16_LOSS_SCALE = 2**10
_NEVER = 2**31 - 1


class _ExactRate:
    """Reads the schedule at the step itself, in float32.

    Keras casts the step to the variable's dtype first. Float16 rounds it above 2,048 and has no
    number for it above 65,519, where the schedules that decay would give a learning rate of 0.
    """

    def _decayed_lr(self, var_dtype: Any) -> Any:
        schedule = self._get_hyper("learning_rate")  # type: ignore[attr-defined]
        return tf.cast(schedule(self.iterations), var_dtype)  # type: ignore[attr-defined]


class _ScaledGradients:
    """Adam whose moments are those of `FLOAT16_ADAM_SCALE` times the gradient, within a limit."""

    def _resource_apply_dense(self, grad: Any, var: Any, apply_state: Any = None) -> Any:
        scaled = tf.clip_by_value(
            grad * FLOAT16_ADAM_SCALE, -FLOAT16_ADAM_LIMIT, FLOAT16_ADAM_LIMIT
        )
        return super()._resource_apply_dense(scaled, var, apply_state)  # type: ignore[misc]


class _SGD(_ExactRate, tf.keras.optimizers.legacy.SGD):  # type: ignore[misc]
    pass


class _RMSprop(_ExactRate, tf.keras.optimizers.legacy.RMSprop):  # type: ignore[misc]
    pass


class _Adam(_ExactRate, tf.keras.optimizers.legacy.Adam):  # type: ignore[misc]
    pass


class _AdamW(_ExactRate, tfa.optimizers.AdamW):  # type: ignore[misc]
    pass


class _Float16Adam(_ScaledGradients, _Adam):
    pass


class _Float16AdamW(_ScaledGradients, _AdamW):
    pass


def make_optimizer(config: TrainingConfig, total_steps: int) -> Any:
    """Return the optimizer that an effective configuration asks for.

    - ``SGD``: v = m v - lr g; w += v (Sutskever et al. 2013); without momentum w -= lr g.
    - ``RMSProp``: s = 0.9 s + 0.1 g^2; v = m v + lr g / sqrt(s + eps); w -= v (Hinton 2012).
    - ``Adam``: Kingma & Ba 2015 (arXiv:1412.6980), beta 0.9 and 0.999; in pure float16 its
      gradients and epsilon are scaled, which leaves the step.
    - ``AdamW``: TensorFlow Addons', decoupled weight decay 0.001 (Loshchilov & Hutter 2019,
      arXiv:1711.05101): w -= d w, then Adam's step. There d is 0.001 times the schedule's
      multiplier, not times the learning rate, as in the paper; so d follows the same schedule.

    Under the float16 policies it is wrapped in a Keras ``LossScaleOptimizer``: Keras's dynamic one
    for mixed_float16, a constant scale for pure float16.

    Args:
        config: The effective configuration.
        total_steps: Steps of the whole training, over which the schedule decays.
    """
    pure_float16 = config.precision == "float16"
    rate = make_schedule(config.lr_schedule, config.lr, total_steps)
    adam_epsilon = FLOAT16_ADAM_EPSILON if pure_float16 else EPSILON
    optimizer: Any
    if config.optimizer == "SGD":
        optimizer = _SGD(rate, momentum=config.optimizer_momentum)
    elif config.optimizer == "RMSProp":
        momentum = config.optimizer_momentum
        # A callable makes Keras take the fused kernel for momentum 0 as well; its other branch is
        # seven kernels and adds epsilon outside the root.
        optimizer = _RMSprop(
            rate,
            momentum=lambda: momentum,
            epsilon=FLOAT16_RMSPROP_EPSILON if pure_float16 else EPSILON,
        )
    elif config.optimizer == "Adam":
        optimizer = (_Float16Adam if pure_float16 else _Adam)(rate, epsilon=adam_epsilon)
    elif config.optimizer == "AdamW":
        decay = make_schedule(config.lr_schedule, WEIGHT_DECAY, total_steps)
        optimizer = (_Float16AdamW if pure_float16 else _AdamW)(decay, rate, epsilon=adam_epsilon)
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
