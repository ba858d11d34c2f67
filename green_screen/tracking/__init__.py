"""The only door to the tracking server for what trains and for campaigns.

:func:`open_run` gives a run its life, :class:`RunLogger` writes to it, and nothing that was logged
is lost to a server that is away for a while or to a process that dies.

Imports: names, locks, options.
"""

from green_screen.tracking.interrupts import Interrupted
from green_screen.tracking.life import INTERRUPTED_PATIENCE_S, given_run, open_run
from green_screen.tracking.outbox import RefusedError
from green_screen.tracking.records import ModelLink
from green_screen.tracking.run_logger import RunLogger
from green_screen.tracking.spool import deliver, deliver_all, spool_root
from green_screen.tracking.store import (
    MAX_TAG_LENGTH,
    UNDER_WAY,
    StoreUnavailableError,
    check_store,
    create_child,
    end_cut_off,
    end_left_behind,
    ensure_experiment,
    in_spite_of_others,
    metric_values,
    patience_s,
    patiently,
    read_run,
    reopen,
    search_runs,
    store_uri,
    use_store,
)

__all__ = [
    "INTERRUPTED_PATIENCE_S",
    "MAX_TAG_LENGTH",
    "UNDER_WAY",
    "Interrupted",
    "ModelLink",
    "RefusedError",
    "RunLogger",
    "StoreUnavailableError",
    "check_store",
    "create_child",
    "deliver",
    "deliver_all",
    "end_cut_off",
    "end_left_behind",
    "ensure_experiment",
    "given_run",
    "in_spite_of_others",
    "metric_values",
    "open_run",
    "patience_s",
    "patiently",
    "read_run",
    "reopen",
    "search_runs",
    "spool_root",
    "store_uri",
    "use_store",
]
