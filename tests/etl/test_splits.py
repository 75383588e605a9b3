"""The dates of a night, as DESIGN's clock gives them."""

from __future__ import annotations

from datetime import date

from etl.splits import Night, first_training_night, label_cutoff, start_of
from tests.small import small_conf


def day(number: int) -> date:
    return date(2026, 5, number)


def test_the_demo_nights_train_calibrate_hold_out_and_score_on_their_days() -> None:
    # windows up to 24 h and two days of lateness: M is three days back
    for night, train_to, calibrate, held_out, scored in [(15, 10, 11, 12, 16), (16, 11, 12, 13, 17)]:
        found = Night.of(day(night), small_conf())
        assert (found.train_to, found.calibrate_to, found.held_out, found.scored) == (
            day(train_to),
            day(calibrate),
            day(held_out),
            day(scored),
        )
        assert found.as_of == start_of(day(night + 1))


def test_without_window_and_lateness_the_night_itself_is_held_out() -> None:
    conf = small_conf(heads={"click": {"action": "click", "window_hours": 0}}, clock={"lateness_hours": 0})
    assert Night.of(day(29), conf).held_out == day(29)
    assert Night.of(day(29), conf).train_to == day(27)


def test_logs_of_five_days_are_too_few_to_train_on() -> None:
    first = first_training_night(day(1), small_conf())
    assert first == day(6)
    assert Night.of(first, small_conf()).train_to == day(1)


def test_a_days_labels_close_with_the_last_night_that_rebuilds_it_or_with_the_range() -> None:
    assert label_cutoff(day(1), day(14), small_conf()) == start_of(day(5))
    assert label_cutoff(day(13), day(14), small_conf()) == start_of(day(15))
