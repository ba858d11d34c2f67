"""A decorator that measures each call of a function."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from green_screen.power.meter import EnergyMeter, EnergyReading

P = ParamSpec("P")
R = TypeVar("R")

_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def measured(
    name: str,
    *,
    meter: EnergyMeter | None = None,
    on_reading: Callable[[EnergyReading], object] = print,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: each call of the function is a window of that name.

    Example::

        readings = []

        @measured("train", on_reading=readings.append)
        def train():
            ...

    Args:
        name: The window's name.
        meter: A meter that runs when the function is called. Without it each call has one of its
            own, with its defaults, which takes about a second to start where CodeCarbon is there.
        on_reading: What is given each call's reading, of one that raised too; the default prints
            it.

    Raises:
        TypeError: The function returns before its work is done: a coroutine, a generator.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if any(is_later(function) for is_later in _LATER):
            raise TypeError(
                f"{function!r} returns before its work is done: open a window inside of it"
            )

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            with contextlib.ExitStack() as stack:
                running = meter or stack.enter_context(EnergyMeter())
                window = None
                try:
                    with running.window(name) as window:
                        return function(*args, **kwargs)
                finally:
                    if window is not None:
                        on_reading(window.reading)

        return wrapper

    return decorate
