"""Which campaigns are analysed, in which order, and what their baseline is."""

from __future__ import annotations

from mlflow.tracking import MlflowClient
from simulated_campaign import SimulatedCampaign, several

from green_screen import names, tracking
from green_screen.options import AnalyzeOptions
from green_screen.results.frame import REQUESTED
from green_screen.results.subject import baseline_config, read_subject
from green_screen.space import Space


def test_campaigns_come_in_the_order_in_which_they_began(store: str) -> None:
    client, experiment = MlflowClient(store), tracking.ensure_experiment()
    first = SimulatedCampaign(n_runs=1)
    # Their ids are random: in the order of these, one time in 24 they would come right by chance.
    ids = {
        name: SimulatedCampaign(n_runs=1, start_ms=first.start_ms + day * 86_400_000).write(
            client, experiment, name
        )
        for day, name in ((3, "fourth"), (2, "third"), (1, "second"), (0, "first"))
    }
    subject = read_subject(AnalyzeOptions(sweep="third,first,fourth,second"))
    assert subject.name == "first, second, third, fourth"
    assert list(subject.runs["campaign"].unique()) == [*reversed(ids.values())]
    assert list(subject.runs["position"]) == [0, 1] * 4
    # Earlier analyses are found by it, in whatever order the campaigns are named.
    assert subject.run_id == ",".join(sorted(ids.values()))


def test_a_campaign_that_has_not_ended_says_how_far_it_is(store: str) -> None:
    client, experiment = MlflowClient(store), tracking.ensure_experiment()
    campaign = SimulatedCampaign(n_runs=3, failed=(2,)).write(client, experiment, "stopped")
    options = AnalyzeOptions(sweep=campaign)
    assert read_subject(options).unfinished == ""  # it does not say what was planned
    client.set_tag(campaign, names.TAG_RUNS_PLANNED, "5")
    assert read_subject(options).unfinished == ""
    client.set_terminated(campaign, "KILLED")
    assert read_subject(options).unfinished == "3 of 5 planned runs have finished"
    # What was done twice counts once.
    again = read_subject(options).runs.query("status == 'FINISHED'")["run_id"].iloc[-1]
    client.set_tag(again, names.TAG_POSITION, "0")
    assert read_subject(options).unfinished == "2 of 5 planned runs have finished"


def test_of_several_baselines_it_is_the_most_frequent_one_then_the_earliest() -> None:
    late = SimulatedCampaign(n_runs=10, baseline_every=5)
    early = SimulatedCampaign(n_runs=10, baseline_every=5, start_ms=late.start_ms - 1)
    runs = several(late, early)
    runs.loc[runs["campaign"] == "campaign0", REQUESTED + "batch_size"] = "64"
    published = Space.load().baseline
    assert baseline_config(runs) == published
    once_less = runs.drop(index=runs.index[-1])
    assert runs["kind"].iloc[-1] == "baseline" and baseline_config(once_less).batch_size == 64
    assert baseline_config(runs[runs["kind"] != "baseline"]) == published
