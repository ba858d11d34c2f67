"""Waiting before a run until its GPU is as it was before the first run on it.

A warm board draws more power for the same work, because leakage grows with temperature, so a run
after a hot one would pay for its predecessor. What "cool" is, the board itself says: the state in
which the campaign's first run found it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from mlflow.entities import Run

from green_screen import names
from green_screen.executors.executor import Cooldown, RestingState
from green_screen.power.nvml import Board, NvmlError
from green_screen.power.visible import visible_boards
from green_screen.tracking import RunLogger

_POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Waited:
    """The end of a wait.

    Attributes:
        state: How the board was then.
        seconds: How long the wait took.
    """

    state: RestingState
    seconds: float


def wait_until_cool(board: Board, cooldown: Cooldown, poll_s: float = _POLL_S) -> Waited:
    """Wait until `board` is within the bands of its resting state, or the time is out.

    A board that the campaign has not used yet is taken as it is.

    Raises:
        NvmlError: The board cannot be read.
    """
    resting = next((state for state in cooldown.resting if state.board == board.uuid), None)
    started = time.monotonic()
    # One moment to reach: what is left until then, added to now, is that moment, while a duration
    # compared with a limit can stay a rounding error short of it.
    deadline = started + cooldown.timeout_s
    while True:
        state = RestingState(
            board=board.uuid,
            temperature_c=board.status().temperature_c,
            power_w=_power_w(board),
        )
        now = time.monotonic()
        if resting is None or _cool(state, resting, cooldown) or now >= deadline:
            return Waited(state=state, seconds=now - started)
        time.sleep(min(poll_s, deadline - now))


def _power_w(board: Board) -> float:
    """Return the power of this moment; where that is not told, the reading, a second's mean.

    Raises:
        NvmlError: Neither can be read.
    """
    try:
        return board.instant_power_w()
    except NvmlError:
        return board.power_w()


def _cool(state: RestingState, resting: RestingState, cooldown: Cooldown) -> bool:
    # A reading that fails is NaN and compares as not too high: it must not stop a campaign.
    too_warm = state.temperature_c > resting.temperature_c + cooldown.band_c
    too_busy = state.power_w > resting.power_w + cooldown.band_w
    return not (too_warm or too_busy)


def cool_down(cooldown: Cooldown, run: RunLogger) -> None:
    """Wait for the process's first board to be cool and log what was waited: 0 s without a GPU."""
    started = time.monotonic()
    try:
        boards = visible_boards()
    except NvmlError:  # it is not installed, mostly, where there is no GPU
        boards = ()
    if not boards:
        run.metrics({names.COOLDOWN_S: 0.0})
        return
    try:
        waited = wait_until_cool(boards[0], cooldown)
    except NvmlError as error:
        state = {names.COOLDOWN_TEMPERATURE_C: math.nan, names.COOLDOWN_POWER_W: math.nan}
        run.metrics({names.COOLDOWN_S: time.monotonic() - started, **state})
        run.missing(state, f"the GPU could not be read: {error}")
        return
    run.metrics(
        {
            names.COOLDOWN_S: waited.seconds,
            names.COOLDOWN_TEMPERATURE_C: waited.state.temperature_c,
            names.COOLDOWN_POWER_W: waited.state.power_w,
        }
    )
    # Last: a run with this tag has the figures above.
    run.tags({names.TAG_BOARD: waited.state.board})


def found_state(run: Run) -> RestingState | None:
    """Return how a run found its board; ``None`` without a GPU, or if it ended before it looked."""
    board, metrics = run.data.tags.get(names.TAG_BOARD), run.data.metrics
    temperature_c = metrics.get(names.COOLDOWN_TEMPERATURE_C)
    power_w = metrics.get(names.COOLDOWN_POWER_W)
    if board is None or temperature_c is None or power_w is None:
        return None
    return RestingState(board=board, temperature_c=temperature_c, power_w=power_w)
