"""A night's dates: what it rebuilds, trains on, calibrates on, holds out and scores. Clocks are UTC; `as_of` is the only "now"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from conf.schema import Conf

ONE_DAY = timedelta(days=1)


def start_of(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)


def end_of(day: date) -> datetime:
    """The first moment after `day`."""
    return start_of(day + ONE_DAY)


def days_between(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += ONE_DAY


@dataclass(frozen=True)
class Night:
    """The night of `day`. With K = label_days, M = day - (K - 1) is the last day whose labels are final."""

    day: date
    label_days: int
    train_days: int

    @classmethod
    def of(cls, day: date, conf: Conf) -> Night:
        return cls(day, conf.label_days, conf.clock.train_days)

    @property
    def as_of(self) -> datetime:
        return end_of(self.day)

    @property
    def held_out(self) -> date:
        """M: it only reports; no fit ever reads it."""
        return self.day - (self.label_days - 1) * ONE_DAY

    @property
    def calibrate_to(self) -> date:
        return self.held_out - ONE_DAY

    @property
    def train_to(self) -> date:
        return self.held_out - 2 * ONE_DAY

    @property
    def train_from(self) -> date:
        """First day of a full training, if there are examples that early."""
        return self.train_to - (self.train_days - 1) * ONE_DAY

    def fit_from(self, trained_to: date, fit_days: int) -> date:
        """First of the days that fit the calibrator of a model trained up to `trained_to`: after its training, and not too long ago."""
        return max(trained_to + ONE_DAY, self.calibrate_to - (fit_days - 1) * ONE_DAY)

    @property
    def scored(self) -> date:
        return self.day + ONE_DAY


def first_training_night(first_day: date, conf: Conf) -> date:
    """The first night that has a day to train on, when the logs begin on `first_day`."""
    return first_day + (conf.label_days + 1) * ONE_DAY


def label_cutoff(day: date, last: date, conf: Conf) -> datetime:
    """Until when an engagement may be received to count for an impression of `day`, in a range whose last night is `last`.

    It is the close of the last night that rebuilds `day`, so that a range and the same nights one by one give the same labels.
    """
    return min(end_of(day + (conf.label_days - 1) * ONE_DAY), end_of(last))
