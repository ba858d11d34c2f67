"""SMICallback: the energy of any Keras training, in a CSV file and in MLflow."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from green_screen import names
from green_screen.measurement import keras_figures
from green_screen.measurement.active_run import MetricLog, active_run
from green_screen.measurement.any_keras import KerasCallback, backend_of, begin_context
from green_screen.measurement.forecast import (
    energy_spread,
    energy_text,
    forecast_rest,
    metrics_of,
    time_spread,
)
from green_screen.measurement.log_files import LogFiles
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.run_record import per_epoch

logger = logging.getLogger(__name__)


class SMICallback(KerasCallback):
    """Measures each epoch of ``model.fit`` and writes what it finds, whichever Keras that is of.

    ``logs.csv`` gets a row ``pre`` (the machine waiting), one an epoch, and a row ``post``; `time`
    is in seconds since the row ``pre``. ``parameters.yaml`` says what was run. If an MLflow run is
    active, each epoch's metrics go there too, and the run's figures at the end. If its server
    fails, or the files can no longer be written, the training goes on with a warning, and the rest
    of its figures is missing there.

    A ``fit`` that fails leaves the rows of the epochs before. Keras does not tell a callback of
    that: its sampling ends when it is deleted or used again.

    Example::

        model.fit(images, labels, epochs=5, callbacks=[SMICallback()])
    """

    def __init__(
        self,
        *,
        directory: str | Path = "smi",
        country: str = "USA",
        sample_hz: float = 10.0,
        images_per_epoch: int | None = None,
        validation_images: int | None = None,
        forecast: bool = False,
        measurement: RunMeasurement | None = None,
        logger: MetricLog | None = None,
    ) -> None:
        """Prepare the callback.

        Args:
            directory: Folder of the two files; made if missing, the files replaced.
            country: ISO 3166-1 code of three letters, for the carbon intensity.
            sample_hz: How often the GPU's power is sampled.
            images_per_epoch: Training examples of an epoch; without it there is no figure per
                image.
            validation_images: The same of the validation.
            forecast: Whether to say, from the first steady epoch on and anew after each, how much
                energy the training will take and when it will end.
            measurement: A measurement that is under way; without it the callback makes one for
                the time of ``fit``. With it, call :meth:`finish` when all is done.
            logger: Where metrics go; without it, to the active MLflow run if there is one.
        """
        self._files = LogFiles(Path(directory), of_a_run=measurement is not None)
        self._country = country
        self._sample_hz = sample_hz
        self._images = images_per_epoch
        self._validation_images = validation_images
        self._forecast = forecast
        self._line = ""
        self._shared = measurement
        self._own: RunMeasurement | None = None
        # Keras tells a callback nothing of a fit that fails: what it has started ends with it.
        self._abort: Callable[[], object] = lambda: None
        self._given_logger = logger
        self._logger: MetricLog | None = None
        self._started = False
        self._further = 0
        self._validated: Mapping[str, Any] = {}
        self._explained: set[str] = set()

    @property
    def measurement(self) -> RunMeasurement:
        """The measurement under way.

        Raises:
            RuntimeError: Training has not begun.
        """
        measurement = self._shared or self._own
        if measurement is None:
            raise RuntimeError("nothing is measured before model.fit")
        return measurement

    def go_on(self, elapsed_s: float) -> None:
        """Go on with the ``logs.csv`` of an earlier process of the same training.

        Args:
            elapsed_s: How long ago its first row was written.
        """
        self._files.go_on(elapsed_s)
        self._started = True

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start the measurement, unless one is under way, and write the row ``pre``.

        Raises:
            OSError: The files cannot be written. Nothing has been measured or trained then.
        """
        if self._shared is None:
            self._abort()  # of the last fit, if that failed
            self._own, self._started, self._line = None, False, ""
            self._further = 0
            self._explained.clear()
        self._logger = self._given_logger or active_run()
        if self._started:  # another fit of the same measurement
            self.measurement.begin_fit()
            return
        self._files.start()
        if self._shared is None:
            self._own = RunMeasurement(
                country=self._country,
                sample_hz=self._sample_hz,
                framework=backend_of(self.model),
            )
            self._abort = weakref.finalize(self, self._own.abort)
            self._own.__enter__()
            begin_context(self.model)
            self._own.measure_idle()
        self._started = True
        self.measurement.begin_fit()
        idle = self.measurement.idle_before
        self._files.idle_row("pre", idle)
        if idle is not None:
            # Said now, because a training that is cut off does not come to its summary.
            source = {names.TAG_ENERGY_SOURCE: idle.reading.source}
            self._log(lambda log: log.tags(source))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Begin the epoch's window."""
        if self._line:
            # Not at the end of the epoch before: Keras's progress bar is still in its line then.
            print(self._line, flush=True)
            self._line = ""
        self._validated = {}
        self.measurement.begin_epoch(epoch)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begin the validation's window; Keras 2 validates before it ends the epoch.

        In ``model.evaluate`` outside of ``fit`` there is nothing to do.
        """
        if self._shared or self._own:
            self.measurement.begin_validation()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the validation's window."""
        self._validated = logs or {}
        if self._shared or self._own:
            self.measurement.end_validation()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """End the epoch's window, write its row and log its metrics."""
        measured, no_rate = self.measurement.end_epoch(images=self._images), ""
        if names.FURTHER_EPOCH_ENERGY_J in measured:
            # Epochs for the measurement alone say nothing of the training.
            step, metrics = self._further, measured
            self._further += 1
        else:
            figures = keras_figures.figures(logs or {}, self._validated)
            step, metrics = epoch, {**figures, **measured}
            rate, no_rate = keras_figures.learning_rate(self.model)
            metrics[names.LEARNING_RATE] = rate
            if self._forecast:
                metrics |= self._forecasts(self.params["epochs"] - epoch - 1)
            self._files.row(str(epoch), metrics)
        self._log(lambda log: log.metrics(metrics, step=step))
        missing = {**self.measurement.missing, **keras_figures.unclear(logs or {})}
        if no_rate:
            missing[names.LEARNING_RATE] = no_rate
        self._explain(missing)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """End the callback's own measurement and write the rest."""
        if self._own is None:
            return
        measurement, self._own = self._own, None
        measurement.__exit__(None, None, None)
        self._abort()  # there is nothing left to stop
        summary = measurement.summary(self._images, self._validation_images)
        self._finish(measurement, {"model": self.model.name})
        self._log(lambda log: log.metrics(summary.metrics))
        self._log(lambda log: log.tags(summary.tags))
        self._explain(summary.missing)

    def finish(self, parameters: Mapping[str, Any]) -> None:
        """Write the row ``post`` and ``parameters.yaml``, for a measurement given from outside.

        Args:
            parameters: What was run: factors, model, seed, figures of the test.
        """
        self._finish(self.measurement, parameters)

    def _finish(self, measurement: RunMeasurement, parameters: Mapping[str, Any]) -> None:
        self._files.idle_row("post", measurement.idle_after)
        # A model whose training step trains others may never be built itself.
        count = {"n_parameters": int(self.model.count_params())} if self.model.built else {}
        self._files.parameters({**count, **parameters})

    def _explain(self, missing: Mapping[str, str]) -> None:
        """Say once for each metric why it is missing."""
        tags = {names.MISSING_PREFIX + k: v for k, v in missing.items() if k not in self._explained}
        if tags:
            self._log(lambda log: log.tags(tags))
            self._explained.update(missing)

    def _log(self, write: Callable[[MetricLog], None]) -> None:
        """Log to the run if there is one; a server that fails is left alone from then on.

        No measurement is worth a training that was under way, and the files have all of it.
        """
        if self._logger is None:
            return
        try:
            write(self._logger)
        except Exception as error:
            if self._given_logger is not None:
                raise  # it waits for a server by itself: what it raises is a refusal
            self._logger = None
            logger.warning(
                "the MLflow server failed (%s: %s): the training goes on, and what it measures "
                "from here is not in MLflow (the files are in %s)",
                type(error).__name__,
                error,
                self._files.directory,
            )

    def _forecasts(self, epochs_left: int) -> dict[str, float]:
        """Return what the training will take; nothing before the first steady epoch."""
        steady, done = self.measurement.steady_state.epochs, self.measurement.total_reading
        if not steady:
            return {}
        epoch_j, epoch_s = per_epoch(steady)
        energy, seconds = energy_spread(steady), time_spread(steady)
        joules = forecast_rest(done.energy_j, epoch_j, epochs_left, energy.own_half_width)
        time_s = forecast_rest(done.seconds, epoch_s, epochs_left, seconds.own_half_width)
        if epochs_left and not math.isnan(joules.value):
            end = datetime.now() + timedelta(seconds=epochs_left * epoch_s)
            self._line = f"this training will take {energy_text(joules)} and end at {end:%H:%M}"
        return metrics_of(joules, time_s)
