"""The row account and the quarantined shares, on plain rows."""

from __future__ import annotations

from typing import Any

from validation.account import check_account, check_quarantine


def account(block: str, day: str, rows_in: int, kept: int, duplicates: int, quarantined: int) -> dict[str, Any]:
    source = block.split("_")[0]
    return {
        "block": block,
        "source": source,
        "day": day,
        "rows_in": rows_in,
        "kept": kept,
        "duplicates": duplicates,
        "quarantined": quarantined,
    }


def test_a_block_and_day_that_lost_a_row_does_not_balance() -> None:
    rows = [account("video_logs", "2026-05-01", 10, 8, 1, 1), account("video_logs", "2026-05-02", 10, 8, 1, 0)]
    (finding,) = check_account(rows)
    assert (finding.success, finding.severity, finding.unexpected) == (False, "critical", 1)
    assert finding.sample == ("video_logs 2026-05-02: 10 in, 8 + 1 + 0 out",)
    assert check_account(rows[:1])[0].success


def test_a_source_is_held_to_its_quarantined_share_over_all_its_blocks() -> None:
    rows = [
        account("video_impressions", "2026-05-01", 100, 99, 0, 1),
        account("video_engagements", "2026-05-01", 20, 14, 0, 6),  # 7 of 120 are 5.8%
        account("shop_impressions", "2026-05-01", 100, 95, 0, 5),  # 5% is allowed
    ]
    found = {(finding.column, finding.severity): finding for finding in check_quarantine(rows, 0.05)}
    assert not found["video", "critical"].success
    assert found["video", "critical"].observed == "5.83% of 120 rows in"
    assert found["video", "critical"].sample[0] == "video_engagements 2026-05-01: 6 of 20"
    assert found["video", "critical"].knob == "gate.max_quarantined_share is 0.05"
    assert found["shop", "critical"].success


def test_one_bad_day_of_a_block_warns_where_its_source_is_good_as_a_whole() -> None:
    rows = [account("video_impressions", "2026-05-01", 1_000, 1_000, 0, 0), account("video_engagements", "2026-05-01", 10, 9, 0, 1)]
    found = [(finding.column, finding.severity) for finding in check_quarantine(rows, 0.05) if not finding.success]
    assert found == [("video_engagements, worst day", "warning")]


def test_a_day_of_few_rows_is_not_told_as_the_worst() -> None:
    rows = [account("video_impressions", "2026-05-01", 1_000, 1_000, 0, 0), account("video_engagements", "2026-05-01", 10, 9, 0, 1)]
    assert all(finding.success for finding in check_quarantine(rows, 0.05, min_rows=11))


def test_a_source_without_rows_is_not_divided_by_zero() -> None:
    assert all(finding.success for finding in check_quarantine([account("video_impressions", "2026-05-01", 0, 0, 0, 0)], 0.05))


def test_a_block_with_a_share_of_its_own_is_judged_alone_and_left_out_of_its_source() -> None:
    rows = [
        account("video_impressions", "2026-05-01", 100, 97, 0, 3),
        account("video_engagements", "2026-05-01", 100, 80, 0, 20),  # with the source it would be 11.5%
    ]
    found = {finding.column: finding for finding in check_quarantine(rows, 0.05, {"video_engagements": 0.25})}
    assert set(found) == {"video", "video_engagements"} and all(finding.success for finding in found.values())
    strict = {finding.column: finding for finding in check_quarantine(rows, 0.05, {"video_engagements": 0.1})}
    assert not strict["video_engagements"].success and strict["video_engagements"].severity == "critical"
    assert strict["video_engagements"].knob == "sources.video_engagements.max_quarantined_share is 0.1"


def test_rows_of_people_who_were_forgotten_are_not_broken() -> None:
    rows = [account("video_logs", "2026-05-01", 100, 60, 0, 40) | {"forgotten": 38}]
    assert check_account(rows)[0].success
    (finding,) = check_quarantine(rows, 0.02)
    assert finding.success and finding.unexpected == 2
    assert not check_quarantine([{**rows[0], "forgotten": 37}], 0.02)[0].success
