"""The experiment's commands, each defined once: for ``green-screen NAME`` and for MLproject.

A command's options are a dataclass of :mod:`green_screen.options`; its work is in the module of its
name here, which is imported when the options are known to be good and its extra to be there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from green_screen import options
from green_screen.command import extras


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        text: What it does, in a line.
        options: The dataclass that defines its options.
        extra: What must be installed, as an extra of pyproject.toml.
        factors: Whether it takes the ten factors too.
        deliver: Whether what earlier processes could not send is sent first; not where nothing is
            logged, or where the work does so itself.
        advice: What to say after the name of the signal that ended it.
        module: Where its work is; empty for its name.
    """

    text: str
    options: type[Any]
    extra: str
    factors: bool = False
    deliver: bool = True
    advice: str = ""
    module: str = ""


COMMANDS = {
    "train": Command(
        text="Train once, measured.",
        options=options.TrainOptions,
        extra="experiment",
        factors=True,
        deliver=False,
    ),
    "sweep": Command(
        text="Run a campaign, or complete one that was cut short.",
        options=options.SweepOptions,
        extra="experiment",
        deliver=False,
        advice="; the same command resumes it",
    ),
    "status": Command(
        text="Tell the state of a campaign from the store alone.",
        options=options.StatusOptions,
        extra="analysis",
        deliver=False,
    ),
    "analyze": Command(
        text="Analyse a campaign, compare, report and register.",
        options=options.AnalyzeOptions,
        extra="analysis",
    ),
    "promote": Command(
        text="Promote a registered model to champion, if it is not worse.",
        options=options.PromoteOptions,
        extra="analysis",
    ),
    "predict": Command(
        text="Predict the energy of a training before it runs.",
        options=options.PredictOptions,
        extra="analysis",
        factors=True,
        deliver=False,
    ),
    "import": Command(
        text="Import runs made elsewhere as a campaign.",
        options=options.ImportOptions,
        extra="analysis",
        module="import_runs",  # `import` is a word of Python's and cannot name a module
    ),
}


def run(name: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Do a command and return its exit status, which :func:`~.ending.ended` explains.

    Args:
        name: A key of :data:`COMMANDS`.
        argv: Its arguments; ``None`` is ``sys.argv[1:]``. One that cannot be used ends the process
            with status 2.
        prog: How it was called, for help and refusals; ``None`` is the name of the program's file.
    """
    command = COMMANDS[name]
    asked, factors = options.parse_options(
        command.options, argv, command.text, factors=command.factors, prog=prog
    )
    if lacking := extras.missing(command.extra):
        print(f"{name} needs {lacking}", file=sys.stderr)
        return 1
    module = importlib.import_module(f"green_screen.command.{command.module or name}")
    return finished(name, lambda: module.work(asked, factors), module.FAILURES)


def finished(name: str, work: Callable[[], int], failures: Sequence[type[Exception]]) -> int:
    """Do a command's work and return its exit status.

    Args:
        name: A key of :data:`COMMANDS`.
        work: Returns the status that its result means, 0 or 1.
        failures: Errors of this command that a line explains.
    """
    from green_screen.command.ending import ended

    command = COMMANDS[name]
    return ended(name, work, *failures, deliver=command.deliver, advice=command.advice)
