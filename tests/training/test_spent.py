"""What is known of processes that are gone."""

import math

from green_screen.training.spent import Spent


def test_what_a_process_had_spent_since_its_checkpoint_is_lost():
    first = Spent(run_ids=("a",), epoch=4, unix_s=100.0, since_j=30.0, since_s=3.0)
    second = first.followed_by(Spent(run_ids=("b",), epoch=4, unix_s=160.0))
    assert (second.lost_j, second.lost_s, second.gap_s) == (30.0, 3.0, 60.0)
    assert second.run_ids == ("a", "b")


def test_a_checkpoint_that_was_the_last_thing_written_leaves_nothing_lost():
    first = Spent(run_ids=("a",), epoch=4, unix_s=100.0, since_j=30.0, since_s=3.0, lost_j=5.0)
    second = first.followed_by(Spent(run_ids=("b",), epoch=6, unix_s=160.0))
    assert (second.lost_j, second.lost_s, second.gap_s) == (5.0, 0.0, 60.0)


def test_an_energy_that_is_not_known_stays_so_with_its_reason():
    first = Spent(run_ids=("a",), epoch=0, unix_s=1.0, since_j=math.nan, reason="no counter")
    second = first.followed_by(Spent(run_ids=("b",), epoch=0, unix_s=2.0))
    third = second.followed_by(Spent(run_ids=("c",), epoch=0, unix_s=3.0))
    assert math.isnan(third.lost_j)
    assert third.lost_reason == "no counter"
    assert third.gap_s == 2.0
