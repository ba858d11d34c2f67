"""Reads thousands of runs from a tracking server in a reasonable time."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow.entities import Run, ViewType
from mlflow.store.entities import PagedList
from mlflow.tracking import MlflowClient

PAGE = 500
# Requests at once: as many as ``mlflow server`` has processes if nothing else is said.
STREAMS = 4
STAGGER_S = 0.1


@dataclass(frozen=True)
class _Search:
    """The runs that meet a filter and started within a span of time, oldest first."""

    client: MlflowClient
    experiment_ids: list[str]
    filter_string: str
    first_ms: float = -math.inf
    before_ms: float = math.inf

    def within(self, first_ms: float, before_ms: float) -> _Search:
        """Return the search for a part of the time."""
        return _Search(self.client, self.experiment_ids, self.filter_string, first_ms, before_ms)

    def page(self, token: str | None = None, most: int | None = None) -> PagedList[Run]:
        """Return a page of the runs."""
        return self._ask("ASC", PAGE if most is None else most, token)

    def newest_ms(self) -> float:
        """Return when the last of the runs started."""
        return max((run.info.start_time for run in self._ask("DESC", 1, None)), default=-math.inf)

    def _ask(self, direction: str, most: int, token: str | None) -> PagedList[Run]:
        clauses = [self.filter_string] if self.filter_string else []
        if self.first_ms > -math.inf:
            clauses.append(f"attributes.start_time >= {self.first_ms:.0f}")
        if self.before_ms < math.inf:
            clauses.append(f"attributes.start_time < {self.before_ms:.0f}")
        return self.client.search_runs(
            self.experiment_ids,
            " and ".join(clauses),
            ViewType.ACTIVE_ONLY,
            most,
            [f"attributes.start_time {direction}"],
            page_token=token,
        )


def search_all(client: MlflowClient, experiment_ids: list[str], filter_string: str) -> list[Run]:
    """Return all runs that meet a filter, oldest first, without their metric histories.

    A server spends most of the time on turning rows into JSON, on one core a request. So what does
    not fit one page is read in several spans of time at once. A run that starts meanwhile is in the
    last span, which has no end.
    """
    search = _Search(client, experiment_ids, filter_string)
    at_once = client.tracking_uri.startswith("http")
    with _no_garbage_collection():
        # With several readers the first page is short: until it is there, the others wait.
        page = search.page(most=max(1, PAGE // STREAMS) if at_once else None)
        runs = {run.info.run_id: run for run in page}
        if page.token and at_once:
            runs.update(_read_spans(search.within(page[-1].info.start_time, math.inf)))
        else:
            while page.token:
                page = search.page(page.token)
                runs.update({run.info.run_id: run for run in page})
    return sorted(runs.values(), key=lambda run: (run.info.start_time, run.info.run_id))


def _read_spans(search: _Search) -> dict[str, Run]:
    """Return the runs of a search by id, read in several spans of time at once."""
    newest_ms = search.newest_ms()
    runs: dict[str, Run] = {}
    with ThreadPoolExecutor(STREAMS) as pool:
        pending: set[Future[tuple[list[Run], _Search | None]]] = set()
        try:
            # More spans than readers: some readers meet a process that others keep busy, too.
            for part in _parts(search, newest_ms, 4 * STREAMS):
                pending.add(pool.submit(_read_start, part))
                if len(pending) < STREAMS:
                    # A process accepts all connections that wait, so they must not come together.
                    time.sleep(STAGGER_S)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    found, rest = future.result()
                    runs.update({run.info.run_id: run for run in found})
                    if rest is not None:
                        # Runs are not spread evenly; a reader without work takes half of the rest.
                        free = STREAMS - len(pending)
                        parts = _parts(rest, newest_ms, min(max(free, 1), 2))
                        pending |= {pool.submit(_read_start, part) for part in parts}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return runs


def _read_start(search: _Search) -> tuple[list[Run], _Search | None]:
    """Return a page of a search and, if there is more, the search for the rest.

    The rest begins with the time of the last run, because others may have started with it. As long
    as that is where the search began, it is read on page by page.
    """
    page = search.page()
    found = list(page)
    while page.token and page[-1].info.start_time <= search.first_ms:
        page = search.page(page.token)
        found += page
    if not page.token:
        return found, None
    return found, search.within(page[-1].info.start_time, search.before_ms)


def _parts(search: _Search, newest_ms: float, count: int) -> list[_Search]:
    """Divide a search into spans of equal length; the last one ends where the search does."""
    end_ms = min(search.before_ms, newest_ms + 1)
    length_ms = (end_ms - search.first_ms) // count
    if length_ms < 1:
        return [search]
    starts_ms = [search.first_ms + i * length_ms for i in range(count)]
    return [
        search.within(first_ms, before_ms)
        for first_ms, before_ms in zip(starts_ms, [*starts_ms[1:], search.before_ms], strict=True)
    ]


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
