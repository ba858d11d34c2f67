"""TransformersEnergyCallback: the energy of each epoch of a Hugging Face ``Trainer``."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from green_screen.measurement.active_run import active_run
from green_screen.measurement.epoch_meter import EpochMeter, known


class TransformersEnergyCallback(TrainerCallback):  # type: ignore[misc]
    """Puts the joules, seconds and mean watts of each epoch into the trainer's ``log_history``.

    They go to the active MLflow run too. The energy of an evaluation is a record of its own: a
    trainer evaluates between two epochs or, with ``eval_strategy="steps"``, within one, whose
    energy then holds it.

    Example::

        trainer = Trainer(model, arguments, callbacks=[TransformersEnergyCallback()], ...)
        trainer.train()
        trainer.state.log_history  # {"epoch": 1.0, "step": 125, "epoch_energy_j": 812.4, ...}

    Args:
        meter: Options of :class:`~green_screen.power.meter.EnergyMeter`.
    """

    def __init__(self, **meter: Any) -> None:
        """Prepare; the training starts the meter."""
        self._epochs = EpochMeter(**meter)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to measure."""
        self._epochs.begin_training()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin an epoch."""
        self._epochs.begin_epoch()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin an evaluation if one comes now."""
        if control.should_evaluate:
            self._epochs.begin_validation()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log an epoch."""
        self._log(state, self._epochs.end_epoch())
        self.on_step_end(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log an evaluation."""
        self._log(state, self._epochs.end_validation())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self._epochs.end_training()

    def _log(self, state: Any, metrics: dict[str, float]) -> None:
        if metrics and state.is_world_process_zero:
            state.log_history.append(
                {"epoch": state.epoch, "step": state.global_step, **known(metrics)}
            )
            if (run := active_run()) is not None:
                run.metrics(known(metrics), step=state.global_step)
