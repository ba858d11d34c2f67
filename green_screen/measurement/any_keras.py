"""A callback of any Keras: version 2, tf-keras, or version 3 on TensorFlow, JAX or PyTorch.

Several of them may be installed and even imported together, and a callback made for one is refused
by another. They ask a callback for the same methods, so this one has them without being made for
any. No Keras is imported here: the model that is trained says which it is of.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

Logs = Mapping[str, Any] | None

TENSORFLOW = "tensorflow"


def keras_of(model: Any) -> Any:
    """Return the Keras that a model, or an optimizer, is of: the module ``keras`` or ``tf_keras``.

    Raises:
        TypeError: It is of none.
    """
    for cls in type(model).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("keras", "tf_keras") and root in sys.modules:
            return sys.modules[root]
    raise TypeError(f"{type(model).__name__} is no model of Keras")


def backend_of(model: Any) -> str:
    """Return what a model computes with: ``tensorflow``, ``jax``, ``torch`` or another's name."""
    return str(keras_of(model).backend.backend())


def begin_context(model: Any) -> None:
    """Make a model's framework take its GPU, as the training is about to, by a single number.

    Not TensorFlow, which does so when it is waited for.
    """
    if backend_of(model) != TENSORFLOW:
        keras_of(model).ops.zeros(1)


class KerasCallback:
    """What every Keras asks of a callback; the methods do nothing."""

    # Keras 3: it may go on while the methods of batches are called, for they do nothing.
    async_safe = True

    params: dict[str, Any]
    _model: Any = None

    @property
    def model(self) -> Any:
        """The model that is trained."""
        # With JAX a model has its state in the middle of a training only when asked to.
        synchronize = getattr(self._model, "jax_state_sync", None)
        if synchronize is not None:
            synchronize()
        # Keras may hand over what distributes a PyTorch model, which holds the model itself.
        distributes = type(self._model).__module__.startswith("torch.nn.parallel")
        return self._model.module if distributes else self._model

    def set_model(self, model: Any) -> None:
        """Take the model that is about to be trained, tested or asked."""
        self._model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the number of epochs and steps."""
        self.params = params

    def _implements_train_batch_hooks(self) -> bool:
        # Keras 2 and tf-keras ask, and call none of the methods of batches then.
        return False

    _implements_test_batch_hooks = _implements_train_batch_hooks
    _implements_predict_batch_hooks = _implements_train_batch_hooks

    def on_train_begin(self, logs: Logs = None) -> None:
        """Do nothing."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Do nothing."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Do nothing."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Do nothing."""

    def _on_batch(self, batch: int, logs: Logs = None) -> None:
        pass

    on_batch_begin = on_batch_end = _on_batch
    on_train_batch_begin = on_train_batch_end = _on_batch
    on_test_batch_begin = on_test_batch_end = _on_batch
    on_predict_batch_begin = on_predict_batch_end = _on_batch

    def on_test_begin(self, logs: Logs = None) -> None:
        """Do nothing."""

    def on_test_end(self, logs: Logs = None) -> None:
        """Do nothing."""

    on_predict_begin, on_predict_end = on_test_begin, on_test_end
