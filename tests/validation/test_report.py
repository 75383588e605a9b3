"""The report: every section of a full night, words where a night did not get so far, and nothing let through unescaped."""

from __future__ import annotations

import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.validation.night import account_row, finding, made_up_night
from validation.drift import Shift
from validation.plots import CALIBRATED, RAW, reliability_svg, wilson
from validation.report import render


@pytest.fixture(scope="module")
def page() -> str:
    return render(made_up_night())


def words(html: str) -> str:
    """The text a reader sees, white space folded."""

    class Text(HTMLParser):
        skipped = 0

        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attributes: object) -> None:
            self.skipped += tag == "style"

        def handle_endtag(self, tag: str) -> None:
            self.skipped -= tag == "style"

        def handle_data(self, data: str) -> None:
            if not self.skipped:
                self.found.append(data)

    parser = Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(parser.found))


def test_the_status_stands_on_top_with_clock_model_and_days(page: str) -> None:
    text = words(page)
    top = text[: text.index("Notes")]
    for fact in (
        "Done in 4 min 12 s",
        "2026-05-17 00:00",
        "2026-05-13",
        "9b1d4c",
        "warm, from 77aa01",
        "2026-05-16-3f9c",
        "2026-05-17, 60,000 rows",
    ):
        assert fact in top


def test_each_section_shows_its_numbers(page: str) -> None:
    text = words(page)
    facts = {
        "Notes": "23 positives are fewer than 200",
        "Stages": "2 min 15 s",
        "Row account": "standard_impressions standard 2,000 1,960 30 10 0.50% 2 80 0 \N{CHECK MARK}",
        "Gates": "2 of 3 expectations hold. Data Docs of Great Expectations",
        "Training": "4,840 rows/s on 2 ranks",
        "Calibrator": "save video identity 0.000 0.000 23 6,001 23 positives, fewer than calibration.min_positives 200",
        "Metrics on the held-out day 2026-05-13": "click (all) 36,021 1,204 1.182 1.013 5.65% 1.027 0.861 0.853",
        "Reliability on the held-out day": "36,000 rows, 146 positives: too few to judge",
        "Scores": "mean p, save 0.042%",
        "Expected engagements of click by campaign, 2026-05-17 against 2026-05-16": "c346 10.49 0.28 -10.21 215 4",
    }
    for section, fact in facts.items():
        assert fact in text[text.index(section) :], section


def test_a_page_needs_no_script_and_no_address_but_of_files_beside_it(page: str) -> None:
    assert "<script" not in page
    card = "../../models/9b1d4c/cards/2026-05-16"
    beside = {"data_docs/index.html", "../../models/9b1d4c/calibrators/2026-05-16.json", f"{card}.md", f"{card}.json"}
    assert set(re.findall(r'(?:href|src)="([^"#][^"]*)"', page)) == beside
    assert "url(http" not in page and "@import" not in page


def test_names_from_logs_are_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>"
    night = made_up_night(
        name=evil,
        status=evil,
        notes=[evil],
        account=[account_row("logs", "2026-05-16") | {"source": evil, "block": evil}],
        findings=[asdict(finding(success=False, column=evil, observed=evil, sample=(evil,), why=evil))],
        calibrator={evil: {evil: {"method": evil, "b0": 0.0, "b1": 0.0, "positives": 0, "rows": 0, "reason": evil}}},
        metrics=[{**row, "source": evil, "head": evil} for row in made_up_night().metrics],
        reliability=[{**row, "tower": evil, "head": evil} for row in made_up_night().reliability[:6]],
        segments=[{**row, "tower": evil, "by": evil, "value": evil} for row in made_up_night().segments],
        nights=[{**row, "head": evil, "model": evil} for row in made_up_night().nights],
        histogram=[{**row, "source": evil, "head": evil} for row in made_up_night().histogram],
        movers=[{**row, "head": evil, "campaign_id": evil} for row in made_up_night().movers],
        feature_shifts=[Shift(evil, "2026-05-16", 0.3, None, 9, 60_000)],
        queries=dict.fromkeys(made_up_night().queries, evil),
        card=f'"{evil}',
        decision={**(made_up_night().decision or {}), "reason": evil, "serves": evil},
    )
    page = render(night)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15


def test_a_stage_that_is_done_again_says_why(page: str) -> None:
    assert words(page).count("why: configuration changed: heads.save.utility_weight was 2.0, is 3.0, since") == 1


def test_a_featured_cell_shows_its_five_largest_weights() -> None:
    weights = {"country=US": 0.01, "country=BR": -0.4055, "device=tv": 0.31, "device=pc": -0.02, "format=a": 0.2, "format=b": 0.1}
    featured = {"method": "featured", "b0": 0.1, "b1": 0.0, "w": weights, "positives": 900, "rows": 9_000, "reason": "enough positives"}
    text = words(render(made_up_night(calibrator={"click": {"video": featured, "feed": featured | {"w": {}}}})))
    shown = "largest weights: country=BR -0.406, device=tv +0.310, format=a +0.200, format=b +0.100, device=pc -0.020; 6 in all"
    assert text.count("largest weights") == 1 and shown in text


def test_simulated_data_is_said_on_top_and_only_then(page: str) -> None:
    assert "Simulated data" in page
    assert "Simulated data" not in render(made_up_night(simulated=False))


def test_a_night_that_was_stopped_says_what_it_did_not_reach() -> None:
    parts = ("metrics", "reliability", "findings", "account", "stages", "nights", "histogram", "movers", "feature_shifts", "score_shifts")
    nothing: dict[str, Any] = dict.fromkeys(parts, ()) | {"card": "", "queries": {}}
    text = words(render(made_up_night(level="bad", training=None, calibrator={}, scores=None, **nothing)))
    for said in ("stage ran", "log was read", "gate ran", "model was trained", "calibrator was fitted"):
        assert f"No {said}" in text
    assert "Nothing was evaluated" in text and "Nothing was scored" in text and "no model serves" in text
    assert text.count("yet.") == 2  # drift of features and of scores


def test_failures_stand_before_warnings_with_sample_and_knob() -> None:
    rows = [
        asdict(finding(expectation="missing_age", severity="warning", success=False)),
        asdict(finding(success=False, unexpected=17, sample=("impression_id=i7, bid_micros=-3",), knob="gate.x is 1")),
    ]
    text = words(render(made_up_night(findings=rows)))
    assert text.index("bid_not_negative") < text.index("missing_age")
    assert "17 rows impression_id=i7, bid_micros=-3" in text and "gate.x is 1" in text


def test_an_account_that_does_not_balance_says_so() -> None:
    assert " off " in words(render(made_up_night(account=[account_row("logs", "2026-05-16", rows_in=1_001)])))


def test_what_is_not_defined_is_a_dash_and_not_a_number(page: str) -> None:
    # save in video has one class and no positive at the top: dashes where the others have 1.027, .741 twice and, within users, .654.
    line = re.search(r"save video 6,001 21 [^A-Za-z]*", words(page))
    assert line is not None and line.group().count("\N{EN DASH}") == 4
    assert " nan" not in words(page).lower()


def test_the_same_night_renders_to_the_same_text() -> None:
    few = made_up_night(reliability=made_up_night().reliability[:30])
    assert render(few) == render(few)


def test_a_diagram_draws_one_point_a_bin_and_stage_in_the_pages_own_ink() -> None:
    stages = (("raw", 0.15), ("raw", 0.2), ("calibrated", 0.1))
    svg = str(reliability_svg([{"stage": stage, "rows": 100, "predicted": predicted, "observed": 0.1} for stage, predicted in stages]))
    assert svg.startswith("<svg") and "currentColor" in svg and "#010203" not in svg
    assert (len(re.findall(f"<use [^>]*{RAW}", svg)), len(re.findall(f"<use [^>]*{CALIBRATED}", svg))) == (2, 1)


def test_a_wilson_interval_is_that_of_the_textbook() -> None:
    # 5 of 50, z = 1.96: centre (0.1 + 0.038416) / 1.076832, half-width 1.96 * sqrt(.0018 + .00038416) / 1.076832
    low, high = wilson(5, 50)
    assert (round(low, 3), round(high, 3)) == (0.043, 0.214)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0


def test_the_verdict_stands_with_its_reason_and_each_cells_changes(page: str) -> None:
    text = words(page)
    part = text[text.index("Candidate against production") : text.index("Calibrator")]
    for fact in (
        "publish : normalised entropy of all cells together -0.21%",
        "-0.21 (-1.18 to +0.75)",
        "+0.0100 (-0.0200 to +0.0400)",
        "1.03 (0.91 to 1.17)",
    ):
        assert fact in part, part
    assert "No candidate was judged tonight" in words(render(made_up_night(decision=None)))


def test_segments_that_are_off_beyond_chance_are_named_and_the_others_counted(page: str) -> None:
    text = words(page)
    part = text[text.index("Calibration by segment") : text.index("Heat map")]
    assert "1 of 3 segments are off beyond chance" in part and "country = US" in part and "1.40 (1.12 to 1.75)" in part
    assert "BR" not in part and "AT" not in part and "country = BR 1.02 (0.82 to 1.27), 250" in text
    # |450 - 300| + |285 - 250| + |32 - 0| over 550 before, |420 - 300| + |255 - 250| + |2 - 0| after
    assert "click country 3 550 39.5% 23.1%" in text


def test_what_calibration_changed_of_the_order_of_utility_is_told(page: str) -> None:
    assert "rank correlation 0.9871; of the top 600 rows 75.0% stood there too" in words(page)
