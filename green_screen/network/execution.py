"""Steps of ``fit`` and ``evaluate`` as one graph that is traced once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def trace_once(model: Any) -> None:
    """Have a compiled network trace each kind of step once, where Keras traces it twice.

    Keras makes several steps an execution by a loop whose result no line before it names. AutoGraph
    then traces the step a first time to learn what that is, and converts the code of each layer,
    which none here needs. The result of the loop here is the state of the metrics behind it, as of
    Keras's last step. The steps, their order and their numbers are the same.

    Args:
        model: For the default distribution strategy; not to be compiled again.
    """
    model.make_train_function = _maker(model, model.train_step, model._train_counter)
    model.make_test_function = _maker(model, model.test_step, model._test_counter)


def _maker(model: Any, step: Callable[[Any], Any], counter: Any) -> Callable[..., Any]:
    """Return what makes Keras's function of an iterator, and the same one each time."""

    def run(batch: Any) -> None:
        step(batch)
        counter.assign_add(1)

    if model._jit_compile:
        run = tf.function(run, jit_compile=True, reduce_retracing=True, autograph=False)

    def steps(iterator: Any) -> Any:
        # As int32, which stays in host memory: nothing waits for a GPU to tell whether to go on.
        count = tf.cast(model._steps_per_execution, tf.int32)

        def one(done: Any) -> Any:
            run(next(iterator))
            return done + 1

        tf.while_loop(lambda done: done < count, one, [tf.zeros_like(count)])
        return model.get_metrics_result()

    function = tf.function(steps, reduce_retracing=True, autograph=False)
    return lambda force=False: function
