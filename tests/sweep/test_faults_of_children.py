"""Faults of a child, each done for real: resume gives the campaign as if nothing had been."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import mlflow
import pytest
from campaigns import STRIKE, assert_complete, by_status, children, small
from faulty_trainers import FAULTY_RUN

from green_screen import names
from green_screen.executors.executor import Outcome
from green_screen.executors.local import PRELOAD_TRACKING, LocalExecutor, _Active
from green_screen.executors.outcome import exit_outcome, last_words
from green_screen.space import Space
from green_screen.sweep.campaign import run_sweep


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("kill_myself", "KILLED", "killed by SIGKILL"),
        ("segfault", "FAILED", "native crash: SIGSEGV with precision=float32, batch_size="),
        ("abort", "FAILED", "; last printed: F0000 somewhere.cc:1] Check failed: it gives up"),
        ("exit_with_status", "FAILED", "exit with status 7"),
        ("exit_silently", "FAILED", "the process ended with status 3 and said nothing"),
        ("exit_as_if_lost", "FAILED", "the process ended with status 255 and said nothing"),
        ("complain_at_length", "FAILED", "ValueError: xxx"),
    ],
)
def test_a_child_that_dies(
    store: str,
    executor: LocalExecutor,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    status: str,
    reason: str,
) -> None:
    monkeypatch.setenv("FAULT", fault)
    options = small(n_runs=2)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    assert by_status(parent_id, "FINISHED") == [0, 2]
    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == status
    assert reason in run.data.tags[names.TAG_FAILURE]
    # What it had logged is there, though it never came to sending the rest itself.
    assert run.data.metrics[names.LOSS] == 1.0
    if fault == "abort":
        output = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{names.OUTPUT_TXT}")
        assert "Check failed: it gives up" in output

    run_sweep(options, trainer=STRIKE, executor=executor)
    assert_complete(parent_id, options)


class LimitOfTheStuck(LocalExecutor):
    """Lets the time limit of a run strike once it hangs, however long it took to come so far.

    Attributes:
        deadlines: Those that the run has had.
    """

    def __init__(self, waiting: Path, **options: Any) -> None:
        super().__init__(**options)
        self.deadlines: set[float] = set()
        self._waiting = waiting

    def _next_limit(self, active: _Active) -> float:
        if active.job.position != FAULTY_RUN - 1:
            return math.inf
        self.deadlines.add(active.deadline)
        return super()._next_limit(active) if self._waiting.exists() else math.inf


@pytest.mark.parametrize("fault", ["hang", "hang_in_native_code"])
def test_a_child_that_hangs(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("FAULT", fault)
    options = small(n_runs=2, time_limit_s=12.0, cooldown_timeout_s=1000.0)
    waiting = tmp_path / "waiting"
    executor = LimitOfTheStuck(waiting, preload=PRELOAD_TRACKING, grace_s=4.0)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    # The cool-down comes on top, until the child says that there was nothing to wait for.
    assert len(executor.deadlines) == 2
    assert by_status(parent_id, "FINISHED") == [0, 2]
    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == "KILLED"
    assert run.data.tags[names.TAG_FAILURE] == "time limit of 12 s"
    assert run.data.metrics[names.LOSS] == 1.0

    waiting.unlink()
    run_sweep(options, trainer=STRIKE, executor=executor)
    executor.close()
    assert_complete(parent_id, options)


def test_a_child_out_of_memory(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "exhaust_memory")
    options = small(n_runs=2)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == "FAILED"
    assert run.data.tags[names.TAG_OUT_OF_MEMORY] == "true"
    assert "ResourceExhaustedError" in run.data.tags[names.TAG_FAILURE]

    run_sweep(options, trainer=STRIKE, executor=executor)
    assert_complete(parent_id, options)


def test_children_that_log_to_sqlite_at_once(store: str) -> None:
    options = small(n_runs=7, epochs=20)
    with LocalExecutor(devices=[None] * 4, preload=PRELOAD_TRACKING) as executor:
        parent_id = run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
    assert_complete(parent_id, options)
    assert {run.data.tags[names.TAG_SHARED_HOST] for run in children(parent_id)} == {"true"}


def test_a_child_that_dies_in_the_middle_of_a_message() -> None:
    reader, writer = Pipe(duplex=False)
    process: Any = None
    active = _Active(None, None, process, reader, Path(), 0, 0.0, 0.0)  # type: ignore[arg-type]
    os.write(writer.fileno(), struct.pack("!i", 1000) + b'["FAILED", "')
    writer.close()
    active.listen()
    assert reader.closed
    assert active.said is None


BASELINE = Space.load().baseline


def test_a_signal_without_a_name() -> None:
    outcome = exit_outcome(-40, "", BASELINE, Path("nothing was printed"))
    assert outcome == (Outcome.KILLED, "killed by signal 40")


def test_a_crash_that_printed_nothing_is_named_by_what_was_executed() -> None:
    asked = dataclasses.replace(BASELINE, precision="float16", internal="pre_quantization")
    assert exit_outcome(-6, "", asked, Path("nothing was printed")) == (
        Outcome.FAILED,
        "native crash: SIGABRT with precision=float32, batch_size=4, optimizer=RMSProp, "
        "internal=pre_quantization",
    )


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        # What TensorFlow 2.15 prints, shortened, and what may follow a message in an output.
        (
            "error: 'arith.mulf' op requires the same type for all operands and results\n"
            "2026-11-25 10:00:00.1: F external/xla/emitter.cc:1672] Check failed: verify\n"
            "*** Check failure stack trace: ***\n    @ 0x7f tsl::internal::LogMessage\n",
            "2026-11-25 10:00:00.1: F external/xla/emitter.cc:1672] Check failed: verify",
        ),
        ("one\ntwo\n\n", "two"),
        ("\n", ""),
    ],
)
def test_the_last_words_of_a_library(printed: str, words: str) -> None:
    assert last_words(printed) == words
