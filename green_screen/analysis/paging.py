"""Reads thousands of runs from a tracking server in a reasonable time."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from mlflow.entities import Run, ViewType
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient

PAGE = 1000


@dataclass
class _Ends:
    """How far two readers have come that read the same runs from both ends, by start time."""

    first_ms: float = -math.inf
    last_ms: float = math.inf
    runs: dict[str, Run] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether every run was read. At equal times some may still be missing: then not yet."""
        return self.first_ms > self.last_ms

    def take(self, page: PagedList[Run], *, ascending: bool) -> None:
        """Add a page of one of the readers."""
        self.runs.update({run.info.run_id: run for run in page})
        if not page:
            return
        if ascending:
            self.first_ms = page[-1].info.start_time
        else:
            self.last_ms = page[-1].info.start_time


def search_all(client: MlflowClient, experiment_ids: list[str], filter_string: str) -> list[Run]:
    """Return all runs that meet a filter, without their metric histories.

    A server spends most of the time on turning rows into JSON, on one core a request. So what does
    not fit one page is read from both ends at once until the readers meet.
    """
    ends = _Ends()
    search = partial(client.search_runs, experiment_ids, filter_string, ViewType.ACTIVE_ONLY, PAGE)

    def read(ascending: bool, token: str | None) -> None:
        order = ["attributes.start_time " + ("ASC" if ascending else "DESC")]
        while not ends.met:
            page = search(order, page_token=token)
            ends.take(page, ascending=ascending)
            token = page.token
            if not token:
                return

    with _no_garbage_collection():
        page = search(["attributes.start_time ASC"])
        ends.take(page, ascending=True)
        if page.token and client.tracking_uri.startswith("http"):
            with ThreadPoolExecutor(2) as pool:
                readers = [pool.submit(read, True, page.token), pool.submit(read, False, None)]
                for reader in readers:
                    reader.result()
        elif page.token:
            read(True, page.token)
    return list(ends.runs.values())


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the cyclic collector, which would walk through all runs again with every page.

    It takes longer than the reading itself, and there are no cycles to find.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
