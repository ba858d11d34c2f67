"""The campaign's jobs on a real Ray cluster of two nodes, on this host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import psutil
import pytest
import ray._private.node
import servers
import trainers
from mlflow.entities import Run
from ray.cluster_utils import Cluster
from waiting import until

from benchmarks.simulated_training import EPOCH_METRICS, TRAIN
from green_screen import names
from green_screen.executors.executor import LOST, CampaignError, Job, JobResult, Outcome
from green_screen.executors.local import PRELOAD_TRACKING
from green_screen.executors.ray import RayExecutor
from green_screen.options import OptionError, SweepOptions
from green_screen.space import FACTOR_NAMES, Space
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.design import make_plan

WAITING = "trainers:train_when_released"
# The smallest store that Ray takes; a job is about 1 kB.
NODE = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without slots and one node of two, as small as they can be."""
    head = {
        **NODE,
        "num_cpus": 0,
        "include_dashboard": False,
        # A node that is gone is known to be after 2 s and not after 25 s.
        "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
    }
    with pytest.MonkeyPatch.context() as patch:
        # Ray gives a node 30 s to start, which a busy machine does not keep.
        of_nodes = ray._private.node
        without_end = vars(of_nodes.time) | {"monotonic": lambda: 0.0}
        patch.setattr(of_nodes, "time", SimpleNamespace(**without_end))
        patch.setattr(Cluster._wait_for_node, "__defaults__", (1e6,))
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[RayExecutor]:
    with RayExecutor(address=cluster.address, preload=PRELOAD_TRACKING) as executor:
        yield executor


def collect(executor: RayExecutor, count: int) -> dict[int, JobResult]:
    results: list[JobResult] = []
    while len(results) < count:
        results += executor.wait(1.0)
    return {result.job.position: result for result in results}


def run_of(job: Job) -> Run:
    return mlflow.get_run(job.run_id)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"green-screen\[ray\]"):
        RayExecutor()


def test_an_address_where_nothing_listens_is_refused() -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    with pytest.raises(OptionError, match=f"ray_address .* got '{address}'"):
        RayExecutor(address=address)


def test_a_cluster_without_what_a_job_needs_is_refused(cluster: Cluster) -> None:
    with pytest.raises(OptionError, match="at least 4 GPUs"):
        RayExecutor(address=cluster.address, num_gpus_per_job=4)


def test_results_of_jobs_that_end_each_in_another_way(
    executor: RayExecutor, make_job: Callable[..., Job]
) -> None:
    assert executor.slots == 2
    jobs = [
        make_job(TRAIN, 0),
        make_job("trainers:refuse", 1),
        make_job("trainers:crash", 2),
        make_job("trainers:wait", 3, time_limit_s=3.0),
    ]
    for job in jobs:
        executor.submit(job)
    results = collect(executor, 4)
    assert (results[0].outcome, results[0].reason) == (Outcome.FINISHED, "")
    assert results[1].outcome is Outcome.FAILED and "no such training" in results[1].reason
    assert results[2].outcome is Outcome.FAILED and "SIGSEGV" in results[2].reason
    assert results[3].outcome is not Outcome.FINISHED and "time limit" in results[3].reason
    assert not any(result.lost for result in results.values())
    assert run_of(jobs[0]).info.status == "FINISHED"
    client = mlflow.MlflowClient()
    assert len(client.get_metric_history(jobs[0].run_id, EPOCH_METRICS[-1])) == 2
    # Two slots on one node: they share its CPU.
    assert run_of(jobs[0]).data.tags[names.TAG_SHARED_HOST] == "true"


def test_each_job_sees_its_own_gpu_alone(cluster: Cluster, make_job: Callable[..., Job]) -> None:
    node = cluster.add_node(**{**NODE, "num_gpus": 2})
    try:
        with RayExecutor(address=cluster.address, preload=PRELOAD_TRACKING) as executor:
            assert executor.slots == 2
            jobs = [make_job("trainers:tell", position) for position in range(2)]
            for job in jobs:
                executor.submit(job)
            results = collect(executor, 2)
            later = make_job("trainers:tell", 3)
            executor.submit(later)
            results |= collect(executor, 1)
        with RayExecutor(
            address=cluster.address, num_gpus_per_job=0, preload=PRELOAD_TRACKING
        ) as executor:
            blind = make_job("trainers:tell", 2)
            executor.submit(blind)
            results |= collect(executor, 1)
    finally:
        cluster.remove_node(node)
    assert {result.outcome for result in results.values()} == {Outcome.FINISHED}
    told = [run_of(job).data.tags for job in [*jobs, blind, later]]
    seen = [tags["cuda_visible_devices"] for tags in told]
    assert sorted(seen[:2]) == ["0", "1"]
    assert seen[2] == ""
    # A worker outlives a job with a GPU: the next one finds its forkserver with the imports done.
    assert told[3]["forkserver"] in {tags["forkserver"] for tags in told[:2]}
    # Ray would give each a single thread.
    assert {tags["threads"] for tags in told} == {"None"}


def test_a_cluster_without_nodes_is_not_waited_for_for_ever(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster.add_node(**{**NODE, "num_gpus": 1})
    with RayExecutor(address=cluster.address, no_node_limit_s=2.0) as executor:
        assert executor.slots == 1
        cluster.remove_node(node)
        with pytest.raises(CampaignError, match="no node for a job for 2 s: the same command"):
            until(lambda: bool(executor.wait(0.5)))
    assert "waiting up to 2 s for one" in caplog.text


def test_closing_leaves_no_child_behind(cluster: Cluster, make_job: Callable[..., Job]) -> None:
    jobs = [make_job("trainers:wait", position) for position in range(2)]
    with RayExecutor(address=cluster.address, preload=PRELOAD_TRACKING) as executor:
        for job in jobs:
            executor.submit(job)
        until(lambda: all("pid" in run_of(job).data.tags for job in jobs))
    pids = [int(run_of(job).data.tags["pid"]) for job in jobs]
    # That the runs end as KILLED is for the campaign to see to: below, by SIGTERM.
    until(lambda: not any(map(psutil.pid_exists, pids)))


def options_for(cluster: Cluster, **changes: Any) -> SweepOptions:
    given = {"model": "resnet8", "samples": 40, "image_size": 8, "baseline_every": 0} | changes
    return SweepOptions(executor="ray", ray_address=cluster.address, **given)


def children(parent: Run) -> list[Run]:
    found: list[Run] = mlflow.MlflowClient().search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    return found


def by_status(runs: list[Run], status: str) -> dict[int, Run]:
    chosen = [run for run in runs if run.info.status == status]
    found = {int(run.data.tags[names.TAG_POSITION]): run for run in chosen}
    assert len(found) == len(chosen), "a position was run twice"
    return found


def waiting(store: str) -> list[Run]:
    """Return the runs under way whose trainer waits to be released."""
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    if experiment is None:
        return []
    condition = "attributes.status = 'RUNNING' and tags.waiting = 'true'"
    found: list[Run] = client.search_runs([experiment.experiment_id], condition)
    return found


@pytest.fixture
def release() -> Iterator[Path]:
    """The file that lets the trainers go on, absent."""
    path = Path(os.environ[trainers.RELEASE])
    yield path
    path.unlink(missing_ok=True)


def test_a_campaign_survives_the_loss_of_a_node(
    cluster: Cluster, store: str, release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doomed = cluster.add_node(**NODE)
    options = options_for(cluster, n_runs=7, epochs=10)

    def kill_node() -> None:
        # Each node has two slots: of three runs under way one at least is on the doomed node.
        until(lambda: len(waiting(store)) >= 3)
        # Ray's processes end with the raylet, but on a node that is lost nothing goes on.
        raylet = doomed.all_processes["raylet"][0].process.pid
        processes = psutil.Process(raylet).children(recursive=True)
        cluster.remove_node(doomed, allow_graceful=False)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        release.touch()

    with RayExecutor(address=cluster.address, preload=PRELOAD_TRACKING) as executor:
        killer = threading.Thread(target=kill_node, daemon=True)
        killer.start()
        parent = mlflow.get_run(run_sweep(options, trainer=WAITING, executor=executor))
        killer.join()
    runs = children(parent)
    plan = make_plan(Space.load(), options)
    finished, lost = by_status(runs, "FINISHED"), by_status(runs, "KILLED")
    assert parent.info.status == "FINISHED"
    assert sorted(finished) == [planned.position for planned in plan.runs]
    assert len(runs) == len(finished) + len(lost)
    assert 1 <= len(lost) <= 2
    assert caplog.text.count(f"is done again: {LOST}") == len(lost)
    for planned in plan.runs:
        params = finished[planned.position].data.params
        assert {name: params[name] for name in FACTOR_NAMES} == planned.config.as_params()
    client = mlflow.MlflowClient()
    for run in finished.values():
        history = client.get_metric_history(run.info.run_id, EPOCH_METRICS[-1])
        assert [metric.step for metric in history] == list(range(10))


def test_sigterm_ends_the_runs_and_the_same_command_completes_them(
    cluster: Cluster, store: str, release: Path
) -> None:
    options = options_for(cluster, n_runs=3, epochs=10)
    script = f"""
import mlflow
from green_screen.options import SweepOptions
from green_screen.space import FACTOR_NAMES, Space
from green_screen.sweep.campaign import run_sweep
from green_screen.executors.local import PRELOAD_TRACKING
from green_screen.executors.ray import RayExecutor
mlflow.set_tracking_uri({store!r})
with RayExecutor(address={cluster.address!r}, preload={PRELOAD_TRACKING!r}) as executor:
    run_sweep({options!r}, trainer={WAITING!r}, executor=executor)
"""
    campaign = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: len(waiting(store)) == 2)
    campaign.send_signal(signal.SIGTERM)
    assert campaign.wait() != 0
    (parent,) = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`{names.TAG_KIND}` = '{names.KIND_SWEEP}'",
        output_format="list",
    )
    assert parent.info.status == "KILLED"
    before = children(parent)
    assert [run.info.status for run in before] == ["KILLED", "KILLED"]

    release.touch()
    with RayExecutor(address=cluster.address, preload=PRELOAD_TRACKING) as executor:
        resumed = run_sweep(options, trainer=WAITING, executor=executor)
    assert resumed == parent.info.run_id
    assert sorted(by_status(children(parent), "FINISHED")) == [0, 1, 2, 3]
    assert mlflow.get_run(resumed).info.status == "FINISHED"
