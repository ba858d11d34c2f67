"""How every command ends: its exit status and, if its work was not done, a line that says why."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from green_screen import tracking
from green_screen.options import OptionError
from green_screen.output import lasting_output
from green_screen.space import SpaceError


def ended(
    name: str,
    run: Callable[[], int],
    *failures: type[Exception],
    deliver: bool = True,
    advice: str = "",
) -> int:
    """Do a command's work and return its exit status.

    Args:
        name: The command.
        run: Does the work and returns the status that its result means, 0 or 1.
        failures: Errors of this command that a line explains; those of the tracking server are
            known. Any other is a fault of the program: it is raised, with its traceback.
        deliver: Whether to send first what earlier processes could not; not for a command that logs
            nothing or does so itself.
        advice: What to say after the name of the signal that ended it.

    Returns:
        What `run` does; 1 for a failure; 2 for options that cannot be used; 128 plus the signal's
        number if it was interrupted.
    """
    known: tuple[type[Exception], ...] = (
        MlflowException,
        tracking.StoreUnavailableError,
        tracking.RefusedError,
        *failures,
    )
    with lasting_output():
        try:
            if deliver:
                tracking.deliver_all()
            return run()
        except (OptionError, SpaceError) as error:
            status, why = 2, str(error)
        except known as error:
            status, why = 1, str(error)
        except tracking.Interrupted as error:
            status, why = 128 + error.number, f"ended by {error}{advice}"
        except KeyboardInterrupt:
            status, why = 128 + signal.SIGINT, "ended by SIGINT while no run was under way"
        print(f"{name}: {why}", file=sys.stderr)
        return status
