"""Stand-ins for a training, named by their import path: quick, and each with a fault of its own.

A fault strikes once: the file in ``$FAULT_FOLDER`` that counts the runs says which run it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import waiting
from simulated_nvml import bracketed

from green_screen import names
from green_screen.options import TrainOptions
from green_screen.power.meter import EnergyMeter
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger

FAULTY_RUN = 2


def count_run() -> int:
    """Return the number of this run, from 1, over all processes of a test."""
    file = Path(os.environ["FAULT_FOLDER"]) / "runs"
    with file.open("a", encoding="utf-8") as runs:
        runs.write(".")
    return file.stat().st_size


def quick(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what a training logs, in no time."""
    begin(config, run)
    go_on(options, run)


def begin(config: TrainingConfig, run: RunLogger) -> None:
    effective = resolve(config).effective.as_params()
    run.params(
        config.as_params() | {names.EFFECTIVE_PREFIX + k: level for k, level in effective.items()}
    )
    run.tags({"pid": os.getpid(), names.TAG_ENERGY_SOURCE: names.SOURCE_ESTIMATE})


def go_on(
    options: TrainOptions, run: RunLogger, before_last: Callable[[], None] = lambda: None
) -> None:
    for epoch in range(options.epochs):
        if epoch == options.epochs - 1:
            before_last()
        metrics = {names.LOSS: 1.0 / (epoch + 1), names.EPOCH_ENERGY_J: 10.0 + epoch}
        run.metrics(metrics | {names.EPOCH_TIME_S: 0.0}, step=epoch)
    run.metrics({names.TEST_ACCURACY: 0.5, names.ENERGY_TOTAL_J: 10.0 * options.epochs})
    run.text("epoch,loss\n", names.LOGS_CSV)


def strike(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Do what ``$FAULT`` says in the run ``FAULTY_RUN``, in the middle of its epochs."""
    begin(config, run)
    if count_run() == FAULTY_RUN:
        run.metrics({names.LOSS: 1.0}, step=0)
        FAULTS[os.environ["FAULT"]]()
    go_on(options, run)


def say_that_it_waits() -> None:
    """Leave the file ``waiting``."""
    (Path(os.environ["FAULT_FOLDER"]) / "waiting").touch()


def talk(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Print what not every encoding can, then do what a quick training does."""
    print("\N{CHECK MARK}", "\udcff", flush=True)
    print("\N{CHECK MARK}", file=sys.stderr)
    quick(config, options, run)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    print("F0000 somewhere.cc:1] Check failed: it gives up", file=sys.stderr)
    print("*** stack trace ***", file=sys.stderr, flush=True)
    os.abort()


def hang() -> None:
    say_that_it_waits()
    waiting.for_ever()


def hang_in_native_code() -> None:
    say_that_it_waits()
    # A mutex locked twice waits for ever, and until it returns Python handles no signal.
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def exhaust_memory() -> None:
    import tensorflow as tf

    tf.zeros([1 << 20, 1 << 20], tf.float64)


def exit_with_status() -> None:
    sys.exit(7)


def exit_silently() -> None:
    os._exit(3)


def exit_as_if_lost() -> None:
    # The status by which multiprocessing says that it has lost sight of a process.
    os._exit(255)


def complain_at_length() -> None:
    raise ValueError("x" * 200_000)


def refuse() -> None:
    raise ValueError("this configuration cannot be trained")


FAULTS = {
    function.__name__: function
    for function in (
        kill_myself,
        segfault,
        abort,
        hang,
        hang_in_native_code,
        exhaust_memory,
        exit_with_status,
        exit_silently,
        exit_as_if_lost,
        complain_at_length,
        refuse,
    )
}


def always_refuse(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    refuse()


def until_told(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Train once ``on`` is there and end once ``go`` is; ``logged`` says that all has been."""
    folder = Path(os.environ["FAULT_FOLDER"])
    begin(config, run)
    (folder / "begun").touch()
    waiting.until((folder / "on").exists)
    go_on(options, run, before_last=lambda: waiting.until((folder / "go").exists))
    (folder / "logged").touch()


def tell_process(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what the process was given."""
    begin(config, run)
    run.tags({"cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES")})
    go_on(options, run)


def meter_together(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Measure a window with the boards that the process was given; two runs are under way in it."""
    with EnergyMeter() as meter, bracketed(meter.window("together")) as (window, edges):
        count_run()
        runs = Path(os.environ["FAULT_FOLDER"]) / "runs"
        waiting.until(lambda: runs.stat().st_size >= 2)
    run.metrics({"metered_j": window.reading.counter_j})
    run.metrics({"shortest_s": edges.shortest_s, "longest_s": edges.longest_s})
    run.tags({"metered": ", ".join(board.uuid for board in meter.boards)})
    tell_process(config, options, run)


def slow_clock_once(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log a lower clock in the run ``FAULTY_RUN``, as of a GPU that was throttled."""
    begin(config, run)
    clock_mhz = 1200.0 if count_run() == FAULTY_RUN else 1980.0
    run.metrics({names.STEADY_SM_CLOCK_MHZ: clock_mhz})
    run.tags({names.TAG_MEASUREMENT_VALID: "true", names.TAG_GPU_DEVICES: "NVIDIA Simulated"})
    go_on(options, run)


def fill_disk(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """In the run ``FAULTY_RUN``, fill the disk that ``$FULL_FOLDER`` is on and leave it full."""
    begin(config, run)
    if count_run() == FAULTY_RUN:
        filler = Path(os.environ["FULL_FOLDER"], "filler")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
    go_on(options, run)


def contaminate(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what a process finds at its start, then change all of it as much as it can."""
    import keras
    import numpy as np
    import psutil
    import tensorflow as tf
    from tensorflow.python.framework import random_seed

    run.tags(
        {
            "policy": tf.keras.mixed_precision.global_policy().name,
            "floatx": keras.backend.floatx(),
            "seeds": random_seed.get_seed(None),
            "numpy_seed": np.random.get_state()[1][0],  # type: ignore[index]
            "jit": tf.config.optimizer.get_jit(),
            "variable": os.environ.get("LEFT_BEHIND"),
            "module": hasattr(tf, "left_behind"),
            "names": keras.backend.get_uid("layer"),
            "folder": os.getcwd(),
        }
    )
    run.metrics({"memory_mib": psutil.Process().memory_info().rss / 2**20})
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    keras.backend.set_floatx("float64")
    tf.keras.utils.set_random_seed(7)
    tf.config.optimizer.set_jit(True)
    os.environ["LEFT_BEHIND"] = "yes"
    tf.left_behind = np.ones(200 * 2**20, dtype=np.uint8)
    os.chdir("/")
    tf.reduce_sum(tf.random.normal([64, 64]))
    begin(config, run)
    go_on(options, run)


def learn(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Learn the better the higher the rate, up to the rung; ``lr=1.0`` diverges at once."""
    begin(config, run)
    tags = run.opened_with
    first = int(tags.get(names.TAG_EPOCHS_TRAINED, 0))
    until = int(tags.get(names.TAG_RUNG_EPOCHS, options.epochs))
    if count_run() == int(os.environ.get("FAULTY", "0")):
        FAULTS[os.environ["FAULT"]]()
    for epoch in range(first, until):
        loss = float("nan") if config.lr == 1.0 else 1.0 / (epoch + 1)
        accuracy = min(config.lr, 0.5) * (epoch + 1) / options.epochs
        metrics = {names.LOSS: loss, names.VAL_ACCURACY: accuracy, names.EPOCH_TIME_S: 0.0}
        run.metrics(metrics | {names.EPOCH_ENERGY_J: 10.0}, step=epoch)
    figures = {names.ENERGY_PER_EPOCH_J: 10.0, names.TRAINED_ENERGY_J: 5.0 + 10.0 * until}
    if until == options.epochs:
        figures |= {names.ENERGY_TOTAL_J: 5.0 + 10.0 * until, names.TEST_ACCURACY: 0.4}
    run.metrics(figures)
    run.tags({names.TAG_EPOCHS_TRAINED: until})
