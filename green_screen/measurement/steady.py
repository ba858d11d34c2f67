"""Which epochs are steady: one rule for every level, which looks at their times.

The first epoch of a ``fit`` never is: it traces, compiles and tunes, or at least starts the input
anew. Nor are those right behind it while their time is not that of the epochs that follow. The same
goes for blocks of steps, by their time for the same work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from green_screen.measurement.run_record import Epoch

# How far a time may be from the median of those that follow. Epochs of one configuration vary by
# 4 % on a shared host; those after a start that were not steady yet were 30 % and more too long.
AGREEMENT = 0.1
# An epoch so many times as long as the others, and longer by so many seconds, did something else.
_MANY_TIMES, _SECONDS = 3.0, 1.0


@dataclass(frozen=True)
class SteadyState:
    """The steady epochs of a run, and what became of the others.

    Attributes:
        epochs: The steady ones, in order.
        left_out: How many are not, and why; empty if there are none.
    """

    epochs: tuple[Epoch, ...]
    left_out: str


def steady_state(epochs: Sequence[Epoch], noun: str = "epochs") -> SteadyState:
    """Return the steady state of epochs or blocks of the same kind of work.

    Args:
        epochs: All of them, in order.
        noun: What they are called.
    """
    fits = _fits(epochs)
    later = after_the_first(epochs)
    steady: list[Epoch] = []
    unlike: list[str] = []
    for _, *rest in fits:
        while rest and (deviation := _deviation(rest[0], later)):
            unlike.append(f"{deviation:+.0%}")
            rest = rest[1:]
        steady += rest
    reasons = [f"{len(fits)} the first of a fit"] if fits else []
    if unlike:
        reasons.append(f"{len(unlike)} unlike those that follow ({', '.join(unlike)} of time)")
    left_out = f"{len(epochs) - len(steady)} of {len(epochs)} {noun}: {', '.join(reasons)}"
    return SteadyState(tuple(steady), left_out if reasons else "")


def _deviation(epoch: Epoch, epochs: list[Epoch]) -> float:
    """Return how far an epoch's time is from that of those that follow it; 0 if it agrees."""
    following_s = [other.pace_s for other in epochs[epochs.index(epoch) + 1 :]]
    if not following_s:
        return 0.0
    deviation = epoch.pace_s / median(following_s) - 1
    return deviation if abs(deviation) > AGREEMENT else 0.0


def unlike_others(epochs: Sequence[Epoch]) -> list[str]:
    """Return in words which epochs took many times as long as the others."""
    shortest_s = min((epoch.pace_s for epoch in epochs), default=0.0)
    found = []
    for epoch in epochs:
        pace_s, seconds = epoch.pace_s, epoch.reading.seconds
        if len(epochs) < 2 or pace_s <= _MANY_TIMES * shortest_s:
            continue
        usual_s = median(other.pace_s for other in epochs if other is not epoch)
        if pace_s > _MANY_TIMES * usual_s and seconds * (1 - usual_s / pace_s) > _SECONDS:
            found.append(
                f"{epoch.reading.name} took {seconds:.1f} s, {pace_s / usual_s:.0f} times as long "
                "as the others"
            )
    return found


def after_the_first(epochs: Sequence[Epoch]) -> list[Epoch]:
    """Return the epochs without the first of each fit."""
    return [epoch for _, *rest in _fits(epochs) for epoch in rest]


def _fits(epochs: Sequence[Epoch]) -> list[list[Epoch]]:
    return [list(fit) for _, fit in groupby(epochs, key=lambda epoch: epoch.fit)]
