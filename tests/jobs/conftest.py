"""One simulated history with its first night, shared by the tests of nights: they copy it, or leave it as it is."""

from __future__ import annotations

import pytest

from tests.jobs.nights import Place, day, place

RANGE = ("--from", day(1), "--to", day(6), "--only", "ingest,build_examples,gate")
NIGHT = ("--day", day(7))


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Simulated logs, days 1 to 6 built as a range, the night of day 7 run whole."""
    made = place(tmp_path_factory.mktemp("clean"), "tiny")
    for job, options in (("simulate", ()), ("nightly", RANGE), ("nightly", NIGHT)):
        code, told = made.run(job, *options)
        assert code == 0, told
    return made
