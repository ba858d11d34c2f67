import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import requests
import servers
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.results import histories
from green_screen.results.frame import config_of, configurations
from green_screen.results.paging import search_all
from green_screen.results.runs import (
    RUN_METRICS,
    CampaignError,
    read_epochs,
    read_runs,
    to_frame,
)
from green_screen.space import FACTOR_NAMES, Space
from green_screen.statistics.regression import fit_energy_model

SMALL = SimulatedCampaign(
    seed=1, n_runs=6, baseline_every=3, epochs=3, machine="A", failed=(2,), invalid=(3,)
)
OTHER = SimulatedCampaign(seed=2, n_runs=3, epochs=2, machine="B")
# Large enough that reading it takes several pages of 20 runs.
LARGE = SimulatedCampaign(seed=3, n_runs=96, baseline_every=24, epochs=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory, migrated_database):
    database = shutil.copy(migrated_database, tmp_path_factory.mktemp("store") / "mlflow.db")
    client = MlflowClient(f"sqlite:///{database}")
    here, elsewhere = client.create_experiment("here"), client.create_experiment("elsewhere")
    ids = {
        "large": LARGE.write(client, elsewhere, "large"),
        "other": OTHER.write(client, elsewhere, "other"),
        "twin": OTHER.write(client, elsewhere, "other"),
        "small": SMALL.write(client, here, "small"),
    }
    # A final run is a child too, but no run of the campaign.
    tags = {"mlflow.parentRunId": ids["small"], names.TAG_KIND: names.KIND_FINAL}
    client.create_run(here, tags=tags)
    return client, ids


def test_a_campaign_is_found_by_id_name_or_as_the_latest(store):
    client, ids = store
    by_id = read_runs(sweep=ids["small"], client=client)
    assert set(by_id["campaign"]) == {ids["small"]}
    pd.testing.assert_frame_equal(read_runs(sweep="small", client=client), by_id)
    pd.testing.assert_frame_equal(read_runs(client=client), by_id)
    assert list(by_id["position"]) == list(range(9))
    assert set(by_id["kind"]) == {names.KIND_BASELINE, names.KIND_RUN}


def test_positions_are_the_order_in_which_runs_were_started():
    runs = SMALL.runs("small")
    # As where a run is done again at the end, and where a sequential design chooses.
    runs[2].info._start_time = runs[-1].info.start_time + 1
    placed = to_frame(runs).set_index("run_id")["position"]
    made = [*runs[:2], *runs[3:], runs[2]]
    assert list(placed[[run.info.run_id for run in made]]) == list(range(9))


def test_rows_are_typed_and_equal_what_was_logged(store):
    client, ids = store
    read = read_runs(sweep="small", client=client)
    expected = SMALL.frame(ids["small"])
    own = ["run_id", "start_time"]
    pd.testing.assert_frame_equal(read.drop(columns=own), expected.drop(columns=own))
    assert (read[list(RUN_METRICS)].dtypes == "float64").all()
    assert str(read["start_time"].dt.tz) == "UTC"
    assert read["diverged"].dtype == bool
    assert read.loc[2, "status"] == "FAILED" and np.isnan(read.loc[2, names.ENERGY_TOTAL_J])
    assert read.loc[3, "measurement_valid"] == "false"
    assert read.loc[3, "invalid_reason"] == "shared GPU"
    assert (read["machine"] == "A").all()
    assert (read["epochs"] == 3).all()


def test_several_campaigns_an_experiment_and_a_filter(store):
    client, ids = store
    both = read_runs(sweep=["small", ids["other"]], client=client)
    assert both.groupby("campaign").size().to_dict() == {ids["small"]: 9, ids["other"]: 4}
    assert set(both["machine"]) == {"A", "B"}
    joined = read_runs(sweep=f"small, {ids['other']}", client=client)
    pd.testing.assert_frame_equal(joined, both)
    here = read_runs(experiment="here", client=client)
    assert set(here["campaign"]) == {ids["small"]}
    slow = read_runs(
        experiment="elsewhere", filter_string="params.effective_batch_size = '4'", client=client
    )
    assert set(slow["effective_batch_size"]) == {"4"}
    assert len(slow["campaign"].unique()) == 3
    part = read_runs(sweep="small", filter_string="metrics.energy_total_j > 0", client=client)
    assert len(part) == 8


def test_what_is_not_there_is_named(store):
    client, ids = store
    with pytest.raises(CampaignError, match="no campaign with the run_name 'nothing'"):
        read_runs(sweep="nothing", client=client)
    with pytest.raises(CampaignError, match="no campaign with the run_id"):
        read_runs(sweep="0" * 32, client=client)
    with pytest.raises(CampaignError, match="no experiment named 'nowhere'"):
        read_runs(experiment="nowhere", client=client)
    with pytest.raises(CampaignError, match="2 campaigns are named 'other'.*" + ids["twin"]):
        read_runs(sweep="other", client=client)
    with pytest.raises(CampaignError, match="without quotes"):
        read_runs(sweep="it's", client=client)
    with pytest.raises(CampaignError, match="has no run of kind"):
        read_runs(sweep="small", filter_string="metrics.energy_total_j < 0", client=client)


def test_an_empty_store_says_what_to_do(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(CampaignError, match="run the entry point sweep first"):
        read_runs(client=client)


def test_epochs(store):
    client, _ = store
    runs = read_runs(sweep="small", client=client)
    wanted = list(runs["run_id"][:2])
    epochs = read_epochs(wanted, client=client)
    assert epochs.groupby("run_id").size().to_dict() == {run_id: 3 for run_id in wanted}
    first = epochs[epochs["run_id"] == wanted[0]]
    assert list(first["epoch"]) == [0, 1, 2]
    # The last epoch's accuracy is what the run's row shows.
    assert first[names.VAL_ACCURACY].iloc[-1] == runs.loc[0, names.VAL_ACCURACY]
    assert (first[names.EPOCH_ENERGY_J] > 0).all()
    failed = list(runs.loc[[2], "run_id"])
    assert read_epochs(failed, client=client).empty
    missing = read_epochs(wanted, metrics=["loss", "no_such_metric"], client=client)
    assert missing["no_such_metric"].isna().all() and missing["loss"].notna().all()


def test_configurations_are_equal_for_equal_effective_levels(store):
    client, _ = store
    runs = read_runs(sweep="small", client=client)
    keys = configurations(runs)
    assert keys[runs["kind"] == names.KIND_BASELINE].nunique() == 1
    assert keys.nunique() == 7


def test_levels_become_a_configuration_again():
    baseline = Space.load().baseline
    assert config_of(baseline.as_params()) == baseline
    levels = {**baseline.as_params(), "optimizer_momentum": "None", "lr": "1e-3"}
    assert config_of(levels).optimizer_momentum is None
    assert config_of(levels).as_params()["lr"] == "0.001"
    with pytest.raises(ValueError, match="lr must be a number, but got 'fast'"):
        config_of({**levels, "lr": "fast"})
    assert set(levels) == set(FACTOR_NAMES)


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    client, _ = store
    with servers.mlflow_server(client.tracking_uri, tmp_path_factory.mktemp("server")) as url:
        yield url


def test_a_large_campaign_is_the_same_through_a_server(store, server, monkeypatch):
    client, ids = store
    direct = read_runs(sweep=ids["large"], client=client)
    assert len(direct) == 101
    monkeypatch.setattr("green_screen.results.paging.PAGE", 20)
    through_server = read_runs(sweep=ids["large"], client=MlflowClient(server))
    pd.testing.assert_frame_equal(through_server, direct)
    analysis = fit_energy_model(through_server, permutations=100, cv_repeats=2, trees=10)
    assert "batch_size" in analysis.findings


def test_what_is_asked_of_a_store_does_not_grow_with_the_runs_of_a_page(store, server, monkeypatch):
    # How long a run takes to read is benchmarks/analysis_scale.py's to say.
    client, ids = store
    asked = []
    send = requests.Session.send
    monkeypatch.setattr(
        requests.Session, "send", lambda self, *a, **k: (asked.append(a), send(self, *a, **k))[1]
    )

    def count(statement, *rest):
        asked.append(statement)

    for here in (client, MlflowClient(server)):
        numbers = []
        for sweep in ("small", "large"):
            read_runs(sweep=ids[sweep], client=here)  # what a first request sets up
            asked.clear()
            sqlalchemy.event.listen(sqlalchemy.Engine, "before_execute", count)
            try:
                read_runs(sweep=ids[sweep], client=here)
            finally:
                sqlalchemy.event.remove(sqlalchemy.Engine, "before_execute", count)
            numbers.append(len(asked))
        assert numbers[0] == numbers[1] > 0


def test_a_run_takes_little_memory_to_read(store):
    # 10,000 runs in 2 GB leave 200 kB a run.
    client, ids = store
    tracemalloc.start()
    runs = read_runs(sweep=ids["large"], client=client)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes / len(runs) < 200e3


def test_runs_of_the_same_moment_are_all_read(server, monkeypatch):
    client = MlflowClient(server)
    experiment = client.create_experiment("moments")
    moments = [1000] * 25 + [2000] * 25
    made = {client.create_run(experiment, start_time=at).info.run_id for at in moments}
    monkeypatch.setattr("green_screen.results.paging.PAGE", 10)
    found = search_all(client, [experiment], "")
    assert len(found) == 50 and {run.info.run_id for run in found} == made


def test_runs_that_start_while_others_are_read_are_found_once(server, monkeypatch):
    client = MlflowClient(server)
    experiment = client.create_experiment("growing")
    # Nearly all within a moment, long after the first: spans of time are not equally full.
    moments = [1000, *range(900_000, 900_060)]
    made = {client.create_run(experiment, start_time=at).info.run_id for at in moments}
    late = set()
    search = MlflowClient.search_runs

    def search_while_runs_start(*arguments, **options):
        found = search(*arguments, **options)
        if len(late) < 5:
            late.add(client.create_run(experiment, start_time=900_060 + len(late)).info.run_id)
        return found

    monkeypatch.setattr("green_screen.results.paging.PAGE", 8)
    monkeypatch.setattr(MlflowClient, "search_runs", search_while_runs_start)
    ids = [run.info.run_id for run in search_all(client, [experiment], "")]
    assert len(ids) == len(set(ids)) and made <= set(ids) <= made | late
    # Those that were there before the last span was read to its end.
    assert len(set(ids) & late) >= 1


def test_a_reader_that_fails_fails_the_reading(server, monkeypatch):
    client = MlflowClient(server)
    experiment = client.create_experiment("failing")
    for at in range(40):
        client.create_run(experiment, start_time=at)
    search = MlflowClient.search_runs

    def search_or_fail(self, experiment_ids, filter_string, *arguments, **options):
        if "start_time <" in filter_string:
            raise MlflowException("connection refused")
        return search(self, experiment_ids, filter_string, *arguments, **options)

    monkeypatch.setattr("green_screen.results.paging.PAGE", 8)
    monkeypatch.setattr(MlflowClient, "search_runs", search_or_fail)
    with pytest.raises(MlflowException, match="connection refused"):
        search_all(client, [experiment], "")


@pytest.fixture
def one_by_one(store):
    client, _ = store
    runs = read_runs(sweep="small", client=client)
    wanted = list(runs["run_id"])
    metrics = [names.VAL_ACCURACY, names.EPOCH_ENERGY_J]
    values = {
        (run_id, metric): [
            (value.step, value.value) for value in client.get_metric_history(run_id, metric)
        ]
        for run_id in wanted
        for metric in metrics
    }
    return wanted, metrics, values


def values_of(entries, run_ids, metrics):
    found = {(run_id, metric): [] for run_id in run_ids for metric in metrics}
    for run_id, step, metric, value in entries:
        found[run_id, metric].append((step, value))
    return found


@pytest.mark.parametrize("through_server", [False, True])
def test_histories_of_many_runs_at_once_are_those_of_each(
    store, server, one_by_one, monkeypatch, through_server
):
    client = MlflowClient(server) if through_server else store[0]
    wanted, metrics, values = one_by_one
    monkeypatch.setattr(histories, "RUNS_A_REQUEST", 4)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_metric_history", None)
        together = histories.read_histories(client, wanted, metrics)
    assert values_of(together, wanted, metrics) == values
    # Answers that may be cut off are asked for again, in parts; at last run by run.
    for most in (7, 3, 2):
        monkeypatch.setattr(histories, "MAX_VALUES", most)
        parts = histories.read_histories(client, wanted, metrics)
        assert values_of(parts, wanted, metrics) == values


# A route that is not there, and a page instead of figures, as a proxy may answer.
@pytest.mark.parametrize("route", ["/ajax-api/2.0/mlflow/no-such-route", "/"])
def test_histories_without_the_route_are_read_one_by_one(server, one_by_one, monkeypatch, route):
    wanted, metrics, values = one_by_one
    monkeypatch.setattr(histories, "_ROUTE", route)
    found = histories.read_histories(MlflowClient(server), wanted, metrics)
    assert values_of(found, wanted, metrics) == values


def test_an_outage_is_no_reason_to_ask_for_each_history(store, monkeypatch):
    client, _ = store

    def away(*arguments):
        raise MlflowException("connection refused")

    monkeypatch.setattr(histories, "_from_store", away)
    with pytest.raises(MlflowException, match="connection refused"):
        histories.read_histories(client, ["0" * 32], [names.LOSS])
